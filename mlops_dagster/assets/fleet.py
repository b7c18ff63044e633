"""The asset `fleet_report` of a model with partitions: all of them in a table and a picture, and the worst."""

import base64
import re
from collections.abc import Sequence
from urllib.parse import quote

import dagster as dg

from mlops_dagster.assets.many import failed_in
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.assets.step_assets import OWNERS
from mlops_dagster.spec import steps as names
from mlops_dagster.stack.provenance import code_version
from mlops_dagster.stack.tracking import MlflowTracker
from mlops_dagster.steps.checks import checks_of
from mlops_dagster.steps.fleet import Fleet, fleet_of

NAME = "fleet_report"
_NAMED = 20  # of the partitions without a model
_WIDE = 250  # characters of a reason


def fleet_report(model: OfModel) -> dg.AssetsDefinition:
    """Make the asset. It is no step: nothing is made of it, and no pipeline makes it."""
    partitions = model.partitions
    assert partitions is not None
    reads = [one for one in (names.CHAMPION_MODEL, names.PREDICTION_QUALITY) if one in model.steps]

    @dg.asset(
        key=model.key(NAME),
        deps=[model.key(one) for one in reads],
        group_name=model.group,
        kinds={"deltalake"},
        owners=OWNERS,
        code_version=code_version("steps/fleet.py"),
        description=f"All partitions of {model.name} at once: who has a champion and who hasn't, how much better than "
        "the baseline they are, how old, what failed or has drifted, and the worst ten. Materialize it to renew it; it "
        "reads the tables and takes seconds.",
        required_resource_keys=model.tool_keys,
    )
    def report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        store, tracker = model.tools(context.resources)
        keys = partitions.get_partition_keys(dynamic_partitions_store=context.instance)
        failed, drifted = _failed(context.instance, model, keys), _drifted(context.instance, model, keys)
        fleet = fleet_of(model.declaration, store, keys, failed=failed, drifted=drifted)
        return dg.MaterializeResult(metadata=_metadata(fleet, model, tracker))

    return report


def _failed(instance: dg.DagsterInstance, model: OfModel, keys: Sequence[str]) -> dict[str, str]:
    """Return of which partitions the last build failed, and what the run says of each."""
    key, partitions = model.key(names.CHAMPION_MODEL), model.partitions
    assert partitions is not None
    status = instance.get_status_by_partition(key, keys, partitions) or {}
    there = [one for one in keys if (at := status.get(one)) is not None and at.value == "FAILED"]
    storage = instance.event_log_storage
    tried = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key) if there else {}
    runs = {one: tried[one][0] for one in there if one in tried}
    of_run = {run: _failures(instance, run) for run in set(runs.values())}
    found = {}
    for one in there:
        alone, among = of_run.get(runs.get(one, ""), ("", {}))
        said = among.get(one) or alone or "Its run has ended without it."
        said = " ".join(re.sub(r"^\S*/\S*/(?=\S)", "", word) for word in said.split())  # no page breaks a long path
        found[one] = said if len(said) <= _WIDE else f"{said[:_WIDE]}..."
    return found


def _failures(instance: dg.DagsterInstance, run: str) -> tuple[str, dict[str, str]]:
    """Return what a run of one partition says of its failure, and what a run of many says of each."""
    for record in instance.get_records_for_run(run, of_type=dg.DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        said = event.step_failure_data if event else None
        if said is not None:
            cause = said.error.cause or said.error if said.error else None
            why = re.sub(r"^[\w.]+: ", "", cause.message) if cause else ""
            return why, failed_in(said.user_failure_data.metadata) if said.user_failure_data else {}
    return "", {}


def _drifted(instance: dg.DagsterInstance, model: OfModel, keys: Sequence[str]) -> list[str] | None:
    """Return of which partitions the features have drifted, by Dagster's check; None if it has said nothing yet."""
    check = next((one for one in checks_of(model.declaration) if one.name == "features_have_not_drifted"), None)
    if check is None:
        return None
    key = dg.AssetCheckKey(model.key(check.step), check.name)
    known = instance.event_log_storage.get_asset_check_partition_info([key], partition_keys=keys)
    return (
        None
        if not known
        else [str(one.partition_key) for one in known if one.latest_execution_status.value == "FAILED"]
    )


def _metadata(fleet: Fleet, model: OfModel, tracker: MlflowTracker) -> dict[str, dg.MetadataValue]:
    rows = "\n".join(f"| {name} | {value} |" for name, value in fleet.counts.items())
    metadata: dict[str, dg.MetadataValue] = {"summary": dg.MetadataValue.md(f"| {fleet.name} | |\n|-|-|\n{rows}")}
    png = base64.b64encode(fleet.png).decode()
    metadata["picture"] = dg.MetadataValue.md(f"![skill and age](data:image/png;base64,{png})")
    page = f"/assets/{'/'.join(model.key(names.CHAMPION_MODEL).path)}?view=partitions&partition="
    # The table is short enough for Dagster to show it without a click, what explains it isn't.
    table, explained = ["| | skill | champion |\n|-|-:|-|"], []
    for one in fleet.worst:
        url = tracker.version_url(one.key, one.champion) if one.champion else None
        table.append(f"| [{one.key}]({page}{quote(one.key)}) | {one.skill:.2f} | {one.champion or 'none'} |")
        explained.append(
            f"- {f'[{one.key}, version {one.champion}]({url})' if url else one.key}: {one.score}. {one.reason}"
        )
    metadata["worst"] = dg.MetadataValue.md("\n".join(table))
    metadata["worst_explained"] = dg.MetadataValue.md("\n".join(explained) or "none")
    some = [f"- [{one}]({page}{quote(one)}): {why}" for one, why in [*fleet.missing.items()][:_NAMED]]
    more = [f"- and {len(fleet.missing) - _NAMED:,} more"] if len(fleet.missing) > _NAMED else []
    metadata["failures"] = dg.MetadataValue.md("\n".join(some + more) or "none")
    # Dagster draws them over time.
    metadata["champions"] = dg.MetadataValue.int(len(fleet.ages))
    metadata["failed"] = dg.MetadataValue.int(len(fleet.failed or {}))
    return metadata
