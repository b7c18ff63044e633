"""Many partitions in one run: spread over processes that stay warm, each with a session of its own.

A worker imports once and takes the next partition when it is free, so that memory is bounded by the pool and not by the
number of partitions. One that dies is replaced; its partition is tried once more.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Lock
from typing import Any

from mlops_dagster.chains import Chain, Outcome, Receive, Task, Unit, run_task
from mlops_dagster.process_settings import FOR_STEPS
from mlops_dagster.steps.report_pieces import RemoteFailure

GRACE = 10.0
"""Seconds in which a worker that is told to stop can end its run in MLflow."""
_TRIES = 2  # of a partition whose worker died
# A process that was asked for workers imports it once, for all of them.
_NEEDED = [*FOR_STEPS, "mlops_dagster.modeling.evaluation", "mlops_dagster.steps.train"]


def run_partitions(chain: Chain, tasks: Sequence[Task], receive: Receive) -> None:
    """Run partitions on the executors of the deployment's Spark if it says so, otherwise in a pool of processes.

    Parameters
    ----------
    receive : callable
        Is told of each partition as it is done. Whatever ends the wait stops what is being done.

    Raises
    ------
    TrackingError, SparkError
        If MLflow can't be reached, or the deployment's Spark can't run them.
    """
    with chain.session() as session:  # what the settings get wrong is refused once, and here
        session.reach_tracking(chain.given)
    if not chain.deployment.spark.partitions:
        _run_in_pool(chain, tasks, receive)
        return
    from mlops_dagster.stack.spark import spark_engine

    one_at_a_time = Lock()  # an engine tells from several threads

    def tell(number: int, outcome: Outcome) -> None:
        with one_at_a_time:
            receive(outcome)

    with spark_engine(chain.deployment.spark) as engine:
        engine.run([Unit(task) for task in tasks], chain.on_one_core(), tell)


def _run_in_pool(chain: Chain, tasks: Sequence[Task], receive: Receive) -> None:
    from joblib import cpu_count

    said, waiting = chain.deployment.runs, deque(tasks)
    pool = _Pool(chain, min(said.processes or cpu_count(), len(waiting)), said.seconds_per_partition)
    try:
        while waiting or pool.busy:
            while waiting and (worker := pool.free()):
                worker.take(waiting.popleft())
            for worker in pool.heard():
                task, outcome = worker.task, worker.answer()
                if outcome is None and task.attempt < _TRIES and not worker.overdue:
                    waiting.appendleft(task._replace(attempt=task.attempt + 1))
                else:
                    receive(outcome or _lost(task, worker, chain))
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
        # The server that forks has the environment of its start.
        given = (theirs, chain, dict(os.environ), str(Path.cwd()))
        self.process = context.Process(target=_work, args=given, name="mlops-worker")
        with _without_main():
            self.process.start()
        theirs.close()
        self.task: Any = None
        self.deadline: float | None = None  # known when it has begun
        self.overdue = False

    def take(self, task: Task) -> None:
        self.task, self.deadline = task, None
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

    def begins(self, limit: float | None) -> bool:
        """Whether what it says now is only that it begins, which a new one can't before it has imported."""
        if self.deadline is not None:
            return False
        with suppress(EOFError, OSError):
            self.pipe.recv()
            self.deadline = time.monotonic() + (math.inf if limit is None else limit)
            return True
        return False

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

    def heard(self) -> list[_Worker]:
        """Wait for workers that are done, have died, or take too long."""
        busy = self.busy
        deadline = min((one.deadline for one in busy if one.deadline is not None), default=math.inf)
        heard = wait(
            [one.pipe for one in busy], None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        )
        for one in busy:
            one.overdue = one.pipe not in heard and one.deadline is not None and time.monotonic() >= one.deadline
        return [one for one in busy if one.overdue or (one.pipe in heard and not one.begins(self._limit))]

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


@contextmanager
def _without_main() -> Iterator[None]:
    """Let a new process not import what this one was started with, as multiprocessing does: nothing of it is needed.

    On Databricks that is a script that can't be run twice.
    """
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__spec__", "__file__") if hasattr(main, name)}
    try:
        main.__spec__ = None
        vars(main).pop("__file__", None)
        yield
    finally:
        vars(main).update(kept)


def _start_method() -> str:
    """Return how a worker is started: as a copy of a process that has imported what it needs, and has one thread.

    A run that began warm is such a process; anybody else starts a server that is one.
    """
    threads = Path("/proc/self/task")
    if "mlflow" in sys.modules and threads.exists() and len([*threads.iterdir()]) == 1:
        return "fork"
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _work(pipe: Connection, pickled: bytes, environment: Mapping[str, str], folder: str) -> None:
    """Take partitions until the pool, or its process, is gone."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
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
            pipe.send(None)  # it begins
            pipe.send(run_task(session, chain, task))
