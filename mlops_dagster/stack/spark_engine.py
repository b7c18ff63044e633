"""The Spark engine: units of a search become Spark jobs, and their results come back as they are made.

A unit that takes its time is a Spark job of its own with one task: its results are home as soon as it is done, and the
Spark UI names it. Short ones share jobs, see `spark_batches`. Only what Connect can do too is used for the work itself;
the few lines that differ are in :class:`_Jobs`.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import tempfile
import threading
import time
import uuid
import warnings
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import mlops_dagster
from mlops_dagster.stack.executor import Facts, differences, make_look
from mlops_dagster.stack.secrets import redacted
from mlops_dagster.stack.spark_batches import Batches
from mlops_dagster.stack.spark_executor import SCHEMA, put_together, write_data
from mlops_dagster.stack.spark_java import SparkError

T = TypeVar("T")

_log = logging.getLogger(__name__)

MANY = 2**16  # rows; Spark cuts them into as many tasks as there are cores
CANCEL_SECONDS = 60
LOOK_SECONDS = 5

_sent: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()
"""What each session has been given already; it takes nothing twice."""


@contextmanager
def _what_travels() -> Iterator[None]:
    """Tell pyspark's cloudpickle, which is one of its own, which modules executors can't import."""
    import cloudpickle as ours
    from pyspark import cloudpickle

    told: set[str] = ours.list_registry_pickle_by_value() - cloudpickle.list_registry_pickle_by_value()  # type: ignore[no-untyped-call]
    try:
        for name in told:
            cloudpickle.register_pickle_by_value(sys.modules[name])  # type: ignore[no-untyped-call]
        yield
    finally:
        for name in told:
            cloudpickle.unregister_pickle_by_value(sys.modules[name])  # type: ignore[no-untyped-call]


class SparkEngine:
    """Runs the units of a grid search on a Spark session that is there: local, standalone, Connect, Databricks.

    Nothing happens before the first unit or the first look at `slots`: then the executors are waited for, and checked.

    Parameters
    ----------
    session : pyspark.sql.SparkSession
        Classic or Connect. It is used, and never stopped.
    slots : int, optional
        How many units can run at the same time. Not given: as many as Spark says the cluster has cores.
    executor_timeout : float, default=60
        How many seconds to wait for the first executor.

    Examples
    --------
    ``SharedGridSearchCV(forest, grid, engine=SparkEngine(spark)).fit(X, y)``
    """

    cuts_groups = True  # a cluster may have more cores than a search has groups

    def __init__(self, session: Any, *, slots: int | None = None, executor_timeout: float = 60) -> None:
        self.session = session
        self.executor_timeout = executor_timeout
        self._given_slots = slots
        self._slots: int | None = None
        self._here: Facts = {}
        self._checking = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> SparkEngine:
        """Return itself: cloning a search doesn't clone the cluster."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A fitted search can be pickled; the connection can't.
        return {**self.__dict__, "session": None, "_slots": None, "_checking": None}

    @property
    def slots(self) -> int:
        """How many units can run at the same time.

        Raises
        ------
        SparkError
            If no executor comes, or one doesn't fit.
        """
        if self.session is None:
            raise SparkError("this engine was pickled and has no session any more: give the search a new SparkEngine.")
        with self._checking:
            if self._slots is None:
                cores = self._check()
                self._slots = self._given_slots or cores
            return self._slots

    @property
    def ui_url(self) -> str | None:
        """The address of Spark's own pages about this session, where it is known."""
        return None if _is_connect(self.session) else self.session.sparkContext.uiWebUrl

    # ------------------------------------------------------------------------------------------------------- work

    @_what_travels()
    def run(self, units: Sequence[Any], data: Any, receive: Callable[[int, Any], None]) -> None:
        """Run every unit; call ``receive(number of the unit, result)`` for each result, from several threads.

        Raises
        ------
        SparkError
            If Spark can't run a unit, naming it. A unit whose executor is lost is run again by Spark.
        BaseException
            Whatever `receive` raises, or what interrupts the caller; the jobs that run are cancelled first.
        """
        from pyspark import cloudpickle
        from sklearn import get_config

        if not units:
            return
        threads = min(2 * self.slots, len(units))  # while a result travels, its core has the next unit already
        data_name = self._add(lambda folder: write_data(data, folder), file=True)
        settings, here = get_config(), self._here
        jobs = _Jobs(self.session)
        stop = threading.Event()
        # One that isn't a search's, such as a partition with all its steps, mustn't be done again for another's sake.
        sizes = [max(unit.trees, 1) if hasattr(unit, "trees") else None for unit in units]
        batches = Batches(sizes, self.slots)

        def collect(tasks: list[list[int]]) -> list[Any]:
            orders = [
                [(number, cloudpickle.dumps((units[number], settings), protocol=5)) for number in numbers]  # type: ignore[no-untyped-call]
                for numbers in tasks
            ]

            def grid_search_units(batches: Any) -> Any:  # travels by value, as it is made in here
                from mlops_dagster.stack import spark_executor

                # The one row of a task makes Spark start it, and says which it is.
                for task in [row for batch in batches for row in batch.column("id").to_pylist()]:
                    yield from spark_executor.pieces(orders[task], data_name, here)

            what, others = str(units[tasks[0][0]]), sum(map(len, tasks)) - 1
            if others:
                what += f" and {others} more"
            try:
                return jobs.collect(
                    f"grid search, {what}", grid_search_units, SCHEMA, rows=len(tasks), tasks=len(tasks)
                )
            except Exception as error:
                raise spark_error(what, error) from error

        def work() -> None:
            while not stop.is_set() and (tasks := batches.take()):
                for number, kind, said in put_together(collect(tasks)):
                    if stop.is_set():
                        return
                    if kind == "result":
                        receive(number, said)
                    elif kind == "seconds":
                        batches.took(number, said)
                    elif kind == "warning":
                        warnings.warn(said, stacklevel=2)
                    elif kind == "skew":
                        raise _skew(said)
                    else:
                        raise SparkError(f"{units[number]} failed on an executor:\n{said}")

        pool = ThreadPoolExecutor(threads, thread_name_prefix="spark-grid-search")
        workers = [pool.submit(work) for _ in range(threads)]
        try:
            _wait_for_all(workers, jobs)
        except BaseException as error:
            stop.set()
            if not isinstance(error, SparkGone):
                jobs.cancel(workers)
            raise
        finally:
            pool.shutdown(wait=False)

    def _add(self, make: Callable[[Path], Path], **kind: bool) -> str:
        """Give the session a file, which each executor fetches once; return the file's name."""
        folder = tempfile.mkdtemp(prefix="mlops_spark_")
        classic = None if _is_connect(self.session) else self.session.sparkContext
        sent = _sent.setdefault(classic or self.session, set())
        file = make(Path(folder))
        if file.name not in sent:
            try:
                self.session.addArtifacts(str(file), **kind)
            except Exception as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise spark_error("sending a file to Spark", error) from error
            sent.add(file.name)
            if classic is not None:
                # Executors that come later will fetch it from here, even when they don't need it any more.
                weakref.finalize(classic, shutil.rmtree, folder, ignore_errors=True)
                return file.name
        shutil.rmtree(folder)
        return file.name

    # ------------------------------------------------------------------------------------------------------ checks

    def _check(self) -> int:
        """Wait for the executors, compare them with this process, lend them our code; return the number of cores."""
        jobs = _Jobs(self.session)
        waited = f"no Spark executor came within {self.executor_timeout:g} seconds"
        try:
            within(self.executor_timeout, jobs.wait_for_an_executor)
        except TimeoutError:
            jobs.cancel()
            raise SparkError(
                f"{waited}. Does the cluster have a worker with a free core and enough free memory "
                "(spark.executor.memory)? To wait longer: executor_timeout."
            ) from None
        except Exception as error:
            raise spark_error("waiting for an executor", error) from error
        except BaseException:
            jobs.cancel()
            raise

        look = make_look()
        self._here = look()

        def look_around(batches: Any) -> Any:
            import json

            import pyarrow as pa

            for _ in batches:
                pass
            yield pa.RecordBatch.from_pydict({"facts": [json.dumps(look())]})

        cores, lent = 0, False
        while True:
            there = self._look(jobs, look_around)
            if not lent and any(facts["mlops_dagster"].startswith("missing") for facts in there):
                self._add(_pack_code, pyfile=True)
                lent = True
                continue
            for facts in there:
                if skew := differences(self._here, facts):
                    raise _skew(f"{facts['host']} ({facts['executable']}): {'; '.join(skew)}")
            # Executors register one after the other, and the first answers before the last is known.
            if len(there) == cores:
                return cores
            cores = len(there)

    def _look(self, jobs: _Jobs, look_around: Callable[[Any], Any]) -> list[Facts]:
        what = "looking at the executors"
        try:
            rows = within(None, lambda: jobs.collect(f"grid search, {what}", look_around, "facts string", rows=MANY))
        except Exception as error:
            # pyspark compares Python's version itself, before it runs anything.
            if said := re.search(r"different version: (\S+) than that in driver: (\d+\.\d+)", str(error)):
                raise _skew(f"Python is {said[1]} there and {said[2]} here") from None
            raise spark_error(what, error) from error
        except BaseException:
            jobs.cancel()
            raise
        return [json.loads(facts) for (facts,) in rows]


