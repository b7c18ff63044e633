"""An Airflow of the tests' own, the environment that runs the steps, and prices small enough to be quick.

`MLOPS_BIN` names the command `mlops` of that environment; nothing of it is imported here.
"""

import csv
import datetime
import math
import os
import random
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOME = Path(tempfile.mkdtemp(prefix="airflow-tests-"))
MLOPS = os.environ.get("MLOPS_BIN") or str(ROOT.parent / ".venv" / "bin" / "mlops")

for name in [name for name in os.environ if name.startswith(("AIRFLOW", "MLOPS_", "DATABRICKS_"))]:
    del os.environ[name]
# Airflow reads them when it is first imported, which is when the tests are collected.
os.environ.update(
    AIRFLOW_HOME=str(HOME / "in-process"),
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__MLOPS__COMMAND=MLOPS,
    PYTHONPATH=str(ROOT),
    MLOPS_HOME=str(HOME / "mlops"),
    MLOPS_PRICES__SOURCE="files",
    MLOPS_PRICES__PATH=str(HOME / "inbox" / "{symbol}.csv"),
)


def pytest_configure(config):
    # A shell that runs the tests in the background has SIGINT ignored, and every process below would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config):
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def inbox():
    """400 trading days of a price that wanders, of the symbol ACME."""
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
    return folder


@pytest.fixture(scope="session")
def database(inbox):
    """Airflow's database, made once; the file is a clean copy."""
    from airflow.utils.db import initdb

    initdb()
    made = HOME / "in-process" / "airflow.db"
    return Path(shutil.copy(made, HOME / "clean.db"))


@pytest.fixture(scope="session")
def bag():
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(ROOT / "dags")


@pytest.fixture(scope="session")
def mlops():
    """The command, as users run it."""

    def run(*arguments, home=HOME / "mlops", check=True, **more):
        environment = {**os.environ, "MLOPS_HOME": str(home), **more}
        environment.pop("PYTHONPATH")
        if home is None:  # the deployments that are named say theirs
            del environment["MLOPS_HOME"]
        done = subprocess.run(
            [MLOPS, *arguments], capture_output=True, text=True, cwd=HOME, env=environment, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run
