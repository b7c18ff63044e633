"""Which tables an asset's step reads: those that its own Dagster run has made, or else what Dagster shows as inputs.

Of its own accord Dagster takes the newest materialisation of an input for the one that was read, whichever run made it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions.data_version import (
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.execution.context.data_version_cache import InputAssetVersionInfo
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.storage.tags import ASSET_RESUME_RETRY_TAG, RESUME_RETRY_TAG

from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Declaration
from mlops_dagster.stack.store import Store
from mlops_dagster.steps.inputs import Inputs

URI = "dagster/uri"
"""What a materialisation's metadata call the place of the table that was made."""
HANDED_ON = "mlops/inputs"


class Made(NamedTuple):
    """That a table was made: its ``version`` and ``digest``, unless an earlier version of this package made it."""

    pin: dict[str, Any] | None
    run_id: str
    timestamp: float


def partition_of(context: Any) -> str:
    """Return the partition of a step's or a check's context."""
    return str(context.partition_key) if context.has_partition_key else names.ALL


def many_partitions(context: Any) -> list[str]:
    """Return the partitions of a step's or a check's context whose run takes a range of them; of others none."""
    return list(context.partition_keys) if context.has_partition_key_range else []


def inputs_of(context: StepExecutionContext, store_root: str, model: Declaration) -> dict[str, dict[str, Any]]:
    """Return the tables that a step's run has made so far or, if it hasn't made one, what Dagster has of it.

    Parameters
    ----------
    context : StepExecutionContext
        The step's. What Dagster will record as its inputs is set to what is returned.
    store_root : str
        Where the tables are. What was made in another store isn't meant.
    model : Declaration
        Whose tables they are.

    Returns
    -------
    dict
        By the table's name its ``version`` and ``digest``. A table of which Dagster knows nothing isn't among them.
    """
    partition = _key_of(context)
    made, found = made_by_run(context), {}
    for asset in context.get_output_asset_keys():
        for key in context.job_def.asset_layer.get(asset).parent_keys:
            root = _root(key, store_root, model)
            there = made.get((key, partition)) or _latest(context.instance, key, partition, root)
            table = table_of(key, model)
            if there is None or there.pin is None or table is None:
                continue
            found[table] = there.pin
            context.log.info(f"It reads {table} version {there.pin['version']}, made by run {there.run_id}.")
            _record_as_input(context, key, there.run_id, there.timestamp)
    return found


def newest_of(
    instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey], partition: str, store_root: str, model: Declaration
) -> dict[str, dict[str, Any]]:
    """Return what Dagster has of a partition's tables, in the form of :func:`inputs_of`."""
    found = {}
    for key in keys:
        there = _latest(instance, key, partition, _root(key, store_root, model))
        if there is not None and there.pin is not None:
            found[key.path[-1]] = there.pin
    return found


def _root(key: dg.AssetKey, store_root: str, model: Declaration) -> str:
    owner = model.data_owner if key.path[-1] == names.DATA else model.name
    return f"{store_root.removesuffix(model.name)}{owner}"


def hand_on(run: dg.DagsterRun, inputs: dict[str, dict[str, Any]]) -> dg.DagsterRun:
    """Return the run as it is sent to where its events aren't known, with what :func:`inputs_of` has found here."""
    return run.with_tags({**run.tags, HANDED_ON: json.dumps(inputs)})


def handed_on(run: dg.DagsterRun) -> dict[str, dict[str, Any]]:
    """Return what was handed on with a run that was sent here."""
    inputs: dict[str, dict[str, Any]] = json.loads(run.tags.get(HANDED_ON, "{}"))
    return inputs


def tags_of_input(key: dg.AssetKey, version: dg.DataVersion | None, storage_id: int | None) -> dict[str, str]:
    """Return the tags by which a materialisation says what was read of an asset, and which event had made that."""
    return {
        get_input_data_version_tag(key): (version or DEFAULT_DATA_VERSION).value,
        get_input_event_pointer_tag(key): NULL_EVENT_POINTER if storage_id is None else str(storage_id),
    }


def tags_of_inputs(context: StepExecutionContext, asset: dg.AssetKey) -> dict[str, str]:
    """Return these tags for all that a step has read, see :func:`inputs_of`, as the instance here knows it."""
    tags: dict[str, str] = {}
    for key in context.job_def.asset_layer.get(asset).parent_keys:
        seen = context.maybe_fetch_and_get_input_asset_version_info(key)
        tags |= tags_of_input(key, seen.data_version if seen else None, seen.storage_id if seen else None)
    return tags


def tables_of_run(
    context: dg.AssetCheckExecutionContext, store: Store, model: Declaration, partition: str | None = None
) -> Inputs:
    """Return the tables as a check's run has made them; a check that is run alone sees those that are current.

    Parameters
    ----------
    partition : str, optional
        Whose. Not given: the run's.
    """
    step_context = context.get_step_execution_context()
    wanted = partition or _key_of(step_context)
    pins = {}
    for (key, of), made in made_by_run(step_context).items():
        table = table_of(key, model)
        if of == wanted and table is not None and made.pin is not None:
            pins[table] = made.pin
    return Inputs(wanted or names.ALL, store, pins, known=names.steps_of(model))


