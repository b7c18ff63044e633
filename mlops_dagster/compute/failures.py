"""From what went wrong on Databricks to what Dagster shows of it. Translation only."""

from __future__ import annotations

from typing import Any

import dagster as dg

from mlops_dagster.stack.databricks.run_states import DatabricksRunError
from mlops_dagster.stack.secrets import redacted

URL = "databricks_run"
"""The name of the metadata that leads to the Databricks run."""


def to_failure(error: BaseException | Any, url: str | None = None) -> dg.Failure:
    """Say why a step failed there: its own message, its own traceback, and the way to its Databricks run.

    Parameters
    ----------
    error : exception
        What the step said (it has a message, a traceback and an exit status), or what Databricks says of its run.
    """
    metadata: dict[str, Any] = {}
    traceback = getattr(error, "traceback", None)
    if isinstance(error, DatabricksRunError):
        url = error.url
        traceback = "\n".join(task.trace for task in error.tasks if task.trace)
    if traceback:
        metadata["traceback"] = dg.MetadataValue.md(f"```\n{redacted(str(traceback))}\n```")
    if url:
        metadata[URL] = dg.MetadataValue.url(url)
    # What was refused before any work would be refused again.
    return dg.Failure(redacted(str(error)), metadata=metadata, allow_retries=getattr(error, "exit_status", 1) != 2)
