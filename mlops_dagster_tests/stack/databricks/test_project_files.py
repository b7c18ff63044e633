"""What travels of a project with the wheel: the same declarations and data there, no secret, and what stays is said."""

from __future__ import annotations

import site
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from dagster._core.code_pointer import load_python_module

from mlops_dagster.spec.project import defs_folder, find_model, model_names
from mlops_dagster.stack.databricks import project_files as travelling
from mlops_dagster.stack.databricks.project_files import StaysError, check_travels, project_files
from mlops_dagster.stack.databricks.wheel import build_wheel, code_version
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.table_sources import read_table
from mlops_dagster.steps.versions import declared_code_version
from mlops_dagster_tests.contracts.shipped import shipped

pytestmark = pytest.mark.usefixtures("no_settings")

DECLARATION = {
    "task": "regression",
    "data": {"files": {"path": "../../../data/customers.csv"}},
    "contract": {"age": {"type": "number"}, "spent": {"type": "number"}},
    "features": ".features:make",
    "target": "spent",
    "split": {"kind": "random"},
    "estimator": {"class": "sklearn.linear_model.LinearRegression"},
    "metrics": ["r2"],
    "baseline": "mean",
}
JUNK = (
    *(".env", "deployments/local.yaml", "data/other.csv", "acme/tokens.json", "acme/.venv/lib.py"),
    *("acme/defs/spending/.git/config", "acme/defs/spending/my_secrets.json", "acme/defs/spending/mlruns/0/meta.yaml"),
    *("acme/defs/spending/__pycache__/features.pyc", "acme/defs/.spending.half/defs.yaml"),
)


