"""The sensor that forecasts, or builds a first model, whenever prices of a symbol arrive in the inbox."""

import json
import time
from pathlib import Path

from dagster import (
    DefaultSensorStatus,
    ResourceParam,
    RunRequest,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from mlops_dagster import known_symbols, pipelines
from mlops_dagster.assets.partitions import SYMBOLS, missing_symbols
from mlops_dagster.jobs import JOBS
from mlops_dagster.spec.project import model_names
from mlops_dagster.spec.reading import DATASET, TYPE
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.inbox import Delivery, scan_inbox
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.table_files import sha256_of

READING_SECONDS = 15  # Dagster gives an evaluation a minute; what isn't read by then is read at the next
_DIGITS = 12  # of a digest or a stamp, in cursor and run keys
_REMARKS = 10


@sensor(
    jobs=[job for job in JOBS if job.name in (pipelines.FORECAST.name, pipelines.BUILD_MODEL.name)],
    description="Forecasts a symbol whose prices arrive in the inbox; one without a champion gets its first model, and "
    "a new one becomes a partition. A file counts once it hasn't changed between two looks, and once per content. See "
    "docs/automation.md.",
    # The cursor is kept with each look: this is a compromise between a quick answer and a database that grows.
    minimum_interval_seconds=9,
    default_status=DefaultSensorStatus.RUNNING,
)
def price_inbox(
    context: SensorEvaluationContext, deployment: ResourceParam[Deployment], store: ResourceParam[Store]
) -> SensorResult | SkipReason:
    """Ask for a run per symbol whose prices have changed and are complete.

    The cursor says of each symbol which files were there at the last look (a stamp of their names, sizes, times and
    inodes), and which content was handed on last. A question mark says that they weren't yet.
    """
    folder = deployment.inbox.path
    if folder is None:
        return SkipReason("No inbox is watched: inbox.path is null.")
    if deployment.compute != "here" and not folder.startswith("/Volumes/"):
        return SkipReason(
            f"The steps run on Databricks, which can't see {folder}. Set MLOPS_INBOX__PATH to a folder of a volume."
        )
    try:
        deliveries, remarks = scan_inbox(Path(folder), deployment.limits)
    except FileNotFoundError:
        return SkipReason(f"There is no inbox yet: make the folder {folder}, and drop SYMBOL.csv into it.")
    except OSError as error:
        return SkipReason(f"The inbox {folder} can't be read: {error.strerror or error}.")

    # Folders of declared models and datasets have sensors of their own.
    declared = {name for type_ in (TYPE, DATASET) for name in model_names(type_=type_)}
    deliveries = [one for one in deliveries if one.symbol not in declared]
    seen: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
    began = time.monotonic()
    arrived: list[tuple[Delivery, str]] = []
    waiting = 0
    for delivery in deliveries:
        stamp, _, handed_on = seen.get(delivery.symbol, "").partition(":")
        if stamp == delivery.stamp:
            continue
        if stamp != f"?{delivery.stamp}" or time.monotonic() - began > READING_SECONDS:
            seen[delivery.symbol] = f"?{delivery.stamp}:{handed_on}"
            waiting += 1
            continue
        try:
            digest = sha256_of(delivery.files)
        except OSError as error:
            remarks.append(f"{delivery.path} is ignored: it can't be read ({error.strerror or error}).")
            continue
        seen[delivery.symbol] = f"{delivery.stamp}:{digest[:_DIGITS]}"
        if digest[:_DIGITS] == handed_on:
            remarks.append(f"{delivery.path} has the same content as before: nothing to do.")
        else:
            arrived.append((delivery, digest))

    said = remarks[:_REMARKS] + ([f"... and {len(remarks) - _REMARKS} more."] if len(remarks) > _REMARKS else [])
    if not arrived and waiting:
        said.insert(0, f"{waiting} of {len(deliveries)} symbols have new files: read at the next look if unchanged.")
    if not arrived and not said:
        said = [f"Nothing new in {folder}, which has prices of {len(deliveries)} symbols."]
    if arrived:
        for remark in said:
            context.log.warning(remark)
    known = known_symbols.ask([delivery.symbol for delivery, _ in arrived], store, folder)
    new = missing_symbols(context.instance, [one.name for one in known])
    return SensorResult(
        run_requests=[
            _request(delivery, digest, pipelines.FORECAST if one.has_champion else pipelines.BUILD_MODEL)
            for (delivery, digest), one in zip(arrived, known, strict=True)
        ],
        dynamic_partitions_requests=[SYMBOLS.build_add_request(new)] if new else [],
        skip_reason=None if arrived else " ".join(said),
        cursor=json.dumps(seen, separators=(",", ":")),
    )


def _request(delivery: Delivery, digest: str, pipeline: pipelines.Pipeline) -> RunRequest:
    prices = {"source": "files", "path": delivery.path, "sha256": digest}
    return RunRequest(
        # With the stamp, so that prices which are brought back as they were before the last ones count again. Without
        # it a cursor that was reset would never lead to a second run, and with it only if the files were touched.
        run_key=f"{delivery.symbol}/{digest[:_DIGITS]}/{delivery.stamp}",
        job_name=pipeline.name,
        partition_key=delivery.symbol,
        run_config={"ops": {"prices": {"config": prices}}},
        tags={"price_file_sha256": digest[:_DIGITS]},
    )
