"""The Ray engine: units of a search become Ray tasks, and their results come back as they are made."""

from __future__ import annotations

import os
import pickle
import re
import socket
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle

from mlops_dagster.errors import MlopsError, needs
from mlops_dagster.stack.executor import Facts, answers, make_look, packed
from mlops_dagster.stack.secrets import redacted

CONNECT_SECONDS = 10
CANCEL_SECONDS = 60


class RayError(MlopsError):
    """Ray can't run the search, or its machines don't fit this one; the message says what and the cure."""


class RayEngine:
    """Runs the units of a grid search on the Ray that this process is connected to.

    Parameters
    ----------
    address : str, optional
        What to connect to if nothing is connected yet, as ``ray.init`` takes it. Not given: what ``RAY_ADDRESS`` says,
        or else a Ray of this machine's own, which ends with this process.
    slots : int, optional
        How many units can run at the same time. Not given: as many as Ray says the cluster has CPUs.

    Examples
    --------
    ``SharedGridSearchCV(forest, grid, engine=RayEngine()).fit(X, y)``
    """

    cuts_groups = True  # a cluster may have more cores than a search has groups

    def __init__(self, address: str | None = None, *, slots: int | None = None) -> None:
        self.address = address
        self._given_slots = slots

    @property
    def slots(self) -> int:
        """How many units can run at the same time.

        Raises
        ------
        RayError
            If Ray isn't there, or has no CPU.
        """
        slots = self._given_slots or int(self._connected().cluster_resources().get("CPU", 0))
        if slots < 1:
            raise RayError(
                "this Ray has no CPUs, so that no unit would ever run. Start a node that has (ray start --num-cpus), "
                "or give RayEngine the slots that the cluster will have once there is work."
            )
        return slots

    def run(self, units: Sequence[Any], data: Any, receive: Callable[[int, Any], None]) -> None:
        """Run every unit; call ``receive(number of the unit, result)`` for each result.

        Raises
        ------
        RayError
            If Ray can't run a unit, naming it. A unit whose process or machine is lost is run again by Ray.
        BaseException
            Whatever `receive` raises, or what interrupts the caller; the tasks that run are cancelled first.
        """
        from sklearn import get_config

        if not units:
            return
        ray, at_once = self._connected(), 2 * self.slots  # while a result travels, its core has the next unit already
        settings, here = get_config(), make_look()()
        arrays: list[pickle.PickleBuffer] = []
        head = cloudpickle.dumps(data, protocol=5, buffer_callback=arrays.append)
        waiting = iter(enumerate(units))
        running: dict[Any, int] = {}
        try:
            put = ray.put((head, arrays))
            task = ray.remote(_work)
            while True:
                while len(running) < at_once and (taken := next(waiting, None)):
                    number, unit = taken
                    order = cloudpickle.dumps((unit, settings), protocol=5)
                    # In a list it isn't fetched for each task anew.
                    name = f"grid search, {unit}"
                    running[task.options(name=name).remote(order, [put], here)] = number
                if not running:
                    return
                # In portions: an interruption that comes from another thread doesn't wake one that waits.
                done, _ = ray.wait([*running], num_returns=1, timeout=0.5)
                for reference in done:
                    number = running.pop(reference)
                    try:
                        answered = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        raise _ray_error(str(units[number]), error) from error
                    for answer in answered:
                        kind, said = pickle.loads(answer)  # noqa: S301 - of our own code
                        if kind == "result":
                            receive(number, said)
                        else:
                            _heed(units[number], kind, said)
        finally:
            _cancel(ray, [*running])

    def _connected(self) -> Any:
        try:
            import ray
        except ImportError as error:
            raise RayError(needs("RayEngine", error)) from error
        if not ray.is_initialized():
            address = self.address or os.environ.get("RAY_ADDRESS")
            try:
                if address and (server := re.fullmatch(r"([^/]+):(\d+)", address)):
                    # Ray would try for several minutes.
                    socket.create_connection((server[1], int(server[2])), CONNECT_SECONDS).close()
                ray.init(address)
            except Exception as error:
                where = f"Ray at {redacted(address)}" if address else "Ray of this machine's own"
                raise RayError(f"no {where} (RayEngine's address, or RAY_ADDRESS): {redacted(str(error))}") from error
        return ray


def _heed(unit: Any, kind: str, said: Any) -> None:
    if kind == "warning":
        warnings.warn(said, stacklevel=3)
    elif kind == "skew":
        raise RayError(
            f"a worker's Python doesn't fit this one: {said}. What is fitted there might differ. Install the same "
            "versions there, or let ray.init bring them (runtime_env)."
        )
    elif kind == "error":
        raise RayError(f"{unit} failed on a worker:\n{said}")


def _cancel(ray: Any, running: Sequence[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    for reference in running:
        ray.cancel(reference, force=True)  # a tree that grows hears nothing else
    if running and ray.wait(running, num_returns=len(running), timeout=CANCEL_SECONDS)[1]:
        warnings.warn("Ray still runs tasks of the search, though told to cancel them.", stacklevel=2)


def _ray_error(what: str, error: Exception) -> RayError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = redacted("\n".join(lines[-3:]))  # what comes before is where in Ray it was
    return RayError(f"{what}: Ray gave up ({type(error).__name__}): {said}")


# ---------------------------------------------------------------------------------------------- what runs on workers

loaded: dict[str, Any] = {}
"""The data that this process has loaded: the last only, since a search is done with one before it takes another."""
loads = 0
"""How often this process had to load data. For tests."""


def _work(order: bytes, put: Sequence[Any], here: Facts) -> list[bytes]:
    """Run one unit and return what it says."""
    (data,) = put

    def load() -> Any:
        global loads
        import ray

        name = data.hex()
        if name not in loaded:
            loaded.clear()
            head, arrays = ray.get(data)
            loaded[name] = pickle.loads(head, buffers=arrays)  # noqa: S301 - from our own driver
            loads += 1
        return loaded[name]

    return [packed(answer, cloudpickle.dumps) for answer in answers(order, load, here)]
