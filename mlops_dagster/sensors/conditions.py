"""Declarative automation: the conditions under which an asset is remade, evaluated for all symbols at once."""

import warnings

import dagster as dg

from mlops_dagster import pipelines

with warnings.catch_warnings():
    # Evaluating in the code location is a beta. The exact pin of dagster, and the tests, guard against what may change.
    warnings.simplefilter("ignore", dg.BetaWarning)
    keep_forecasts_current = dg.AutomationConditionSensorDefinition(
        "keep_forecasts_current",
        target=[pipelines.PRICE_FORECAST.name, pipelines.FORECAST_QUALITY.name],
        description="Remakes a symbol's forecast when its champion has changed, and its forecast quality when prices "
        "or forecast have, if no run does so already. Each asset's page shows its condition, and why it held or not.",
        default_status=dg.DefaultSensorStatus.RUNNING,
        use_user_code_server=True,  # one condition is our own
    )
