"""What runs on Spark's executors: load the data once per process, run one unit, send its results home.

It imports nothing but what an executor has: numpy, scikit-learn and pyspark.
"""

from __future__ import annotations

import mmap
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

Facts = dict[str, str]

ALIGNED = 64  # bytes; as numpy aligns its arrays
PIECE = 16 * 2**20  # bytes; Connect takes no message above 128 MB
SCHEMA = "last boolean, piece binary"


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


def write_data(data: Any, folder: Path) -> Path:
    """Write the data of a search to a file that is named by what is in it.

    Arrays lie in it as they lie in memory, so that the processes of one machine can share one copy.
    """
    from pyspark import cloudpickle

    arrays: list[pickle.PickleBuffer] = []
    head = cloudpickle.dumps(data, protocol=5, buffer_callback=arrays.append)  # type: ignore[no-untyped-call]
    views = [array.raw() for array in arrays]
    digest = blake2b(digest_size=16)
    unnamed = folder / "data"
    with unnamed.open("wb") as file:

        def write(part: Any) -> None:
            file.write(part)
            digest.update(part)

        write(pickle.dumps((head, [view.nbytes for view in views])))
        for view in views:
            write(bytes(-file.tell() % ALIGNED))
            write(view)
    return unnamed.rename(folder / f"mlops_search_{digest.hexdigest()}.data")


def read_data(path: Path) -> Any:
    """Read what :func:`write_data` wrote; pages of arrays are shared with other processes until they are changed."""
    with path.open("rb") as file:
        head, sizes = pickle.load(file)  # noqa: S301 - written by our own driver
        at = file.tell()
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)) if sizes else memoryview(b"")
    arrays = []
    for size in sizes:
        at += -at % ALIGNED
        arrays.append(whole[at : at + size])
        at += size
    return pickle.loads(head, buffers=arrays)  # noqa: S301


loaded: dict[str, Any] = {}
"""The data that this process has loaded: the last only, since a search is done with one before it takes another."""
loads = 0
"""How often this process had to load data. For tests."""


def data_of(name: str) -> Any:
    """Return the data that the driver has sent under this name, loaded once per process."""
    global loads
    if name not in loaded:
        from pyspark import SparkFiles

        loaded.clear()
        loaded[name] = read_data(Path(SparkFiles.get(name)))
        loads += 1
    return loaded[name]


def answers(order: bytes, data_name: str, here: Facts) -> Iterator[tuple[str, Any]]:
    """Run one unit; yield ("result", ...), ("warning", ...), or ("skew" | "error", text) as the last.

    Nothing that Spark would try again is caught: data that didn't arrive, a process that dies.
    """
    from sklearn import config_context

    if skew := differences(here, there := make_look()()):
        yield "skew", f"{there['host']} ({there['executable']}): {'; '.join(skew)}"
        return
    try:
        data = data_of(data_name)
        unit, settings = pickle.loads(order)  # noqa: S301 - from our own driver
    except (ImportError, AttributeError) as error:  # an estimator or a scorer whose module isn't here
        yield "skew", f"{there['host']} ({there['executable']}): {error}"
        return
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


def pieces(order: bytes, data_name: str, here: Facts) -> Iterator[Any]:
    """Run one unit and yield what it says as Arrow batches, in pieces that every Spark can carry."""
    import pyarrow as pa
    from pyspark import cloudpickle

    for answer in answers(order, data_name, here):
        try:
            said = cloudpickle.dumps(answer, protocol=5)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - the driver raises it
            said = pickle.dumps(("error", f"a result can't be pickled:\n{traceback.format_exc()}"))
        for start in range(0, len(said), PIECE):
            yield pa.RecordBatch.from_pydict(
                {"last": [start + PIECE >= len(said)], "piece": [said[start : start + PIECE]]},
                schema=pa.schema([("last", pa.bool_()), ("piece", pa.binary())]),
            )


def put_together(rows: list[Any]) -> Iterator[tuple[str, Any]]:
    """Turn the pieces back into what :func:`answers` yielded; each is forgotten as soon as it is read."""
    said = bytearray()
    for at, (last, piece) in enumerate(rows):
        said += piece
        rows[at] = None
        if last:
            yield pickle.loads(said)  # noqa: S301 - from executors that run our own code
            said = bytearray()
