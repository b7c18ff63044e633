"""Many partitions in one run: spread over processes that stay warm, each with a session of its own.

A worker imports once and takes the next partition when it is free, so that memory is bounded by the pool and not by the
number of partitions. One that dies is replaced; its partition is tried once more.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_dagster.errors import MlopsError
from mlops_dagster.session import Session, on_spark
from mlops_dagster.spec import steps as names
from mlops_dagster.steps.report_pieces import RemoteFailure, failure_message

if TYPE_CHECKING:
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Deployment
    from mlops_dagster.stack.tracking import Origin
    from mlops_dagster.steps import StepReport
    from mlops_dagster.steps.inputs import Pins
    from mlops_dagster.steps.questions import Finding

GRACE = 10.0
"""Seconds in which a worker that is told to stop can end its run in MLflow."""
_TRIES = 2  # of a partition whose worker died
# What steps need. A process that was asked for workers imports it once, for all of them.
_NEEDED = ["deltalake", "mlflow.sklearn", "mlops_dagster.modeling.evaluation", "mlops_dagster.steps.train"]


class Task(NamedTuple):
    """A partition, which steps to run for it, and what was made for it before."""

    partition: str
    steps: tuple[str, ...]
    inputs: Pins = {}


@dataclass(frozen=True)
class Chain:
    """The steps of a model, one after the other, each on what those before it have made.

    Parameters
    ----------
    given : mapping
        By a step's name its parameters.
    checked : bool
        Whether what a step has made is checked, too; nothing is made of what a blocking check refuses.
    """

    deployment: Deployment
    model: Declaration
    origin: Origin
    given: Mapping[str, Mapping[str, Any]]
    checked: bool = False

    def session(self, **tools: Any) -> Session:
        """Open the tools."""
        return Session(self.deployment, self.model, self.origin, **tools)

    @property
    def travels(self) -> bool:
        """Whether another process can run it: it needs nothing that only this one has."""
        if self.deployment.tracking.client != "mlops":
            return False
        said = self.model.predictions
        if self.model.data.asset or (said and said.data and said.data.asset):
            return False
        return not any(on_spark(self.deployment, self.model, step, given) for step, given in self.given.items())


@dataclass
class Outcome:
    """What came of a partition.

    Attributes
    ----------
    findings : dict
        By the name of a check what it found.
    step, failure
        The step that failed, and why.
    """

    partition: str
    reports: list[StepReport] = field(default_factory=list)
    findings: dict[str, Finding] = field(default_factory=dict)
    step: str = ""
    failure: RemoteFailure | None = None


def run_task(session: Session, chain: Chain, task: Task) -> Outcome:
    """Run a partition's steps in this process; what fails is part of the outcome."""
    from mlops_dagster.steps import Inputs
    from mlops_dagster.steps.checks import checks_of

    made, outcome, known = dict(task.inputs), Outcome(task.partition), names.steps_of(chain.model)
    for step in task.steps:
        outcome.step = step
        try:
            report = session.run(step, task.partition, chain.given[step], inputs=made)
            made |= report.outputs
            outcome.reports.append(report)
            for check in checks_of(chain.model) if chain.checked else ():
                if check.step != step:
                    continue
                tables = Inputs(task.partition, session.store, made, known=known)
                found = outcome.findings[check.name] = check.answer(tables, session.tracker.registry)
                if check.blocking and found.good is False:
                    raise MlopsError(f"{check.name}: {found.said}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the other partitions go on
            outcome.failure = RemoteFailure(**failure_message(error)["failure"])
            return outcome
    return outcome


def run_here(session: Session, chain: Chain, tasks: Iterable[Task]) -> Iterator[Outcome]:
    """Run partitions one after the other in this process, with tools that are open."""
    return (run_task(session, chain, task) for task in tasks)


def run_in_pool(chain: Chain, tasks: Iterable[Task]) -> Iterator[Outcome]:
    """Run partitions in as many processes as the deployment says, and yield each as it is done.

    Whatever ends the iteration stops the workers, and with them what they are doing.
    """
    from joblib import cpu_count

    said = chain.deployment.runs
    waiting = deque((task, 1) for task in tasks)
    pool = _Pool(chain, min(said.processes or cpu_count(), len(waiting)), said.seconds_per_partition)
    try:
        while waiting or pool.busy:
            while waiting and (worker := pool.free()):
                worker.take(*waiting.popleft())
            for worker in pool.ready():
                task, tries = worker.task
                outcome = worker.answer()
                if outcome is None and tries < _TRIES and not worker.overdue:
                    waiting.appendleft((task, tries + 1))
                    continue
                yield outcome or _lost(task, worker, chain)
    finally:
        pool.stop()


def _lost(task: Task, worker: _Worker, chain: Chain) -> Outcome:
    if worker.overdue:
        limit = chain.deployment.runs.seconds_per_partition
        said = (
            f"it took longer than {limit:g} s and was stopped. If it is right, raise runs.seconds_per_partition of the "
            "deployment (MLOPS_RUNS__SECONDS_PER_PARTITION)."
        )
    else:
        code = worker.process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        short = " The system kills so what needs more memory than there is." if code == -signal.SIGKILL else ""
        said = f"its process ended {how}, {_TRIES} times.{short} What its finished steps have stored is kept."
    failure = RemoteFailure("WorkerLost", said, "", 1)
    return Outcome(task.partition, step=task.steps[0], failure=failure)


class _Worker:
    """A process, and the partition that it has taken."""

    def __init__(self, chain: bytes) -> None:
        context: Any = multiprocessing.get_context(_start_method())
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(_NEEDED)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, chain), name="mlops-worker")
        self.process.start()
        theirs.close()
        self.task: Any = None
        self.began, self.overdue = 0.0, False

    def take(self, task: Task, tries: int) -> None:
        self.task, self.began = (task, tries), time.monotonic()
        with suppress(OSError):  # it has died meanwhile, which its answer will say
            self.pipe.send(task)

    def answer(self) -> Outcome | None:
        """Return what it has to say; nothing if it has died, or is stopped now since it took too long."""
        self.task, outcome = None, None
        if not self.overdue:
            with suppress(EOFError, OSError):
                outcome = self.pipe.recv()
        if outcome is None:
            self.stop()
        return outcome

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


