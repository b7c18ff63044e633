"""A run of many partitions: its first asset's step runs the whole chain for each, and tells Dagster as they are done.

Each partition gets its own events, with its own metadata, data version and checks. The good ones stay, and go on to the
end of the chain, when others fail; those are named with their reasons when all are done. The steps that come after find
that all is made. So a re-execution from failure makes exactly what is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    extract_data_version_from_entry,
)
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from mlops_dagster.assets.of_model import OfModel, deps_of
from mlops_dagster.chains import GivenByStep, Outcome, Task
from mlops_dagster.compute.failures import to_failure
from mlops_dagster.compute.inputs import (
    event_of,
    made_by_run,
    newest_event,
    newest_of,
    pin_of_event,
    resumes,
    said_in,
    table_of,
    tags_of_input,
)
from mlops_dagster.compute.report import said_of_check, to_result
from mlops_dagster.errors import MlopsError
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.parameters import check_partition
from mlops_dagster.stack.store import store_of
from mlops_dagster.steps.checks import Check, checks_of

if TYPE_CHECKING:
    from dagster._core.execution.context.system import StepExecutionContext

    from mlops_dagster.steps import StepReport
    from mlops_dagster.steps.questions import Finding

NO_EVENT: Mapping[str, Any] = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
"""The metadata of a result for which Dagster writes no event of its own: each partition has had its event already."""
_FAILED_PARTITIONS = "failed_partitions"  # in the metadata of the failure
_NAMED = 20  # of the partitions that failed
_OF_DATA = {names.TRAINING_SET, names.PREDICTIONS, names.PREDICTION_QUALITY}


def run_many(
    context: dg.AssetExecutionContext,
    model: OfModel,
    step: str,
    partitions: list[str],
    given: GivenByStep,
) -> dg.MaterializeResult[None]:
    """Run what a run's partitions still need, from a step on.

    Parameters
    ----------
    given : mapping
        Of each step of the run.

    Raises
    ------
    dagster.Failure
        Naming the partitions that failed, after all are done.
    """
    for one in partitions:
        check_partition(one)
    run = _Run(context, model)
    if models := run.left_to(step):
        context.log.info(f"It is made with the steps of {', '.join(models)}.")
        return dg.MaterializeResult(metadata=NO_EVENT)
    compute = getattr(context.resources, model.compute)
    tasks = run.missing(partitions, step, store_of(compute.deployment, model.declaration).root)
    if not tasks:
        context.log.info("All of it was made by an earlier step of this run, or by the run that this one goes on with.")
        return dg.MaterializeResult(metadata=NO_EVENT)
    steps = list(dict.fromkeys(step for task in tasks for step in task.steps))
    context.log.info(f"{len(tasks)} partitions: {', '.join(steps)}.")
    failed: list[Outcome] = []
    done = itertools.count(1)

    def receive(outcome: Outcome) -> None:
        run.tell(outcome)
        at = f"{next(done)} of {len(tasks)}: {outcome.partition}"
        if outcome.failure is None:
            context.log.info(at)
        else:
            failed.append(outcome)
            context.log.error(f"{at} failed in {outcome.step}: {outcome.failure}\n{outcome.failure.traceback}".rstrip())

    try:
        compute.run_many(context, tasks, {one: given[one] for one in steps}, receive)
    except MlopsError as error:
        raise to_failure(error) from error
    if failed:
        raise dg.Failure(
            f"{_named(failed, len(partitions))} The others are made. Re-execute the run from failure, and only these "
            "are tried again.",
            metadata={_FAILED_PARTITIONS: _listed(failed)},
            allow_retries=False,
        )
    return dg.MaterializeResult(metadata=NO_EVENT)


def to_check(context: StepExecutionContext, key: dg.AssetKey, check: str, partitions: list[str]) -> list[str]:
    """Return for which partitions a check of a run of many is still to be answered.

    What the run makes is checked where it is made. What the run that it goes on with has made isn't made again; and all
    are left if the run makes nothing.
    """
    answered = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    answers = said_in(context.instance, context.run_id, answered, _of_answer)
    done = {partition for of, name, partition in answers if (of, name) == (key, check)}
    if "__".join(key.path) in _planned(context):
        done |= set(partitions) - {partition for of, partition in made_by_run(context) if of == key}
    return [one for one in partitions if one not in done]


def _of_answer(record: dg.EventLogRecord) -> tuple[tuple[dg.AssetKey, str, str | None], bool]:
    event = record.event_log_entry.dagster_event
    assert event is not None
    answer = event.asset_check_evaluation_data
    return (answer.asset_key, answer.check_name, answer.partition), answer.passed


def _planned(context: StepExecutionContext) -> set[str]:
    """Return what run config calls the steps of a run; one that goes on after a failure has all that had been planned.

    Those that had been done for the partitions that were whole aren't among the steps that Dagster repeats.
    """
    run = context.dagster_run
    if run.step_keys_to_execute is None or resumes(run):
        return {node.name for node in context.job_def.nodes}
    return set(run.step_keys_to_execute)


def materialization_of(
    instance: dg.DagsterInstance,
    model: OfModel,
    report: StepReport,
    description: str | None = None,
    newest: Mapping[dg.AssetKey, dg.EventLogRecord | None] = {},
) -> dg.AssetMaterialization:
    """Return the event by which an asset says what its step has made, with all that Dagster adds to that of a run.

    Parameters
    ----------
    newest : mapping
        The newest events of assets, as far as they are known.
    """
    key, partition = model.key(report.step), None if model.partitions is None else report.symbol
    result = to_result(report, model.declaration)
    assert result.data_version is not None
    tags = {
        CODE_VERSION_TAG: model.code_version(report.step),
        DATA_VERSION_TAG: result.data_version.value,
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
    }
    for parent in deps_of(model, report.step):
        pin = report.inputs.get(table_of(parent, model.declaration) or "")
        if pin is None:  # a rollback reads no table
            there = instance.get_latest_data_version_record(parent, partition_key=partition)
        else:
            there = newest.get(parent)
            there = there if pin_of_event(there) == pin else event_of(instance, parent, partition, pin)
        version = there and extract_data_version_from_entry(there.event_log_entry)
        tags |= tags_of_input(parent, version, there.storage_id if there else None)
    return dg.AssetMaterialization(
        key, description=description, partition=partition, metadata=result.metadata, tags=tags
    )


def evaluation_of(
    check: Check, found: Finding, key: dg.AssetKey, partition: str, made: dg.EventLogRecord | None
) -> dg.AssetCheckEvaluation:
    """Return the event by which a check says what it found of a partition, as the asset's newest event has made it."""
    about = made and AssetCheckEvaluationTargetMaterializationData(
        storage_id=made.storage_id, run_id=made.run_id, timestamp=made.timestamp
    )
    return dg.AssetCheckEvaluation(
        asset_key=key,
        target_materialization_data=about,
        blocking=check.blocking,
        partition=partition,
        **said_of_check(check, found),
    )


