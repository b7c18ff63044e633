"""`mlops new-project`: a project of one's own that Dagster, dg and mlops understand."""

import subprocess
import sys

import pytest
from sklearn.datasets import load_wine

from mlops_dagster.stack.deployment_files import load_deployment

LOAD = """
from acme.definitions import defs
found = defs() if callable(defs) else defs
print(sorted(key.to_user_string() for key in found.resolve_asset_graph().get_all_asset_keys()))
"""


@pytest.fixture
def project(mlops, tmp_path, monkeypatch):
    done = mlops("new-project", "acme")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path / "acme")
    return tmp_path / "acme"


def test_models_of_a_project_are_dagsters_assets(project, mlops, tmp_path):
    load_wine(as_frame=True).frame.to_csv(project / "wine.csv", index=False)
    made = subprocess.run(
        [sys.executable, "-m", "mlops_dagster.cli", "new", "wine", "--data", "wine.csv", "--target", "target"],
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert (project / "acme" / "defs" / "wine" / "defs.yaml").is_file()

    loaded = subprocess.run([sys.executable, "-c", LOAD], cwd=project, capture_output=True, text=True)

    assert loaded.returncode == 0, loaded.stderr
    assert "'wine/champion_model', 'wine/data', 'wine/grid_search_results', 'wine/trained_model'" in loaded.stdout
    assert load_deployment("local").tracking.experiment_name == "acme"  # its own


def test_nothing_is_overwritten_and_a_bad_name_is_refused(project, mlops):
    (project / "README.md").write_text("mine")
    again = mlops("new-project", "acme")
    assert again.returncode == 2
    assert "is there already, and nothing is ever overwritten" in " ".join(again.stderr.split())
    assert (project / "README.md").read_text() == "mine"

    bad = mlops("new-project", "My Project")
    assert bad.returncode == 2
    assert "name='My Project' (str): give 1 to 40 small letters" in " ".join(bad.stderr.split())
