"""The gate, the registry and the way back, on real tables and a real MLflow database."""

import hashlib
import json
import shutil
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import urlparse

import pytest
import skops.io
import yaml
from mlflow import MlflowClient
from typer.testing import CliRunner

from mlops_dagster import steps
from mlops_dagster.cli import app
from mlops_dagster.errors import ParameterError
from mlops_dagster.spec.steps import steps_of
from mlops_dagster.stack.registry import CHALLENGER, CHAMPION, ModelRefused
from mlops_dagster.stack.store import TableNotFound
from mlops_dagster_tests.contracts.rivals import both_at_once
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.contracts.stock import Stock

SMALL = {"max_depth": 3, "n_estimators": 4, "min_samples_leaf": 20}
LENIENT = {"beat_baseline": False}
REGISTERED = "mlops_dagster.stock_price.ACME"


@pytest.fixture
def stock(home, price_file):
    stock = Stock(home, price_file)
    stock.prepare()
    return stock


@pytest.fixture
def store(stock):
    return stock.store


@pytest.fixture
def tracker(stock):
    return stock.tracker


@pytest.fixture
def train(stock):
    return lambda **parameters: stock.run("trained_model", {**SMALL, **parameters}).facts["model_version"]


@pytest.fixture
def judge(stock):
    return lambda **rules: stock.run("champion_model", {**LENIENT, **rules}).facts


@pytest.fixture
def better_and_worse(train, store):
    """Two versions of which the second is the worse one on the test rows."""
    errors = {}
    for seed in range(3):
        version = train(random_state=seed)
        errors[version] = store.current("trained_model", "ACME").metadata["metrics"]
    ranked = sorted(errors, key=lambda version: yaml.safe_load(errors[version])["root_mean_squared_error"])
    return ranked[0], ranked[-1]


def files_of(tracker, version):
    client = MlflowClient(tracker.tracking_uri)
    return Path(urlparse(client.get_model_version_download_uri(REGISTERED, version)).path)


def holder(tracker, alias):
    return tracker.registry.holder("ACME", alias).version


def make_newest(store, tracker, version):
    """Let the table speak of an earlier version, as if it had been trained last."""
    found = tracker.registry.get("ACME", version)
    frame, table = store.read("trained_model", "ACME")
    newest = {**table.metadata, "model_version": version, "model_digest": found.model_digest}
    store.write("trained_model", "ACME", frame, metadata=newest)


def test_a_training_registers_its_own_version_as_challenger(train, tracker):
    versions = [train(), train(n_estimators=5)]
    assert versions == ["1", "2"]
    assert holder(tracker, CHALLENGER) == "2"
    assert tracker.registry.holder("ACME", CHAMPION) is None
    first = tracker.registry.get("ACME", "1")
    assert first.model_digest != tracker.registry.get("ACME", "2").model_digest


def test_people_find_their_way_in_mlflow(train, store, tracker):
    train()
    client, experiment = tracker.connect()
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "custom_model_development"
    version = client.get_model_version(REGISTERED, "1")
    assert "root_mean_squared_error" in version.description
    (learned_from,) = client.get_run(version.run_id).inputs.dataset_inputs
    table = store.current("training_set", "ACME")
    assert (learned_from.dataset.name, learned_from.dataset.digest) == (
        "training_set ACME",
        table.digest[:36],
    )
    assert tracker.version_url("ACME", "1") == (
        "http://127.0.0.1:5000/#/models/mlops_dagster.stock_price.ACME/versions/1?workflowType=machine_learning"
    )


def test_the_first_version_becomes_champion_and_the_table_says_why(train, judge, store, tracker):
    train()
    facts = judge()
    assert (facts["outcome"], facts["champion"], facts["champion_before"]) == ("first", "1", None)
    assert holder(tracker, CHAMPION) == "1"
    rows, _ = store.read("champion_model", "ACME")
    assert rows[["challenger", "champion", "promoted", "outcome", "by", "run_id"]].values.tolist() == [
        ["1", "1", True, "first", "test", "run-1"]
    ]
    assert judge()["outcome"] == "already_champion"


