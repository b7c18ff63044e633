"""What goes wrong, on demand: faults that are set while the server runs, each for its next n occasions."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from mlops_dagster_tests.standin.errors import invalid

REQUEST_KINDS = {
    "status": "answer with `status`, `error_code`, `message` and, if given, `retry_after`; nothing is carried out",
    "delay": "wait `seconds`, then go on",
    "lost_answer": "carry the request out, then close the connection without an answer",
    "truncate": "the file that is read has only its first `size` bytes",
}
RUN_KINDS = {
    "pending": "no cluster for `seconds` (none given: until it is cancelled)",
    "skipped": "the run ends SKIPPED, with `result` if given",
    "internal_error": "the run ends INTERNAL_ERROR without starting its tasks",
    "result": "the tasks run, then the run ends with `result` and `message`, whatever they did",
    "terminating": "after its tasks the run stays TERMINATING without result for `seconds` (none given: for good)",
    "cancel_ignored": "a cancellation has no effect for `seconds` (none given: never)",
    "kill": "the task's processes are killed with -9 `seconds` after their start",
}


@dataclass
class Fault:
    """One fault. Patterns are those of a shell: `*` is anything."""

    kind: str
    times: int = 1
    method: str = "*"
    path: str = "*"
    run_name: str = "*"
    status: int = 503
    error_code: str = "TEMPORARILY_UNAVAILABLE"
    message: str = "Injected by the stand-in."
    retry_after: float | None = None
    seconds: float | None = None
    size: int = 0
    result: str | None = None
    id: int = 0
    used: int = 0


class Faults:
    """The faults that are set; safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._faults: list[Fault] = []

    def add(self, given: Mapping[str, Any]) -> Fault:
        if given.get("kind") not in REQUEST_KINDS | RUN_KINDS:
            raise invalid(f"kind is {given.get('kind')!r}; there are: {', '.join(REQUEST_KINDS | RUN_KINDS)}")
        if unknown := set(given) - {field.name for field in fields(Fault)} | {"id", "used"} & set(given):
            raise invalid(f"A fault has no {', '.join(sorted(unknown))}")
        fault = Fault(**given)
        with self._lock:
            fault.id = next(self._ids)
            self._faults.append(fault)
        return fault

    def listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def for_request(self, kind: str, method: str, path: str, query: str = "") -> Fault | None:
        """Use up one occasion of the first fault of this kind that hits the request."""

        def hit(fault: Fault) -> bool:
            paths = (path, f"{path}?{query}")
            return fnmatchcase(method, fault.method) and any(fnmatchcase(each, fault.path) for each in paths)

        return self._take(kind, hit)

    def for_run(self, run_name: str) -> dict[str, Fault]:
        """Use up one occasion of each kind of fault that hits the run."""
        found = {kind: self._take(kind, lambda fault: fnmatchcase(run_name, fault.run_name)) for kind in RUN_KINDS}
        return {kind: fault for kind, fault in found.items() if fault is not None}

    def _take(self, kind: str, hit: Any) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.kind == kind and fault.used < fault.times and hit(fault):
                    fault.used += 1
                    return fault
        return None