class _Run:
    def __init__(self, context: dg.AssetExecutionContext, model: OfModel) -> None:
        self.context, self.model, self.instance = context, model, context.instance
        self.step_context = context.get_step_execution_context()
        self.planned = _planned(self.step_context)
        self.checks = {one.name: one for one in checks_of(model.declaration)}

    def missing(self, partitions: list[str], step: str, store_root: str) -> list[Task]:
        """Return what is still to be made of each partition, of all that the run is to make of the model."""
        model, declaration = self.model, self.model.declaration
        made = made_by_run(self.step_context, with_parents=resumes(self.context.run))
        ours = [one for one in model.steps if model.op(one) in self.planned and not self._waits(one, step)]
        tasks = []
        for partition in partitions:
            there = {one: made.get((model.key(one), partition)) for one in model.steps}
            pins = {step: one.pin for step, one in there.items() if one is not None and one.pin}
            todo = tuple(one for one in ours if one not in pins)
            read = {key for one in todo for key in deps_of(model, one) if table_of(key, declaration)}
            above = [key for key in read if key.path[-1] not in {*todo, *pins}]
            pins |= newest_of(self.instance, above, partition, store_root, declaration)
            if todo:
                tasks.append(Task(partition, todo, pins))
        return tasks

    def _waits(self, one: str, step: str) -> bool:
        """Whether a step's own asset has to begin, since it reads another asset that may not have been made yet."""
        said = self.model.declaration.predictions
        later = {names.PREDICTIONS, names.PREDICTION_QUALITY}
        return bool(said and said.data and said.data.asset) and one in later and step not in later

    def tell(self, outcome: Outcome) -> None:
        """Tell Dagster what came of a partition."""
        newest: dict[dg.AssetKey, dg.EventLogRecord | None] = {}
        for report in outcome.reports:
            key = self.model.key(report.step)
            self.context.log_event(materialization_of(self.instance, self.model, report, newest=newest))
            newest[key] = newest_event(self.instance, key, outcome.partition)
            for name, found in outcome.findings.items():
                if (check := self.checks[name]).step == report.step:
                    self.context.log_event(evaluation_of(check, found, key, outcome.partition, newest[key]))

    def left_to(self, step: str) -> list[str]:
        """Return the models whose own steps make a table that they share, as the first of their chain."""
        layer, key = self.step_context.job_def.asset_layer, self.model.key(step)
        below = [one for one in layer.executable_asset_keys if key in layer.get(one).parent_keys]
        planned = [one.path for one in below if "__".join(one.path) in self.planned]
        if not self.model.dataset or any(path[-1] not in _OF_DATA for path in planned):
            return []
        return sorted({path[0] for path in planned})


def _named(failed: list[Outcome], of: int) -> str:
    some = "; ".join(f"{one.partition} ({one.step}): {one.failure}" for one in failed[:_NAMED])
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return f"{len(failed)} of {of} partitions failed. {some}{more}"


def _listed(failed: list[Outcome]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [dg.TableRecord({"partition": one.partition, "step": one.step, "why": str(one.failure)}) for one in failed]
    )


def failed_in(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, str]:
    """Return of a failure of many partitions which failed, and why."""
    listed = metadata.get(_FAILED_PARTITIONS)
    records = [one.data for one in listed.records] if isinstance(listed, dg.TableMetadataValue) else []
    return {str(one["partition"]): f"{one['step']}: {one['why']}" for one in records}
