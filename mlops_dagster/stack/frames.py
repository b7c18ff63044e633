"""Frames as the store keeps them: which column types there are, an Arrow batch per frame, its digest."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import refuse

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def to_batch(frame: pd.DataFrame) -> pa.RecordBatch:
    """Turn a frame into one Arrow batch, and refuse whatever wouldn't come back as it is.

    Parameters
    ----------
    frame : DataFrame
        Columns of booleans, signed integers, float32 or float64, times without zone, or texts, and the default index.

    Raises
    ------
    ParameterError
        Naming the column, an example and the cure.
    """
    import pandas as pd
    import pyarrow as pa

    names = list(frame.columns)
    odd = [name for name in names if not isinstance(name, str) or not name]
    if odd or not names or len({name.lower() for name in names}) < len(names):
        raise refuse("columns", names, "give at least one, and texts that differ by more than upper and lower case.")
    if frame.index.name is not None or not frame.index.equals(pd.RangeIndex(len(frame))):
        cure = "only columns are kept: call reset_index(), or reset_index(drop=True) to drop the index."
        raise refuse("index", frame.index[:3].to_list(), cure)
    arrays = []
    for name in names:
        column = frame[name]
        wanted = _arrow_type(column)
        if wanted is None:
            cure = "give booleans, signed integers, float32 or float64, times without zone, or texts: use astype()."
            raise refuse(*_example(column), cure)
        try:
            arrays.append(pa.array(column, type=wanted, from_pandas=True))
        except (pa.ArrowException, ValueError) as error:  # e.g. nanoseconds, or text that is no Unicode
            raise refuse(*_example(column), f"it can't be kept as {wanted}: {error}") from error
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _example(column: pd.Series[Any]) -> tuple[str, Any]:
    """Return what a message calls a column, and the first value in it."""
    return f"frame[{column.name!r}] of dtype {column.dtype}", next(iter(column.dropna().head(1).to_list()), None)


def batch_digest(batch: pa.RecordBatch) -> str:
    """Return the :func:`frame_digest` of the frame that the batch was made of."""
    import numpy as np
    import pyarrow as pa

    sha = hashlib.sha256(json.dumps([batch.num_rows, [[one.name, str(one.type)] for one in batch.schema]]).encode())
    for column in batch.columns:
        sha.update(column.is_null().to_numpy(zero_copy_only=False).tobytes())
        if pa.types.is_string(column.type):
            texts = [text.encode() for text in column.to_pylist() if text is not None]
            sha.update(np.array([len(text) for text in texts], dtype="<i8").tobytes())
            sha.update(b"".join(texts))
            continue
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)  # NaN has many bit patterns
        sha.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return sha.hexdigest()


def frame_digest(frame: pd.DataFrame) -> str:
    """Return a SHA-256 of what a frame holds: names, types and values of its columns, in the order of columns and rows.

    It is the same on every machine, and however the values are laid out in memory or in files. All missing values
    are equal (every NaN, NaT and None); times are equal in any unit; -0.0 isn't 0.0.

    Raises
    ------
    ParameterError
        If the store couldn't keep the frame as it is.

    Examples
    --------
    >>> import pandas as pd
    >>> frame_digest(pd.DataFrame({"price": [1.0, 2.0]}))[:16]
    '0fd91e4f407a4466'
    """
    return batch_digest(to_batch(frame))


def _arrow_type(column: pd.Series[Any]) -> pa.DataType | None:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    dtype = column.dtype
    if isinstance(dtype, pd.StringDtype):
        return pa.string()
    if not isinstance(dtype, np.dtype):
        return None
    if dtype.kind == "O" and pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty"):
        return pa.string()
    if dtype.kind == "M":
        return pa.timestamp("us")
    # Delta has no unsigned integers (delta-rs turns a uint8 into an int8) and no half floats.
    return pa.from_numpy_dtype(dtype) if dtype.kind in "bi" or dtype in ("float32", "float64") else None
