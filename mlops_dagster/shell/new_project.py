"""`mlops new-project`: a project of one's own, for models that are declared there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from mlops_dagster import __version__
from mlops_dagster.errors import refuse
from mlops_dagster.shell.output import AsJson, handle_errors, out, print_json, say_next

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FILES = {
    "pyproject.toml": """\
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.10,<3.14"
dependencies = ["mlops_dagster[dagster]>={version}"]

[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[tool.setuptools.packages.find]
include = ["{name}", "{name}.*"]

[tool.setuptools.package-data]
{name} = ["**/*.yaml"]

[tool.dagster]
module_name = "{name}.definitions"
code_location_name = "{name}"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{name}"
code_location_target_module = "{name}.definitions"
""",
    "{name}/__init__.py": "",
    "{name}/definitions.py": '''\
"""The code location: everything that `defs/` declares. Assets of your own go there, too."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Load the models, and whatever else is in `defs/`."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
''',
    "{name}/defs/__init__.py": "",
    "deployments/local.yaml": """\
# Everything on this machine. Relative paths lie below MLOPS_HOME (by default .mlops in the working directory).
store:
  root: store                     # or s3://bucket/prefix, abfss://..., gs://...
tracking:
  experiment_name: {name}
  mlflow_tracking_uri: null       # null: SQLite below MLOPS_HOME; or the URL of an MLflow server
""",
    "tests/test_models.py": '''\
"""Each declared model can be built: its data keep the contract, it can be fitted, nothing leaks."""

import subprocess

import pytest
from mlops_dagster.spec.project import model_names


@pytest.mark.parametrize("name", model_names())
def test_a_model_can_be_built(name):
    done = subprocess.run(["mlops", "check", name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
''',
    ".gitignore": ".mlops/\n.venv/\n__pycache__/\n*.egg-info/\n",
    "README.md": """\
# {name}

```bash
pip install -e . pytest
mlops new churn --data customers.csv --target churned    # proposes a declaration: {name}/defs/churn/defs.yaml
mlops check churn
mlops build-model churn
dg dev                                                   # the same in Dagster's UI
pytest                                                   # checks each model
```
""",
}


def new_project(
    name: Annotated[str, typer.Argument(help="The project's name, and its folder's.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Make a project for models of your own: a folder that Dagster and mlops understand.

    Example: mlops new-project acme
    """
    with handle_errors(as_json):
        if not _NAME.fullmatch(name):
            cure = "give 1 to 40 small letters, digits or _, beginning with a letter: it becomes a Python package."
            raise refuse("name", name, cure)
        folder = Path.cwd() / name
        if folder.exists():
            raise refuse("name", name, f"{folder} is there already, and nothing is ever overwritten; give another.")
        for file, text in _FILES.items():
            path = folder / file.format(name=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{name}", name).replace("{version}", __version__))
        if as_json:
            print_json({"project": str(folder), "files": sorted(file.format(name=name) for file in _FILES)})
        else:
            out.print(f"{folder} is ready.", markup=False)
            say_next(f"cd {name}, then mlops new NAME --data FILE --target COLUMN")
