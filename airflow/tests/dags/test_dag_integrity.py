"""The DAGs as Airflow reads them: what they contain, what they cost to parse, and what they refuse."""

import copy
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from include import pipelines
from include.on_databricks import report_in
from include.on_this_machine import _failure
from include.parameters import check_run, given_to, params_of
from include.step_tasks import task_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT.parent / "mlops_dagster"
THREE = (pipelines.BUILD_MODEL, pipelines.SEARCH_MODEL, pipelines.CLUSTER_SEARCH_MODEL)
NAMES = [pipeline.name for pipeline in THREE]
HEAVY = ("dagster", "mlops_dagster", "mlflow", "sklearn", "pyspark", "pandas", "numpy", "deltalake", "databricks")


def test_every_file_is_read_without_an_error(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) == {*NAMES, "dagster_job"}


@pytest.mark.parametrize("pipeline", THREE, ids=NAMES)
def test_a_dag_is_its_pipeline(bag, pipeline):
    dag = bag.dags[pipeline.name]
    steps = [step.name for step in pipeline.steps]
    assert [task.task_id for task in dag.topological_sort()] == steps
    assert all(dag.get_task(after).upstream_task_ids == {before} for before, after in itertools.pairwise(steps))
    parameters = {parameter.name for step in pipeline.steps for parameter in step.parameters}
    assert set(dag.params) == {"symbol", *parameters}
    assert dag.schedule is None
    assert dag.is_paused_upon_creation is False
    assert dag.max_active_runs == 1
    assert dag.doc_md
    assert "mlops" in dag.tags
    assert all(task.retries == 2 and task.execution_timeout and task.doc for task in dag.tasks)
    DagSerialization.to_dict(dag)  # as the scheduler gets it


def test_the_example_in_the_docs_of_each_dag_is_accepted(bag):
    for name in NAMES:
        conf = json.loads(re.search(rf"trigger {name} --conf '(.*)'", bag.dags[name].doc_md).group(1))
        params = copy.deepcopy(bag.dags[name].params)
        params.update(conf)
        check_run(next(one for one in THREE if one.name == name), conf, params.validate())


def test_reading_them_needs_nothing_heavy():
    """Airflow reads the files again and again: what they import is their cost."""
    code = (
        "import runpy, sys; from pathlib import Path\n"
        "for file in sorted(Path('dags').glob('*.py')): runpy.run_path(str(file))\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_nothing_here_imports_dagster():
    files = [*ROOT.glob("*.py"), *ROOT.glob("dags/*.py"), *ROOT.glob("include/*.py")]
    assert len(files) > 8
    for file in files:
        assert not re.search(r"^\s*(import|from) (dagster|mlops_dagster)\b", file.read_text(), re.MULTILINE), file


@pytest.mark.parametrize("name", ["errors.py", "pipelines.py", "grids.py"])
def test_the_copies_are_the_packages(name):
    original = (PACKAGE / name).read_text()
    expected = original.replace("\nfrom mlops_dagster.", "\nfrom include.")
    assert (ROOT / "include" / name).read_text() == expected, "renew the copies: make -C airflow copies"


def test_the_lock_has_hashes_and_no_addresses():
    for file in (ROOT / "requirements.txt", ROOT / "requirements-dev.txt"):
        pinned = [line for line in file.read_text().splitlines() if not line.startswith((" ", "#"))]
        assert all(re.match(r"[a-z0-9.-]+==\S+( ; .*)? \\$", line) for line in pinned)
        assert "://" not in file.read_text()


# ------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_depth", "80", "not of type"),
        ("max_depth", 0, "less than the minimum"),
        ("max_depth", 1001, "greater than the maximum"),
        ("n_estimators", [100], "not of type"),
        ("bootstrap", "yes", "not of type"),
        ("recipe", "best", "not one of"),
        ("max_features", 2.5, "not valid under any"),
        ("symbol", "../x", "does not match"),
        ("symbol", "", "does not match"),
        ("symbol", "a..b", "does not match"),
        ("symbol", None, "not of type"),
        ("test_size", 0.9, "greater than the maximum"),
    ],
)
def test_a_bad_value_is_refused_by_the_schema(bag, name, value, said):
    params = copy.deepcopy(bag.dags["build_model_pipeline"].params)
    with pytest.raises(ParamValidationError, match=said):
        params.update({name: value})