def test_only_a_better_one_takes_the_place(better_and_worse, judge, store, tracker):
    better, worse = better_and_worse
    make_newest(store, tracker, worse)
    assert judge()["champion"] == worse
    make_newest(store, tracker, better)
    assert judge(margin=0.9)["outcome"] == "not_better"
    facts = judge()
    assert (facts["outcome"], facts["champion"], facts["champion_before"]) == ("better", better, worse)
    make_newest(store, tracker, worse)
    facts = judge()
    assert (facts["outcome"], facts["champion"]) == ("not_better", better)
    assert holder(tracker, CHAMPION) == better
    rows, _ = store.read("champion_model", "ACME")
    assert list(rows["promoted"]) == [True, False, True, False]
    last = rows.iloc[-1]
    assert last["challenger_score"] > last["champion_score"] > 0
    assert last["rows"] > 100


def test_the_article_leaks_and_is_kept_out_unless_allowed(home, price_file):
    article = Stock(home, price_file, model=shipped("article"))
    article.prepare()
    article.run("trained_model", SMALL)
    assert article.run("champion_model", LENIENT).facts["outcome"] == "leaks"
    assert article.run("champion_model", {**LENIENT, "allow_leaks": True}).facts["champion"] == "1"


def test_models_of_other_horizons_are_not_compared(train, judge, stock):
    train()
    judge()
    stock.run("training_set", {"horizon": 5})
    train()
    facts = judge()
    assert (facts["outcome"], facts["champion"]) == ("not_comparable", "1")
    assert "It looks 5 rows ahead, champion version 1 looks 1 row ahead." in facts["reason"]


def test_models_of_other_splits_are_compared_on_days_new_to_both(train, judge, stock):
    train()
    judge()
    stock.run("training_set", {"test_size": 0.5})
    train()
    judge(margin=0.0)
    # The champion's training rows are two thirds of all, so of the challenger's half only the last third is left.
    assert 0.3 * 400 < stock.read("champion_model")["rows"].iloc[-1] < 0.34 * 400


@pytest.mark.parametrize("given", [{"margin": -0.1}, {"margin": "1 %"}, {"beat_baseline": 1}, {"magin": 0.1}])
def test_a_bad_rule_is_refused_before_any_work(stock, store, given):
    with pytest.raises(ParameterError, match=next(iter(given))):
        stock.run("champion_model", given)
    assert store.current("champion_model", "ACME") is None


def test_without_a_model_nothing_is_decided(stock):
    with pytest.raises(TableNotFound, match="trained_model"):
        stock.run("champion_model")


# --------------------------------------------------------------------------------------------------- who may be loaded


def damage(folder):
    (folder / "model.skops").write_bytes((folder / "model.skops").read_bytes()[:-100])


def swap_for_another_forest(folder):
    other = skops.io.load(folder / "model.skops", trusted=["sklearn.tree._tree.Tree"])
    other.estimators_ = other.estimators_[::-1]
    skops.io.dump(other, folder / "model.skops")


def remove(folder):
    (folder / "model.skops").unlink()


def describe(key, flavor, value):
    def change(folder):
        described = yaml.safe_load((folder / "MLmodel").read_text())
        described["flavors"][flavor][key] = value
        (folder / "MLmodel").write_text(yaml.safe_dump(described))

    return change


def link_elsewhere(folder):
    elsewhere = folder.parent / "elsewhere.skops"
    (folder / "model.skops").rename(elsewhere)
    (folder / "model.skops").symlink_to(elsewhere)


def forget_the_description(folder):
    (folder / "MLmodel").write_text("- nothing\n")


BAD = {
    "damaged": (damage, "SHA-256"),
    "another forest": (swap_for_another_forest, "SHA-256"),
    "gone": (remove, "no file model.skops|can't be fetched"),
    "a loader of somebody's": (describe("loader_module", "python_function", "os"), "loader 'os'"),
    "a pickle": (describe("serialization_format", "sklearn", "cloudpickle"), "'cloudpickle', which can run code"),
    "a path that leaves": (describe("model_path", "python_function", "../../x.skops"), r"names the file '\.\./\.\./x"),
    "another path": (describe("pickled_model", "sklearn", "/etc/passwd"), "names the file"),
    "no description": (forget_the_description, "can't be understood"),
}


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD)
def test_a_model_that_isnt_what_was_registered_is_never_opened(train, tracker, judge, monkeypatch, change, said):
    train()
    change(files_of(tracker, "1"))
    monkeypatch.setattr(skops.io, "loads", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ModelRefused, match=said):
        judge()
    assert tracker.registry.holder("ACME", CHAMPION) is None


