"""What Dagster checks about each symbol's searches."""

import dagster as dg

from mlops_dagster.assets.step_assets import grid_search_results, spark_grid_search_results
from mlops_dagster.checks.each_symbol import check_of_each_symbol, warning
from mlops_dagster.compute.inputs import tables_of_run
from mlops_dagster.stack.store import Store


def _search_checks(asset: dg.AssetsDefinition) -> list[dg.AssetChecksDefinition]:
    """Make the checks of a search; where its trees were grown makes no difference to them."""
    table_name = asset.key.to_user_string()

    @check_of_each_symbol(asset)
    def no_candidate_failed(
        context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
    ) -> dg.AssetCheckResult:
        """Every candidate of the grid could be fitted and scored on every fold."""
        frame, _ = tables_of_run(context, store).read(table_name)
        failed = frame[frame["mean_test_score"].isna()]
        return warning(
            failed.empty,
            "All could be scored."
            if failed.empty
            else f"{len(failed)} of {len(frame)} have no score, the first is {failed['params'].iloc[0]}.",
            candidates=len(frame),
            failed_candidates=len(failed),
        )

    @check_of_each_symbol(asset)
    def best_is_inside_the_grid(
        context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store]
    ) -> dg.AssetCheckResult:
        """No parameter's best value is the smallest or largest that was tried; a better one might lie beyond it."""
        from mlops_dagster.ml.search import best_at_the_edge

        frame, _ = tables_of_run(context, store).read(table_name)
        edges = best_at_the_edge(frame)
        return warning(not edges, " ".join(edges) or "The best candidate lies inside the grid.", at_the_edge=len(edges))

    return [no_candidate_failed, best_is_inside_the_grid]


CHECKS = [*_search_checks(grid_search_results), *_search_checks(spark_grid_search_results)]
