"""Each DAG by `dag.test()`: it leaves behind what `mlops` leaves behind."""

import json

import pytest

from tests.conftest import HOME, MLOPS

MODEL = {"max_depth": 4, "n_estimators": 10, "min_samples_leaf": 5}
GRID = {"max_depth": [2, 4], "n_estimators": [2, 4], "min_samples_leaf": [5]}
SAME = (
    *("data_version", "metrics", "model_digest", "parameters", "leaks", "recipe", "promoted", "outcome"),
    *("best_parameters", "best_candidates", "candidates", "scoring", "cv"),
)


@pytest.fixture(scope="module")
def made_in_the_shell(mlops):
    """What `mlops` reports of each step."""
    home = HOME / "shell"
    options = [option for name, value in MODEL.items() for option in (f"--{name.replace('_', '-')}", str(value))]
    model = mlops("build-model", "--symbol", "ACME", *options, "--json", home=home)
    search = mlops("search-model", "--symbol", "ACME", "--grid", json.dumps(GRID), "--json", home=home)
    made = {**json.loads(search.stdout)["symbols"]["ACME"], **json.loads(model.stdout)["symbols"]["ACME"]}
    # On Spark the same trees grow.
    return {**made, "spark_grid_search_results": made["grid_search_results"]}


@pytest.mark.parametrize(
    ("dag", "conf"),
    [
        ("build_model_pipeline", MODEL),
        ("search_model_pipeline", {"grid": GRID}),
        ("cluster_search_model_pipeline", {"grid": GRID}),
    ],
)
def test_a_dag_makes_what_the_command_makes(database, bag, made_in_the_shell, monkeypatch, tmp_path, dag, conf):
    monkeypatch.setenv("MLOPS_HOME", str(HOME / "dags"))
    if dag == "build_model_pipeline":
        # Between two of its tasks another run writes the same table.
        rival = tmp_path / "mlops"
        rival.write_text(f"""#!/bin/sh
"{MLOPS}" "$@" || exit
case "$*" in *" step training_set "*)
    "{MLOPS}" step training_set --symbol=ACME '--given={{"recipe": "article", "horizon": 20}}' > /dev/null || exit
esac
""")
        rival.chmod(0o755)
        monkeypatch.setenv("AIRFLOW__MLOPS__COMMAND", str(rival))
    run = bag.dags[dag].test(run_conf={"symbol": "ACME", **conf})
    assert run.state == "success"
    handed_on = {}
    for task in sorted(run.get_task_instances(), key=lambda task: task.start_date):
        made, said = task.xcom_pull(task_ids=task.task_id), made_in_the_shell[task.task_id]
        for name in SAME:
            assert made.get(name) == said.get(name), (task.task_id, name)
        assert made["table"]["rows"] == said["table"]["rows"]
        if task.task_id in ("prices", "training_set", "trained_model"):
            assert made["table"]["digest"] == said["table"]["digest"]
        assert made["run_id"] == run.run_id
        handed_on |= made["outputs"]
        assert made["inputs"].items() <= handed_on.items()
        assert "columns" not in made["table"]
