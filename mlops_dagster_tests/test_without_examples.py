"""The package and the rest of its tests work without the examples: in a copy where both folders were deleted."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest
from sklearn.datasets import load_wine

from mlops_dagster_tests.contracts.shipped import ROOT

pytestmark = pytest.mark.slow

# Modules that take seconds: declarations, the gate, the automation.
QUICK = ("test_grids", "test_parameters", "test_wrong_declarations", "test_gate", "test_conditions")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A checkout without `examples`."""
    copy = tmp_path_factory.mktemp("bare") / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("examples", ".*", "__pycache__", "build"))
    return copy


@pytest.fixture
def run(bare, tmp_path):
    """Run Python on the copy, in a folder and with a state of the test's own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "PYTEST_"))}
    environment |= {"MLOPS_HOME": str(tmp_path / "home"), "PYTHONPATH": str(bare)}

    def run(*arguments, cwd=tmp_path):
        return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)

    return run


def test_a_table_becomes_a_champion(run, tmp_path):
    """And with no model at all each command says what to do."""
    mlops = ("-m", "mlops_dagster.cli")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for command in (["build-model"], ["ui", "--port", str(taken.getsockname()[1])]):
            done = run(*mlops, *command)
            assert done.returncode == 2
            assert "Make one: mlops new NAME --data FILE --target COLUMN." in " ".join(done.stderr.split())
            assert "Traceback" not in done.stderr

    load_wine(as_frame=True).frame.to_csv(tmp_path / "wine.csv", index=False)
    for command in (["new", "wine", "--data", "wine.csv", "--target", "target"], ["build-model", "--json"]):
        done = run(*mlops, *command)
        assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["pipeline"] == "wine_build_model_pipeline"  # the only model, so that is the one meant
    assert said["symbols"]["all"]["champion_model"]["promoted"] is True
    done = run("-c", "from mlops_dagster.definitions import defs; print(*sorted(job.name for job in defs.jobs))")
    assert "wine_build_model_pipeline" in done.stdout.split(), done.stderr


def test_the_rest_of_the_tests_are_green(bare, run):
    """All can be collected, those that need an example are skipped, and a quick part of the others passes."""
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", " or ".join(QUICK), cwd=bare)
    assert done.returncode == 0, done.stdout[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100
    assert "needs examples/" in done.stdout