def test_a_version_that_points_elsewhere_is_neither_copied_nor_opened(train, tracker, tmp_path, monkeypatch):
    """Somebody has moved it to a folder full of other people's files, or even to a copy of the model."""
    train()
    copy = shutil.copytree(files_of(tracker, "1"), tmp_path / "copy")
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(skops.io, "loads", lambda *_, **__: pytest.fail("it was opened"))
    for place in ("/etc", copy.as_uri()):
        with closing(sqlite3.connect(tracker.tracking_uri.removeprefix("sqlite:///"))) as database, database:
            database.execute("update model_versions set source = ?, storage_location = ?", (place, place))
        with pytest.raises(ModelRefused, match=rf"its files are in {place}, but its run \w+ wrote them to file://"):
            tracker.registry.load("ACME", "1")
    assert not list(scratch.iterdir())


def test_types_that_arent_trusted_are_refused_before_the_file_is_opened(train, tracker, monkeypatch):
    train()
    folder = files_of(tracker, "1")
    model = skops.io.load(folder / "model.skops", trusted=["sklearn.tree._tree.Tree"])
    model.note = threading.Event
    skops.io.dump(model, folder / "model.skops")
    sha256 = hashlib.sha256((folder / "model.skops").read_bytes()).hexdigest()
    MlflowClient(tracker.tracking_uri).set_model_version_tag(REGISTERED, "1", "model_file_sha256", sha256)
    monkeypatch.setattr(skops.io, "loads", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ModelRefused, match=r"aren't trusted: threading\.Event"):
        tracker.registry.load("ACME", "1")


def test_a_version_that_nobody_registered_properly_is_refused(train, tracker):
    train()
    client = MlflowClient(tracker.tracking_uri)
    client.delete_model_version_tag(REGISTERED, "1", "model_file_sha256")
    with pytest.raises(ModelRefused, match="has no model_file_sha256: a step didn't register it"):
        tracker.registry.load("ACME", "1")
    with pytest.raises(ModelRefused, match="no version 7"):
        tracker.registry.load("ACME", "7")


@pytest.mark.parametrize("how", ["damaged", "deleted"])
def test_a_champion_that_no_longer_loads_makes_way(train, judge, tracker, how):
    train()
    judge()
    train(n_estimators=6)
    if how == "damaged":
        damage(files_of(tracker, "1"))
    else:
        MlflowClient(tracker.tracking_uri).delete_model_version(REGISTERED, "1")
    facts = judge()
    assert (facts["outcome"], facts["champion"]) == ("champion_unusable", "2")
    assert holder(tracker, CHAMPION) == "2"


@pytest.mark.examples
@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_home_without_models_is_named(home, command):
    said = CliRunner().invoke(app, [command, "--symbol", "ACME", "--json"])
    assert said.exit_code == 2
    message = json.loads(said.stdout)["message"]
    assert f"model='stock_price of ACME' (str): no model of it was built in the home {home} (store" in message
    assert "mlops build-model --symbol ACME. Or set MLOPS_HOME" in message


# ------------------------------------------------------------------------------- numbers that are given another time


@pytest.fixture(params=["the registered model was deleted", "another MLflow"])
def begin_anew(request, tracker, home):
    """Make versions count from 1 again, as they do for two reasons."""

    def begin_anew():
        if request.param == "another MLflow":
            tracker.tracking_uri = f"sqlite:///{home}/another/mlflow.db"
        else:
            MlflowClient(tracker.tracking_uri).delete_registered_model(REGISTERED)

    return begin_anew


