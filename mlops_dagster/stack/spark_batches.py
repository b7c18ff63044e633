"""Which units go to Spark together: a job costs it 0.1 to 0.3 seconds, whatever the job does."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

SHORT = 1.0  # seconds of work that are worth a job of their own
LEAST, MOST = 0.2, 2.0  # seconds of work in a task: worth its job, and no longer than results may wait for each other
TASKS = 8  # in a job, whose results have to fit spark.driver.maxResultSize together


class Batches:
    """Hands out units in their order, each as a job of its own until they turn out to be short.

    Short ones go together, several in a task, and on a wide cluster several tasks in a job. Towards the end there are
    fewer in each, so that all slots are busy until then.

    Parameters
    ----------
    sizes : sequence of int or None
        How much each unit has to do, in proportion; None for one that is a job of its own, come what may.

    Examples
    --------
    >>> batches = Batches([100] * 54, slots=2)
    >>> batches.take()
    [[0]]
    >>> batches.took(0, 0.1)  # seconds
    >>> [len(numbers) for [numbers] in iter(batches.take, [])]
    [14, 10, 8, 6, 4, 3, 2, 2, 2, 2]
    >>> batches = Batches([None] * 3, slots=2)
    >>> batches.took(0, 0.1)
    >>> list(iter(batches.take, []))
    [[[0]], [[1]], [[2]]]
    """

    def __init__(self, sizes: Sequence[int | None], slots: int) -> None:
        self._sizes, self._slots = sizes, slots
        self._next = 0
        self._seconds: float | None = None  # for a size of one
        self._lock = threading.Lock()

    def take(self) -> list[list[int]]:
        """Return the numbers of the units of each task of the next job; nothing when all are taken."""
        with self._lock:
            left = len(self._sizes) - self._next
            size = self._sizes[self._next] if left else None
            seconds = SHORT if size is None or self._seconds is None else self._seconds * size
            per_task, tasks = 1, 1
            if seconds < SHORT:
                fair = math.ceil(left / (2 * self._slots))
                per_task = max(1, int(min(max(fair, LEAST / seconds), MOST / seconds)))
                tasks = min(max(1, self._slots // 4), TASKS)
            numbers = range(len(self._sizes))[self._next : self._next + per_task * tasks]
            self._next += len(numbers)
            return [list(numbers[at : at + per_task]) for at in range(0, len(numbers), per_task)]

    def took(self, number: int, seconds: float) -> None:
        """Learn how long a unit took; the next are expected to take as long for their size."""
        with self._lock:
            if size := self._sizes[number]:
                self._seconds = max(seconds, 1e-6) / size
