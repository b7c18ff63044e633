"""What runs on Spark's executors: load the data once per process, run units, send their results home.

It imports nothing but what an executor has: numpy, scikit-learn and pyspark.
"""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mlops_dagster.stack.executor import Facts, answers, packed

ALIGNED = 64  # bytes; as numpy aligns its arrays
PIECE = 16 * 2**20  # bytes; Connect takes no message above 128 MB
SCHEMA = "unit long, last boolean, piece binary"


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


def pieces(orders: Sequence[tuple[int, bytes]], data_name: str, here: Facts) -> Iterator[Any]:
    """Run numbered units one after the other and yield what they say as Arrow batches.

    They come in pieces that every Spark can carry, each with the number of its unit.
    """
    import pyarrow as pa
    from pyspark import cloudpickle

    for number, order in orders:
        kind = ""
        for kind, answer in answers(order, partial(data_of, data_name), here):
            said = packed((kind, answer), cloudpickle.dumps)
            for start in range(0, len(said), PIECE):
                last, piece = start + PIECE >= len(said), said[start : start + PIECE]
                yield pa.RecordBatch.from_pydict(
                    {"unit": [number], "last": [last], "piece": [piece]},
                    schema=pa.schema([("unit", pa.int64()), ("last", pa.bool_()), ("piece", pa.binary())]),
                )
        if kind in ("skew", "error"):
            return


def put_together(rows: list[Any]) -> Iterator[tuple[int, str, Any]]:
    """Turn the pieces back into what units said, with their numbers; each is forgotten as soon as it is read."""
    said = bytearray()
    for at, (number, last, piece) in enumerate(rows):
        said += piece
        rows[at] = None
        if last:
            yield number, *pickle.loads(said)  # noqa: S301 - from executors that run our own code
            said = bytearray()
