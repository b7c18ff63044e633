"""What a declared model's champion predicts, and how good that was when the truth has come; on real tables."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor

from mlops_dagster.errors import MlopsError, ParameterError
from mlops_dagster.shell.serve import of_declared
from mlops_dagster.spec.steps import pipelines_of, steps_of
from mlops_dagster.steps.champion import NoChampion, load_champion
from mlops_dagster.steps.inputs import Inputs
from mlops_dagster.steps.predict import prediction_quality, predictions
from mlops_dagster.steps.questions import questions_of
from mlops_dagster_tests.modeling.conftest import demand, lagged  # noqa: F401 a fixture
from mlops_dagster_tests.test_declared_promotion import TEST, Models, table  # noqa: F401 a fixture


@pytest.fixture
def models(home, table):  # noqa: F811 the fixture
    table.loc[500:, "outcome"] = None
    return Predicting(home, table)


class Predicting(Models):
    """The same, with the steps that come after the gate."""

    output = ("class", "probabilities")

    def declare(self, **said):
        super().declare(**{"predictions": {"output": [*self.output]}} | said)

    def prepare(self, rows=None, **given):
        super().prepare(rows, **given)
        self.store.write("data", "all", self.table, metadata={"origin": "the test"})

    def predict(self, **given):
        return predictions(self.declaration, "all", given, store=self.store, tracker=self.tracker, origin=TEST)

    def answer(self, question):
        tables = Inputs("all", self.store, known=steps_of(self.declaration))
        return questions_of(self.declaration)[question](tables, self.tracker.registry)

    def quality(self):
        return prediction_quality(self.declaration, "all", {}, store=self.store)


def test_predictions_are_made_once_and_scored_when_the_truth_comes(models, table):  # noqa: F811
    models.prepare()
    with pytest.raises(NoChampion, match=r"^cancer has no champion: no model was judged yet\. Build one: mlops"):
        models.predict()
    models.train(depth=4, trees=20)
    models.judge()
    report = models.predict()
    assert (report.facts["rows_appended"], report.facts["champion"]) == (69, "1")
    assert report.facts["summary"] == "69 predictions made."
    assert report.metrics["most_drift"] < 0.5
    assert report.facts["drift_summary"].endswith(
        "of its last 69 values are none of the usual 99% of those in training."
    )
    made, version = models.store.read("predictions", "all")
    assert list(made) == [
        *("patient", "class", "probability_benign", "probability_malignant", "model_version", "model_digest"),
        *("inputs_digest", "made_at", "by", "run_id"),
    ]
    assert made["patient"].tolist() == list(range(500, 569))
    assert made["probability_benign"].add(made["probability_malignant"]).to_numpy() == pytest.approx(1)
    assert_it_is_served(models)
    again = models.predict()
    assert again.table.version == version.version
    assert models.answer("Are the predictions up to date?").good
    assert again.facts["summary"] == "0 predictions made, 69 were there already."

    waiting = models.quality()
    assert waiting.facts["summary"] == "Nothing to score yet: no truth has come. 69 wait for their truth."
    assert waiting.metrics == {"rows_scored": 0.0}
    # A row whose input has changed is predicted anew, and the newest counts; truth comes for all but nine.
    models.table.loc[568, models.table.columns[0]] += 1.0
    models.prepare()
    assert models.answer("Are the predictions up to date?").numbers["rows_waiting"] == 1
    assert models.predict().facts["rows_appended"] == 1
    truth = np.where(models.tracker.registry.get("all", "1") and np.arange(500, 560) % 7 == 0, "malignant", "benign")
    models.table.loc[500:559, "outcome"] = truth
    models.prepare()
    report = models.quality()
    scored, _ = models.store.read("prediction_quality", "all")
    assert (len(scored), report.facts["rows_waiting"]) == (60, 9)
    assert (scored["truth"] == truth).all()
    assert report.metrics["roc_auc"] == report.metrics["roc_auc_last_100"]
    said = f"Of 60 predictions the truth has come: roc_auc is {report.metrics['roc_auc']:.4g}. 9 wait for their truth."
    assert report.facts["summary"] == said
    assert (scored["correct"] == (scored["class"] == scored["truth"])).all()


def assert_it_is_served(models):
    """The example works, and a row that is no row of the model's is refused by its column."""
    tables = Inputs("all", models.store, known=steps_of(models.declaration))
    model, champion = load_champion("all", tables, models.tracker.registry, models.declaration)
    served = of_declared(models.declaration, None, tables, model, champion)
    about = served.about("http://here")
    assert about.startswith("cancer: the champion is version 1. It predicts outcome.")
    assert "/forecast/" not in about
    example = re.search(r"--data '(.*)'", about)[1]
    newest = models.table[[*served.kinds]].tail(1)
    assert served.predict(example.encode(), "application/json") == {"predictions": model.predict(newest).tolist()}
    with pytest.raises(ParameterError, match=rf"^{newest.columns[0]}='much' \(str\): in row 1, give a finite number"):
        served.predict(example.replace(str(newest.iloc[0, 0]), '"much"', 1).encode(), "application/json")


