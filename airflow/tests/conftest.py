"""One Airflow for all tests, what it talks to, prices small enough to be quick, and a project with a model of its own.

`MLOPS_BIN` names the command `mlops` of the environment that runs the steps.
"""

import csv
import datetime
import json
import math
import os
import random
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from mlops_dagster_tests.contracts.dagster_dev import dagster_dev
from mlops_dagster_tests.contracts.servers import eventually, free_port, mlflow_server
from mlops_dagster_tests.contracts.workspace import workspace

import start
from tests.servers import Airflow

ROOT = Path(__file__).parents[1]
HOME = Path(tempfile.mkdtemp(prefix="airflow-tests-"))
MLOPS = os.environ.get("MLOPS_BIN") or str(ROOT.parent / ".venv" / "bin" / "mlops")
PYTHON = str(Path(MLOPS).with_name("python"))
VOLUME = "/Volumes/main/mlops/mlops"
PROJECT, MANIFEST = HOME / "project", HOME / "manifest.json"

for name in [name for name in os.environ if name.startswith(("AIRFLOW", "MLOPS_", "DATABRICKS_"))]:
    del os.environ[name]
# Airflow reads them when it is first imported, which is when the tests are collected.
os.environ.update(
    AIRFLOW_HOME=str(HOME / "in-process"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    MLOPS_TESTS_PYTHON=PYTHON,
    AIRFLOW__MLOPS__PROJECT=str(PROJECT),
    AIRFLOW__MLOPS__MANIFEST=str(MANIFEST),
    MLOPS_DATA__PRICES__SOURCE="files",
    MLOPS_DATA__PRICES__PATH=str(HOME / "inbox" / "{symbol}.csv"),
)
shutil.copytree(ROOT.parent / "examples" / "defs" / "breast_cancer", PROJECT / "defs" / "churn")
with MANIFEST.open("wb") as manifest:
    subprocess.run([MLOPS, "manifest"], cwd=PROJECT, stdout=manifest, check=True)

DEPLOYMENT = """
compute: databricks_pipes
store: {{root: {volume}/store}}
tracking: {{mlflow_tracking_uri: '{mlflow}', experiment_name: mine}}
data: {{prices: {{source: files, path: '{volume}/inbox/{{symbol}}.csv'}}}}
databricks:
  host: {host}
  cluster: {{serverless: {{}}}}
  staging: {volume}/staging
"""
# The same DAGs once more, under another name and on Databricks, so that one Airflow has both.
ON_DATABRICKS = """import os
from datetime import timedelta
from include.step_tasks import DEFAULTS, dag_of
os.environ["AIRFLOW__MLOPS__RUN_ON"] = "databricks"
for name in ("build_model_pipeline", "search_model_pipeline", "churn_build_model_pipeline"):
    options = {"dag_id": name + "_on_databricks", "default_args": {**DEFAULTS, "retry_delay": timedelta(seconds=1)}}
    globals()[name] = dag_of(name, **options)
"""
# The steps' environment. In the run of the name rival another one writes the same table between two tasks.
COMMAND = """#!/bin/sh
export MLOPS_HOME='{home}' MLOPS_TRACKING__MLFLOW_TRACKING_URI='{mlflow}'
case "$*" in *'"rival"'*" step stock_price/training_set "*)
    '{mlops}' "$@" || exit
    exec '{mlops}' step stock_price/training_set --symbol=ACME '--given={{"horizon": 20}}' > /dev/null
esac
exec '{mlops}' "$@"
"""


def pytest_configure(config):
    # A shell that runs the tests in the background has SIGINT ignored, and every process below would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config):
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def inbox():
    """400 trading days of a price that wanders, of the symbol ACME, and of one that the model lists."""
    draw = random.Random(7)
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(days=number) for number in range(560)]
    folder = HOME / "inbox"
    folder.mkdir()
    with (folder / "ACME.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Date", "Open", "High", "Low", "Close", "Adj Close", "Volume"])
        close = 100.0
        for day in [day for day in days if day.weekday() < 5]:
            opened, close = close, close * math.exp(draw.gauss(0.0003, 0.01))
            high, low = max(opened, close) * 1.003, min(opened, close) * 0.997
            rows.writerow([day, opened, high, low, close, close, draw.randrange(1_000_000, 2_000_000)])
    shutil.copy(folder / "ACME.csv", folder / "GSPC.csv")
    return folder


