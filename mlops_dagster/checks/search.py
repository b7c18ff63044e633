"""What Dagster checks about each symbol's searches."""

import dagster as dg

from mlops_dagster.assets.of_model import PRICES, OfModel
from mlops_dagster.assets.step_assets import grid_search_results, spark_grid_search_results
from mlops_dagster.checks.each_partition import check_of_each_partition
from mlops_dagster.stack.registry import Registry
from mlops_dagster.steps import Inputs
from mlops_dagster.steps.findings import Finding


def search_checks(asset: dg.AssetsDefinition, model: OfModel = PRICES) -> list[dg.AssetChecksDefinition]:
    """Make the checks of a search; where its trees were grown makes no difference to them."""
    table_name = asset.key.path[-1]

    @check_of_each_partition(asset, model=model)
    def no_candidate_failed(tables: Inputs, registry: Registry) -> Finding:
        """Every candidate of the grid could be fitted and scored on every fold."""
        frame, _ = tables.read(table_name)
        failed = frame[frame["mean_test_score"].isna()]
        first = "" if failed.empty else f"the first is {failed['params'].iloc[0]}."
        said = f"{len(failed)} of {len(frame)} have no score, {first}" if first else "All could be scored."
        return Finding(failed.empty, said, {"candidates": len(frame), "failed_candidates": len(failed)})

    @check_of_each_partition(asset, model=model)
    def best_is_inside_the_grid(tables: Inputs, registry: Registry) -> Finding:
        """No parameter's best value is the smallest or largest that was tried; a better one might lie beyond it."""
        from mlops_dagster.modeling.search_results import best_at_the_edge

        frame, _ = tables.read(table_name)
        edges = best_at_the_edge(frame, model.grid)
        said = " ".join(edges) or "The best candidate lies inside the grid."
        return Finding(not edges, said, {"at_the_edge": len(edges)})

    return [no_candidate_failed, best_is_inside_the_grid]


CHECKS = [*search_checks(grid_search_results), *search_checks(spark_grid_search_results)]
