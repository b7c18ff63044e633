"""The gate of a declared model, on real tables and a real MLflow database: who is champion, and why."""

import json
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from mlops_dagster import steps
from mlops_dagster.errors import ParameterError
from mlops_dagster.modeling.digest import model_digest
from mlops_dagster.modeling.training_set import TrainingSet, make_training_set
from mlops_dagster.stack.registry import CHAMPION, ModelRefused
from mlops_dagster.stack.store import Store, TableNotFound
from mlops_dagster.stack.tracking import MlflowTracker, Origin
from mlops_dagster.steps.promote import champion_model
from mlops_dagster_tests.modeling.conftest import declare

TEST = Origin("test", "run-1", None)


@pytest.fixture
def table():
    loaded = load_breast_cancer(as_frame=True).frame.rename(columns=lambda name: name.replace(" ", "_"))
    loaded["outcome"] = np.where(loaded.pop("target"), "benign", "malignant")
    features = list(loaded.columns[:8])
    return loaded[[*features, "outcome"]].assign(patient=np.arange(len(loaded)), ward=np.arange(len(loaded)) % 4)


@pytest.fixture
def models(home, table):
    return Models(home, table)


class Models:
    """A declared model's tools, and its steps before the gate as they are run by hand."""

    Forest = RandomForestClassifier

    def __init__(self, home, table):
        self.store = Store(home / "store" / "cancer")
        database = f"sqlite:///{home}/mlflow/mlflow.db"
        self.tracker = MlflowTracker(
            "cancer", database, state_dir=home / "open_runs", registered_model="cancer.{symbol}"
        )
        self.table = table
        self.declare()

    def declare(self, **said):
        features = [name for name in self.table.columns if name not in ("outcome", "patient", "ward", "extra")]
        base = {
            "key": ["patient"],
            "features": features,
            "metrics": ["roc_auc"],
            "split": {"kind": "stratified", "test_size": 0.3},
            "gate": {"slices": ["ward"]},
            "target": "outcome",
        }
        self.declaration = declare(self.table, **(base | said)).at(Path("/models/cancer"))

    def prepare(self, rows=None, **given):
        frame = self.table if rows is None else self.table.iloc[:rows]
        made = make_training_set(self.declaration, frame, **given)
        self.store.write("training_set", "all", made.frame, metadata=made.metadata())

    def train(self, depth, trees=5):
        frame, table = self.store.read("training_set", "all")
        data = TrainingSet.from_table(frame, table.metadata)
        forest = self.Forest(trees, max_depth=depth, random_state=0).fit(data.X_train, data.y_train)
        digest = model_digest(forest)
        with self.tracker.run("cancer", origin=TEST, tags={}) as run:
            logged = run.log_model(forest, input_example=data.X_train.head(), digest=digest)
            tags = {
                "model_digest": digest,
                "model_file_sha256": logged.file_sha256,
                "data_version": table.digest,
                "training_set_version": str(table.version),
            }
            version = self.tracker.registry.register("all", logged, run.run_id, tags)
        metadata = {"model_version": version, "model_digest": digest}
        self.store.write("trained_model", "all", pd.DataFrame({"row": [0]}), metadata=metadata)
        return version

    def judge(self, **given):
        tools = {"store": self.store, "tracker": self.tracker, "origin": TEST}
        report = champion_model(self.declaration, "all", given, **tools)
        return report.facts["outcome"], report.facts["champion"], report.facts["reason"]

    @property
    def history(self):
        return self.store.read("champion_model", "all")[0]

    @property
    def alias(self):
        return self.tracker.registry.holder("all", CHAMPION)

    def file_of(self, version):
        uri = MlflowClient(self.tracker.tracking_uri).get_model_version_download_uri("cancer.all", version)
        return Path(urlparse(uri).path) / "model.skops"


def test_data_that_break_the_contract_as_it_is_now_make_no_champion(models):
    models.prepare()
    models.train(depth=2)
    models.store.write("data", "all", models.table)
    contract = {name: one.model_dump(exclude_defaults=True) for name, one in models.declaration.contract.items()}
    models.declare(contract={**contract, "mean_radius": {"type": "number", "maximum": 28.0}})
    outcome, champion, reason = models.judge()
    assert (outcome, champion) == ("bad_data", None)
    assert reason.startswith("What it was made of breaks the contract: the table data")
    assert "mean_radius=28.11 (row 213" in reason
    models.declare(contract=contract)
    assert models.judge()[0] == "first"


