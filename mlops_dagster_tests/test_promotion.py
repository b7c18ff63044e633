"""The gate, the registry and the way back, on real tables and a real MLflow database."""

import hashlib
import json
import re
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
from mlops_dagster.stack.registry import CHALLENGER, CHAMPION, ModelRefused
from mlops_dagster.stack.store import Store, TableNotFound
from mlops_dagster.stack.tracking import MlflowTracker, Origin
from mlops_dagster_tests.contracts.rivals import both_at_once

TEST = Origin("test", "run-1", None)
SMALL = {"max_depth": 3, "n_estimators": 4, "min_samples_leaf": 20}
LENIENT = {"beat_persistence": False}


@pytest.fixture
def store(home, price_file):
    store = Store(home / "store")
    steps.prices("ACME", {"source": "files", "path": str(price_file)}, store=store)
    steps.training_set("ACME", {}, store=store)
    return store


@pytest.fixture
def tracker(home):
    return MlflowTracker("steps", f"sqlite:///{home}/mlflow/mlflow.db", state_dir=home / "open_runs")


@pytest.fixture
def train(store, tracker):
    def train(**parameters):
        given = {**SMALL, **parameters}
        report = steps.trained_model("ACME", given, store=store, tracker=tracker, origin=TEST)
        return report.facts["model_version"]

    return train


@pytest.fixture
def judge(store, tracker):
    def judge(**rules):
        return steps.champion_model("ACME", {**LENIENT, **rules}, store=store, tracker=tracker, origin=TEST).facts

    return judge


@pytest.fixture
def better_and_worse(train, store):
    """Two versions of which the second is the worse one on the test rows."""
    errors = {}
    for seed in range(3):
        version = train(random_state=seed)
        errors[version] = store.current("trained_model", "ACME").metadata["metrics"]
    ranked = sorted(errors, key=lambda version: yaml.safe_load(errors[version])["rmse"])
    return ranked[0], ranked[-1]


def files_of(tracker, version):
    client = MlflowClient(tracker.tracking_uri)
    return Path(urlparse(client.get_model_version_download_uri("mlops_dagster.ACME", version)).path)


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
    assert first.tags["recipe"] == "honest"
    assert first.model_digest != tracker.registry.get("ACME", "2").model_digest


