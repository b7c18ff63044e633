"""The sensor that predicts, or builds a first model, whenever a file with a partition's rows arrives in the inbox."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.known_partitions import known_partitions
from mlops_dagster.spec import steps as names
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.inbox import Delivery, scan_inbox
from mlops_dagster.stack.table_files import sha256_of

READING_SECONDS = 15  # Dagster gives an evaluation a minute; what isn't read by then is read at the next
_DIGITS = 12  # of a digest or a stamp, in cursor and run keys
_REMARKS = 10


def inbox_sensor(model: OfModel, deployment: Deployment, jobs: Sequence[Any]) -> dg.SensorDefinition | None:
    """Make the sensor of a model whose partitions' rows can come as files; None if they can't, or it mustn't watch.

    Parameters
    ----------
    jobs : sequence
        The model's.
    """
    declaration, partitions = model.declaration, model.partitions
    predict = model.pipeline(names.PREDICTIONS)
    takes_a_path = any(one.name == "path" for one in model.steps[names.DATA].parameters)
    if (
        declaration.partitions is None
        or declaration.predictions is None
        or predict is None
        or not declaration.predictions.on_arrival
        or not takes_a_path
        or not isinstance(partitions, dg.DynamicPartitionsDefinition)
    ):
        return None
    build, called, owner = model.pipelines[0], declaration.partitions.name, declaration.data_owner

    @dg.sensor(
        name=model.named("inbox"),
        jobs=[job for job in jobs if job.name in (predict.name, build.name)],
        description=f"Predicts with {model.name} where rows of a {called} arrive in the inbox, in the folder {owner}; "
        "without a champion the first model is built, and a new one becomes a partition. A file counts once it hasn't "
        "changed between two looks, and once per content. See docs/automation.md.",
        # The cursor is kept with each look: this is a compromise between a quick answer and a database that grows.
        minimum_interval_seconds=9,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        # The cursor says of each partition which files were there at the last look (a stamp of their names, sizes,
        # times and inodes), and which content was handed on last. A question mark says that they weren't yet.
        inbox = deployment.inbox.path
        if inbox is None:
            return dg.SkipReason("No inbox is watched: inbox.path is null.")
        if deployment.compute != "here" and not inbox.startswith("/Volumes/"):
            return dg.SkipReason(
                f"The steps run on Databricks, which can't see {inbox}. Set MLOPS_INBOX__PATH to a folder of a volume."
            )
        folder = Path(inbox) / owner
        try:
            if Path(inbox).is_dir():
                folder.mkdir(exist_ok=True)
            deliveries, remarks = scan_inbox(folder, deployment.limits, called)
        except FileNotFoundError:
            return dg.SkipReason(f"There is no inbox yet: make the folder {folder}, and drop files into it.")
        except OSError as error:
            return dg.SkipReason(f"The inbox {folder} can't be read: {error.strerror or error}.")

        seen: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        arrived, waiting = _arrived(deliveries, seen, remarks)
        said = remarks[:_REMARKS] + ([f"... and {len(remarks) - _REMARKS} more."] if len(remarks) > _REMARKS else [])
        if not arrived and waiting:
            said.insert(0, f"{waiting} of {len(deliveries)} have new files: read at the next look if unchanged.")
        if not arrived and not said:
            said = [f"Nothing new in {folder}, which has files of {len(deliveries)}."]
        if arrived:
            for remark in said:
                context.log.warning(remark)
        keys = [delivery.symbol for delivery, _ in arrived]
        there = set(context.instance.get_dynamic_partitions(partitions.name or ""))
        new = [key for key in keys if key not in there]
        known = known_partitions(model, deployment, context.instance, keys)
        return dg.SensorResult(
            run_requests=[
                _request(delivery, digest, (predict if one.has_champion else build).name, model)
                for (delivery, digest), one in zip(arrived, known, strict=True)
            ],
            dynamic_partitions_requests=[partitions.build_add_request(new)] if new else [],
            skip_reason=None if arrived else " ".join(said),
            cursor=json.dumps(seen, separators=(",", ":")),
        )

    return sensor


def _arrived(
    deliveries: Sequence[Delivery], seen: dict[str, str], remarks: list[str]
) -> tuple[list[tuple[Delivery, str]], int]:
    """Return what is complete and new, with its digest, and how many may be by the next look; `seen` is kept up."""
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
    return arrived, waiting


def _request(delivery: Delivery, digest: str, job: str, model: OfModel) -> dg.RunRequest:
    given = {"path": delivery.path, "sha256": digest}
    takes = {one.name for one in model.steps[names.DATA].parameters}
    config = {name: value for name, value in given.items() if name in takes}
    return dg.RunRequest(
        # With the stamp, so that rows which are brought back as they were before the last ones count again. Without
        # it a cursor that was reset would never lead to a second run, and with it only if the files were touched.
        run_key=f"{delivery.symbol}/{digest[:_DIGITS]}/{delivery.stamp}",
        job_name=job,
        partition_key=delivery.symbol,
        run_config={"ops": {model.op(names.DATA): {"config": config}}},
        tags={"file_sha256": digest[:_DIGITS]},
    )
