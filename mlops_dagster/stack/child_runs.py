"""Many runs below one in MLflow, which have ended when they are written: each candidate of a search as its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_dagster.stack.open_runs import remove_twins, set_status

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Hides the way to a distant server; more than a server has workers makes none faster. A database takes one at a time.
_REQUESTS_AT_ONCE = 4


@dataclass(frozen=True)
class ChildRun:
    """One run below another."""

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str] = field(default_factory=dict)


def write_child_runs(
    client: MlflowClient, experiment_id: str, parent_id: str, children: Sequence[ChildRun], tags: Mapping[str, str]
) -> None:
    """Write runs below another, FINISHED.

    Raises
    ------
    mlflow.exceptions.MlflowException
        None is left RUNNING then.
    """
    from mlflow.entities import Metric, Param, RunStatus

    common = {**tags, "mlflow.parentRunId": parent_id}
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
    at_once = _REQUESTS_AT_ONCE if client.tracking_uri.startswith(("http", "databricks")) else 1
    threads = ThreadPoolExecutor(at_once, thread_name_prefix="mlflow")
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