def test_people_find_their_way_in_mlflow(train, store, tracker):
    train()
    client, experiment = tracker.connect()
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "custom_model_development"
    version = client.get_model_version("mlops_dagster.ACME", "1")
    assert re.search(r"\| skill_vs_persistence \| [+-]\d+\.\d\d % \| squared error below", version.description)
    (learned_from,) = client.get_run(version.run_id).inputs.dataset_inputs
    table = store.current("training_set", "ACME")
    assert (learned_from.dataset.name, learned_from.dataset.digest) == ("training_set ACME", table.digest[:36])
    assert tracker.version_url("ACME", "1") is None  # a database has no pages
    tracker.ui_url = "http://127.0.0.1:5000"
    assert tracker.version_url("ACME", "1") == (
        "http://127.0.0.1:5000/#/models/mlops_dagster.ACME/versions/1?workflowType=machine_learning"
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
    assert last["challenger_error"] > last["champion_error"] > 0
    assert last["rows"] > 100


def test_the_articles_recipe_leaks_and_is_kept_out_unless_allowed(train, judge, store):
    steps.training_set("ACME", {"recipe": "article"}, store=store)
    train()
    assert judge()["outcome"] == "leaks"
    assert judge()["champion"] is None
    assert judge(allow_leaks=True)["champion"] == "1"


def test_models_of_other_horizons_are_not_compared(train, judge, store):
    train()
    judge()
    steps.training_set("ACME", {"horizon": 5}, store=store)
    train()
    facts = judge()
    assert (facts["outcome"], facts["champion"]) == ("not_comparable", "1")
    assert "forecasts 5 days ahead, champion version 1 forecasts 1 day ahead." in facts["reason"]


def test_models_of_other_recipes_are_compared_on_days_new_to_both(train, judge, store):
    train()
    judge()
    steps.training_set("ACME", {"recipe": "honest", "test_size": 0.5}, store=store)
    train()
    judge(margin=0.0)
    rows, _ = store.read("champion_model", "ACME")
    # The champion's training rows are two thirds of all, so of the challenger's half only the last third is left.
    assert 0.3 * 400 < rows["rows"].iloc[-1] < 0.34 * 400


@pytest.mark.parametrize("given", [{"margin": -0.1}, {"margin": "1 %"}, {"beat_persistence": 1}, {"magin": 0.1}])
def test_a_bad_rule_is_refused_before_any_work(store, tracker, given):
    with pytest.raises(ParameterError, match=next(iter(given))):
        steps.champion_model("ACME", given, store=store, tracker=tracker, origin=TEST)
    assert store.current("champion_model", "ACME") is None


def test_without_a_model_nothing_is_decided(store, tracker):
    with pytest.raises(TableNotFound, match="trained_model"):
        steps.champion_model("ACME", {}, store=store, tracker=tracker, origin=TEST)


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
    MlflowClient(tracker.tracking_uri).set_model_version_tag("mlops_dagster.ACME", "1", "model_file_sha256", sha256)
    monkeypatch.setattr(skops.io, "loads", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ModelRefused, match=r"aren't trusted: threading\.Event"):
        tracker.registry.load("ACME", "1")


def test_a_version_that_nobody_registered_properly_is_refused(train, tracker):
    train()
    client = MlflowClient(tracker.tracking_uri)
    client.delete_model_version_tag("mlops_dagster.ACME", "1", "model_file_sha256")
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
        MlflowClient(tracker.tracking_uri).delete_model_version("mlops_dagster.ACME", "1")
    facts = judge()
    assert (facts["outcome"], facts["champion"]) == ("champion_unusable", "2")
    assert holder(tracker, CHAMPION) == "2"


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_home_without_models_is_named(home, command):
    said = CliRunner().invoke(app, [command, "--symbol", "ACME", "--json"])
    assert said.exit_code == 2
    message = json.loads(said.stdout)["message"]
    assert f"symbol='ACME' (str): no model of it was built in the home {home} (store {home}/store" in message
    assert "mlops build-model --symbol ACME. Or set MLOPS_HOME" in message


# ------------------------------------------------------------------------------- numbers that are given another time


@pytest.fixture(params=["the registered model was deleted", "another MLflow"])
def begin_anew(request, tracker, home):
    """Make versions count from 1 again, as they do for two reasons."""

    def begin_anew():
        if request.param == "another MLflow":
            tracker.tracking_uri = f"sqlite:///{home}/another/mlflow.db"
        else:
            MlflowClient(tracker.tracking_uri).delete_registered_model("mlops_dagster.ACME")

    return begin_anew


def test_a_number_that_was_the_champions_makes_no_champion(train, judge, store, tracker, begin_anew):
    train()
    champion = judge()["champion"]
    begin_anew()
    assert train(n_estimators=6) == champion == "1"

    facts = judge(beat_persistence=True)
    assert (facts["outcome"], facts["promoted"]) == ("not_better_than_persistence", False)
    assert "Champion version 1 can't be used: mlops_dagster.ACME version 1 at " in facts["reason"]
    assert "is another model" in facts["reason"]
    assert tracker.registry.holder("ACME", CHAMPION) is None
    with pytest.raises(ModelRefused, match=r"another model .* deleted, or is in another MLflow.*mlops build-model"):
        steps.load_champion("ACME", steps.Inputs("ACME", store), tracker.registry)
    with pytest.raises(ParameterError, match="no champion before 1"):
        steps.rollback("ACME", store=store, tracker=tracker, origin=TEST)

    before = steps.champion_model("ACME", LENIENT, store=store, tracker=tracker, origin=TEST)
    assert (before.facts["outcome"], before.facts["champion"]) == ("champion_unusable", "1")
    assert holder(tracker, CHAMPION) == "1"
    with pytest.raises(ModelRefused, match="another model"):
        steps.rollback("ACME", "1", store=store, tracker=tracker, origin=TEST)
    # The same forest, trained once more, is the champion of before; nobody has rolled it back.
    assert train() == "2"
    assert judge()["outcome"] in ("better", "not_better")


def test_a_model_that_was_rolled_back_is_the_same_under_another_number(better_and_worse, judge, train, store, tracker):
    better, worse = better_and_worse
    for version in (worse, better):
        make_newest(store, tracker, version)
        judge()
    steps.rollback("ACME", store=store, tracker=tracker, origin=TEST)
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


def test_of_two_promotions_at_once_one_decides_again(better_and_worse, store, tracker):
    """Both read the same history; the second to write has to look at what the first has left."""
    _, worse = better_and_worse
    make_newest(store, tracker, worse)

    def promote(slow_store):
        return steps.champion_model("ACME", LENIENT, store=slow_store, tracker=tracker, origin=TEST)

    reports = both_at_once(store.root, "champion_model", promote)
    assert sorted(report.facts["outcome"] for report in reports) == ["already_champion", "first"]
    rows, _ = store.read("champion_model", "ACME")
    assert list(rows["promoted"]) == [True, False]


def test_rollback_brings_the_champion_before_back_and_the_gate_leaves_it_there(better_and_worse, judge, store, tracker):
    better, worse = better_and_worse
    for version in (worse, better):
        make_newest(store, tracker, version)
        judge()
    report = steps.rollback("ACME", store=store, tracker=tracker, origin=TEST)
    assert report.facts["champion"] == worse
    assert holder(tracker, CHAMPION) == worse
    facts = judge()
    assert (facts["outcome"], facts["champion"]) == ("rolled_back_before", worse)
    assert steps.champion_of("ACME", store).version == worse
    # And back again, by name.
    assert steps.rollback("ACME", better, store=store, tracker=tracker, origin=TEST).facts["champion"] == better


def test_rollback_refuses_what_was_never_champion(train, judge, store, tracker):
    with pytest.raises(ParameterError, match="no champion before"):
        steps.rollback("ACME", store=store, tracker=tracker, origin=TEST)
    train()
    judge()
    train()
    with pytest.raises(ParameterError, match="no champion before 1"):
        steps.rollback("ACME", store=store, tracker=tracker, origin=TEST)
    with pytest.raises(ParameterError, match="champion before: none"):
        steps.rollback("ACME", "2", store=store, tracker=tracker, origin=TEST)


def test_rollback_to_a_damaged_model_changes_nothing(better_and_worse, judge, store, tracker):
    better, worse = better_and_worse
    for version in (worse, better):
        make_newest(store, tracker, version)
        judge()
    damage(files_of(tracker, worse))
    with pytest.raises(ModelRefused, match="SHA-256"):
        steps.rollback("ACME", store=store, tracker=tracker, origin=TEST)
    assert steps.champion_of("ACME", store).version == better
    assert holder(tracker, CHAMPION) == better
