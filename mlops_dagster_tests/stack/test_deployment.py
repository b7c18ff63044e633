import json
import traceback
from pathlib import Path

import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.session import Session
from mlops_dagster.stack.databricks.travel import remote_environment
from mlops_dagster.stack.deployment_files import DeploymentError, load_deployment
from mlops_dagster.stack.mlflow_connection import TrackingError, reach
from mlops_dagster.stack.secrets import is_secret_name, looks_secret, redacted
from mlops_dagster.stack.store import Store, StoreError
from mlops_dagster.stack.tracking import Origin
from mlops_dagster_tests.contracts.shipped import shipped


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
    assert local.partitions == {}


def test_links_are_followed_before_a_folder_is_taken_for_the_store(tmp_path):
    (tmp_path / "half [50%]").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "half [50%]")
    with pytest.raises(DeploymentError, match=r"data/store': it leads to .*half \[50%\]/store, and Delta"):
        load_deployment(write(f"store: {{root: {tmp_path}/data/store}}"))


def test_a_home_whose_databases_would_lie_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "why?"))
    with pytest.raises(DeploymentError, match=r"home='.*why\?': MLflow and Dagster would make their SQLite databases"):
        load_deployment()


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
        ("symbols: [GSPC]", "symbols: there is no such setting"),
        ("partitions: {prices: [../x]}", r"partitions.*'\.\./x'"),
        ("colour: red", "colour"),
        ("store: [", "can't be read"),
        ("- a list", "can't be read|dictionary"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_setting(text, said):
    with pytest.raises(DeploymentError, match=rf"(?s)mine\.yaml.*({said})"):
        load_deployment(write(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [*a]", "aliases stand for more than 50,000 values"),
        ("a: " + "[" * 2000, "nested deeper than 32 levels"),
        ("a: [" + "A, " * 200_000 + "A]", "larger than 256 KiB"),
    ],
)
def test_a_file_is_never_larger_than_settings_are(text, said):
    with pytest.raises(DeploymentError, match=said):
        load_deployment(write(text))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "TRACKING__ENV_TO_TAG",
            "USER,HOME",
            """the environment: MLOPS_TRACKING__ENV_TO_TAG='USER,HOME' is no list; write .*'."USER", "HOME".'""",
        ),
        ("PARTITIONS", "ACME", "MLOPS_PARTITIONS.* is no object"),
        ("STORE__STORAGE_OPTIONS", "key=hunter2", "MLOPS_STORE__STORAGE_OPTIONS is no object"),
        ("TRACKING__ENV_TO_TAG", "[" * 9999, "is no list"),
        ("PARTITIONS", '{"prices": ["GSPC", 7]}', "comes from the environment variable MLOPS_PARTITIONS"),
        ("STORE__ROOT", "/data/K\udcfcrse", r"store.root='/data/K.udcfcrse': it has bytes that aren't UTF-8"),
    ],
)
def test_a_variable_that_is_at_fault_is_named(monkeypatch, variable, value, said):
    monkeypatch.setenv(f"MLOPS_{variable}", value)
    with pytest.raises(DeploymentError, match=said) as refused:
        load_deployment(write("compute: here"))
    assert "hunter2" not in str(refused.value)


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


def test_a_deployment_says_where_a_models_data_are(monkeypatch):
    model = shipped("stock_price")
    mine = load_deployment(write("data: {prices: {source: yahoo, start: '2020-01-01'}, other: {rows: 5}}"))
    assert mine.data_parameters(model, {"source": None}) == {"source": "yahoo", "start": "2020-01-01"}
    assert mine.data_parameters(model, {"end": "2021-01-01"})["source"] == "yahoo"
    assert mine.data_parameters(model, {"path": "x.csv"}) == {"path": "x.csv"}
    assert json.loads(remote_environment(mine)["MLOPS_DATA"])["prices"]["start"] == "2020-01-01"
    monkeypatch.setenv("MLOPS_DATA__PRICES__SOURCE", "bundled")
    assert load_deployment("mine.yaml").data_parameters(model)["source"] == "bundled"
    monkeypatch.setenv("MLOPS_DATA__PRICES__STRAT", "2020-01-01")
    with pytest.raises(
        ParameterError, match=r"^data\.prices\.strat: .*such parameter; there are source, .*_STRAT\.\)$"
    ):
        load_deployment().data_parameters(model)
    monkeypatch.delenv("MLOPS_DATA__PRICES__STRAT")
    monkeypatch.delenv("MLOPS_DATA__PRICES__SOURCE")
    for said, wrong in {
        "source: ftp": r"source='ftp' \(str\): give one of bundled, files, yahoo\.",
        "start: 2020-01-01": r"start=datetime.*: give a text\. Quote it\.",
        "path: all.csv": r"path='all.csv' \(str\): every symbol would get the same rows; write {symbol}",
    }.items():
        mine = load_deployment(write(f"data: {{prices: {{{said}}}}}"))
        with pytest.raises(ParameterError, match=rf"^data\.prices\.{wrong}.*deployment mine\.yaml\.\)$"):
            Session(mine, model, Origin("test", "run-1", None))