class _Pool:
    def __init__(self, chain: Chain, size: int, limit: float | None) -> None:
        import cloudpickle

        self._chain, self._size, self._limit = cloudpickle.dumps(chain), size, limit
        self._state_dir = chain.deployment.state_dir
        self._workers: list[_Worker] = []
        self._lost = False

    @property
    def busy(self) -> list[_Worker]:
        return [one for one in self._workers if one.task is not None]

    def free(self) -> _Worker | None:
        self._drop_dead()
        for one in self._workers:
            if one.task is None:
                return one
        if len(self._workers) < self._size:
            self._workers.append(_Worker(self._chain))
            return self._workers[-1]
        return None

    def ready(self) -> list[_Worker]:
        """Wait for workers that have something to say, have died, or take too long."""
        busy, now = self.busy, time.monotonic()
        left = None if self._limit is None else max(0.0, min(one.began for one in busy) + self._limit - now)
        heard = wait([one.pipe for one in busy], left)
        now = time.monotonic()
        for one in busy:
            one.overdue = self._limit is not None and one.pipe not in heard and now >= one.began + self._limit
        return [one for one in busy if one.pipe in heard or one.overdue]

    def _drop_dead(self) -> None:
        dead = [one for one in self._workers if one.pipe.closed]
        self._lost = self._lost or bool(dead)
        self._workers = [one for one in self._workers if one not in dead]

    def stop(self) -> None:
        """Stop all; what a killed one has left RUNNING in MLflow is ended."""
        self._lost = self._lost or bool(self.busy)
        for one in self._workers:
            with suppress(OSError):
                one.process.terminate()
        self._drop_dead()
        for one in self._workers:
            one.stop()
        if self._lost:
            from mlops_dagster.stack.tracking import reap_abandoned_runs

            reap_abandoned_runs(self._state_dir)


def _start_method() -> str:
    """Return how a worker is started: from a process that has imported what it needs, and nothing else."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _work(pipe: Connection, pickled: bytes) -> None:
    """Take partitions until the pool, or its process, is gone."""
    import cloudpickle
    from threadpoolctl import threadpool_limits

    from mlops_dagster.process_settings import collect_rarely

    collect_rarely()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool says when to stop
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with suppress(OSError):  # if memory runs out, a worker is what is killed
        Path("/proc/self/oom_score_adj").write_text("500")
    os.environ["LOKY_MAX_CPU_COUNT"] = "1"  # what joblib takes for all cores
    parent = multiprocessing.parent_process()
    assert parent is not None
    chain: Chain = cloudpickle.loads(pickled)
    with threadpool_limits(1), chain.session() as session:
        while pipe in wait([pipe, parent.sentinel]):
            try:
                task = pipe.recv()
            except EOFError:
                return
            pipe.send(run_task(session, chain, task))
