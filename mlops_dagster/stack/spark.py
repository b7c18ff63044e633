"""Spark sessions for the grid search: one of our own (local, standalone, Connect), or the one that is there."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mlops_dagster.errors import install, needs
from mlops_dagster.stack.environment import changed_environment
from mlops_dagster.stack.spark_engine import SparkEngine, short, within
from mlops_dagster.stack.spark_java import SparkError, java_home

__all__ = ["SparkEngine", "SparkError", "SparkSettings", "spark_engine", "spark_session"]

_log = logging.getLogger(__name__)
_LOCAL = re.compile(r"local(\[(\*|[1-9]\d*)(,\s*[1-9]\d*)?\])?")
_ADDRESS = r"(\[[0-9a-fA-F:]+\]|[\w.-]+)"
_STANDALONE = re.compile(rf"spark://{_ADDRESS}:\d+(,{_ADDRESS}:\d+)*")
_CONNECT = re.compile(rf"sc://{_ADDRESS}(:\d+)?(/(;[^;=]+=[^;]*)*)?")


class SparkSettings(BaseModel):
    """Where the grid search's units run if they run on Spark."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    # These two may hold secrets (a Connect token, a store's key): they are never shown.
    master: str = Field(
        default="local[*]",
        repr=False,
        description="local[N], spark://host:port, sc://host:port, or 'active': the session that is there (Databricks)",
    )
    conf: dict[str, str | int | float | bool] = Field(
        default={},
        repr=False,
        description="Spark's own settings for a session that we open, e.g. spark.executor.memory",
    )
    slots: int | None = Field(
        default=None, ge=1, description="How many units run at the same time. Default: as many as there are cores"
    )
    connect_timeout: float = Field(default=30, gt=0, description="Seconds to wait for the master or the server")
    executor_timeout: float = Field(default=60, gt=0, description="Seconds to wait for the first executor")
    search: bool = Field(
        default=False, description="Whether the searches of declared models run on Spark, unless a run says otherwise"
    )
    train: bool = Field(
        default=False,
        description="Whether the trees of a random forest or of extra trees grow on Spark when it is trained; other "
        "estimators are always fitted in the step's own process",
    )
    partitions: bool = Field(
        default=False,
        description="Whether the partitions of a run of many are spread over Spark's executors, each a task that runs "
        "their steps on one core. Executors have to reach the store and MLflow, with credentials of their own",
    )

    @field_validator("master")
    @classmethod
    def _one_of_four_kinds(cls, master: str) -> str:
        if master != "active" and not any(kind.fullmatch(master) for kind in (_LOCAL, _STANDALONE, _CONNECT)):
            raise ValueError(
                "give local[N], local[*], spark://host:port, sc://host:port or active (YARN and Kubernetes: start the "
                "session there with their own tools, and say active)"
            )
        return master

    @field_validator("conf")
    @classmethod
    def _names_of_spark(cls, conf: dict[str, Any]) -> dict[str, Any]:
        for name in conf:
            if not name.startswith("spark."):
                raise ValueError(f"{name}: Spark's settings begin with 'spark.'")
            if name in ("spark.master", "spark.remote"):
                raise ValueError(f"{name}: say it with the setting master")
        return conf

    @property
    def shown_master(self) -> str:
        """The master without what follows the address, which may be a token."""
        return self.master.split("/;")[0]


@contextmanager
def spark_engine(settings: SparkSettings) -> Iterator[SparkEngine]:
    """Open or join a Spark, check its executors, and yield the engine that runs units there.

    Parameters
    ----------
    settings : SparkSettings
        Which Spark, and how long to wait for it.

    Yields
    ------
    SparkEngine
        Its executors are there and fit this Python. A session of our own is stopped at the end, any other left alone.

    Raises
    ------
    SparkError
        If there is no Java, no answer, no executor, or one that doesn't fit.
    """
    with spark_session(settings) as session:
        engine = SparkEngine(session, slots=settings.slots, executor_timeout=settings.executor_timeout)
        engine.slots  # noqa: B018 - looks at the executors, before anybody does any work
        yield engine