def table_of(key: dg.AssetKey, model: Declaration) -> str | None:
    """Return which of a model's tables an asset is, or None if it is another's."""
    *above, name = key.path
    owner = model.data_owner if name == names.DATA else model.name
    return name if above == [owner] and name in names.steps_of(model) else None


def event_of(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, pin: Mapping[str, Any]
) -> dg.EventLogRecord | None:
    """Return the newest event that says that a version of a table was made, among the last hundred of the table."""
    for limit in (1, 100):  # mostly it is the newest, and each is read with all that it says
        for record in _events(instance, key, partition, limit):
            if pin_of_event(record) == pin:
                return record
    return None


def newest_event(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> dg.EventLogRecord | None:
    """Return the newest event that says that an asset was made."""
    return next(iter(_events(instance, key, partition, 1)), None)


def _events(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, limit: int
) -> Sequence[dg.EventLogRecord]:
    wanted = dg.AssetRecordsFilter(key, asset_partitions=_these(partition))
    return instance.fetch_materializations(wanted, limit=limit).records


def resumes(run: dg.DagsterRun) -> bool:
    """Whether a run goes on with another after its failure."""
    return bool({RESUME_RETRY_TAG, ASSET_RESUME_RETRY_TAG} & set(run.tags))


def resumed_by(run: dg.DagsterRun | None, instance: dg.DagsterInstance) -> list[str]:
    """Return the ids of the runs that a run goes on with after their failure, the last first."""
    found = []
    while run is not None and run.parent_run_id is not None and resumes(run):
        found.append(run.parent_run_id)
        run = instance.get_run_by_id(run.parent_run_id)
    return found


def made_by_run(
    context: StepExecutionContext, *, with_parents: bool = True
) -> dict[tuple[dg.AssetKey, str | None], Made]:
    """Return the last materialisation of each asset and partition in the run, and in those that it re-executes."""
    found: dict[Any, Made] = {}
    run: dg.DagsterRun | None = context.dagster_run
    while run is not None:
        found = said_in(context.instance, run.run_id, dg.DagsterEventType.ASSET_MATERIALIZATION, _made_by) | found
        parent = run.parent_run_id if with_parents else None
        run = context.instance.get_run_by_id(parent) if parent else None
    return found


def _made_by(record: dg.EventLogRecord) -> tuple[tuple[dg.AssetKey, str | None], Made]:
    made = record.asset_materialization
    assert made is not None
    return (made.asset_key, made.partition), Made(pin_of_event(record), record.run_id, record.timestamp)


@dataclass
class _Said:
    up_to: str | None = None
    found: dict[Any, Any] = field(default_factory=dict)


_said = lru_cache(maxsize=8)(lambda run_id, kind: _Said())


def said_in(
    instance: dg.DagsterInstance,
    run_id: str,
    kind: dg.DagsterEventType,
    note: Callable[[dg.EventLogRecord], tuple[Any, Any]],
) -> dict[Any, Any]:
    """Return what a run's events of a kind say, the last where several say it of the same.

    They are many, and long: this process reads each once.

    Parameters
    ----------
    note : callable
        Of an event, of what it speaks and what it says.
    """
    said = _said(run_id, kind)
    events = instance.get_records_for_run(run_id, cursor=said.up_to, of_type=kind)
    said.found |= map(note, events.records)
    said.up_to = events.cursor
    return said.found


def _key_of(context: StepExecutionContext) -> str | None:
    return context.partition_key if context.has_partition_key else None


def _these(partition: str | None) -> list[str] | None:
    return None if partition is None else [partition]


def _latest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, store_root: str) -> Made | None:
    record = newest_event(instance, key, partition)
    made = record.asset_materialization if record is not None else None
    uri = made.metadata.get(URI) if made is not None else None
    if record is None or uri is None or not str(uri.value).startswith(f"{store_root}/"):
        return None
    return _made_by(record)[1]


def pin_of_event(record: dg.EventLogRecord | None) -> dict[str, Any] | None:
    """Return which version of a table an event says was made; nothing of one by an earlier version of this package."""
    made = record.asset_materialization if record is not None else None
    if made is None or "report" not in made.metadata:
        return None
    table: Any = made.metadata["report"].value
    return {name: table["table"][name] for name in ("version", "digest")}


def _record_as_input(context: StepExecutionContext, key: dg.AssetKey, run_id: str, made_at: float) -> None:
    """Let Dagster record this materialisation as the step's input, as it does with the newest, partitions hashed."""
    # In a run's own log events have other numbers than in that of all runs, which is meant.
    around = dg.AssetRecordsFilter(
        key, asset_partitions=_these(_key_of(context)), after_timestamp=made_at - 1, before_timestamp=made_at + 1
    )
    found = [one for one in context.instance.fetch_materializations(around, limit=100).records if one.run_id == run_id]
    if not found:
        return
    record = found[0]
    version = extract_data_version_from_entry(record.event_log_entry)
    # Of a partition Dagster keeps the digest of its version, of an asset without partitions the version itself.
    hashed = version
    if version is not None and context.has_partition_key:
        hashed = dg.DataVersion(hashlib.sha256(version.value.encode()).hexdigest())
    context._data_version_cache.input_asset_version_info[key] = InputAssetVersionInfo(
        record.storage_id,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        hashed,
        record.run_id,
        record.timestamp,
    )
