"""The assets of the search pipelines: every candidate of a grid with its scores, found here or on Spark.

Each is one call to the step of the same name. What doesn't belong here: any work, and any wiring.
"""

from typing import Any

import dagster as dg

from mlops_dagster import steps
from mlops_dagster.assets.build_model import OWNERS, training_set
from mlops_dagster.assets.config import SearchConfig, refuse_bad_config, search_parameters
from mlops_dagster.assets.partitions import SYMBOLS
from mlops_dagster.assets.progress import ProgressLines
from mlops_dagster.assets.report import to_result
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import Origin, Tracker


@dg.asset(
    deps=[training_set],
    partitions_def=SYMBOLS,
    group_name="search",
    kinds={"scikitlearn", "deltalake", "mlflow"},
    owners=OWNERS,
    code_version=steps.step_code_version("grid_search_results"),
)
def grid_search_results(
    context: dg.AssetExecutionContext,
    config: SearchConfig,
    store: dg.ResourceParam[Store],
    tracker: dg.ResourceParam[Tracker],
    deployment: dg.ResourceParam[Deployment],
) -> dg.MaterializeResult[None]:
    """Every candidate of a grid of hyper-parameters with its cross-validated scores, one row each, for one symbol.

    The scores are exactly those of scikit-learn's `GridSearchCV`; only trees that differ are grown. Candidates are
    scored on the training rows alone, so the test rows stay unseen. The best parameters, heat map, parallel coordinates
    and learning curve are metadata; MLflow has one run per search.
    """
    refuse_bad_config(context)
    return to_result(steps.grid_search_results(**_arguments(context, config, store, tracker, deployment)))


@dg.asset(
    deps=[training_set],
    partitions_def=SYMBOLS,
    group_name="search",
    kinds={"spark", "scikitlearn", "deltalake", "mlflow"},
    owners=OWNERS,
    code_version=steps.step_code_version("spark_grid_search_results"),
)
def spark_grid_search_results(
    context: dg.AssetExecutionContext,
    config: SearchConfig,
    store: dg.ResourceParam[Store],
    tracker: dg.ResourceParam[Tracker],
    deployment: dg.ResourceParam[Deployment],
) -> dg.MaterializeResult[None]:
    """The same table as grid_search_results, its trees grown on Spark: local, a standalone master, Connect, Databricks.

    Which Spark is the deployment's choice (`spark.master`). The scores are the same up to the last digit.
    """
    refuse_bad_config(context)
    from mlops_dagster.stack.spark import spark_engine

    arguments = _arguments(context, config, store, tracker, deployment)
    with spark_engine(deployment.spark) as engine:
        return to_result(steps.spark_grid_search_results(**arguments, engine=engine))


def _arguments(
    context: dg.AssetExecutionContext,
    config: SearchConfig,
    store: Store,
    tracker: Tracker,
    deployment: Deployment,
) -> dict[str, Any]:
    given = search_parameters(config.model_dump())
    if "grid" in given:
        del given["preset"]  # Dagster has filled in the default; refuse_bad_config has seen to what was really given
    return {
        "symbol": context.partition_key,
        "given": given,
        "store": store,
        "tracker": tracker,
        "origin": Origin("dagster", context.run.run_id, deployment.dagster_run_url(context.run.run_id)),
        "cache": deployment.state_dir / steps.SEARCH_CACHE,
        "progress": ProgressLines(context.log.info),
    }
