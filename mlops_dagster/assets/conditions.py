"""When predictions are remade without anybody asking: conditions of Dagster's declarative automation."""

from typing import Any

import dagster as dg

from mlops_dagster.spec import steps as names

_at_rest = ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()


class ThereIsAChampion(dg.AutomationCondition[dg.AssetKey]):
    """Holds for the partitions whose last decision left a champion.

    Dagster has no condition that looks at what a materialisation says. This one is evaluated in the code location.
    """

    @property
    def name(self) -> str:
        """What the UI calls it."""
        return "there is a champion"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Look at the last decision of each partition that is still a candidate."""
        view = context.asset_graph_view
        decisions = dg.AssetKey([*context.key.path[:-1], names.CHAMPION_MODEL])
        with_champion = set()
        for candidate in context.candidate_subset.expensively_compute_asset_partitions():
            partitions = None if candidate.partition_key is None else [candidate.partition_key]
            wanted = dg.AssetRecordsFilter(decisions, asset_partitions=partitions)
            for record in view.instance.fetch_materializations(wanted, limit=1).records:
                decision = record.asset_materialization
                champion = decision.metadata.get("champion") if decision else None
                if champion is not None and champion.value is not None:
                    with_champion.add(candidate)
        return dg.AutomationResult(
            context, true_subset=view.get_asset_subset_from_asset_partitions(context.key, with_champion)
        )


def champion_has_changed(champion: dg.AssetKey) -> dg.AutomationCondition[Any]:
    """Return the condition of what is made with a champion."""
    # A champion's data version says which model it is: a gate that keeps a challenger out changes nothing.
    return (
        dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
        .allow(dg.AssetSelection.assets(champion))
        .with_label("the champion is another one")
        .since_last_handled()
        & ~dg.AutomationCondition.any_deps_missing()
        & _at_rest
        # Last, since it is asked partition by partition, and only about those for which everything before holds.
        & ThereIsAChampion()
    ).with_label("remade when the champion has changed")


predictions_or_data_have_changed = (
    dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
    )
    .with_label("data or predictions are others")
    .since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & _at_rest
).with_label("remade when data or predictions have changed")
