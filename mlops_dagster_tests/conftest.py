"""Fixtures for all: a state folder of one's own, and rows small enough to check by eye."""

import base64
import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # as in every process of ours; to be said before scikit-learn's import
import re
import shutil
import signal
import subprocess
from importlib.metadata import version

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from mlops_dagster.cli import app
from mlops_dagster.definitions import definitions_of
from mlops_dagster.instance import prepare_instance
from mlops_dagster.shell.calling import plain_arguments
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.tracking import MlflowTracker
from mlops_dagster_tests.contracts.shipped import need_examples
from mlops_dagster_tests.contracts.spark_archive import use_archive

# The article's numbers hold to the last digit since scikit-learn 1.9 (Python 3.11 and later). Before, a tree with two
# equally good splits took the other one now and then, which moves the rmse by 5e-6.
ARTICLE_PRECISION = 1e-9 if tuple(map(int, version("scikit-learn").split(".")[:2])) >= (1, 9) else 1e-4


def pytest_configure(config):
    # A shell that runs the tests in the background has SIGINT ignored, and every process below would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    use_archive()


def pytest_runtest_setup(item):
    if item.get_closest_marker("examples"):
        need_examples()


def pytest_collection_modifyitems(items):
    # Long tests first, so that at the end no process is busy with one while the others have nothing left.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory):
    """An MLflow database with a schema: creating one takes seconds, copying it doesn't."""
    home = tmp_path_factory.mktemp("mlflow")
    MlflowTracker("template", f"sqlite:///{home}/mlflow.db", state_dir=home / "open_runs").connect()
    return home / "mlflow.db"


@pytest.fixture(scope="session")
def empty_dagster(tmp_path_factory):
    """A Dagster home without runs; as with MLflow, its databases are copied faster than made."""
    return prepare_instance(Deployment(home=tmp_path_factory.mktemp("dagster")))


@pytest.fixture
def home(tmp_path, monkeypatch, empty_mlflow):
    """A state folder of this test's own, ready for MLflow."""
    home = tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    shutil.copy(empty_mlflow, home / "mlflow" / "mlflow.db")
    monkeypatch.setenv("MLOPS_HOME", str(home))
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    monkeypatch.delenv("MLOPS_DEPLOYMENT", raising=False)
    return home


@pytest.fixture
def no_settings(tmp_path, monkeypatch):
    """An empty working directory, and an environment that says nothing of deployments."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("MLOPS_", "DATABRICKS_", "ARM_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def price_rows():
    """400 trading days of a price that wanders, drawn once and for all."""
    return wandering_prices()


def wandering_prices():
    draws = np.random.default_rng(7)
    close = 100 * np.exp(np.cumsum(draws.normal(0.0003, 0.01, 400)))
    opened = close * (1 + draws.normal(0, 0.002, 400))
    return pd.DataFrame(
        {
            "Date": pd.bdate_range("2020-01-01", periods=400).strftime("%Y-%m-%d"),
            "Open": opened,
            "High": np.maximum(opened, close) * 1.003,
            "Low": np.minimum(opened, close) * 0.997,
            "Close": close,
            "Adj Close": close,
            "Volume": draws.integers(1_000_000, 2_000_000, 400),
        }
    )


@pytest.fixture
def price_file(tmp_path, price_rows):
    """The same rows as a CSV file."""
    file = tmp_path / "ACME.csv"
    price_rows.to_csv(file, index=False)
    return file


@pytest.fixture
def defs(home, price_file, monkeypatch):
    """The definitions of the models that ship, on this test's own state folder and prices."""
    need_examples()
    monkeypatch.setenv("MLOPS_DATA__PRICES__SOURCE", "files")
    monkeypatch.setenv("MLOPS_DATA__PRICES__PATH", str(price_file.parent / "{symbol}.csv"))
    return definitions_of(load_deployment())


@pytest.fixture
def instance(home, empty_dagster):
    """A Dagster instance with a symbol of this test's own."""
    shutil.copytree(empty_dagster, home / "dagster")
    prepare_instance(load_deployment())
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        instance.add_dynamic_partitions("prices_symbol", ["ACME"])
        yield instance


@pytest.fixture
def mlops(home, tmp_path, monkeypatch):
    """The command in this process, which has imported already what each of its own would import for seconds.

    That it is a program, with streams and signals, is tested in `test_cli.py`; the documents' commands are, too.
    """

    def run(*arguments: str):
        with monkeypatch.context() as here:
            here.chdir(tmp_path)
            done = CliRunner().invoke(app, plain_arguments(arguments))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return run


def embedded_plot(metadata, name):
    """The PNG of a plot that a materialization keeps."""
    return base64.b64decode(re.search(rf"!\[{name}\]\(data:image/png;base64,(.*)\)", metadata["plots"].value)[1])


def mlflow_runs(home):
    """All runs in the MLflow of this test's own state folder."""
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