@pytest.mark.slow
def test_from_the_first_champion_to_a_rollback(models):
    models.prepare()
    assert models.train(depth=1, trees=1) == "1"
    assert models.judge(confidence=0.95) == ("first", "1", "There was no champion before.")
    assert models.judge()[:2] == ("already_champion", "1")
    with pytest.raises(ParameterError, match=r"^model='cancer' \(str\): there is no champion before 1\."):
        steps.rollback("all", store=models.store, tracker=models.tracker, origin=TEST, model=models.declaration)
    models.train(depth=6, trees=20)
    outcome, champion, reason = models.judge(confidence=0.95)
    assert (outcome, champion) == ("better", "2")
    assert reason.startswith("roc_auc 0.9")
    assert "of champion version 1: better in " in reason
    assert reason.endswith("% of 2,000 resamples; 95 % are needed.")
    models.train(depth=1, trees=1)
    assert models.judge(margin=0.0)[:2] == ("not_better", "2")
    assert models.alias.version == "2"
    last = models.history.iloc[-1]
    assert last["challenger_score"] < last["champion_score"]
    assert (last["metric"], last["baseline_score"], last["rows"]) == ("roc_auc", 0.5, 171)
    assert json.loads(last["rules"])["slices"] == ["ward"]

    back = steps.rollback("all", store=models.store, tracker=models.tracker, origin=TEST, model=models.declaration)
    assert back.model == "cancer"
    assert (back.facts["outcome"], back.facts["champion"]) == ("rolled_back", "1")
    assert models.alias.version == "1"
    assert models.history["metric"].tolist()[-2:] == ["roc_auc", None]
    models.train(depth=6, trees=20)
    assert models.judge()[0] == "rolled_back_before"
    assert list(models.history.dtypes.map(str).unique()) == ["datetime64[us]", "object", "bool", "float64"]


def test_modes(models):
    models.prepare()
    models.train(depth=2)
    models.declare(gate={"mode": "dry_run"})
    assert models.judge()[:2] == ("would_promote", None)
    assert models.alias is None
    models.declare(gate={"mode": "disabled"})
    assert models.judge()[:2] == ("gate_disabled", "1")
    models.train(depth=1, trees=1)
    outcome, champion, reason = models.judge()
    assert (outcome, champion) == ("gate_disabled", "2")
    assert "would have been kept out (not_better): roc_auc 0." in reason
    assert models.alias.version == "2"


@pytest.mark.slow
def test_rows_and_features_that_have_changed_since_the_champion(models):
    """The champion has learned from rows that are tested on now, and a feature of its is gone."""
    models.prepare(rows=400)
    models.train(depth=1, trees=1)
    models.judge()
    models.prepare()
    models.train(depth=3)
    assert models.judge()[0] in ("better", "not_better")
    known = set(models.store.read("training_set", "all", version=0)[0].query("split == 'train'")["patient"])
    tested = models.store.read("training_set", "all")[0].query("split == 'test'")["patient"]
    assert models.history["rows"].iloc[-1] == len(set(tested) - known)

    models.table = models.table.rename(columns={"mean_radius": "extra"})
    models.declare()
    models.prepare()
    models.train(depth=4)
    assert models.judge()[0] in ("better", "not_better")
    assert models.history["rows"].iloc[-1] > 10
    models.declare(key=[])
    models.prepare()
    models.train(depth=5)
    outcome, _, reason = models.judge()
    assert outcome == "not_comparable"
    assert "give key, the columns that identify a row, in the declaration" in reason
    row = models.history.iloc[-1]
    assert row[["challenger_score", "champion_score", "rows", "confidence"]].isna().all()


def test_a_class_that_only_one_of_them_knows(models):
    models.table.loc[:40, "outcome"] = "unclear"
    models.declare(metrics=["accuracy"])
    models.prepare()
    models.train(depth=2)
    models.judge()
    models.table = models.table.replace({"outcome": {"unclear": "benign"}})
    models.declare(metrics=["accuracy"])
    models.prepare()
    models.train(depth=2)
    outcome, champion, reason = models.judge()
    assert (outcome, champion) == ("not_comparable", "1")
    assert "champion version 1 knows the classes 'benign', 'malignant', 'unclear'." in reason
    assert "decide once with mode: disabled" in reason.lower()


def test_a_champion_whose_file_is_gone_makes_way(models):
    models.prepare()
    models.train(depth=4)
    models.judge()
    models.file_of("1").unlink()
    models.train(depth=1, trees=1)
    outcome, champion, reason = models.judge(beat_baseline=False)
    assert (outcome, champion) == ("champion_unusable", "2")
    assert "there is no file model.skops" in reason


def test_what_a_champion_learned_from_may_be_gone(models):
    models.prepare()
    models.train(depth=2)
    models.judge()
    version = models.tracker.registry.get("all", "1")
    client = MlflowClient(models.tracker.tracking_uri)
    client.set_model_version_tag("cancer.all", version.version, "data_version", "0" * 64)
    models.train(depth=3)
    outcome, champion, reason = models.judge()
    assert (outcome, champion) == ("not_comparable", "1")
    assert reason.startswith(
        "What champion version 1 has learned from can't be read, so that no row is known to be new"
    )


def test_a_forged_or_older_challenger_is_refused(models):
    models.prepare()
    models.train(depth=2)
    models.train(depth=3)
    digest = models.tracker.registry.get("all", "1").model_digest
    for metadata in ({"model_version": "2", "model_digest": digest}, {"model_version": "1", "model_digest": "0" * 64}):
        models.store.write("trained_model", "all", pd.DataFrame({"row": [0]}), metadata=metadata)
        with pytest.raises(ModelRefused, match="isn't the model that the table trained_model names"):
            models.judge()
    with pytest.raises(TableNotFound, match="champion_model"):
        _ = models.history


def test_a_bad_rule_is_refused_before_any_work(models):
    for given in ({"margin": -1}, {"confidence": 1.5}, {"beat_baseline": "yes"}, {"margn": 1}):
        with pytest.raises(ParameterError, match=next(iter(given))):
            models.judge(**given)
