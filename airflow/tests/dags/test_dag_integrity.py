"""The DAGs as Airflow reads them: what they contain, what they cost to parse, and what they refuse."""

import copy
import itertools
import json
import re
import subprocess
import sys

import pytest
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from include.on_databricks import report_in
from include.on_this_machine import _failure, _project
from include.parameters import PIPELINES, STEPS, task_of
from include.step_tasks import make_task
from tests.conftest import ROOT

CHURN = {f"churn_{name}_pipeline" for name in ("build_model", "search_model", "cluster_search_model")}
HEAVY = ("dagster", "mlops_dagster", "mlflow", "sklearn", "pyspark", "pandas", "numpy", "deltalake", "databricks")


def test_every_file_is_read_without_an_error(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) == {*PIPELINES, "dagster_job"}
    assert set(PIPELINES) > {"build_model_pipeline", "predict_pipeline", *CHURN}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_dag_is_its_pipeline(bag, name):
    dag, steps = bag.dags[name], [task_of(step) for step in PIPELINES[name]["steps"]]
    assert [task.task_id for task in dag.topological_sort()] == steps
    assert all(dag.get_task(after).upstream_task_ids == {before} for before, after in itertools.pairwise(steps))
    assert dag.schedule is None
    assert dag.is_paused_upon_creation is False
    assert dag.max_active_runs == 1
    assert dag.tags == {"mlops", PIPELINES[name]["steps"][0].partition("/")[0]}
    assert all(task.retries == 2 and task.execution_timeout and task.doc for task in dag.tasks)
    DagSerialization.to_dict(dag)  # as the scheduler gets it

    (example,) = re.findall(rf"trigger {name} --conf '(.*)'", dag.doc_md)
    params = copy.deepcopy(dag.params)
    params.update(json.loads(example))
    assert params.validate().keys() == dag.params.keys()


@pytest.mark.parametrize("name", PIPELINES)
def test_its_form_has_the_parameters_of_its_steps_with_the_manifests_words_and_rules(bag, name):
    params = bag.dags[name].params
    said = {}
    for step in PIPELINES[name]["steps"]:
        said |= STEPS[step]["parameters"]["properties"]
    assert set(params) == {*said} | ({"symbol"} if name not in CHURN else set())
    assert list(params)[name not in CHURN] in ("max_depth", "n_estimators", "preset", "source")
    for parameter, schema in said.items():
        param = params.get_param(parameter)
        assert param.description == schema["description"]
        assert not {"minimum", "maximum"} & set(param.schema)  # the form would clip to them
        assert all(param.schema["allOf"][0][rule] == schema[rule] for rule in ("minimum", "maximum") if rule in schema)
        chosen = PIPELINES[name].get("chooses", {}).get(parameter)
        assert (param.value is None) == (schema["type"] != "boolean" and chosen is None)  # switches have no null


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


def test_the_lock_has_hashes_and_no_addresses():
    for file in (ROOT / "requirements.txt", ROOT / "requirements-dev.txt"):
        pinned = [line for line in file.read_text().splitlines() if not line.startswith((" ", "#"))]
        assert all(re.match(r"[a-z0-9.-]+==\S+( ; .*)? \\$", line) for line in pinned)
        assert "://" not in file.read_text()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_depth", "80", "not of type"),
        ("max_depth", 1001, "greater than the maximum"),
        ("source", "web", "not one of"),
        ("max_features", 2.5, "not valid under any"),
        ("symbol", "../x", "does not match"),
        ("symbol", None, "not of type"),
        ("grid", {"max_depht": [4]}, "'max_depht' was unexpected"),
        ("grid", {"max_depth": ["4"]}, "not of type"),
    ],
)
def test_a_bad_value_is_refused_by_the_schema(bag, name, value, said):
    params = copy.deepcopy(bag.dags["search_model_pipeline" if name == "grid" else "build_model_pipeline"].params)
    with pytest.raises(ParamValidationError, match=said):
        params.update({name: value})


def test_a_good_grid_is_not(bag):
    params = copy.deepcopy(bag.dags["search_model_pipeline"].params)
    for grid in ({"n_estimators": [100]}, {"n_estimators": {"start": 1, "stop": 3, "step": 1}}, {}, None):
        params.update({"grid": grid})


def test_a_place_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__RUN_ON", "databrick")
    with pytest.raises(AirflowFailException, match=r"run_on='databrick': give one of local, databricks"):
        make_task("build_model_pipeline", "stock_price/data")
    monkeypatch.setenv("AIRFLOW__MLOPS__PROJECT", "/nowhere")
    with pytest.raises(AirflowFailException, match=r"project='/nowhere': there is no such folder; give the one"):
        _project()


def test_a_report_is_found_among_what_was_printed():
    assert report_in('a warning\n{\n  "step": "data",\n  "table": {\n  }\n}\ndata 5 rows\n')["step"] == "data"
    for nothing in ("", "a warning\n", "{\nbroken\n}\n", "{\n"):
        assert report_in(nothing) is None


def test_what_was_refused_is_not_tried_again():
    def failed(status):
        said = json.dumps({"error": "ParameterError", "message": "max_depth=0", "exit_status": status})
        return _failure("data", status, said)

    assert isinstance(failed(2), AirflowFailException)
    assert not isinstance(failed(1), AirflowFailException)
    assert "status 137; the lines above" in str(_failure("data", 137, ""))
    # It could print nothing any more, so no line above says why.
    assert "data was killed by SIGKILL, and not by this task; the kernel" in str(_failure("data", -9, ""))
    assert str(_failure("data", -15, "")) == "data was killed by SIGTERM, and not by this task."