def test_a_number_that_was_the_champions_makes_no_champion(train, judge, store, tracker, begin_anew, stock):
    train()
    champion = judge()["champion"]
    begin_anew()
    assert train(n_estimators=6) == champion == "1"

    facts = judge(beat_baseline=True)
    assert (facts["outcome"], facts["promoted"]) == ("not_better_than_baseline", False)
    assert "Champion version 1 can't be used: mlops_dagster.stock_price.ACME version 1 at " in facts["reason"]
    assert "is another model" in facts["reason"]
    assert tracker.registry.holder("ACME", CHAMPION) is None
    with pytest.raises(ModelRefused, match=r"another model .* deleted, or is in another MLflow.*mlops build-model"):
        steps.load_champion(
            "ACME", steps.Inputs("ACME", store, known=steps_of(stock.model)), tracker.registry, stock.model
        )
    with pytest.raises(ParameterError, match="no champion before 1"):
        stock.roll_back()

    before = stock.run("champion_model", LENIENT)
    assert (before.facts["outcome"], before.facts["champion"]) == ("champion_unusable", "1")
    assert holder(tracker, CHAMPION) == "1"
    with pytest.raises(ModelRefused, match="another model"):
        stock.roll_back("1")
    # The same forest, trained once more, is the champion of before; nobody has rolled it back.
    assert train() == "2"
    assert judge()["outcome"] in ("better", "not_better")


def test_a_model_that_was_rolled_back_is_the_same_under_another_number(
    better_and_worse, judge, train, store, tracker, stock
):
    better, worse = better_and_worse
    for version in (worse, better):
        make_newest(store, tracker, version)
        judge()
    stock.roll_back()
    train(random_state=int(better) - 1)
    assert judge()["outcome"] == "rolled_back_before"


# ---------------------------------------------------------------------------------------------- races and the way back


def test_an_alias_that_was_moved_by_hand_is_moved_back(train, judge, tracker):
    train()
    judge()
    train(n_estimators=6, max_depth=1)
    tracker.registry.set_alias("ACME", CHAMPION, "2")
    facts = judge(margin=1.0)
    assert facts["champion"] == "1"
    assert holder(tracker, CHAMPION) == "1"


def test_of_two_promotions_at_once_one_decides_again(better_and_worse, store, tracker, stock):
    """Both read the same history; the second to write has to look at what the first has left."""
    _, worse = better_and_worse
    make_newest(store, tracker, worse)

    def promote(slow_store):
        return stock.call("champion_model", LENIENT, store=slow_store)

    reports = both_at_once(store.root, "champion_model", promote)
    assert sorted(report.facts["outcome"] for report in reports) == ["already_champion", "first"]
    rows, _ = store.read("champion_model", "ACME")
    assert list(rows["promoted"]) == [True, False]


def test_rollback_brings_the_champion_before_back_and_the_gate_leaves_it_there(
    better_and_worse, judge, store, tracker, stock
):
    better, worse = better_and_worse
    for version in (worse, better):
        make_newest(store, tracker, version)
        judge()
    report = stock.roll_back()
    assert report.facts["champion"] == worse
    assert holder(tracker, CHAMPION) == worse
    facts = judge()
    assert (facts["outcome"], facts["champion"]) == ("rolled_back_before", worse)
    assert steps.champion_of("ACME", store).version == worse
    # And back again, by name.
    assert stock.roll_back(better).facts["champion"] == better


def test_rollback_refuses_what_was_never_champion(train, judge, stock):
    with pytest.raises(ParameterError, match="no champion before"):
        stock.roll_back()
    train()
    judge()
    train()
    with pytest.raises(ParameterError, match="no champion before 1"):
        stock.roll_back()
    with pytest.raises(ParameterError, match="champion before: none"):
        stock.roll_back("2")


def test_rollback_to_a_damaged_model_changes_nothing(better_and_worse, judge, store, tracker, stock):
    better, worse = better_and_worse
    for version in (worse, better):
        make_newest(store, tracker, version)
        judge()
    damage(files_of(tracker, worse))
    with pytest.raises(ModelRefused, match="SHA-256"):
        stock.roll_back()
    assert steps.champion_of("ACME", store).version == better
    assert holder(tracker, CHAMPION) == better