def _pack_code(folder: Path) -> Path:
    """Pack this package's sources, which an executor that lacks it imports as any other package."""
    root = Path(mlops_dagster.__file__).parent
    sources = {file.relative_to(root.parent).as_posix(): file.read_bytes() for file in sorted(root.rglob("*.py"))}
    digest = blake2b(b"".join(sources.values()), digest_size=8).hexdigest()
    archive = folder / f"mlops_dagster_{digest}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, source in sources.items():
            packed.writestr(name, source)
    return archive


# -------------------------------------------------------------------------------------------------------------- jobs


class _Jobs:
    """Spark jobs under one tag: started from any thread, cancelled together."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.tag = f"mlops-{uuid.uuid4().hex}"

    def collect(
        self, description: str, function: Callable[[Any], Any], schema: str, *, rows: int, tasks: int | None = None
    ) -> list[Any]:
        """Run a function over some rows, in as many tasks as given or as there are cores, and return what it yields."""
        self._name(description)
        collected: list[Any] = self.session.range(0, rows, 1, tasks).mapInArrow(function, schema).collect()
        return collected

    def without_executors(self) -> bool:
        """Whether all executors are gone; Connect can't tell, and on local Spark the driver is the executor."""
        if _is_connect(self.session) or self.session.sparkContext.master.startswith("local"):
            return False
        return len(self.session.sparkContext._jsc.sc().statusTracker().getExecutorInfos()) <= 1  # the driver is one

    def wait_for_an_executor(self) -> None:
        self._name("grid search, waiting for an executor")
        self.session.range(0, 1, 1, 1).collect()

    def _name(self, description: str) -> None:
        # Tags and descriptions belong to the thread that starts a job, so this is never the user's own thread.
        short = description if len(description) <= 200 else f"{description[:197]}..."
        if _is_connect(self.session):
            self.session.clearTags()
            self.session.addTag(self.tag)
            self.session.addTag(short.replace(",", ";"))  # Connect has no descriptions, but its page shows the tags
        else:
            self.session.sparkContext.addJobTag(self.tag)
            self.session.sparkContext.setJobDescription(short)

    def cancel(self, workers: Sequence[Future[None]] = ()) -> None:
        """Cancel the jobs, again and again until no thread waits for one: it may have been about to start another."""
        for _ in range(CANCEL_SECONDS):
            try:
                if _is_connect(self.session):
                    self.session.interruptTag(self.tag)
                else:
                    self.session.sparkContext.cancelJobsWithTag(self.tag)
            except Exception as error:  # noqa: BLE001 - what led to cancelling is worth more
                warnings.warn(f"Spark didn't cancel its jobs: {short(error)}", stacklevel=2)
                return
            if not wait(workers, timeout=1).not_done:
                return
        warnings.warn(f"Spark still runs jobs with the tag {self.tag}, though told to cancel them.", stacklevel=2)


