"""Declarative automation: the conditions under which an asset is remade, evaluated for all partitions at once."""

import warnings

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.spec import steps as names


def keep_current(model: OfModel) -> dg.AutomationConditionSensorDefinition:
    """Make the sensor that evaluates the conditions of a model's predictions and their quality."""
    steps = [names.PREDICTIONS, names.PREDICTION_QUALITY]
    with warnings.catch_warnings():
        # Evaluating in the code location is a beta. The exact pin of dagster, and the tests, guard against changes.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.AutomationConditionSensorDefinition(
            model.named("keep_predictions_current"),
            target=[model.key(step) for step in steps if step in model.steps],
            description="Remakes predictions when their champion has changed, and their quality when data or "
            "predictions have, if no run does so already. Each asset's page shows its condition, and why it held or "
            "not.",
            default_status=dg.DefaultSensorStatus.RUNNING,
            use_user_code_server=True,  # one condition is our own
        )
