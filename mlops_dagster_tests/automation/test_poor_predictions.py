import json

import dagster as dg
import pandas as pd
import pytest

from mlops_dagster.sensors.poor_predictions import poor_predictions

LONG_AGO = {"mean_squared_error": 1e-9, "mean_squared_error_baseline": 1e9}


class Scored:
    """Predictions whose truth has come, and the sensor that looks at how good they were."""

    def __init__(self, stack):
        self.stack = stack
        self.sensor = poor_predictions(stack.model, stack.deployment)
        self.cursor = None
        self.look()

    def score(self, symbol, skill, count=20):
        measured = {"mean_squared_error_last_100": 1 - skill, "mean_squared_error_baseline_last_100": 1.0}
        for table, metrics in (
            ("trained_model", LONG_AGO),
            ("prediction_quality", {"rows_scored": float(count), **measured}),
        ):
            rows = pd.DataFrame({"error": [0.0]})
            self.stack.store.write(table, symbol, rows, metadata={"metrics": json.dumps(metrics)})
        event = dg.AssetMaterialization(self.stack.model.key("prediction_quality"), partition=symbol)
        self.stack.instance.report_runless_asset_event(event)

    def look(self):
        self.answer = self.sensor(dg.build_sensor_context(instance=self.stack.instance, cursor=self.cursor))
        self.cursor = self.answer.cursor
        for request in self.answer.run_requests:
            tags = {"dagster/partition": request.partition_key, "dagster/sensor_name": self.sensor.name}
            self.stack.instance.add_run(dg.DagsterRun(job_name=self.sensor.job_name, tags=tags))
        return [request.partition_key for request in self.answer.run_requests]


@pytest.fixture
def scored(stack_of):
    return Scored(stack_of())


def test_poor_predictions_lead_to_a_build_with_the_reason(scored):
    assert "From now on" in scored.answer.skip_reason.skip_message
    scored.score("ACME", -0.2)
    scored.score("BETA", 0.01)
    assert scored.look() == ["ACME"]
    (request,) = scored.answer.run_requests
    assert request.tags["built_because"] == (
        "mean_squared_error is 1.2, that of the baseline (persistence) 1; the smaller the better. The skill of the "
        "last 100, -0.200, is below -0.05."
    )
    assert scored.stack.model.key("data") not in request.asset_selection
    assert scored.look() == []


def test_at_most_once_a_week(scored):
    scored.score("ACME", -0.2)
    assert scored.look() == ["ACME"]
    scored.score("ACME", -0.3)
    assert scored.look() == []
    assert "Its last build for such a reason was on" in scored.answer.skip_reason.skip_message
    scored.score("BETA", -0.3)
    assert scored.look() == ["BETA"]


def test_the_newest_score_of_a_symbol_counts(scored):
    scored.score("ACME", -0.2)
    scored.score("ACME", 0.2)
    assert scored.look() == []
    assert "none of their predictions is poor" in scored.answer.skip_reason.skip_message


@pytest.mark.parametrize(("skill", "count"), [(-0.2, 19), (-0.04, 20), (-0.2, 0)])
def test_what_is_no_reason(scored, skill, count):
    scored.score("ACME", skill, count)
    assert scored.look() == []


def test_the_deployment_says_what_is_poor_and_how_often(stack_of):
    scored = Scored(stack_of(retrain={"skill_below": 0.1, "days_scored": 5, "every_days": 1}))
    scored.score("ACME", 0.05, count=5)
    assert scored.look() == ["ACME"]