def _wait_for_all(workers: Sequence[Future[None]], jobs: _Jobs) -> None:
    """Wait for all of them, or raise what the first one raises; say it when there is nobody left who works."""
    looked, alone = time.monotonic(), False
    while True:
        # In small portions: an interrupt that comes from a thread doesn't end a wait.
        ended, others = wait(workers, timeout=0.5, return_when=FIRST_EXCEPTION)
        for worker in ended:
            worker.result()
        if not others:
            return
        if time.monotonic() - looked > LOOK_SECONDS:
            before, alone, looked = alone, jobs.without_executors(), time.monotonic()
            if alone and not before:
                _log.warning(
                    "All of Spark's executors are gone: waiting for new ones, as long as it takes. Start a worker, or "
                    "stop the search and start it again later; what is done is kept."
                )


def _is_connect(session: Any) -> bool:
    return type(session).__module__.startswith("pyspark.sql.connect")


def within(seconds: float | None, call: Callable[[], T]) -> T:
    """Call something in a thread of its own, and stop waiting for it after a while.

    Raises
    ------
    TimeoutError
        If it takes longer. It goes on until somebody ends what it waits for.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            done.set_exception(error)

    threading.Thread(target=work, daemon=True, name="spark-waiting").start()
    until = None if seconds is None else time.monotonic() + seconds
    while not wait([done], timeout=0.5).done:
        if until is not None and time.monotonic() > until:
            raise TimeoutError
    return done.result()


# ------------------------------------------------------------------------------------------------------------ errors


def short(error: BaseException) -> str:
    """Return what an error of Spark says without the stack traces of two languages."""
    if said := re.search(r"(StatusCode\.\w+).*?details = \"(.*?)\"\n", str(error), flags=re.DOTALL):
        return f"{said[1]}: {said[2]}"  # gRPC's, which says the rest twice
    noise = re.compile(r"\s*at |\s*\.\.\. \d+ more|JVM stacktrace|Driver stacktrace|Caused by|\s*$")
    lines = [line for line in str(error).splitlines() if not noise.match(line)]
    text = redacted("\n".join(lines))
    return text if len(text) <= 1500 else f"{text[:1000]}\n...\n{text[-500:]}"


class SparkGone(SparkError):  # noqa: N818 it reads better where it is caught
    """The Spark Connect server doesn't answer any more."""


def spark_error(what: str, error: BaseException) -> SparkError:
    """Return what Spark says as one of our errors: what was being done, why it failed, and the cure."""
    if said := re.search(r"StatusCode\.UNAVAILABLE.*?details = \"(.*?)\"\n", str(error), flags=re.DOTALL):
        why = said[1].split(": ")[-1]
        cure = "Start it again, and run this again; what is done is kept."
        return SparkGone(f"{what}: the Spark Connect server doesn't answer any more ({why}). {cure}")
    return SparkError(f"{what}: Spark gave up ({type(error).__name__}): {short(error)}")


def _skew(said: str) -> SparkError:
    return SparkError(
        f"the executors' Python doesn't fit this one: {said}. What is fitted there might differ. Install the same "
        f"versions there, or let PYSPARK_PYTHON (on Connect: the server's) name a Python that has them."
    )
