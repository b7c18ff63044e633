"""A step's report on its way home: cut into pieces that every messenger carries, and put together only if all arrived.

Each piece is ``{"report": {"piece": 0, "of": 3, "sha256": ..., "text": ...}}``; a failure is ``{"failure": {...}}``.
"""

from __future__ import annotations

import base64
import hashlib
import traceback
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mlops_dagster.errors import MlopsError
from mlops_dagster.steps.report import StepReport

PIECE = 200_000
"""Characters. A messenger that reads a file in one go of 0.5 MB would cut what is longer."""


class RemoteFailure(MlopsError):  # noqa: N818 - reads better where it is caught
    """The step failed on the cluster; the message is the one it gave there.

    Attributes
    ----------
    traceback : str
        The cluster's own; empty if the step was refused before any work.
    exit_status : int
        2 if the step was refused before any work, 130 or 143 if it was stopped, otherwise 1.
    """

    def __init__(self, type: str, message: str, traceback: str, exit_status: int) -> None:
        super().__init__(message)
        self.type, self.traceback, self.exit_status = type, traceback, exit_status

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFailure, (self.type, str(self), self.traceback, self.exit_status)


class IncompleteReport(MlopsError):  # noqa: N818 - reads better where it is caught
    """The step ended, but its report didn't arrive as a whole."""


def to_pieces(report: StepReport, size: int = PIECE) -> Iterator[dict[str, Any]]:
    """Cut a report into messages; of its text, each has at most `size` characters."""
    return pieces_of(report.to_json(), "report", size)


def pieces_of(text: str, kind: str, size: int = PIECE) -> Iterator[dict[str, Any]]:
    """Cut a text into messages, each under the key that says what it is a piece of."""
    # Base64, because JSON within JSON would grow by its quotation marks, and a piece has to stay as long as it is.
    packed = base64.b64encode(zlib.compress(text.encode())).decode()
    digest = hashlib.sha256(packed.encode()).hexdigest()
    starts = range(0, len(packed), size)
    for piece, start in enumerate(starts):
        content = {"piece": piece, "of": len(starts), "sha256": digest, "text": packed[start : start + size]}
        yield {kind: content}


class Assembly:
    """Puts texts of one kind together from messages, in whatever order their pieces arrive."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._begun: dict[str, dict[int, str]] = {}
        self._expected: dict[str, int] = {}

    def take(self, message: object) -> str | None:
        """Return a text if this message is its last piece; what is damaged or isn't ours is skipped."""
        piece = message.get(self.kind) if isinstance(message, Mapping) else None
        if not isinstance(piece, Mapping):
            return None
        try:
            digest, number, of, text = piece["sha256"], int(piece["piece"]), int(piece["of"]), str(piece["text"])
        except (KeyError, TypeError, ValueError):
            return None  # its text stays incomplete
        begun = self._begun.setdefault(digest, {})
        begun[number], self._expected[digest] = text, of
        whole = "".join(begun[at] for at in sorted(begun)) if len(begun) == of else ""
        if hashlib.sha256(whole.encode()).hexdigest() != digest:
            return None
        return zlib.decompress(base64.b64decode(whole)).decode()

    @property
    def arrived(self) -> str:
        """How much of each text has arrived, in words."""
        return ", ".join(f"{len(pieces)} of {self._expected[digest]} pieces" for digest, pieces in self._begun.items())


def failure_message(error: BaseException) -> dict[str, Any]:
    """Turn an exception into a message; a step that was refused before any work needs no traceback."""
    status = getattr(error, "exit_status", 1)
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else 1
    elif isinstance(error, KeyboardInterrupt):
        status = 130
    refused = isinstance(error, MlopsError) and status == 2
    trace = "" if refused else "".join(traceback.format_exception(type(error), error, error.__traceback__))
    stopped = "the step was stopped" if isinstance(error, (SystemExit, KeyboardInterrupt)) else ""
    content = {
        "type": type(error).__name__,
        "message": (stopped or str(error) or type(error).__name__)[:PIECE],
        "traceback": trace[-PIECE:],
        "exit_status": status,
    }
    return {"failure": content}


def from_pieces(messages: Iterable[object]) -> StepReport:
    """Put the report together.

    Parameters
    ----------
    messages : iterable
        Everything that arrived, in its order. What isn't ours is skipped. If Databricks repeated the task, the last
        attempt that said something counts.

    Returns
    -------
    StepReport
        As the step made it.

    Raises
    ------
    RemoteFailure
        If the step said that it failed.
    IncompleteReport
        If a piece is missing or damaged, or nothing arrived at all.
    """
    last: RemoteFailure | StepReport | None = None
    assembly = Assembly("report")
    for message in messages:
        if isinstance(message, Mapping) and isinstance(failure := message.get("failure"), Mapping):
            last = failure_of(failure)
        if (text := assembly.take(message)) is not None:
            last = StepReport.from_json(text)
    if isinstance(last, RemoteFailure):
        raise last
    if last is None:
        there = assembly.arrived
        raise IncompleteReport(
            f"the step's report didn't arrive as a whole: there {f'are {there}' if there else 'is nothing'}"
            f"{' or what is there is damaged' if there else ''}. What the step did is in its store and in MLflow; "
            "run it again to see it here."
        )
    return last


def failure_of(content: Mapping[str, Any]) -> RemoteFailure:
    """Return the failure that :func:`failure_message` told of."""
    status = content.get("exit_status")
    return RemoteFailure(
        str(content.get("type", "Exception")),
        str(content.get("message", "")),
        str(content.get("traceback", "")),
        status if isinstance(status, int) else 1,
    )