def test_what_cant_be_predicted_or_scored_is_said(models):
    models.prepare()
    models.train(depth=3)
    models.judge()
    models.declare(features=list(models.table.columns[1:8]))
    with pytest.raises(MlopsError, match=r"champion of cancer asks for features that are no longer made: mean_ra"):
        models.predict()
    models.declare(key=[])
    assert models.predict().facts["rows_appended"] == 69
    assert models.predict().facts["rows_appended"] == 0
    pipeline = next(one for one in pipelines_of(models.declaration) if one.name == "cancer_predict_pipeline")
    assert [step.name for step in pipeline.steps] == ["data", "predictions"]  # which row's the truth is nobody knows
    assert "Are they better than the baseline?" not in questions_of(models.declaration)
    models.declare(metrics=["roc_auc"], predictions={"output": ["class"]})
    models.table["outcome"] = models.table["outcome"].fillna("benign")
    models.prepare()
    report = models.predict()
    assert report.facts["rows_predicted"] == 0
    assert report.facts["summary"].startswith("Nothing to predict: every row's outcome is known. Add rows without it")


def test_rows_of_a_file_of_their_own_need_no_target(models, tmp_path):
    models.prepare()
    models.train(depth=3)
    models.judge()
    file = tmp_path / "new.csv"
    models.table.drop(columns="outcome").head(25).assign(patient=range(1000, 1025)).to_csv(file, index=False)
    models.declare(predictions={"output": ["class"], "data": {"files": {"path": str(file)}}})
    report = models.predict()
    assert report.facts["rows_appended"] == 25
    assert str(file) in report.facts["origin"]
    made, _ = models.store.read("predictions", "all")
    assert made["patient"].tolist() == list(range(1000, 1025))
    # The data has no such patients yet.
    assert models.quality().facts["rows_waiting"] == 25


class Forecasting(Predicting):
    """Two shops' sales in seven days: `lagged` of their table, with an interval."""

    def declare(self, **said):
        base = {
            "key": ["shop", "day"],
            "time": "day",
            "group": "shop",
            "target": {"column": "sales", "horizon": 7, "learn": "difference"},
            "features": "mlops_dagster_tests.modeling.conftest:lagged",
            "split": {"kind": "chronological", "test_size": 0.3},
            "metrics": ["neg_root_mean_squared_error"],
            "baseline": {"kind": "persistence"},
            "gate": {},
            "predictions": {"output": ["value", "interval"], "interval": 0.8},
            "plain_names": True,
        }
        super().declare(**(base | said))

    def prepare(self, rows=None, **given):
        super().prepare(rows, features=lagged, **given)

    Forest = RandomForestRegressor


def test_forecasts_with_intervals(home, demand):  # noqa: F811
    models = Forecasting(home, demand.fillna({"sales": 90.0}))
    later = models.table["day"].max() - pd.Timedelta("7D")
    whole = models.table
    models.table = whole[whole["day"] <= later].reset_index(drop=True)
    models.prepare()
    models.train(depth=4, trees=10)
    assert models.judge(beat_baseline=False)[0] == "first"
    report = models.predict()
    assert report.facts["rows_appended"] == 14
    first, last = (f"{later + pd.Timedelta(days=one):%Y-%m-%d}" for one in (1, 7))
    assert report.facts["summary"] == f"14 predictions made for {first} to {last}."
    assert report.facts["truth_time_counted"] == "as regular as those before (D)"
    assert report.facts["interval"].startswith("The intervals hold 80 % of truths as long as the rows are like the ")
    made, _ = models.store.read("predictions", "all")
    assert ((made["lower"] < made["value"]) & (made["value"] < made["upper"])).all()
    assert set(made["horizon"]) == {7}
    assert (made["truth_time"] == made["day"] + pd.Timedelta("7D")).all()
    assert not made["late"].any()
    # Those of before, when nobody wrote down for when they are.
    models.store.write("predictions", "all", made.drop(columns=["truth_time", "late"]))
    assert models.quality().facts["rows_waiting"] == 14
    models.table = whole
    models.prepare()
    assert models.answer("Are the predictions up to date?").said.endswith(" Run predict_pipeline.")
    report = models.quality()
    scored, _ = models.store.read("prediction_quality", "all")
    assert len(scored) == 14
    expected = whole.set_index(["shop", "day"])["sales"]
    for _, row in scored.iterrows():
        assert row["truth"] == expected[row["shop"], row["day"] + pd.Timedelta("7D")]
    assert report.metrics["root_mean_squared_error"] == pytest.approx(np.sqrt(np.mean(scored["error"] ** 2)))
    stays = np.sqrt(np.mean((scored["current"] - scored["truth"]) ** 2))  # on the same rows
    assert report.metrics["root_mean_squared_error_baseline_last_100"] == pytest.approx(stays)
    assert models.answer("Are they better than the baseline?").good is None  # fourteen are too few
    assert report.metrics["coverage"] == scored["inside"].mean()
    assert report.metrics["interval"] == pytest.approx(0.8)
    assert "late" not in report.facts["summary"]
    # Another level is another prediction, three days were missed, and one is no longer there.
    models.table = whole[whole["day"] != later].reset_index(drop=True)
    models.prepare()
    assert models.predict(interval=0.5, catch_up=9).facts["rows_appended"] == 20
    made, _ = models.store.read("predictions", "all")
    assert made["late"].tolist() == [False] * 14 + [True] * 6 + [False] * 14
    report = models.quality()
    assert report.facts["summary"].endswith("6 were made late, when the truth was known. 16 wait for their truth.")
    scored, _ = models.store.read("prediction_quality", "all")
    late = scored[scored["late"]]
    days = late["truth_time"] - late["day"]
    assert days.dt.days.tolist() == [7, 7, 7, 7, 8, 8]
