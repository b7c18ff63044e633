"""The assets of `build_model_pipeline`: prices, training set and trained model of each symbol.

Each is one call to the step of the same name. What doesn't belong here: any work, and any wiring.
"""

import dagster as dg

from mlops_dagster import pipelines, steps
from mlops_dagster.assets.config import ForestConfig, PricesConfig, TrainingSetConfig, refuse_bad_config
from mlops_dagster.assets.partitions import SYMBOLS
from mlops_dagster.assets.report import to_result
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import Origin, Tracker

OWNERS = ["team:mlops"]


@dg.asset(
    partitions_def=SYMBOLS,
    group_name="data",
    kinds={"deltalake", "pandas"},
    owners=OWNERS,
    code_version=steps.step_code_version("prices"),
)
def prices(
    context: dg.AssetExecutionContext,
    config: PricesConfig,
    deployment: dg.ResourceParam[Deployment],
    store: dg.ResourceParam[Store],
) -> dg.MaterializeResult[None]:
    """Daily prices of one symbol: open, high, low, close, adjusted close and volume, checked row by row.

    Dates are unique and increasing, prices positive and finite, High and Low enclose the others. Rows that break the
    contract are refused as a whole; nothing is filled in.
    """
    refuse_bad_config(context)
    given = deployment.price_parameters(config.model_dump())
    return to_result(steps.prices(context.partition_key, given, store=store))


@dg.asset(
    deps=[prices],
    partitions_def=SYMBOLS,
    group_name="data",
    kinds={"deltalake", "pandas"},
    owners=OWNERS,
    code_version=steps.step_code_version("training_set"),
)
def training_set(
    context: dg.AssetExecutionContext, config: TrainingSetConfig, store: dg.ResourceParam[Store]
) -> dg.MaterializeResult[None]:
    """Features, target and split of one symbol, one row per trading day.

    Recipe `honest` looks only back and keeps a gap of one horizon between training and test rows; recipe `article`
    repeats the blog's, whose shuffled split lets the future leak into the training rows.
    """
    refuse_bad_config(context)
    return to_result(steps.training_set(context.partition_key, config.model_dump(), store=store))


@dg.asset(
    deps=[training_set],
    partitions_def=SYMBOLS,
    group_name="models",
    kinds={"scikitlearn", "mlflow"},
    owners=OWNERS,
    code_version=steps.step_code_version("trained_model"),
)
def trained_model(
    context: dg.AssetExecutionContext,
    config: ForestConfig,
    store: dg.ResourceParam[Store],
    tracker: dg.ResourceParam[Tracker],
    deployment: dg.ResourceParam[Deployment],
) -> dg.MaterializeResult[None]:
    """A random forest that forecasts one symbol's price, evaluated on rows it has never seen.

    The model, its parameters, metrics and plots are in MLflow; the forecasts on the test rows are a table.
    """
    refuse_bad_config(context)
    origin = Origin("dagster", context.run.run_id, deployment.dagster_run_url(context.run.run_id))
    with steps.training_engine(deployment) as engine:
        report = steps.trained_model(
            context.partition_key, config.model_dump(), store=store, tracker=tracker, origin=origin, engine=engine
        )
    context.log.info(f"{pipelines.BUILD_MODEL.name}: {report.metrics}")
    return to_result(report)
