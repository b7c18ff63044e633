"""What runs a unit of a search on another machine, whichever engine brought it there.

It imports nothing but what an executor has: numpy and scikit-learn.
"""

from __future__ import annotations

import pickle
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

Facts = dict[str, str]


def make_look() -> Callable[[], Facts]:
    """Return the function that says who and what a Python process is.

    It is made inside another function so that it travels by value: where it looks, this package may be missing.
    """

    def look() -> Facts:
        import importlib
        import socket
        import sys

        found = {"host": socket.gethostname(), "executable": sys.executable}
        found["Python"] = "{}.{}".format(*sys.version_info)
        for name, module in (("numpy", "numpy"), ("scikit-learn", "sklearn"), ("mlops_dagster", "mlops_dagster")):
            try:
                found[name] = importlib.import_module(module).__version__
            except ImportError as error:
                found[name] = f"missing ({error})"
        if not found["mlops_dagster"].startswith("missing"):
            try:
                importlib.import_module("mlops_dagster.search")
            except ImportError as error:
                found["mlops_dagster"] = f"broken ({error})"
        return found

    return look


def differences(here: Facts, there: Facts) -> list[str]:
    """Say in what two Pythons differ so much that a tree grown there might not be the tree grown here.

    Examples
    --------
    >>> here = {"Python": "3.11", "numpy": "2.4.6", "scikit-learn": "1.9.1", "mlops_dagster": "0.3.0"}
    >>> differences(here, {**here, "numpy": "2.0.0"})
    []
    >>> differences(here, {**here, "scikit-learn": "1.8.0"})
    ['scikit-learn is 1.8.0 there and 1.9.1 here']
    """
    major = {"numpy"}  # pickled arrays are the same within one major version
    return [
        f"{name} is {there[name]} there and {here[name]} here"
        for name in here
        if name not in ("host", "executable")
        and (there[name].split(".")[0] != here[name].split(".")[0] if name in major else there[name] != here[name])
    ]


def answers(order: bytes, load: Callable[[], Any], here: Facts) -> Iterator[tuple[str, Any]]:
    """Run one unit and yield each ("result", ...), then each ("warning", ...) and ("seconds", ...).

    If it can't be done the last is ("skew", why) or ("error", traceback). Nothing that the engine would try
    again is caught: data that can't be loaded, a process that dies.
    """
    from sklearn import config_context

    if skew := differences(here, there := make_look()()):
        yield "skew", f"{there['host']} ({there['executable']}): {'; '.join(skew)}"
        return
    try:
        data = load()
        unit, settings = pickle.loads(order)  # noqa: S301 - from our own driver
    except (ImportError, AttributeError) as error:  # an estimator or a scorer whose module isn't here
        yield "skew", f"{there['host']} ({there['executable']}): {error}"
        return
    began = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as warned, config_context(**settings):
            warnings.simplefilter("always")
            for result in unit.run(data):
                yield "result", result
    except Exception:  # noqa: BLE001 - the driver raises it
        # The same unit would fail the same way again, on any machine.
        yield "error", traceback.format_exc()
        return
    for message in {(warning.category, str(warning.message)): warning.message for warning in warned}.values():
        yield "warning", message
    yield "seconds", time.perf_counter() - began


def packed(answer: tuple[str, Any], dumps: Callable[..., bytes]) -> bytes:
    """Pickle one of the answers; the driver raises what can't be pickled."""
    try:
        return dumps(answer, protocol=5)
    except Exception:  # noqa: BLE001 - see above
        return pickle.dumps(("error", f"a result can't be pickled:\n{traceback.format_exc()}"))
