"""The assets of `build_model_pipeline`: prices, training set, trained model and champion of each symbol.

Each runs the step of the same name on the deployment's compute.
"""

from collections.abc import Callable
from typing import Any

import dagster as dg

from mlops_dagster import steps
from mlops_dagster.assets.config import ForestConfig, GateConfig, PricesConfig, TrainingSetConfig, refuse_bad_config
from mlops_dagster.assets.partitions import SYMBOLS
from mlops_dagster.compute.local import Compute


def step_asset(**more: Any) -> Callable[[Callable[..., dg.MaterializeResult[None]]], dg.AssetsDefinition]:
    """Declare the asset that runs the step of the function's name for each symbol; `more` is what `dg.asset` takes."""

    def declare(run: Callable[..., dg.MaterializeResult[None]]) -> dg.AssetsDefinition:
        asset: dg.AssetsDefinition = dg.asset(
            partitions_def=SYMBOLS,
            # One for all: of several, Dagster's graphs show closed boxes until somebody opens each.
            group_name="stock_prices",
            owners=["team:mlops"],
            code_version=steps.step_code_version(run.__name__),
            **more,
        )(run)
        return asset

    return declare


@step_asset(kinds={"deltalake", "pandas"})
def prices(
    context: dg.AssetExecutionContext, config: PricesConfig, compute: dg.ResourceParam[Compute]
) -> dg.MaterializeResult[None]:
    """Daily prices of one symbol: open, high, low, close, adjusted close and volume, checked row by row.

    Dates are unique and increasing, prices positive and finite, High and Low enclose the others. Rows that break the
    contract are refused as a whole; nothing is filled in.
    """
    refuse_bad_config(context)
    return compute.run(context, "prices", config.model_dump())


@step_asset(deps=[prices], kinds={"deltalake", "pandas"})
def training_set(
    context: dg.AssetExecutionContext, config: TrainingSetConfig, compute: dg.ResourceParam[Compute]
) -> dg.MaterializeResult[None]:
    """Features, target and split of one symbol, one row per trading day.

    Recipe `honest` looks only back and keeps a gap of one horizon between training and test rows; recipe `article`
    repeats the blog's, whose shuffled split lets the future leak into the training rows.
    """
    refuse_bad_config(context)
    return compute.run(context, "training_set", config.model_dump())


@step_asset(deps=[training_set], kinds={"scikitlearn", "mlflow"})
def trained_model(
    context: dg.AssetExecutionContext, config: ForestConfig, compute: dg.ResourceParam[Compute]
) -> dg.MaterializeResult[None]:
    """A random forest that forecasts one symbol's price, evaluated on rows it has never seen.

    The model, its parameters, metrics and plots are in MLflow; the forecasts on the test rows are a table.
    """
    refuse_bad_config(context)
    return compute.run(context, "trained_model", config.model_dump())


@step_asset(deps=[trained_model], kinds={"scikitlearn", "mlflow"})
def champion_model(
    context: dg.AssetExecutionContext, config: GateConfig, compute: dg.ResourceParam[Compute]
) -> dg.MaterializeResult[None]:
    """The model that one symbol's forecasts are made with, and every decision that made it so, one row each.

    The newest model takes the place only if it forecasts better than the one before, on the same rows that neither has
    learned from, and keeps the rules of the run config. The table is the truth; MLflow's alias `champion` follows it.
    """
    refuse_bad_config(context)
    return compute.run(context, "champion_model", config.model_dump())
