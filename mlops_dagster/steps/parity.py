"""What two stacks, or two runs, have left of a model's partition, and what differs: proof that a tool was swapped.

Compared are the tables' rows, what is written down beside them, MLflow's parameters, metrics, tags and artifacts, and
which model is champion, all to the last bit. Not compared is what has to differ: times and durations, places, the
counters of registries and tables, how much work a cache has saved, and who has called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import refuse
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.parameters import check_partition
from mlops_dagster.stack.mlflow_connection import reach, tracking_errors
from mlops_dagster.steps.growing_tables import what_is_there

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

    from mlops_dagster.stack.store import Store, TableVersion
    from mlops_dagster.stack.tracking import MlflowTracker

# Columns that tell when, how long, by whom, or what a registry counts. `reason` names versions, `outcome` doesn't.
_NOT_RESULTS = {
    *("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time"),
    *("decided_at", "made_at", "by", "run_id", "reason"),
    *("challenger", "champion_before", "champion", "model_version"),
}
_NOT_RESULTS_BESIDE = {"model_uri", "model_version", "mlflow_run_id", "origin", "work", "engine"}
# A model file is an archive, which holds the time; the model's own digest is compared.
_NOT_RESULTS_IN_TAGS = {
    "model_version",
    "training_set_version",
    "git_commit",
    "process_token",
    "model_file_sha256",
    "engine",
}
_TRACKED = (names.TRAINED_MODEL, names.GRID_SEARCH_RESULTS)
# Tables that only grow, each row with the run that added it.
_WITH_CALLER = (names.CHAMPION_MODEL, names.PREDICTIONS)
STEPS = (
    *(names.DATA, names.TRAINING_SET, names.TRAINED_MODEL, names.CHAMPION_MODEL),
    *(names.GRID_SEARCH_RESULTS, names.PREDICTIONS, names.PREDICTION_QUALITY),
)
"""All that any model's pipelines make, in their order; a model has some of them."""


@dataclass
class Left:
    """What is left of one partition, by the name of the step that made it.

    Attributes
    ----------
    tables : dict
        Of each table its rows and what is written down beside them, results only.
    tracked : dict
        Of each step that MLflow has a run of: params, metrics, tags, and the paths of artifacts.
    """

    tables: dict[str, tuple[pd.DataFrame, dict[str, object]]] = field(default_factory=dict)
    tracked: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """One thing that was compared.

    Attributes
    ----------
    what : str
        For example ``table data`` or ``MLflow run of trained_model``.
    size : str
        How much of it there is, for example ``5031 rows``.
    differences : list of str
        A sentence each; empty if both are the same.
    """

    what: str
    size: str
    differences: list[str]


def left_behind(symbol: str, *, store: Store, tracker: MlflowTracker, run: str | None = None) -> Left:
    """Read what a stack has of a partition now, or what one run has left of it.

    Parameters
    ----------
    store, tracker : Store, MlflowTracker
        The model's own.
    run : str, optional
        The orchestrator's id of a run (of Dagster, of a shell's command, ...), or the id of an MLflow run.

    Raises
    ------
    ParameterError
        If no such run has left anything of it.
    StoreError, TrackingError
        If something can't be read.
    """
    check_partition(symbol)
    left = Left()
    found = _all_there_is(symbol, store, tracker) if run is None else _of_run(symbol, store, tracker, run)
    for frame, version, tracked in found:
        left.tables[version.table] = _results(frame, version)
        if tracked is not None:
            left.tracked[version.table] = tracked
    if not left.tables and run is not None:
        cure = f"it has left nothing of {symbol}; give the id of a run of Dagster, of a command or of MLflow."
        raise refuse("run", run, cure)
    return left


def compare(a: Left, b: Left) -> list[Compared]:
    """Compare what two stacks have left, step by step, in the order of the pipelines."""
    from mlops_dagster.modeling.differences import frame_differences, list_differences, value_differences

    compared = []
    for step in STEPS:
        if step not in a.tables and step not in b.tables:
            continue
        if step not in a.tables or step not in b.tables:
            side = "A" if step in a.tables else "B"
            compared.append(Compared(f"table {step}", "", [f"{side} has it, the other hasn't."]))
            continue
        (frame, beside), (other, other_beside) = a.tables[step], b.tables[step]
        differences = [*frame_differences(frame, other), *value_differences(beside, other_beside)]
        compared.append(Compared(f"table {step}", _rows(len(frame)), differences))
        if step in a.tracked and step in b.tracked:
            one, two = a.tracked[step], b.tracked[step]
            differences = [
                f"{kind[:-1]} {said}"
                for kind in ("params", "metrics", "tags")
                for said in value_differences(one[kind], two[kind])
            ]
            differences += list_differences("artifact", one["artifacts"], two["artifacts"])
            size = f"{len(one['params'])} params, {len(one['metrics'])} metrics, {len(one['tags'])} tags"
            compared.append(
                Compared(f"MLflow run of {step}", f"{size}, {len(one['artifacts'])} artifacts", differences)
            )
    return compared


