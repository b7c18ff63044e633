"""The notebook that ships, run by a real kernel in a copy of its project."""

import shutil

import nbformat
import pytest
from nbclient import NotebookClient

from mlops_dagster_tests.contracts.shipped import EXAMPLES, need_examples

need_examples()
pytestmark = pytest.mark.slow


def test_the_notebook_runs_and_shows_what_it_made(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    shutil.copytree(EXAMPLES, tmp_path / "defs")
    notebook = nbformat.read(EXAMPLES.parent / "from_python.ipynb", as_version=4)
    there = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=there).execute()

    def shown(code, kind="text/html"):
        cell = next(cell for cell in notebook.cells if code in cell.source)
        return next(one.data[kind] for one in cell.outputs if one.output_type == "execute_result")

    assert "Session of breast_cancer" in shown("Session.of", "text/plain")
    trained = shown("train(")
    assert "<th>roc_auc</th>" in trained
    assert 'alt="confusion_matrix" src="data:image/png;base64,' in trained
    assert len(shown("train(", "text/plain")) < 10_000  # without the bytes of its pictures
    assert "There was no champion before." in shown("promote(")
    assert "<th>best_score</th>" in shown("search(")
    assert "RandomForestClassifier" in shown("champion(")
    assert shown("predict(").count("<tr>") == 5