PIPES = """
compute: databricks_pipes
store: {root: /Volumes/main/mlops/mlops/store}
tracking: {mlflow_tracking_uri: 'http://127.0.0.1:5000'}
databricks:
  host: %s
  cluster: {existing: 0123-456789-abcdefgh}
  staging: /Volumes/main/mlops/mlops/staging
"""


def test_a_workspace_on_this_machine_reaches_what_else_is_on_it():
    load_deployment(write(PIPES % "http://127.0.0.1:8765"))
    with pytest.raises(DeploymentError, match="is the cluster itself"):
        load_deployment(write(PIPES % "https://dbc-1.cloud.databricks.com"))


def test_the_environment_may_hold_secrets_where_a_file_may_not(monkeypatch):
    monkeypatch.setenv("MLOPS_STORE__STORAGE_OPTIONS__AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("MLOPS_SPARK__MASTER", "sc://spark.example.com:15002/;token=hunter2")
    mine = load_deployment(write("store: {root: s3://tables}"))
    assert mine.store.storage_options == {"aws_secret_access_key": "hunter2"}


def test_who_is_told_of_failures_is_a_secret_in_parts(monkeypatch):
    monkeypatch.setenv("MLOPS_NOTIFY__WEBHOOK_URL", "https://example.com/hunter2")
    monkeypatch.setenv("MLOPS_NOTIFY__EMAIL__PASSWORD", "hunter2")
    mail = "notify: {email: {host: mail.example.com, sender: a@example.com, to: [b@example.com], username: a}}"
    mine = load_deployment(write(mail))
    assert mine.notify.channels == ["webhook_url", "email"]
    assert mine.notify.email.password == "hunter2"
    assert "hunter2" not in repr(mine)
    monkeypatch.setenv("MLOPS_NOTIFY__WEBHOOK_URL", "ftp://example.com/hunter2")
    with pytest.raises(DeploymentError, match="begins with https://") as refused:
        load_deployment(write(mail))
    assert "hunter2" not in str(refused.value)


def test_the_inbox_lies_below_the_home_folder(tmp_path, monkeypatch):
    assert load_deployment().inbox.path == str(tmp_path / ".mlops" / "inbox")
    monkeypatch.setenv("MLOPS_INBOX__PATH", "/data/inbox")
    assert load_deployment().inbox.path == "/data/inbox"
    assert load_deployment(write("inbox: {path: null}")).inbox.path == "/data/inbox"
    monkeypatch.delenv("MLOPS_INBOX__PATH")
    assert load_deployment(write("inbox: {path: null}")).inbox.path is None


def test_the_environment_is_held_to_the_same_rules_as_the_file(monkeypatch):
    mine = write(PIPES % "http://127.0.0.1:8765")
    monkeypatch.setenv("MLOPS_DATABRICKS__ENVIRONMENT", '{"MY_TOKEN": "hunter2"}')
    with pytest.raises(DeploymentError, match="MY_TOKEN: its name says that it is a secret") as refused:
        load_deployment(mine)
    assert "hunter2" not in str(refused.value)
    monkeypatch.delenv("MLOPS_DATABRICKS__ENVIRONMENT")
    monkeypatch.setenv("MLOPS_TRACKING__MLFLOW_TRACKING_URI", "postgresql://mlflow:hunter2@db/mlflow")
    with pytest.raises(DeploymentError, match="secrets aren't sent to the cluster") as refused:
        load_deployment(mine)
    assert "hunter2" not in str(refused.value)


def test_links_to_mlflow_on_databricks_lead_to_the_workspace(monkeypatch):
    text = "tracking: {mlflow_tracking_uri: databricks, experiment_name: /Shared/mine%s}"
    monkeypatch.delenv("DATABRICKS_HOST", raising=False)
    assert load_deployment(write(text % "")).tracking.ui_url is None
    monkeypatch.setenv("DATABRICKS_HOST", "https://dbc-1.cloud.databricks.com")
    assert load_deployment(write(text % "")).tracking.ui_url == "https://dbc-1.cloud.databricks.com"
    assert load_deployment(write(text % ", ui_url: 'https://mine'")).tracking.ui_url == "https://mine"


def test_null_takes_away_what_the_file_has(monkeypatch):
    mine = write(PIPES % "http://127.0.0.1:8765")
    monkeypatch.setenv("MLOPS_DATABRICKS__CLUSTER", '{"serverless": {}}')
    with pytest.raises(DeploymentError, match="given: existing, serverless"):
        load_deployment(mine)
    monkeypatch.setenv("MLOPS_DATABRICKS__CLUSTER", '{"existing": null, "serverless": {}}')
    assert load_deployment(mine).databricks.cluster.kind == "serverless"


def test_a_wrong_value_from_the_environment_names_its_variable(monkeypatch):
    monkeypatch.setenv("MLOPS_SPARK__SLOTS", "many")
    with pytest.raises(DeploymentError, match=r"spark\.slots='many'.*MLOPS_SPARK__SLOTS"):
        load_deployment(write("compute: here"))
    monkeypatch.setenv("MLOPS_STORE", "{not json")
    with pytest.raises(DeploymentError, match="the environment: MLOPS_STORE is no object"):
        load_deployment(write("compute: here"))


def test_inside_the_cluster_nothing_of_the_host_is_asked_for(monkeypatch):
    monkeypatch.setenv("MLOPS_INSIDE", "true")
    monkeypatch.setenv("MLOPS_COMPUTE", "databricks_step")
    assert load_deployment().compute == "databricks_step"


def test_all_problems_are_named_at_once():
    with pytest.raises(DeploymentError) as refused:
        load_deployment(write("stor: {}\ncompute: spark\npartitions: {prices: [../x]}"))
    assert len(refused.value.problems) == 3
    assert "mine.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("aws_secret_access_key", True),
        ("AZURE_STORAGE_SAS_TOKEN", True),
        ("spark.hadoop.fs.s3a.access.key", True),
        ("clientSecret", True),
        ("MLFLOW_TRACKING_PASSWORD", True),
        ("aws_region", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("aws_skip_signature", False),
        ("monkey", False),
        ("compass", False),
    ],
)
def test_secrets_are_known_by_their_names(name, secret):
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("dapi00112233445566778899aabbccddeeff-2", "a Databricks token"),
        ("dose00112233445566778899aabbccddeeff", "a Databricks OAuth secret"),
        ("key ASIA0123456789ABCDEF", "an AWS key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("DefaultEndpointsProtocol=https;AccountKey=abc==", "an Azure storage key"),
        ("https://x.blob.core.windows.net/c?sv=1&sig=abc", "a signature of a shared link"),
        ("https://me:hunter2@example.com", "a password in an address"),
        ("sc://host:443/;use_ssl=true;token=x", "a token in a Spark Connect address"),
        ("postgresql://db/mlflow?user=u&password=hunter2", "a secret in the query of an address"),
        ("postgresql://u:hunt/er2@db/mlflow", "a password in an address"),
        ("https://hunter2@example.com", "a password in an address"),
        ("s3://bucket/x?X-Amz-Signature=hunter2", "a secret in the query of an address"),
        ("host=db password=hunter2", "a secret in the query of an address"),
        ("sc://host:15002", None),
        ("http://127.0.0.1:5000/?keyword=a&page=2", None),
        ("abfss://container@account.dfs.core.windows.net/folder", None),
        ("http://127.0.0.1:5000/a@b:c", None),
        ("s3://bucket", None),
    ],
)
def test_secrets_are_known_by_their_looks(text, kind):
    assert looks_secret(text) == kind
    # What is shown of it is a secret no more, and what isn't one stays as it is.
    assert looks_secret(redacted(text)) is None
    assert (redacted(text) == text) is (kind is None)
    assert "hunter2" not in redacted(f"(OperationalError) {text!r} can't be reached: Authorization: Bearer {'x' * 20}")


def test_errors_of_libraries_repeat_no_secret():
    uri = "postgresql+nodriver://127.0.0.1:1/db?user=u&password=hunter2&sslpassword=hunter2"
    with pytest.raises(TrackingError) as refused:
        reach(uri)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    assert "?user=u&password=***&sslpassword=***" in str(refused.value)
    store = Store("s3://u:hunter2@bucket/x", {"aws_region": "x", "aws_endpoint": "http://127.0.0.1:1/?token=hunter2"})
    with pytest.raises(StoreError) as refused:
        store.read("data", "ACME")
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