def _rows(count: int) -> str:
    return f"{count} row{'s' if count != 1 else ''}"


_Found = tuple["pd.DataFrame", "TableVersion", dict[str, Any] | None]


def _all_there_is(symbol: str, store: Store, tracker: MlflowTracker) -> Iterator[_Found]:
    """Find the tables as they are now, each with its MLflow run if it has one."""
    for table in STEPS:
        frame, version = what_is_there(table, symbol, store)
        if frame is None or version is None:
            continue
        mlflow_run = version.metadata.get("mlflow_run_id") if table in _TRACKED else None
        # Histories of decisions may have any length; what counts is who is champion, and why.
        rows = frame.tail(1) if table == names.CHAMPION_MODEL else frame
        yield rows, version, None if mlflow_run is None else _tracked(tracker, _run(tracker, mlflow_run))


def _of_run(symbol: str, store: Store, tracker: MlflowTracker, run: str) -> Iterator[_Found]:
    """Find what one run has left: what it tracked, what that was made of, and the rows that bear its name."""
    runs = {found.info.run_id: found for found in _runs_of(tracker, run) if found.data.tags.get("symbol") == symbol}
    inputs: dict[str, int] = {}
    for table in _TRACKED:
        for version in store.history(table, symbol):
            found = runs.get(version.metadata.get("mlflow_run_id", ""))
            if found is not None:
                inputs[names.TRAINING_SET] = int(found.data.tags["training_set_version"])
                frame, _ = store.read(table, symbol, version=version.version)
                yield frame, version, _tracked(tracker, found)
    if inputs:
        frame, training_set = store.read(names.TRAINING_SET, symbol, version=inputs[names.TRAINING_SET])
        yield frame, training_set, None
        # The same rows may have been written more than once.
        for version in store.history(names.DATA, symbol):
            if version.digest == training_set.metadata["data_digest"]:
                inputs[names.DATA] = version.version
        if names.DATA in inputs:
            yield *store.read(names.DATA, symbol, version=inputs[names.DATA]), None
    callers = {run, *(found.data.tags.get("orchestrator_run_id", run) for found in runs.values())}
    for table in _WITH_CALLER:
        frame_there, version_there = what_is_there(table, symbol, store)
        if frame_there is None or version_there is None:
            continue
        rows = frame_there[frame_there["run_id"].isin(callers)]
        if not rows.empty:
            yield rows, version_there, None


def _results(frame: pd.DataFrame, table: TableVersion) -> tuple[pd.DataFrame, dict[str, object]]:
    """Leave out what isn't a result, of the rows and of what is written down beside them."""
    beside = {name: _value(text) for name, text in table.metadata.items() if name not in _NOT_RESULTS_BESIDE}
    results = frame.drop(columns=[name for name in frame if name in _NOT_RESULTS]).reset_index(drop=True)
    return results, {name: value for key, said in beside.items() for name, value in _flat(key, said)}


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _flat(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(f"{name}.{key}", one)
    else:
        yield name, value


def _run(tracker: MlflowTracker, run_id: str) -> Run:
    with tracking_errors(f"reading run {run_id}", tracker.tracking_uri):
        return reach(tracker.tracking_uri).get_run(run_id)


def _runs_of(tracker: MlflowTracker, run: str) -> list[Run]:
    from mlflow.exceptions import MlflowException

    client, experiment = tracker.connect()
    with tracking_errors("looking for runs", tracker.tracking_uri):
        quoted = run.replace("'", "")
        found = list(client.search_runs([experiment], f"tags.{tracker.run_id_tag} = '{quoted}'"))
        if found:
            return found
        try:
            return [client.get_run(run)]
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return []
            raise


def _tracked(tracker: MlflowTracker, run: Run) -> dict[str, Any]:
    client = reach(tracker.tracking_uri)
    artifacts: list[str] = []
    folders = [""]
    with tracking_errors(f"listing the artifacts of run {run.info.run_id}", tracker.tracking_uri):
        while folders:
            for entry in client.list_artifacts(run.info.run_id, folders.pop()):
                (folders if entry.is_dir else artifacts).append(entry.path)
    return {
        "params": dict(run.data.params),
        "metrics": {name: value for name, value in run.data.metrics.items() if not _is_work(name)},
        "tags": {
            name: value
            for name, value in run.data.tags.items()
            if not name.startswith(("mlflow.", "orchestrator", "dagster", "databricks"))
            and name not in _NOT_RESULTS_IN_TAGS
            and name not in tracker.extra_tags
            and name not in tracker.env_to_tag
        }
        | {"status": run.info.status},
        # Pictures of a later step have the version of its table in their folder's name.
        "artifacts": sorted({re.sub(r"^(plots/[a-z_]+)-\d+/", r"\1/", path) for path in artifacts}),
    }


def _is_work(metric: str) -> bool:
    return metric.startswith("work_") or "seconds" in metric or metric.endswith("_time")