@pytest.fixture(scope="session")
def bag():
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(ROOT / "dags")


@pytest.fixture(scope="session")
def mlops():
    """The command, as users run it."""

    def run(*arguments, home=HOME / "shell", **more):
        environment = {**os.environ, "MLOPS_HOME": str(home), **more}
        done = subprocess.run(
            [MLOPS, *arguments], capture_output=True, text=True, cwd=PROJECT, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def standin(inbox):
    with workspace(HOME / "workspace", isolated=False) as made:
        shutil.copytree(inbox, f"{made.root}{VOLUME}/inbox")
        yield made


@pytest.fixture(scope="session")
def mlflow():
    with mlflow_server(HOME / "mlflow") as url:
        yield url


@pytest.fixture(scope="session")
def dagster_port():
    return free_port()


@pytest.fixture(scope="session")
def dagster(inbox, mlops, dagster_port):
    """A `dagster dev` with the symbols that the model lists."""
    home = HOME / "dagster"
    settings = {"MLOPS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    mlops("init", **settings)
    with dagster_dev(home, env=settings, port=dagster_port) as dev:
        yield dev


@pytest.fixture(scope="session")
def airflow(standin, mlflow, mlops, dagster_port):
    """A running Airflow with all DAGs, three of them also on Databricks."""
    home, port = HOME / "running", free_port()
    shutil.copytree(ROOT / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "dags" / "on_databricks.py").write_text(ON_DATABRICKS)
    command, deployment, bundle = (home / name for name in ("mlops", "databricks.yaml", "bundle.yml"))
    command.write_text(COMMAND.format(home=home / "state", mlflow=mlflow, mlops=MLOPS))
    command.chmod(0o755)
    deployment.write_text(DEPLOYMENT.format(volume=VOLUME, mlflow=mlflow, host=standin.url))
    prices = {"MLOPS_DATA__PRICES__PATH": f"{VOLUME}/inbox/{{symbol}}.csv"}
    mlops("databricks-bundle", "--deployment", str(deployment), "--output", str(bundle), **prices)
    code = "import sys, pathlib; from mlops_dagster.stack.databricks.wheel import build_wheel as build"
    code += "; print(build(pathlib.Path(sys.argv[1])).name)"
    wheel = [PYTHON, "-c", code, f"{standin.root}{VOLUME}/wheels"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    built = subprocess.run(
        wheel, capture_output=True, text=True, cwd=PROJECT, env=environment, check=True
    ).stdout.strip()
    start.prepare(
        home,
        port=port,
        command=str(command),
        core={"dags_folder": str(home / "dags")},
        dag_processor={"min_file_process_interval": "600"},
        mlops={
            "databricks_bundle": str(bundle),
            "databricks_wheel": f"{VOLUME}/wheels/{built}",
            "poll_seconds": "1",
        },
    )
    where = {"conn_type": "http", "host": "127.0.0.1", "port": dagster_port}
    os.environ["AIRFLOW_CONN_DAGSTER_DEFAULT"] = json.dumps(where)
    where = {"conn_type": "databricks", "schema": "http", "host": "127.0.0.1", "password": standin.token}
    where["port"] = int(standin.url.rpartition(":")[2])
    os.environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"] = json.dumps(where)
    url, log = f"http://127.0.0.1:{port}", home / "standalone.log"
    with start.standalone(home, log) as processes:
        from include.parameters import PIPELINES

        def there():
            assert all(process.poll() is None for process in processes), log.read_text()[-5000:]
            if not start.healthy(url):
                return False
            made = Airflow(url, start.token_of(url, home), home)
            return made if made.call("/dags")[1]["total_entries"] == len(PIPELINES) + 4 else False

        yield eventually(there, pause=1)
