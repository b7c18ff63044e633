"""`mlops` as users run it: as a process of its own, with its own output and exit status."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import dagster as dg
import psutil
import pytest
from mlflow import MlflowClient

from mlops_dagster.spec.steps import pipelines_of
from mlops_dagster_tests.conftest import ARTICLE_PRECISION, mlflow_runs
from mlops_dagster_tests.contracts.dagster_dev import DagsterDev
from mlops_dagster_tests.contracts.servers import answers, eventually, free_port, running
from mlops_dagster_tests.contracts.shipped import shipped

pytestmark = pytest.mark.examples

SMALL = ("--max-depth", "4", "--n-estimators", "5", "--min-samples-leaf", "5")


def test_help_is_enough_to_learn_from(mlops):
    for pipeline in pipelines_of(shipped("stock_price")):
        command = {"build_model_pipeline": "build-model"}.get(pipeline.name, pipeline.name[:-9].replace("_", "-"))
        said = mlops(command, "--help").stdout
        for parameter in ("symbol", *(one.name for one in pipeline.parameters)):
            assert f"--{parameter.replace('_', '-')}" in said
        assert f"({pipeline.name})" in said


def test_build_model_runs_the_steps_and_prints_the_whole_report(mlops, home, price_file):
    done = mlops("build-model", "--symbol", "ACME", "--path", str(price_file), *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["pipeline"] == "build_model_pipeline"
    model = said["symbols"]["ACME"]["trained_model"]
    assert (model["parameters"]["max_depth"], model["parameters"]["n_estimators"]) == (4, 5)
    (run,) = mlflow_runs(home)
    assert run.info.run_id == model["mlflow_run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["orchestrator"] == "shell"
    assert run.data.tags["orchestrator_run_id"] == said["run_id"]


def test_a_symbol_that_fails_neither_stops_the_others_nor_hides_their_results(mlops, price_file):
    given = ("-s", "NONE", "-s", "ACME", "--path", str(price_file.parent / "{symbol}.csv"))
    done = mlops("build-model", *given, *SMALL, "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 1
    assert list(said["symbols"]) == ["ACME"]
    assert list(said["failed"]) == ["NONE"]
    assert "NONE.csv" in said["failed"]["NONE"]["message"]
    done = mlops("promote", *given[:4])
    assert done.returncode == 1
    assert "ACME: " in done.stdout
    assert "1 of 2 failed: NONE." in done.stderr
    assert "NONE: ParameterError model='stock_price of NONE' (str): no model of it was built in" in done.stderr


@pytest.mark.parametrize("command", [("buildmodel",), ("cache", "shw"), ("deployments", "chck")])
def test_a_suggestion_is_made_once(mlops, command):
    assert mlops(*command).stderr.count("Did you mean") == 1


def test_the_articles_numbers_from_the_shell(mlops):
    done = mlops("build-model", "article", "--symbol", "GSPC", "--max-depth", "80", "--n-estimators", "100", "--json")
    metrics = json.loads(done.stdout)["symbols"]["GSPC"]["trained_model"]["metrics"]
    assert metrics["root_mean_squared_error"] == pytest.approx(74.47148052856646, rel=ARTICLE_PRECISION)
    assert metrics["mean_absolute_error"] == pytest.approx(52.59896120023115, rel=ARTICLE_PRECISION)
    assert metrics["r2"] == pytest.approx(0.9780878033262401, rel=ARTICLE_PRECISION)


def test_report_shows_the_latest_model_or_where_there_is_none(mlops, home, price_file):
    begin = "mlops build-model --symbol GSPC"
    assert f"No model yet in {home / 'store'}. Build one: {begin}\n" in mlops("report").stdout
    mlops("build-model", "--symbol", "ACME", "--path", str(price_file), *SMALL)
    assert "ACME" in mlops("report").stdout
    (model,) = json.loads(mlops("report", "--json").stdout)["models"]
    assert model["parameters"]["n_estimators"] == 5


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--symbol", "../x"), 2, "symbol='../x' (str)"),
        (("--symbol", "ACME", "--max-depth", "0"), 2, "max_depth=0 (int): give an integer from 1 to 1000"),
        (("--symbol", "ACME", "--max-depth", "2.5"), 2, "2.5"),
        (("--symbol", "ACME", "--max-depth", "true"), 2, "true"),
        (("--symbol", "ACME", "--max-depth", "1000000000"), 2, "max_depth=1000000000 (int)"),
        (("--symbol", "ACME", "--n-estimators", "0"), 2, "n_estimators=0 (int)"),
        (("--symbol", "ACME", "--recipe", "article"), 2, "--recipe"),
        (("nonsense", "--symbol", "ACME"), 2, "model='nonsense' (str): no such model is declared in "),
        (("--symbol", "ACME", "--source", "ftp"), 2, "source='ftp' (str)"),
        (("--symbol", "ACME", "--deployment", "nowhere"), 2, "'nowhere'"),
        (("--symbol", "ACME", "--max-deph", "3"), 2, "--max-deph"),
        (("--symbol", "UNKNOWN"), 2, "UNKNOWN"),
        ((), 2, "say which --symbol, or --all; there are GSPC, IXIC."),
    ],
)
def test_bad_input_is_said_in_one_sentence(mlops, home, arguments, status, said):
    done = mlops("build-model", *arguments)
    assert done.returncode == status
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (home / "store").exists()


def test_an_error_is_json_too(mlops):
    done = mlops("build-model", "--symbol", "ACME", "--max-depth", "0", "--json")
    assert json.loads(done.stdout)["error"] == "ParameterError"


def test_an_unwritable_data_root_is_said_before_training(mlops, price_file, monkeypatch):
    monkeypatch.setenv("MLOPS_STORE__ROOT", "/proc/nowhere")
    done = mlops("build-model", "--symbol", "ACME", "--path", str(price_file))
    assert done.returncode == 1
    assert "/proc/nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_takes_nothing_is_said_in_one_sentence():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "mlops_dagster.cli", "deployments", "show"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("OSError No space left on device. Make room")


def test_one_file_for_several_symbols_is_refused(mlops, home, price_file):
    done = mlops("build-model", "-s", "ACME", "-s", "OTHER", "--path", str(price_file))
    assert done.returncode == 2
    assert "{symbol}" in done.stderr
    assert not (home / "store").exists()


def test_dagster_mlflow_is_refused_outside_of_dagster(mlops, home, monkeypatch):
    monkeypatch.setenv("MLOPS_TRACKING__CLIENT", "dagster-mlflow")
    done = mlops("build-model", "-s", "GSPC")
    assert done.returncode == 2
    assert "tracking.client='dagster-mlflow'" in done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("dagster dev")
def test_ui_opens_dagster_and_mlflow_and_leaves_no_process_behind(mlops, home, tmp_path):
    dagster, mlflow = free_port(), free_port()
    (tmp_path / "mine.yaml").write_text("data: {prices: {source: bundled}}")
    given = ["ui", "--port", str(dagster), "--mlflow-port", str(mlflow), "--deployment", "mine.yaml"]
    said = tmp_path / "said"

    def started(process):
        """Everything that runs once the daemon does, which comes last."""
        children = psutil.Process(process.pid).children(recursive=True)
        return any("dagster._daemon" in child.cmdline() for child in children) and children

    with running(["-m", "mlops_dagster.cli", *given], log=tmp_path / "killed") as process:
        children = eventually(lambda: started(process))
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive, [child.cmdline() for child in alive]
    with running(["-m", "mlops_dagster.cli", *given], log=said) as process:
        eventually(lambda: "Ctrl-C" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        server = DagsterDev(f"http://127.0.0.1:{dagster}", home)
        eventually(server.has_loaded)
        assert answers(f"http://127.0.0.1:{mlflow}/health")
        children = eventually(lambda: started(process))
        assert len(children) > 4
        assert all(child.environ()["MLOPS_DEPLOYMENT"] == "mine.yaml" for child in children)
        # Arguments are for all to read, and a database's URI may hold a password.
        assert not [child.cmdline() for child in children if "sqlite:" in " ".join(child.cmdline())]
        request = urllib.request.Request(server.url, headers={"Origin": "http://evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
        second = mlops("ui", "--port", str(free_port()))
        assert (second.returncode, second.stdout) == (1, "")
        assert f"has an mlops ui already: {server.url} (process {process.pid})" in " ".join(second.stderr.split())
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, [child.cmdline() for child in alive]
    lines = said.read_text().splitlines()
    assert lines[-5:] == [
        f"What they log: {home / 'ui.log'}",
        f"Dagster  {server.url}",
        f"MLflow   http://127.0.0.1:{mlflow}/#/experiments?workflowType=machine_learning",
        "Stop both with Ctrl-C.",
        "Stopping ...",
    ]
    assert "Uvicorn running on" in (home / "ui.log").read_text()


@pytest.mark.slow
def test_a_launched_job_is_one_that_dagsters_pages_show(home, tmp_path, price_file, monkeypatch):
    monkeypatch.setenv("MLOPS_PARTITIONS", '{"prices": ["ACME"]}')
    monkeypatch.setenv("MLOPS_DATA__PRICES__SOURCE", "files")
    monkeypatch.setenv("MLOPS_DATA__PRICES__PATH", str(price_file.parent / "{symbol}.csv"))
    given = tmp_path / "run.yaml"
    # A process of its own: the definitions are those of the settings with which they were loaded.
    launch = [sys.executable, "-m", "mlops_dagster.cli", "launch", "build_model_pipeline", "--symbol", "ACME"]
    launch += ["--config", str(given)]
    how = {"capture_output": True, "text": True, "cwd": tmp_path, "check": False}
    given.write_text("ops: {stock_price__trained_model: {config: {max_depths: 2}}}")
    refused = subprocess.run(launch, **how)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert 'ParameterError config: Received unexpected config entry "max_depths"' in refused.stderr
    given.write_text("ops: {stock_price__trained_model: {config: {max_depth: 2, n_estimators: 2}}}")
    done = subprocess.run(launch, **how)
    assert done.returncode == 0, done.stderr
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        # What the first page and Jobs ask for.
        (run,) = instance.get_runs(dg.RunsFilter(tags={".dagster/repository": "__repository__@mlops_dagster"}))
    assert (run.job_name, run.status.value) == ("build_model_pipeline", "SUCCESS")
    assert done.stdout == f"build_model_pipeline, ACME: SUCCESS. Run {run.run_id}\n"


@pytest.mark.slow
def test_ui_says_when_a_port_is_taken(home, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "mlops_dagster.cli", "ui", "--port", port, "--mlflow-port", str(free_port())],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
    assert done.returncode == 2
    assert f"port={port}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, "KILLED"), (signal.SIGINT, "KILLED")])
def test_a_stopped_build_ends_its_mlflow_run(home, tmp_path, price_file, sent, status):
    # Ten thousand trees take long enough to be stopped in the middle.
    given = ("--symbol", "ACME", "--path", str(price_file), "--n-estimators", "10000", "--min-samples-leaf", "1")
    process = subprocess.Popen([sys.executable, "-m", "mlops_dagster.cli", "build-model", *given], cwd=tmp_path)
    wait_for_open_run(home, process)
    process.send_signal(sent)
    assert process.wait(timeout=120) != 0
    assert [run.info.status for run in mlflow_runs(home)] == [status]


@pytest.mark.slow
def test_a_build_killed_with_9_is_ended_by_the_next_one(mlops, home, tmp_path, price_file):
    given = ("--symbol", "ACME", "--path", str(price_file), "--n-estimators", "10000", "--min-samples-leaf", "1")
    process = subprocess.Popen([sys.executable, "-m", "mlops_dagster.cli", "build-model", *given], cwd=tmp_path)
    wait_for_open_run(home, process)
    process.kill()
    process.wait()
    assert mlops("build-model", "--symbol", "ACME", "--path", str(price_file), *SMALL).returncode == 0
    assert sorted(run.info.status for run in mlflow_runs(home)) == ["FAILED", "FINISHED"]


def wait_for_open_run(home, process):
    for _ in range(600):
        if any(run.data.params for run in mlflow_runs(home)):
            return
        assert process.poll() is None
        time.sleep(0.1)
    pytest.fail("no MLflow run was begun")


@pytest.mark.slow
def test_builds_started_at_once_on_a_fresh_folder(tmp_path, price_file, monkeypatch):
    home = tmp_path / "fresh"
    monkeypatch.setenv("MLOPS_HOME", str(home))
    symbols = ["S0", "S1", "S2"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "mlops_dagster.cli", "build-model", "-s", symbol, "--path", str(price_file), *SMALL],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for symbol in symbols
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert not any("database is locked" in error for error in errors)
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    assert [experiment.name for experiment in client.search_experiments()].count("mlops_dagster-stock_price") == 1
    finished = mlflow_runs(home)
    assert sorted(run.data.tags["symbol"] for run in finished) == symbols
    assert {run.info.status for run in finished} == {"FINISHED"}
    assert all(run.data.metrics and run.data.params for run in finished)
