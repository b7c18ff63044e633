"""Many runs below one in MLflow, at once: each candidate of a search as a run of its own.

Through MLflow's client a run costs three requests: 288 of them take a quarter of a minute. Where MLflow is a database
they are written in one transaction instead, as MLflow's own classes map them, all of them or none; a server is sent
several at a time. What belongs here: runs that have ended when they are written. What doesn't: runs that are open
(`tracked_run.py`).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_dagster.stack.open_runs import remove_twins, set_status

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

# Hides the way to a distant server; more than a server has workers makes none faster.
_REQUESTS_AT_ONCE = 4
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class ChildRun:
    """One run below another.

    Parameters
    ----------
    name : str
        What people read in MLflow's list of runs.
    params : mapping
        Its parameters.
    metrics : mapping of str to float
        Its metrics.
    tags : mapping of str to str
        Its tags.
    """

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str] = field(default_factory=dict)


def write_child_runs(
    client: MlflowClient, experiment_id: str, parent_id: str, children: Sequence[ChildRun], tags: Mapping[str, str]
) -> None:
    """Write runs below another, FINISHED.

    Parameters
    ----------
    client : MlflowClient
        Knows where.
    experiment_id, parent_id : str
        The run that they are below.
    children : sequence of ChildRun
        What to write.
    tags : mapping of str to str
        Tags that all of them get.

    Raises
    ------
    mlflow.exceptions.MlflowException
        None is left RUNNING then.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    common = {**tags, "mlflow.parentRunId": parent_id}
    store = client._tracking_client.store
    if isinstance(store, SqlAlchemyStore):
        _write_to_database(store, experiment_id, children, common)
    else:
        _send_to_server(client, experiment_id, parent_id, children, common)


def _write_to_database(
    store: SqlAlchemyStore, experiment_id: str, children: Sequence[ChildRun], common: Mapping[str, str]
) -> None:
    import sqlalchemy
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.store.tracking.dbmodels import models
    from mlflow.utils.uri import append_to_uri_path
    from mlflow.utils.validation import _validate_batch_log_data

    now = int(time.time() * 1000)
    artifacts = store.get_experiment(experiment_id).artifact_location  # type: ignore[no-untyped-call]
    rows: dict[Any, list[dict[str, Any]]] = {
        table: [] for table in (models.SqlRun, models.SqlTag, models.SqlParam, models.SqlMetric, models.SqlLatestMetric)
    }
    for child in children:
        run_id = uuid.uuid4().hex
        # MLflow's own check, as its client's requests get it: a database alone would take names that are too long.
        metrics, params, tags = _validate_batch_log_data(  # type: ignore[no-untyped-call]
            [Metric(key, float(value), now, 0) for key, value in child.metrics.items()],
            [Param(key, str(value)) for key, value in child.params.items()],
            [RunTag(key, value) for key, value in {**common, **child.tags, "mlflow.runName": child.name}.items()],
        )
        rows[models.SqlRun].append(
            {
                "run_uuid": run_id,
                "name": child.name,
                "source_type": "UNKNOWN",  # as MLflow's client leaves it; it shows the tags
                "source_name": "",
                "entry_point_name": "",
                "source_version": "",
                "user_id": common.get("mlflow.user", "unknown"),
                "status": "FINISHED",
                "start_time": now,
                "end_time": now,
                "lifecycle_stage": "active",
                "artifact_uri": append_to_uri_path(artifacts, run_id, "artifacts"),  # type: ignore[no-untyped-call]
                "experiment_id": int(experiment_id),
            }
        )
        for tag in tags:
            rows[models.SqlTag].append({"run_uuid": run_id, "key": tag.key, "value": tag.value})
        for param in params:
            rows[models.SqlParam].append({"run_uuid": run_id, "key": param.key, "value": param.value})
        for metric in metrics:
            is_nan, value = store.sanitize_metric_value(metric.value)
            row = {"run_uuid": run_id, "key": metric.key, "value": value, "is_nan": is_nan, "timestamp": now, "step": 0}
            rows[models.SqlMetric].append(row)
            rows[models.SqlLatestMetric].append(row)
    with store.ManagedSessionMaker(read_only=False) as session:
        for table, some in rows.items():
            for start in range(0, len(some), _ROWS_AT_ONCE):
                session.execute(sqlalchemy.insert(table), some[start : start + _ROWS_AT_ONCE])


def _send_to_server(
    client: MlflowClient, experiment_id: str, parent_id: str, children: Sequence[ChildRun], common: Mapping[str, str]
) -> None:
    from mlflow.entities import Metric, Param, RunStatus

    now = int(time.time() * 1000)

    def send(child: ChildRun) -> None:
        created = client.create_run(experiment_id, now, {**common, **child.tags}, run_name=child.name)
        params = [Param(key, str(value)) for key, value in child.params.items()]
        metrics = [Metric(key, float(value), now, 0) for key, value in child.metrics.items()]
        client.log_batch(created.info.run_id, metrics=metrics, params=params, synchronous=True)
        # client.set_terminated would print the run's address, 288 times.
        finished = RunStatus.from_string("FINISHED")
        client._tracking_client.store.update_run_info(created.info.run_id, finished, now, child.name)

    mine = f"tags.mlflow.parentRunId = '{parent_id}' and attributes.status = 'RUNNING'"
    threads = ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="mlflow")
    try:
        sent = [threads.submit(send, child) for child in children]
        done, _ = wait(sent, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        remove_twins(client, experiment_id, mine)
    except BaseException as error:
        threads.shutdown(cancel_futures=True)
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with contextlib.suppress(Exception):  # what went wrong first is what the caller has to see
            for run in client.search_runs([experiment_id], mine, max_results=1000):
                set_status(client, run.info.run_id, status)
        raise
    finally:
        threads.shutdown(cancel_futures=True)
