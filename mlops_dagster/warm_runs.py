"""Runs that start warm, as a launcher sees them: which server fits, how it is found, started and asked.

See `warm_server` for what it is that answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value

# A busy machine imports for long; a run that has to wait for longer is started in another way.
PATIENCE_SECONDS = 60
MESSAGE_BYTES = 1 << 20
# Answers of a server; any other says why it can't serve.
HELD, CHANGED = b"held", b"changed"
GO = b"go"


class CannotServeError(Exception):
    """No server can execute this run; the message says why. The run has not begun and won't."""


def launch(folder: Path, run: ExecuteRunArgs, location: str, env: dict[str, str], cwd: str) -> None:
    """Have a run executed by a copy of the server that fits; start that server if it isn't there.

    Parameters
    ----------
    folder : pathlib.Path
        Where servers have their sockets, and runs their locks.
    run : ExecuteRunArgs
        The run, as `dagster api execute_run` gets it.
    location : str
        The code location's name.
    env, cwd
        What the code of the run is to find.
    """
    if not sys.platform.startswith("linux"):
        raise CannotServeError("Runs are copied from a warm process on Linux only.")
    folder.mkdir(exist_ok=True)
    code = serialize_value(run.job_origin.repository_origin)
    world = json.dumps([sys.executable, location, code, sorted(env.items()), cwd])
    name = hashlib.sha256(world.encode()).hexdigest()[:20]
    request = json.dumps([location, serialize_value(run)]).encode()
    until = time.monotonic() + PATIENCE_SECONDS
    servers: list[subprocess.Popen[bytes]] = []
    while (left := until - time.monotonic()) > 0:
        try:
            with _connected(folder, name) as connection:
                connection.settimeout(left)
                # The run prints where its launcher does.
                socket.send_fds(connection, [request], [1, 2])
                answer = connection.recv(MESSAGE_BYTES)
                if answer == HELD:
                    # Without this word the copy ends, so that no run begins twice.
                    connection.send(GO)
                    return
                if answer not in (CHANGED, b""):
                    raise CannotServeError(answer.decode())
        except (FileNotFoundError, ConnectionError):
            pass  # It isn't there, or it ends: idle, killed, or of code that has changed.
        except TimeoutError:
            break
        except OSError as error:
            raise CannotServeError(str(error)) from None
        if not servers or servers[-1].poll() is not None:
            if len(servers) == 3:
                raise CannotServeError(f"The server for warm runs ends at once: {_last_words(folder, name)}")
            servers.append(_start(folder, name, env, cwd))
        time.sleep(0.02)
    raise CannotServeError(f"The server for warm runs gave no answer within {PATIENCE_SECONDS} seconds.")


def _start(folder: Path, name: str, env: dict[str, str], cwd: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from mlops_dagster.warm_server import serve; serve()", str(folder), name]
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 (our own command)
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
        )
    except OSError as error:
        raise CannotServeError(str(error)) from None
    finally:
        os.close(log)


def _last_words(folder: Path, name: str) -> str:
    with suppress(OSError, IndexError):
        return (folder / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1]
    return "it said nothing."


@contextmanager
def _connected(folder: Path, name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, address_in(folder, name) as address:
        connection.connect(address)
        if peer(connection)[1] != os.geteuid():
            raise CannotServeError(f"{folder / name}.socket belongs to another user.")
        yield connection


@contextmanager
def address_in(folder: Path, name: str) -> Iterator[str]:
    """Yield a socket's address; it may have 107 bytes, so the folder is named by a number."""
    number = os.open(folder, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{number}/{name}.socket"
    finally:
        os.close(number)


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return the process and the user at the other end, as the system knows them."""
    process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return process, user
