"""The assets of the search pipelines: every candidate of a grid with its scores, found here or on Spark.

Each runs the step of the same name on the deployment's compute.
"""

from typing import Any

import dagster as dg

from mlops_dagster.assets.build_model import step_asset, training_set
from mlops_dagster.assets.config import SearchConfig, refuse_bad_config, search_parameters
from mlops_dagster.compute.local import Compute


@step_asset(deps=[training_set], kinds={"scikitlearn", "deltalake", "mlflow"})
def grid_search_results(
    context: dg.AssetExecutionContext, config: SearchConfig, compute: dg.ResourceParam[Compute]
) -> dg.MaterializeResult[None]:
    """Every candidate of a grid of hyper-parameters with its cross-validated scores, one row each, for one symbol.

    The scores are exactly those of scikit-learn's `GridSearchCV`; only trees that differ are grown. Candidates are
    scored on the training rows alone, so the test rows stay unseen. The best parameters, heat map, parallel coordinates
    and learning curve are metadata; MLflow has one run per search.
    """
    refuse_bad_config(context)
    return compute.run(context, "grid_search_results", _given(config))


@step_asset(deps=[training_set], kinds={"spark", "deltalake", "mlflow"})
def spark_grid_search_results(
    context: dg.AssetExecutionContext, config: SearchConfig, compute: dg.ResourceParam[Compute]
) -> dg.MaterializeResult[None]:
    """The same table as grid_search_results, its trees grown on Spark: local, a standalone master, Connect, Databricks.

    Which Spark is the deployment's choice (`spark.master`). The scores are the same up to the last digit.
    """
    refuse_bad_config(context)
    return compute.run(context, "spark_grid_search_results", _given(config))


def _given(config: SearchConfig) -> dict[str, Any]:
    given = search_parameters(config.model_dump())
    if "grid" in given:
        del given["preset"]  # Dagster has filled in the default; refuse_bad_config has seen to what was really given
    return given