@contextmanager
def spark_session(settings: SparkSettings) -> Iterator[Any]:
    """Open or join a Spark and yield its session; stop it at the end if it is our own.

    Raises
    ------
    SparkError
        If pyspark or Java is missing, the master doesn't answer, or another session is in the way.
    """
    try:
        import pyspark  # noqa: F401
    except ImportError as error:
        raise SparkError(needs("Spark", error)) from None
    if settings.master == "active":
        yield _active_session()
    elif settings.master.startswith("sc://"):
        with _connect_session(settings) as session:
            yield session
    elif (session := _classic_session_that_is_there(settings)) is not None:
        yield session
    else:
        with _classic_session(settings) as session:
            yield session


# ---------------------------------------------------------------------------------------------- sessions of somebody


def _active_session() -> Any:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if SparkContext._active_spark_context is not None:
        return SparkSession.builder.getOrCreate()
    with suppress(ImportError):  # Connect's own requirements
        from pyspark.sql.connect.session import SparkSession as ConnectSession

        if session := ConnectSession.getActiveSession() or ConnectSession._get_default_session():
            return session
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return SparkSession.builder.getOrCreate()  # a wheel task's process isn't connected before it asks
    raise SparkError(
        "spark.master=active, but no Spark session is active in this process: create one first (a Databricks "
        "notebook or job has one), or give local[*], spark://host:port or sc://host:port."
    )


def _classic_session_that_is_there(settings: SparkSettings) -> Any:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    there = SparkContext._active_spark_context
    if there is None:
        return None
    # A process has one classic Spark at most.
    if there.master not in (settings.master, _retrying(settings.master)):
        raise SparkError(
            f"this process has a Spark session on {there.master} already, and can't have another on "
            f"{settings.shown_master}: stop that one, or set spark.master=active to use it."
        )
    return SparkSession.builder.getOrCreate()


# ------------------------------------------------------------------------------------------------- sessions of our own


@contextmanager
def _connect_session(settings: SparkSettings) -> Iterator[Any]:
    try:
        from pyspark.sql.connect.session import SparkSession

        from mlops_dagster.stack.spark_connect import Patience
    except ImportError as error:
        raise SparkError(f"Spark Connect can't be used ({error}): {install('pyspark')}.") from None

    address = re.match(rf"sc://({_ADDRESS})(?::(\d+))?", settings.master)
    assert address is not None
    _knock([(address[1], int(address[3] or 15002))], settings)

    patience = Patience(settings.shown_master)
    # That the retries are over is said by the error.
    warnings.filterwarnings("ignore", r"\[RETRIES_EXCEEDED\]")

    def connect() -> Any:
        session = SparkSession.builder.remote(settings.master).create()
        session.client.set_retry_policies([patience])
        session.version  # noqa: B018 - the first word with the server
        for name, value in settings.conf.items():
            session.conf.set(name, _text(value))
        return session

    try:
        session = within(settings.connect_timeout, connect)
    except TimeoutError:
        raise _no_answer(settings, f"nothing within {settings.connect_timeout:g} seconds") from None
    except Exception as error:  # noqa: BLE001 - gRPC's, Spark's and Python's own
        raise _no_answer(settings, short(error)) from None
    try:
        yield session
    finally:
        patience.end()  # a server that is gone isn't waited for once more to tell it that we go
        session.stop()