@pytest.mark.parametrize("grid", [{"n_estimators": 100}, {"max_depht": [4]}, {"max_depth": []}, [4]], ids=str)
def test_a_grid_that_is_none_is_refused_by_the_schema(bag, grid):
    params = copy.deepcopy(bag.dags["search_model_pipeline"].params)
    for good in ({"n_estimators": [100]}, {"n_estimators": {"start": 1, "stop": 3, "step": 1}}, {}, None):
        params.update({"grid": good})
    with pytest.raises(ParamValidationError):
        params.update({"grid": grid})


@pytest.mark.parametrize(
    ("pipeline", "conf", "said"),
    [
        (pipelines.BUILD_MODEL, {"n_estimator": 5}, "has no such parameter; there are symbol, max_depth, n_estimators"),
        (pipelines.BUILD_MODEL, {"max_depth": 4.0}, "give an integer"),
        (pipelines.BUILD_MODEL, {"max_features": 2.5}, "above 1 a whole one"),
        (pipelines.SEARCH_MODEL, {"grid": {"max_depht": [4]}}, "there is no such parameter"),
        (pipelines.SEARCH_MODEL, {"grid": {"max_depth": []}}, "the list is empty"),
        (pipelines.SEARCH_MODEL, {"grid": {"max_depth": [4]}, "preset": "small"}, "give one of them"),
        (pipelines.CLUSTER_SEARCH_MODEL, {"cv": "shuffled", "gap": 1}, "have no gap"),
    ],
)
def test_what_a_schema_can_not_see_is_refused_before_the_first_step(pipeline, conf, said):
    params = {name: param.value for name, param in params_of(pipeline).items()} | conf
    with pytest.raises(pipelines.ParameterError, match=re.escape(said)):
        check_run(pipeline, conf, params)


def test_every_parameter_has_the_words_and_bounds_of_the_pipeline():
    for pipeline in THREE:
        for name, param in params_of(pipeline).items():
            if name != "symbol":
                said = pipelines.PARAMETERS[name]
                assert param.description == pipelines.explain(name)
                rules = {key: value for rule in param.schema.get("allOf", ()) for key, value in rule.items()}
                assert (rules.get("minimum"), rules.get("maximum")) == (said.minimum, said.maximum)
                assert not {"minimum", "maximum"} & set(param.schema)  # the form would clip to them
                assert param.value is None or said.kind == "boolean"


def test_what_the_form_leaves_empty_is_not_given():
    form = {name: param.value for name, param in params_of(pipelines.SEARCH_MODEL).items()} | {"grid": {}, "folds": 2}
    check_run(pipelines.SEARCH_MODEL, form, form)
    assert given_to(pipelines.GRID_SEARCH_RESULTS, form) == {"folds": 2}
    assert given_to(pipelines.TRAINING_SET, form) == {}


def test_a_place_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__RUN_ON", "databrick")
    with pytest.raises(pipelines.ParameterError, match=r"run_on='databrick' .* give one of local, databricks"):
        task_of(pipelines.BUILD_MODEL, pipelines.PRICES)


def test_a_report_is_found_among_what_was_printed():
    assert report_in('a warning\n{\n  "step": "prices",\n  "table": {\n  }\n}\nprices 5 rows\n')["step"] == "prices"
    for nothing in ("", "a warning\n", "{\nbroken\n}\n", "{\n"):
        assert report_in(nothing) is None


def test_what_was_refused_is_not_tried_again():
    def failed(status):
        said = json.dumps({"error": "ParameterError", "message": "max_depth=0", "exit_status": status})
        return _failure("prices", status, said)

    assert isinstance(failed(2), AirflowFailException)
    assert not isinstance(failed(1), AirflowFailException)
    assert "status 137; the lines above" in str(_failure("prices", 137, ""))


def test_what_was_killed_says_so():
    """It could print nothing any more, so no line above says why."""
    assert "prices was killed by SIGKILL, and not by this task; the kernel does that if" in str(
        _failure("prices", -9, "")
    )
    assert str(_failure("prices", -15, "")) == "prices was killed by SIGTERM, and not by this task."