def declare(folder: Path, **changed: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    said = {"type": "mlops_dagster.SklearnModel", "attributes": {**DECLARATION, **changed}}
    (folder / "defs.yaml").write_text(yaml.safe_dump(said, sort_keys=False))


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """A project that is a package, with more in it than anybody needs."""
    for name in JUNK:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("hidden")
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "acme"\n[index]\nkey = "hidden"\n')
    for name in ("acme/__init__.py", "acme/defs/__init__.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "acme/words.py").write_text("SPENT = 'spent'\n")
    (tmp_path / "data/customers.csv").write_text("age,spent\n30,1.5\n40,2.5\n")
    defs = tmp_path / "acme" / "defs"
    declare(defs / "spending")
    (defs / "spending" / "features.py").write_text("from acme.words import SPENT\n\n\ndef make(table): ...\n")
    (defs / "spending" / "regions.txt").write_text("north\n")
    declare(defs / "spending_large", data={"files": {"path": "rows.csv"}}, features=["age"])
    (defs / "spending_large" / "rows.csv").write_bytes(b"age,spent\n" + b"30,1.5\n" * (travelling.MOST // 7))
    return tmp_path


def test_a_cluster_reads_the_same_models_as_here(
    acme: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = find_model("spending")
    versions = code_version(), declared_code_version(here, "training_set")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    ZipFile(build_wheel(elsewhere / "dist")).extractall(elsewhere / "site")
    assert sorted(project_files(defs_folder())) == [
        f"mlops_dagster_project/{name}"
        for name in (
            *("__init__.py", "acme/__init__.py", "acme/defs/__init__.py", "acme/defs/spending/defs.yaml"),
            *("acme/defs/spending/features.py", "acme/defs/spending/regions.txt"),
            *("acme/defs/spending_large/defs.yaml", "acme/words.py", "data/customers.csv", "pyproject.toml"),
        )
    ]
    assert "hidden" not in (elsewhere / "site/mlops_dagster_project/pyproject.toml").read_text()

    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    try:
        site.addsitedir(str(elsewhere / "site"))
        there = find_model("spending")
        assert there.folder.is_relative_to(elsewhere)
        assert model_names() == ["spending", "spending_large"]
        assert read_table(there, None)[0].equals(read_table(here, None)[0])
        assert (code_version(), declared_code_version(there, "training_set")) == versions
        # As the step launcher's task loads a code location of the project's own.
        assert load_python_module("acme.words", None).SPENT == "spent"
    finally:
        for name in set(sys.modules) - known:
            del sys.modules[name]


def test_models_that_ship_are_in_the_package_already(tmp_path: Path) -> None:
    model = shipped("stock_price")
    assert project_files(model.folder.parent) == {}
    check_travels(model, load_deployment("databricks_serverless"), ["data", "training_set"], None)
    files = ZipFile(build_wheel(tmp_path, defs=model.folder.parent)).namelist()
    assert "mlops_dagster/examples/prices/defs/prices/GSPC.csv" in files
    assert not [name for name in files if name.startswith("mlops_dagster_project")]


def test_without_declared_models_nothing_of_the_folder_travels(tmp_path: Path) -> None:
    (tmp_path / "defs" / "other").mkdir(parents=True)
    (tmp_path / "defs" / "other" / "defs.yaml").write_text("type: dagster.FunctionComponent\n")
    assert project_files(defs_folder()) == {}


def test_a_secret_in_a_file_is_said_and_stays(acme: Path) -> None:
    (acme / "acme/words.py").write_text("KEY = 'AKIAIOSFODNN7EXAMPLE'\n")
    with pytest.raises(StaysError, match=r"acme/words.py holds an AWS key.*databricks.secrets"):
        build_wheel(acme / "dist")


@pytest.mark.parametrize(
    ("changed", "path", "said"),
    [
        ({"data": {"asset": "customers"}}, None, r"data.asset='customers': only the Dagster"),
        ({"data": {"sql": {"url": "SHOP_URL", "query": "select 1"}}}, None, r"hasn't this environment.*name: SHOP_URL"),
        ({"data": {"files": {"path": "/data/c.csv"}}}, None, r"'/data/c.csv': .* stays on this machine"),
        ({}, "/data/c.csv", r"'/data/c.csv': .* stays on this machine.*/Volumes/"),
        ({}, "../../../data/other.csv", r"other.csv stays on this machine"),
        ({}, "../../../data/missing.csv", r"missing.csv': there is no such file"),
        ({}, "../../../data/customers.csv", None),
        ({}, "/Volumes/main/c.csv", None),
        ({}, "s3://bucket/c.csv", None),
        ({"data": {"function": ".features:make"}}, None, None),
    ],
)
def test_data_that_no_cluster_can_read_are_refused(
    acme: Path, changed: dict[str, object], path: str | None, said: str | None
) -> None:
    declare(acme / "acme" / "defs" / "spending", **changed)
    deployment = load_deployment("databricks_serverless")
    if said is None:
        check_travels(find_model("spending"), deployment, ["data"], path)
        return
    with pytest.raises(Exception, match=said) as refused:
        check_travels(find_model("spending"), deployment, ["data"], path)
    assert getattr(refused.value, "exit_status", 1) == 2
    check_travels(find_model("spending"), deployment, ["training_set"], path)
    if path:  # whoever says it
        deployment.data["spending"] = {"path": path}
        with pytest.raises(Exception, match=said):
            check_travels(find_model("spending"), deployment, ["data"], None)


def test_a_model_that_would_be_another_there_is_refused(acme: Path) -> None:
    deployment, model = load_deployment("databricks_serverless"), find_model("spending")
    with pytest.raises(StaysError, match=r"rows.csv stays on this machine.*10 MiB"):
        check_travels(find_model("spending_large"), deployment, ["data"], None)
    with pytest.raises(StaysError, match="says something else than what was loaded"):
        check_travels(model.model_copy(update={"metrics": ["neg_mean_squared_error"]}), deployment, ["data"], None)
    with pytest.raises(StaysError, match=r"only a model that stands in defs/model/defs.yaml travels"):
        check_travels(model.at(acme / "elsewhere", "model"), deployment, ["data"], None)