@contextmanager
def _classic_session(settings: SparkSettings) -> Iterator[Any]:
    """Start a JVM of our own with a session, and end both."""
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    local = settings.master.startswith("local")
    if not local:
        _knock(re.findall(rf"({_ADDRESS}):(\d+)", settings.master), settings)
    with tempfile.TemporaryDirectory(prefix="mlops_spark_", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        conf = _conf(settings, folder)
        # The rest is told to the JVM when it runs: everybody on the machine can read a command line.
        at_start = {name: value for name, value in conf.items() if name.startswith(("spark.driver.", "spark.jars"))}
        jvm: list[Any] = []

        def launch() -> None:
            with (folder / "jvm.log").open("wb") as log:
                output = {"stdout": log, "stderr": log}
                settings_at_start = SparkConf(loadDefaults=False).setAll(list(at_start.items()))
                jvm.append(launch_gateway(settings_at_start, output))  # type: ignore[no-untyped-call]

        def start() -> Any:
            context = SparkContext(gateway=jvm[0] if jvm else None, conf=SparkConf().setAll(list(conf.items())))
            context.setLogLevel("ERROR")
            return SparkSession(context)

        try:
            # In a thread that isn't the main one, Spark leaves the process's Ctrl-C to those who had it before.
            with changed_environment(_variables(conf, local, folder)):
                if SparkContext._gateway is None:
                    within(None, launch)
                session = within(None if local else settings.connect_timeout, start)
        except BaseException as error:
            log = (folder / "jvm.log").read_text(errors="replace") if (folder / "jvm.log").exists() else ""
            _end(jvm, patience=1)
            if isinstance(error, TimeoutError):
                raise _no_answer(settings, f"nothing within {settings.connect_timeout:g} seconds") from None
            if isinstance(error, SparkError) or not isinstance(error, Exception):
                raise
            raise SparkError(f"Spark doesn't start on {settings.shown_master}: {short(error)}\n{log[-2000:]}") from None
        try:
            yield session
        finally:
            with suppress(Exception):  # the JVM may be gone
                session.stop()
            _end(jvm)


def _conf(settings: SparkSettings, folder: Path) -> dict[str, str]:
    """Return all settings of a session of our own."""
    quiet = {
        "spark.master": _retrying(settings.master),
        "spark.app.name": "mlops_dagster",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.port.maxRetries": "100",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),  # else in the working directory
        "spark.executorEnv.OMP_NUM_THREADS": "1",  # one unit, one core
    }
    if settings.master.startswith("local") or re.search(r"//(localhost|127\.[\d.]+|\[::1\]):", settings.master):
        loopback = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    else:
        # The executors have to reach the driver; its page, which asks for no password, is for nobody unless asked for.
        loopback = {"spark.ui.enabled": "false"}
    return {**quiet, **loopback, **{name: _text(value) for name, value in settings.conf.items()}}


def _retrying(master: str) -> str:
    """Let local Spark try a task again, which it does everywhere else: ``local[2]`` becomes ``local[2,4]``."""
    found = _LOCAL.fullmatch(master)
    return f"local[{found[2] or 1},4]" if found and not found[3] else master


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _variables(conf: Mapping[str, str], local: bool, folder: Path) -> dict[str, str]:
    """Return the environment in which Spark starts."""
    variables = {
        "JAVA_HOME": str(java_home(folder)),
        "PYSPARK_PYTHON": conf.get("spark.pyspark.python") or os.environ.get("PYSPARK_PYTHON") or sys.executable,
    }
    if local:
        variables["SPARK_LOCAL_IP"] = "127.0.0.1"  # the UI, too, is for this machine only
    return variables


def _knock(addresses: list[Any], settings: SparkSettings) -> None:
    """Connect to one of the addresses and hang up; somebody who isn't there yet is waited for."""
    until, said = time.monotonic() + settings.connect_timeout, False
    while True:
        problems = []
        for host, *_, port in addresses:
            try:
                with socket.create_connection((host.strip("[]"), int(port)), timeout=settings.connect_timeout):
                    return
            except (OSError, OverflowError) as error:
                problems.append(error)
        reasons = "; ".join(
            f"{where[0]}:{where[-1]}: {error}" for where, error in zip(addresses, problems, strict=True)
        )
        if time.monotonic() + 1 > until or not any(isinstance(error, ConnectionError) for error in problems):
            raise _no_answer(settings, reasons)
        if not said:
            _log.warning(
                "No Spark answers at %s yet (%s): waiting up to %g seconds (spark.connect_timeout).",
                *(settings.shown_master, reasons, settings.connect_timeout),
            )
            said = True
        time.sleep(1)


def _no_answer(settings: SparkSettings, said: str) -> SparkError:
    return SparkError(
        f"no Spark answers at {settings.shown_master} ({said}). Is it running, and is spark.master "
        "(MLOPS_SPARK__MASTER) right? To wait longer: spark.connect_timeout."
    )


def _end(jvm: list[Any], patience: float = 20) -> None:
    """End the JVM that we started, so that the next session can start one with other settings."""
    from pyspark import SparkContext

    for gateway in jvm:
        with suppress(Exception):
            gateway.shutdown()
        with suppress(OSError):
            gateway.proc.stdin.close()  # it ends itself when its parent is gone, and tidies up
        try:
            gateway.proc.wait(patience)
        except subprocess.TimeoutExpired:
            gateway.proc.kill()
            gateway.proc.wait()
        # pyspark keeps these for good; there is no other way to tell it that they are gone.
        if SparkContext._gateway is gateway:
            SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
