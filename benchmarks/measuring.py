"""What benchmarks of the search have in common: a fresh process for each measurement, contenders that take turns."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np


@contextmanager
def measured() -> Iterable[dict[str, Any]]:
    """Measure wall time, CPU time and memory at most, of this process and of those that it started."""
    import psutil

    process = psutil.Process()
    cost: dict[str, Any] = {"memory": 0.0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            total = 0
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += one.memory_full_info().uss
            cost["memory"] = max(cost["memory"], total / 2**20)

    watching = threading.Thread(target=watch)
    if os.environ.get("WATCH_MEMORY"):
        watching.start()
    cpu = cpu_seconds()
    began = time.perf_counter()
    yield cost
    cost["wall"] = time.perf_counter() - began
    cost["cpu"] = cpu_seconds() - cpu
    done.set()
    if watching.is_alive():
        watching.join()


def cpu_seconds() -> float:
    """CPU seconds of this process and of its living and dead children."""
    import psutil

    own = resource.getrusage(resource.RUSAGE_SELF)
    dead = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own.ru_utime + own.ru_stime + dead.ru_utime + dead.ru_stime
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total


def in_fresh_process(what: str, **arguments: Any) -> dict[str, Any]:
    """Run one of the script's measurements in a process of its own."""
    command = [sys.executable, sys.argv[0], "--one", what, json.dumps(arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} {arguments} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def take_turns(runs: int, who: list[str], what: str, **arguments: Any) -> dict[str, list[dict[str, Any]]]:
    """Measure every contender `runs` times, one after the other and again."""
    costs: dict[str, list[dict[str, Any]]] = {name: [] for name in who}
    for run in range(runs):
        for name in list(costs):
            say(f"run {run + 1} of {runs}: {name}")
            try:
                costs[name].append(in_fresh_process(what, who=name, **arguments))
            except RuntimeError as error:
                say(f"{name} doesn't work here and is left out: {error}")
                del costs[name]
    return costs


def median(costs: list[dict[str, Any]], what: str) -> float:
    return statistics.median(cost[what] for cost in costs)


def spread(costs: list[dict[str, Any]], what: str) -> str:
    values = [cost[what] for cost in costs]
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(header: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("| " + " | ".join("---" for _ in header) + " |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def made_rows(rows: int, features: int = 20) -> tuple[Any, Any]:
    random = np.random.RandomState(0)
    X = random.normal(size=(rows, features)).astype(np.float32)
    return X, X[:, 0] + X[:, 1] * X[:, 2] + random.normal(size=rows)


def run_parts(
    about: str,
    parts: Mapping[str, Callable[..., None]],
    measurements: Mapping[str, Callable[..., Any]],
    *,
    runs: int,
    **options: Mapping[str, Any],
) -> None:
    """Be the script: print the parts that were asked for, or measure one thing in a process of its own.

    Parameters
    ----------
    about : str
        What the script is for, in its first line.
    parts, measurements : mapping of str to callable
        A part is called with the number of runs and the options; measurements are what `in_fresh_process` names.
    runs : int
        How often everything is measured unless it is said.
    **options
        More of them, as ``add_argument`` takes them.
    """
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measurements[sys.argv[2]](**json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="which parts; all of them if none is named")
    parser.add_argument("--runs", type=int, default=runs)
    for name, how in options.items():
        parser.add_argument(f"--{name}", **how)
    chosen = vars(parser.parse_args())
    import sklearn

    print(f"Python {platform.python_version()}, scikit-learn {sklearn.__version__}, {os.cpu_count()} cores\n")
    for name in chosen.pop("parts") or parts:
        print(f"### {name}: {parts[name].__doc__}\n")
        parts[name](**chosen)
