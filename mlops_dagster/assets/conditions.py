"""When the forecasts are remade without anybody asking: conditions of Dagster's declarative automation."""

import dagster as dg

from mlops_dagster import pipelines

_CHAMPION = dg.AssetKey(pipelines.CHAMPION_MODEL.name)
_at_rest = ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()


class ThereIsAChampion(dg.AutomationCondition[dg.AssetKey]):
    """Holds for the symbols whose last decision left a champion.

    Dagster has no condition that looks at what a materialisation says. This one is evaluated in the code location.
    """

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return "there is a champion"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Look at the last decision of each symbol that is still a candidate."""
        instance = context.asset_graph_view.instance
        with_champion = set()
        for symbol in context.candidate_subset.expensively_compute_partition_keys():
            wanted = dg.AssetRecordsFilter(_CHAMPION, asset_partitions=[symbol])
            for record in instance.fetch_materializations(wanted, limit=1).records:
                decision = record.asset_materialization
                champion = decision.metadata.get("champion") if decision else None
                if champion is not None and champion.value is not None:
                    with_champion.add(symbol)
        return dg.AutomationResult(
            context, true_subset=context.candidate_subset.compute_intersection_with_partition_keys(with_champion)
        )


# A champion's data version says which model it is: a gate that keeps a challenger out changes nothing.
champion_has_changed = (
    dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    .allow(dg.AssetSelection.assets(_CHAMPION))
    .with_label("the champion is another one")
    .since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & _at_rest
    # Last, since it is asked symbol by symbol, and only about those for which everything before holds.
    & ThereIsAChampion()
).with_label("remade when the champion has changed")

forecasts_or_prices_have_changed = (
    dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
    )
    .with_label("prices or forecast are others")
    .since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & _at_rest
).with_label("remade when prices or forecast have changed")
