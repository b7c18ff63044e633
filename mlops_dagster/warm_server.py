"""A server that has imported what runs need and forks a process for each, so that a run begins within a moment.

A new process imports for seconds before its first step. A server stands for one environment, working directory, Python
and code location, whose definitions it has loaded; it has opened no database, and has one thread, so that a copy of it
is as good as a new process. The copy takes the lock of its run and executes what `dagster api execute_run` does. From
then on it needs no server; one that is gone is started again by the next launch.

A server ends when nobody asked for ten minutes, when the folder of its instance is gone, and when the code has changed.
It stays in the group of processes that it was started from, and so do the runs: whoever ends the group ends them all.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import mmap
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._cli.api import execute_run_command
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import deserialize_value, serialize_value
from dagster._utils import get_run_crash_explanation
from dagster._utils.hosted_user_process import recon_repository_from_origin
from dagster._utils.interrupts import capture_interrupts

from mlops_dagster.loaded_code import LoadedCode
from mlops_dagster.process_settings import FOR_STEPS
from mlops_dagster.run_locks import hold_in
from mlops_dagster.warm_runs import CHANGED, GO, HELD, MESSAGE_BYTES, PATIENCE_SECONDS, address_in, peer

IDLE_SECONDS = 600
_LOOKS_EVERY_SECONDS = 5
_IMPORTS_SECONDS = 5
_DAY = 24 * 60 * 60


def serve() -> None:
    """Serve in the folder and by the name that the arguments say, until nobody needs it."""
    import fcntl

    folder, name = Path(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    mask = os.umask(0o077)
    lock_file = folder / f"{name}.server"
    lock = lock_file.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another was quicker
    for left in folder.glob("*.server"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _DAY:  # of one that was killed; a living one is found no more
                _clear(left)
    lock_file.with_suffix(".socket").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening, address_in(folder, name) as address:
        listening.bind(address)
        listening.listen(64)
        os.umask(mask)
        _Server(folder, listening, lock.fileno()).run()
    _clear(lock_file)
    os._exit(0)  # without waiting for the runs


def _clear(lock_file: Path) -> None:
    for kind in (".socket", ".log", ".server"):
        lock_file.with_suffix(kind).unlink(missing_ok=True)


class _Server:
    """Loads the code of the first run that it is asked for, and copies itself for each."""

    def __init__(self, folder: Path, listening: socket.socket, lock: int) -> None:
        self._folder, self._listening, self._lock = folder, listening, lock
        self._code: LoadedCode | None = None
        self._to_import = list(FOR_STEPS)
        # The processes, and what each executes; whoever reports a crash executes nothing.
        self._copies: dict[Any, tuple[ExecuteRunArgs, mmap.mmap] | None] = {}
        self._secrets: Mapping[str, str] = {}
        self._copying = multiprocessing.get_context("fork")

    def run(self) -> None:
        """Serve until the code has changed, the folder is gone, or nothing was to be done for long."""
        until = time.monotonic() + IDLE_SECONDS
        wanted = True
        while wanted and self._folder.exists() and (self._copies or time.monotonic() < until):
            # The first run waits for nothing that its later steps need, and has the machine for itself.
            to_import = self._code and self._to_import and not self._copies
            seconds = 0 if to_import else _LOOKS_EVERY_SECONDS
            ready = wait([self._listening, *(copy.sentinel for copy in self._copies)], seconds)
            self._bury()
            if self._listening in ready:
                wanted = self._answer(self._listening.accept()[0])
                until = time.monotonic() + IDLE_SECONDS
            elif to_import:
                self._import_next()

    def _import_next(self) -> None:
        self._load(partial(importlib.import_module, self._to_import.pop(0)))

    def _load(self, load: Callable[[], Any]) -> None:
        began = time.time_ns()
        with suppress(Exception) if self._code else nullcontext():  # a run that needs it will say what is wrong
            load()
        self._code = self._code or LoadedCode()
        self._code.learn(began)
        gc.freeze()  # a copy that looked through this for garbage would need the memory twice

    def _answer(self, connection: socket.socket) -> bool:
        """Answer one launcher; return whether this server can serve another."""
        with connection:
            connection.settimeout(_LOOKS_EVERY_SECONDS)
            numbers: list[int] = []
            try:
                if peer(connection)[1] != os.geteuid():
                    return True
                said, numbers, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 2)
                location, serialized = json.loads(said)
                run = deserialize_value(serialized, ExecuteRunArgs)
                refusal = self._refuse(run, location)
                if refusal is not None:
                    connection.send(refusal)
                    return self._code is not None and refusal != CHANGED
                began = mmap.mmap(-1, 1)  # shared with the copy
                copy: Any = self._copying.Process(target=self._execute, args=(connection, numbers, run, began))
                copy.start()
                self._copies[copy] = (run, began)
            except (OSError, ValueError):
                traceback.print_exc()  # one launcher's trouble is no other's
            finally:
                for number in numbers:
                    os.close(number)
        return True

    def _refuse(self, run: ExecuteRunArgs, location: str) -> bytes | None:
        try:
            secrets = run.instance_ref.secrets_loader.get_secrets_for_environment(location)  # type: ignore[union-attr]
            if self._code is None:
                os.environ.update(secrets)
                self._secrets = secrets
                recon = recon_repository_from_origin(run.job_origin.repository_origin)
                self._load(recon.get_definition)
            elif self._code.has_changed() or secrets != self._secrets:
                return CHANGED
            until = time.monotonic() + _IMPORTS_SECONDS  # for one that comes while the first runs, and those after it
            while self._copies and self._to_import and time.monotonic() < until:
                self._import_next()
        except Exception as error:  # noqa: BLE001 (whatever the code of a location raises)
            traceback.print_exc()
            return f"The server for warm runs can't load the code: {type(error).__name__}: {error}".encode()[:2000]
        threads = [one.name for one in threading.enumerate()[1:]]
        return f"The code starts threads when it is loaded: {', '.join(threads)}".encode() if threads else None

    def _bury(self) -> None:
        """Fail the runs whose process ended before it could say so itself, as Dagster's code servers do."""
        for copy in [copy for copy in self._copies if copy.exitcode is not None]:
            executed = self._copies.pop(copy)
            if copy.exitcode and executed and executed[1][0]:
                reporter: Any = self._copying.Process(target=_report_crash, args=(executed[0], copy.exitcode))
                reporter.start()
                self._copies[reporter] = None

    def _execute(self, connection: socket.socket, numbers: list[int], run: ExecuteRunArgs, began: mmap.mmap) -> None:
        """Be the process of a run: from here on everything happens in the copy."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._listening.close()
        os.close(self._lock)
        for number, into in zip(numbers, (1, 2), strict=True):
            os.dup2(number, into)
            os.close(number)
        with capture_interrupts():
            connection.settimeout(PATIENCE_SECONDS)
            try:
                held = hold_in(self._folder, run.run_id)
                connection.send(HELD)
                if connection.recv(len(GO)) != GO:
                    return  # whoever launched it has lost patience
            except OSError as error:  # a full disk; the launcher has another way
                with suppress(OSError):
                    connection.send(str(error).encode())
                return
            began[0] = 1
            connection.close()
            if numpy := sys.modules.get("numpy"):
                numpy.random.seed()  # Python has seeded its own
            arguments = serialize_value(run)
            sys.argv[:] = ["dagster", "api", "execute_run", arguments]
            execute_run_command.main([arguments], standalone_mode=False)
        # What libraries do at the end of a process; multiprocessing leaves it out.
        atexit._run_exitfuncs()
        held.release()


def _report_crash(run: ExecuteRunArgs, exit_code: int) -> None:
    with dg.DagsterInstance.from_ref(run.instance_ref) as instance:  # type: ignore[arg-type]
        there = instance.get_run_by_id(run.run_id)
        if there is not None and not there.is_finished:
            instance.report_engine_event(
                get_run_crash_explanation(f"The process of run {run.run_id}", exit_code), there
            )
            instance.report_run_failed(there)
