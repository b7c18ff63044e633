"""The assets of `forecast_pipeline`: what the champion forecasts for each symbol, and how good its forecasts were.

Each runs the step of the same name on the deployment's compute.
"""

import dagster as dg

from mlops_dagster.assets.build_model import champion_model, prices, step_asset
from mlops_dagster.assets.conditions import champion_has_changed, forecasts_or_prices_have_changed
from mlops_dagster.assets.config import ForecastConfig, refuse_bad_config
from mlops_dagster.compute.local import Compute


@step_asset(
    deps=[prices, champion_model], kinds={"scikitlearn", "deltalake"}, automation_condition=champion_has_changed
)
def price_forecast(
    context: dg.AssetExecutionContext, config: ForecastConfig, compute: dg.ResourceParam[Compute]
) -> dg.MaterializeResult[None]:
    """What the champion says of one symbol's next price, with a prediction interval, one row per forecast.

    The table only grows: a forecast that was made is never rewritten, and the same one isn't made twice. Without a
    champion that can be loaded the step fails and the table stays as it was.
    """
    refuse_bad_config(context)
    return compute.run(context, "price_forecast", config.model_dump())


@step_asset(
    deps=[price_forecast, prices], kinds={"deltalake", "pandas"}, automation_condition=forecasts_or_prices_have_changed
)
def forecast_quality(
    context: dg.AssetExecutionContext, compute: dg.ResourceParam[Compute]
) -> dg.MaterializeResult[None]:
    """Each forecast of one symbol whose day has come, with the price that came, one row per day.

    The truth is the price that the forecast started from times the change since then, so that a later adjustment for
    dividends or splits isn't taken for an error. As long as no truth has come the table has no rows.
    """
    refuse_bad_config(context)
    return compute.run(context, "forecast_quality", {})
