import dagster as dg
import pytest

from mlops_dagster.assets.of_model import PRICES
from mlops_dagster.sensors.poor_predictions import poor_predictions


class Scored:
    """Forecasts that are scored, and the sensor that looks at the scores."""

    def __init__(self, stack):
        self.stack = stack
        self.cursor = None
        self.look()

    def score(self, symbol, skill, days=20):
        metadata = {"skill_vs_persistence_20": skill, "days_scored": days}
        given = {name: value for name, value in metadata.items() if value is not None}
        event = dg.AssetMaterialization("forecast_quality", partition=symbol, metadata=given)
        self.stack.instance.report_runless_asset_event(event)

    def look(self):
        context = dg.build_sensor_context(instance=self.stack.instance, cursor=self.cursor)
        self.answer = poor_predictions(PRICES, self.stack.deployment)(context)
        self.cursor = self.answer.cursor
        for request in self.answer.run_requests:
            tags = {"dagster/partition": request.partition_key, "dagster/sensor_name": "poor_forecasts"}
            self.stack.instance.add_run(dg.DagsterRun(job_name="build_model_pipeline", tags=tags))
        return [request.partition_key for request in self.answer.run_requests]


@pytest.fixture
def scored(stack_of):
    return Scored(stack_of())


def test_poor_forecasts_lead_to_a_build_with_the_reason(scored):
    assert "From now on" in scored.answer.skip_reason.skip_message
    scored.score("ACME", -0.2)
    scored.score("BETA", 0.01)
    assert scored.look() == ["ACME"]
    (request,) = scored.answer.run_requests
    assert request.tags["built_because"] == (
        "Skill -0.200 over the last 20 scored days is below -0.05 (20 days were scored)."
    )
    assert dg.AssetKey("prices") not in request.asset_selection
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


@pytest.mark.parametrize(
    ("skill", "days"), [(-0.2, 19), (-0.05, 20), (float("nan"), 20), (None, 0), (-0.2, None), ("bad", 20)]
)
def test_what_is_no_reason(scored, skill, days):
    scored.score("ACME", skill, days)
    assert scored.look() == []


def test_the_deployment_says_what_is_poor_and_how_often(stack_of):
    scored = Scored(stack_of(retrain={"skill_below": 0.1, "days_scored": 5, "every_days": 1}))
    scored.score("ACME", 0.05, days=5)
    assert scored.look() == ["ACME"]
