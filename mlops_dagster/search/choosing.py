"""Threads or processes: trees grow without the interpreter lock, but what is done around small ones needs it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from pickle import PicklingError
from typing import Any

import numpy as np
from joblib.parallel import LokyBackend, get_active_backend
from sklearn.ensemble import RandomForestRegressor

from mlops_dagster.search.data import SearchData
from mlops_dagster.search.engine import JoblibEngine, LocalEngine, Receive, Unit
from mlops_dagster.search.growing import NO_LIMIT
from mlops_dagster.search.units import Done, Failed, GrowUnit

_LOCKED_AT_MOST = 0.001  # seconds that a tree holds the interpreter lock; more than it takes on any machine of today
_SAMPLE = 4  # trees
_SLOW = 0.25  # seconds for a tree, above which there is nothing to gain


def speedup(share: float, threads: int) -> float:
    """Return how many times quicker some threads are than one, if work holds the interpreter lock for a share of time.

    That of a closed queue with one server, the lock, by mean value analysis (Reiser and Lavenberg, 1980).

    Examples
    --------
    >>> [round(speedup(0.5, threads), 1) for threads in (1, 2, 16)]
    [1.0, 1.6, 2.0]
    >>> [round(speedup(0.01, threads), 1) for threads in (2, 16, 64)]
    [2.0, 16.0, 63.0]
    """
    rate = waiting = 0.0
    for number in range(1, threads + 1):
        at_the_lock = share * (1 + waiting)
        rate = number / (at_the_lock + 1 - share)
        waiting = rate * at_the_lock
    return rate


class ThreadsOrProcesses:
    """Runs units on threads, or in processes where trees are so small that threads would wait for each other.

    With many trees to grow it grows five first, and throws them away. Threads it is where joblib has no processes: in
    its own workers, in daemonic processes, with another of its backends; and where something can't be sent to them.

    Parameters
    ----------
    n_jobs, pre_dispatch
        As in ``GridSearchCV``.
    start_seconds : float, default=2
        What processes cost before they work: they have to gain more.
    """

    cuts_groups = False

    def __init__(
        self, n_jobs: int | None = None, pre_dispatch: int | str = "2*n_jobs", start_seconds: float = 2.0
    ) -> None:
        self._threads, self._processes = LocalEngine(n_jobs), JoblibEngine(n_jobs, pre_dispatch)
        self._start_seconds = start_seconds

    @property
    def slots(self) -> int:
        """How many units can run at the same time."""
        return self._threads.slots

    def run(self, units: Sequence[Unit], data: SearchData, receive: Receive) -> None:
        """Run the units, see :class:`mlops_dagster.search.engine.Engine`."""
        if not self._processes_pay(units, data):
            self._threads.run(units, data, receive)
            return
        left = dict(enumerate(units))

        def receive_here(number: int, result: Any) -> None:
            receive(number, result)
            if isinstance(result, Done):
                del left[number]

        try:
            self._processes.run(units, data, receive_here)
        except (BrokenProcessPool, PicklingError) as error:
            # Nothing has come of a unit that isn't done.
            why = f"{error.__class__.__name__}: {error}".strip().splitlines()[0]
            rest = f"{len(left)} of {len(units)} units are left, which now run on threads"
            warnings.warn(f"Processes couldn't go on with the search; {rest}. {why}", RuntimeWarning, stacklevel=2)
            numbers = list(left)
            self._threads.run(list(left.values()), data, lambda at, result: receive(numbers[at], result))

    def _processes_pay(self, units: Sequence[Unit], data: SearchData) -> bool:
        growing = [unit for unit in units if isinstance(unit, GrowUnit)]
        trees, busy = sum(unit.trees for unit in growing), min(self.slots, len(units))
        if busy <= 1 or trees == 0 or trees * _LOCKED_AT_MOST < self._start_seconds:
            return False
        if not isinstance(get_active_backend()[0], LokyBackend):
            return False
        seconds = _seconds_per_tree(max(growing, key=lambda unit: unit.trees), data)
        if seconds is None:
            return False
        on_threads = trees * seconds / speedup(min(_locked_seconds() / seconds, 1), busy)
        return on_threads - trees * seconds / busy > self._start_seconds


def _seconds_per_tree(unit: GrowUnit, data: SearchData) -> float | None:
    """Grow a few trees of a unit and return the CPU time of one; None if they can't be grown, as the unit will say."""
    seconds = 0.0
    for trees in (1, _SAMPLE):  # the first one is slow
        few = replace(unit, start=0, stop=trees, marks={max(unit.marks): (trees,)}, begin=())
        began = time.thread_time()
        if any(isinstance(result, Failed) for result in few.run(data)):
            return None
        seconds = (time.thread_time() - began) / trees
        if seconds > _SLOW:
            break
    return seconds


@cache
def _locked_seconds() -> float:
    """Return what a tree takes besides growing: a tree of two rows is done as soon as it is begun."""
    X, rows = np.array([[0.0], [1.0]]), np.arange(2)
    forest = RandomForestRegressor(random_state=0)
    data = SearchData(forest, X, X[:, 0], [(rows, rows)])
    unit = GrowUnit(0, "", RandomForestRegressor, forest.get_params(), 0, 0, 1, {(NO_LIMIT, 0.0): (1,)})
    seconds = _seconds_per_tree(unit, data)
    assert seconds is not None
    return seconds
