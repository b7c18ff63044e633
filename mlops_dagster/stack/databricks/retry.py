"""Asking a workspace until there is an answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from mlops_dagster.stack.databricks.run_states import DatabricksRunError, RunInfo
from mlops_dagster.stack.secrets import redacted

Log = Callable[[str], object]
T = TypeVar("T")


def retry(ask: Callable[[], T], doing: str, run: RunInfo, log: Log, give_up: float, pause: float = 2) -> T:
    """Ask until there is an answer.

    Parameters
    ----------
    doing : str
        What it is about, for messages: "submit ...".
    run : RunInfo
        The run that it is about; its id is 0 if there is none yet.
    log : callable
        Takes a line for each request that failed.
    give_up, pause : float
        Seconds after which to give up, and between two requests.

    Raises
    ------
    DatabricksRunError
        If the failure can't pass, or doesn't pass in time. It was refused for good if `ended` is true.
    """
    until = time.monotonic() + give_up
    while True:
        try:
            return ask()
        except Exception as error:  # the SDK's, requests' and Python's own
            if not may_pass(error):
                if not type(error).__module__.startswith(("databricks.", "requests.")):
                    raise
                problem = f"Databricks refused to {doing}: {one_line(error)} ({type(error).__name__})"
                raise DatabricksRunError(problem, run, ended=run.run_id == 0) from None
            if time.monotonic() >= until:
                tried = f"could not {doing}, though it was tried for {max(give_up, 0):g} seconds: {one_line(error)}"
                raise DatabricksRunError(f"{tried}. {run.url if run.run_id else ''}".strip(), run) from None
            log(f"Could not {doing} ({one_line(error)}); trying again.")
        time.sleep(min(pause, max(until - time.monotonic(), 0)))


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: no answer, too many requests, or the server's own trouble."""
    import requests
    from databricks.sdk.errors import (
        DeadlineExceeded,
        InternalError,
        TemporarilyUnavailable,
        TooManyRequests,
    )
    from databricks.sdk.errors.base import DatabricksError

    if isinstance(error, DatabricksError):
        passing = (DeadlineExceeded, InternalError, TemporarilyUnavailable, TooManyRequests)
        return isinstance(error, passing) or type(error) is DatabricksError  # a status that the SDK has no class for
    return isinstance(error, (requests.RequestException, TimeoutError, ConnectionError))


def one_line(error: object) -> str:
    """Return what may be shown of an error of the SDK's, in one line.

    Of an answer that it can't parse, the SDK shows the whole request, the header with the token included.

    Examples
    --------
    >>> one_line("unable to parse response. This is likely ... Request log:```GET / > * Authorization: Bearer 123```")
    'unable to parse response'
    """
    text = re.sub(r"\. This is likely.*|Request log:.*", "", str(error), flags=re.DOTALL)
    return redacted(re.sub(r"\s+", " ", text).strip().rstrip("."))
