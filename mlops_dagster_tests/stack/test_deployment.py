from pathlib import Path

import pytest

from mlops_dagster.stack.deployment import DeploymentError, load_deployment


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLOPS_HOME", "MLOPS_DEPLOYMENT"):
        monkeypatch.delenv(name, raising=False)


def write(text: str) -> str:
    Path("mine.yaml").write_text(text)
    return "mine.yaml"


def test_local_keeps_everything_below_the_home_folder(tmp_path):
    local = load_deployment()
    home = tmp_path / ".mlops"
    assert local.store.root == str(home / "store")
    assert local.tracking.mlflow_tracking_uri == f"sqlite:///{home}/mlflow/mlflow.db"
    assert local.tracking.artifact_location == (home / "mlflow/artifacts").as_uri()
    assert local.symbols == ["GSPC", "IXIC"]


def test_a_file_overrides_the_defaults_and_the_environment_overrides_the_file(monkeypatch):
    name = write("store: {root: s3://bucket/tables}\ntracking: {mlflow_tracking_uri: 'http://mlflow:5000'}")
    monkeypatch.setenv("MLOPS_TRACKING__EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLOPS_STORE__ROOT", "s3://other/tables")
    mine = load_deployment(name)
    assert mine.store.root == "s3://other/tables"
    assert mine.tracking.mlflow_tracking_uri == "http://mlflow:5000"
    assert mine.tracking.artifact_location is None  # a server decides itself where artifacts go
    assert mine.tracking.experiment_name == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store: {rot: x}", "store.rot"),
        ("tracking: {client: wandb}", "tracking.client.*'wandb'"),
        ("prices: {source: ftp}", "prices.source.*'ftp'"),
        ("prices: {source: files, path: all.csv}", "prices.*{symbol}"),
        ("symbols: [../x]", r"symbols.*\.\./x|symbol='\.\./x'"),
        ("colour: red", "colour"),
        ("store: [", "can't be read"),
        ("- a list", "can't be read|dictionary"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_setting(text, said):
    with pytest.raises(DeploymentError, match=rf"(?s)mine\.yaml.*({said})"):
        load_deployment(write(text))


def test_a_secret_in_a_wrong_place_is_not_repeated():
    with pytest.raises(DeploymentError) as raised:
        load_deployment(write("store: {storage_options: {AWS_SECRET_ACCESS_KEY: [hunter2]}}"))
    assert "hunter2" not in str(raised.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(raised.value)


def test_an_unknown_deployment_names_those_that_exist():
    with pytest.raises(DeploymentError, match=r"'cluster'.*local"):
        load_deployment("cluster")
    with pytest.raises(DeploymentError, match="no such file"):
        load_deployment("nowhere/mine.yaml")


@pytest.mark.parametrize(
    "file", sorted(Path(__file__).parents[2].glob("deployments/*.yaml")), ids=lambda file: file.stem
)
def test_every_shipped_deployment_loads(file):
    load_deployment(str(file))


def test_naming_a_source_for_one_run_replaces_all_of_the_deployments():
    mine = load_deployment(write("prices: {source: yahoo, start: '2020-01-01'}"))
    assert mine.price_parameters({"source": None, "path": None}) == {"source": "yahoo", "start": "2020-01-01"}
    assert mine.price_parameters({"path": "x.csv"}) == {"source": "files", "path": "x.csv"}
    assert mine.price_parameters({"end": "2021-01-01"})["source"] == "yahoo"
