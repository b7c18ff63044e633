"""Where units run: the interface of every engine, and the local one, which runs them on threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Protocol

from joblib import effective_n_jobs
from sklearn import config_context, get_config
from sklearn.utils.parallel import Parallel, delayed

from mlops_dagster.search.data import SearchData
from mlops_dagster.search.fronts import last_step

Receive = Callable[[int, Any], None]


class Unit(Protocol):
    """A piece of work that depends on nothing but the data: picklable, pure, and independent of all others."""

    @property
    def fold(self) -> int:
        """The fold whose rows it works on."""
        ...

    @property
    def setting(self) -> int:
        """The setting of the steps in front."""
        ...

    @property
    def trees(self) -> int:
        """How many trees it grows at the least."""
        ...

    def run(self, data: SearchData) -> Iterator[Any]:
        """Do the work and yield results as they come. A bad candidate is a result, never an exception."""
        ...


class Engine(Protocol):
    """Runs units somewhere.

    `receive` may be called from any thread.

    Attributes
    ----------
    cuts_groups : bool
        Whether a group of candidates may be cut into blocks of trees when there are fewer groups than slots. The
        blocks' sums are added up in another order then, which changes a prediction's last digit now and then (1e-12
        relative).
    """

    cuts_groups: bool

    @property
    def slots(self) -> int:
        """How many units can run at the same time."""
        ...

    def run(self, units: Sequence[Unit], data: SearchData, receive: Receive) -> None:
        """Run every unit and hand each of its results to ``receive(number of the unit, result)`` at once.

        Units come largest first. If `receive` raises, or the user interrupts, everything that still runs is stopped
        and the exception goes on.
        """
        ...


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Parameters
    ----------
    trees_done, trees_needed : int
        Trees grown so far, and how many there will be if no depth limit binds.
    units_done, units : int
        Units finished so far, and all of them.
    seconds : float
        Since the first unit was begun.
    counted : str
        What is counted as trees, see `SearchPlan.counted`.
    """

    trees_done: int
    trees_needed: int
    units_done: int
    units: int
    seconds: float
    counted: str = "trees"

    @property
    def trees(self) -> int:
        """How many trees there will be, as far as is known by now: depth limits that bind add to those needed."""
        return max(self.trees_needed, self.trees_done)

    @property
    def unit(self) -> str:
        """What is counted: trees or what stands for them, or fits where there are none."""
        return self.counted if self.trees else "fits"

    @property
    def done(self) -> int:
        """How many of what is counted are done."""
        return self.trees_done if self.trees else self.units_done

    @property
    def all(self) -> int:
        """How many of what is counted there will be."""
        return self.trees or self.units

    @property
    def seconds_left(self) -> float | None:
        """How much longer it takes if it goes on as it did; None at the beginning."""
        return self.seconds * (self.all - self.done) / self.done if self.done else None


class LocalEngine:
    """Runs units on threads of this process. They share the data, and trees grow without the interpreter lock.

    Parameters
    ----------
    n_jobs : int, optional
        How many threads. None means 1 (the caller's own thread), -1 means one per core.
    """

    cuts_groups = False  # bit for bit what scikit-learn computes

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs

    @property
    def slots(self) -> int:
        """How many units can run at the same time."""
        slots: int = effective_n_jobs(self.n_jobs)
        return slots

    def run(self, units: Sequence[Unit], data: SearchData, receive: Receive) -> None:
        """Run the units, see :class:`Engine`."""
        threads = min(self.slots, len(units))
        if threads <= 1:
            for number, unit in enumerate(units):
                for result in unit.run(data):
                    receive(number, result)
            return

        stop = threading.Event()
        waiting = iter(enumerate(units))
        taking = threading.Lock()
        # scikit-learn keeps its settings per thread.
        settings = get_config()

        def work() -> None:
            with config_context(**settings):
                while not stop.is_set():
                    with taking:
                        number, unit = next(waiting, (-1, None))
                    if unit is None:
                        return
                    for result in unit.run(data):
                        if stop.is_set():
                            return
                        receive(number, result)

        # scikit-learn sets and restores the process's warning filters for every tree, on several threads in any order:
        # this leaves them as they were.
        with (
            warnings.catch_warnings(),
            ThreadPoolExecutor(threads, thread_name_prefix="grid-search") as pool,
        ):
            workers = [pool.submit(work) for _ in range(threads)]
            try:
                waited_for = set(workers)
                # In portions: an interruption that comes from another thread doesn't wake a thread that waits.
                while waited_for and not any(worker.done() and worker.exception() for worker in workers):
                    _, waited_for = wait(waited_for, timeout=0.5, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
        for worker in workers:
            worker.result()


class JoblibEngine:
    """Runs units as ``GridSearchCV`` runs its fits: by joblib, in processes unless joblib's settings say otherwise.

    Parameters
    ----------
    n_jobs, pre_dispatch
        As in ``GridSearchCV``.
    """

    cuts_groups = False

    def __init__(self, n_jobs: int | None = None, pre_dispatch: int | str = "2*n_jobs") -> None:
        self.n_jobs, self.pre_dispatch = n_jobs, pre_dispatch

    @property
    def slots(self) -> int:
        """How many units can run at the same time."""
        slots: int = effective_n_jobs(self.n_jobs)
        return slots

    def run(self, units: Sequence[Unit], data: SearchData, receive: Receive) -> None:
        """Run the units, see :class:`Engine`."""
        how = {"n_jobs": self.n_jobs, "pre_dispatch": self.pre_dispatch}
        try:
            parallel = Parallel(**how, return_as="generator_unordered")
        except ValueError:  # a backend that returns all results at the end
            parallel = Parallel(**how)
        folds = {unit.fold: _one_fold(data, unit.fold) for unit in units}
        orders = (
            delayed(_results)([(number, units[number]) for number in batch], folds[units[batch[0]].fold])
            for batch in _batches(units, data, self.slots)
        )
        for results in parallel(orders):
            for number, result in results:
                receive(number, result)


def _one_fold(data: SearchData, fold: int) -> SearchData:
    """Leave out the others' rows, which needn't travel."""
    nothing = data.splits[fold][0][:0], data.splits[fold][1][:0]
    return replace(data, splits=[rows if number == fold else nothing for number, rows in enumerate(data.splits)])


def _batches(units: Sequence[Unit], data: SearchData, slots: int) -> list[list[int]]:
    """Put units together that share the steps in front, which each process fits for itself."""
    if last_step(data.estimator) is data.estimator:
        return [[number] for number in range(len(units))]
    alike: dict[tuple[int, int], list[int]] = {}
    for number, unit in enumerate(units):
        alike.setdefault((unit.fold, unit.setting), []).append(number)
    most = max(1, len(units) // (4 * slots))
    return [numbers[at : at + most] for numbers in alike.values() for at in range(0, len(numbers), most)]


def _results(batch: Sequence[tuple[int, Unit]], data: SearchData) -> list[tuple[int, Any]]:
    return [(number, result) for number, unit in batch for result in unit.run(data)]
