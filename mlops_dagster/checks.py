"""What :mod:`mlops_dagster.steps.checks` asks about each partition, as Dagster's checks."""

import warnings
from collections.abc import Iterator, Mapping

import dagster as dg

from mlops_dagster.assets.many import evaluation_of, to_check
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.compute.inputs import many_partitions, newest_event, tables_of_run
from mlops_dagster.compute.report import said_of_check
from mlops_dagster.steps import checks
from mlops_dagster.steps.checks import Check


def checks_of(model: OfModel, assets: Mapping[str, dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Make the checks of a model's assets, given by their steps."""
    return [_check(one, model) for one in checks.checks_of(model.declaration) if one.step in assets]


def _check(check: Check, model: OfModel) -> dg.AssetChecksDefinition:
    """Make a check whose result is kept for each partition, so that one's can't hide another's.

    What a run of many partitions makes is checked where it is made, see :func:`mlops_dagster.assets.many.to_check`.
    """
    key = model.key(check.step)

    def of_each_partition(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        store, tracker = model.tools(context.resources)
        many = many_partitions(context)
        if not many:
            found = check.answer(tables_of_run(context, store, model.declaration), tracker.registry)
            yield dg.AssetCheckResult(**said_of_check(check, found))
            return
        for one in to_check(context.get_step_execution_context(), key, check.name, many):
            found = check.answer(tables_of_run(context, store, model.declaration, one), tracker.registry)
            evaluation = evaluation_of(check, found, key, one, newest_event(context.instance, key, one))
            context.op_execution_context.log_event(evaluation)  # type: ignore[arg-type]

    with warnings.catch_warnings():
        # Partitioned checks are a preview. The exact pin of dagster, and the tests, guard against what may change.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        spec = dg.AssetCheckSpec(
            check.name,
            asset=key,
            description=check.description,
            blocking=check.blocking,
            partitions_def=model.partitions,
        )
    return dg.multi_asset_check(
        name=f"{model.op(check.step)}_{check.name}",
        specs=[spec],
        can_subset=True,  # so that it may yield nothing
        required_resource_keys=model.tool_keys,
    )(of_each_partition)
