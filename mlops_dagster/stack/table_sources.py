"""The rows that a declaration names: of files here or behind a URL, a database, Spark's tables, the user's function.

A relative path begins where the declaration is and may not leave the project, the folder that holds `defs`, be it by
``..`` or by a link: a declaration that came with a project reads nothing else of whoever runs it. An absolute path
names what it means, and is allowed.
"""

from __future__ import annotations

import glob
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import refuse
from mlops_dagster.modeling.contract import types_of
from mlops_dagster.modeling.typed_cells import by_form
from mlops_dagster.spec.contradictions import by_path
from mlops_dagster.spec.functions import calling, load_function
from mlops_dagster.spec.model import Data, Dataset, Files
from mlops_dagster.spec.project import project_of
from mlops_dagster.stack.binary_files import read_delta
from mlops_dagster.stack.file_finding import SourceError, find_files
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.queries import read_query
from mlops_dagster.stack.secrets import redacted
from mlops_dagster.stack.table_files import first_of, read_files, unpacked
from mlops_dagster.stack.table_form import UTF_16, Form
from mlops_dagster.stack.text_form import recognise_form
from mlops_dagster.stack.url_files import URL, fetched, file_system, network, read_url

if TYPE_CHECKING:
    import pandas as pd


def read_table(
    declaration: Dataset,
    partition: str | None,
    *,
    data: Data | None = None,
    limits: LimitSettings | None = None,
    overrides: Mapping[str, Any] | None = None,
    read_asset: Callable[[str], object] | None = None,
    spark_session: Callable[[], Any] | None = None,
) -> tuple[pd.DataFrame, str]:
    """Read the rows of a model, not yet checked against its contract.

    Parameters
    ----------
    declaration : Dataset
        Whose.
    partition : str, optional
        The key, for a model with partitions.
    data : Data, optional
        Where from. Not given: the declaration's data.
    limits : LimitSettings, optional
        How much is read at most. Not given: what a deployment allows that says nothing of it.
    overrides : mapping, optional
        ``path``: other files of the same form; ``sha256``: which bytes are meant. Of a function its parameters.
    read_asset : callable, optional
        From an asset's key to its value, where Dagster is calling.
    spark_session : callable, optional
        Opens the deployment's Spark, which knows the tables.

    Returns
    -------
    frame : DataFrame
        The rows as they were found: texts in the declared form of numbers and dates are read, all else is left as it
        is. The index holds each row's place in the source, counted from 0.
    origin : str
        Where they come from, in words, without secrets.

    Raises
    ------
    SourceError
        If there are no rows to be had.
    """
    data, limits = data or declaration.data, limits or LimitSettings()
    if data.asset is not None:
        frame, origin = _read_asset(declaration, data.asset, read_asset)
    elif data.table is not None:
        frame, origin = _read_spark_table(_of(declaration, data), data.table, partition, limits, spark_session)
    else:
        frame, origin = _read(declaration, partition, data, limits, overrides or {})
    if frame.columns.nlevels > 1:
        raise SourceError(f"{origin}: its columns have {frame.columns.nlevels} levels; give them one name each.")
    frame.columns = [str(name) for name in frame.columns]
    _refuse_twice(frame, origin)
    if partition is not None and declaration.partitions and not by_path(_of(declaration, data)):
        frame = _rows_of(frame, declaration.partitions.name, partition, origin)
    if data.files is not None:
        frame = by_form(frame, types_of(declaration), data.files)
    return frame, origin


def partitions_of(
    declaration: Dataset, limits: LimitSettings | None = None, given: Mapping[str, Any] | None = None
) -> list[str] | None:
    """Return the keys of a model's partitions, sorted: those declared, else those that its data has; None without any.

    Parameters
    ----------
    given : mapping, optional
        What the deployment says of the data: ``path``, other files.

    Raises
    ------
    SourceError
        If they can't be found; the message says why, and the cure.
    """
    partitions = declaration.partitions
    if partitions is None:
        return None
    if partitions.keys is not None:
        return list(partitions.keys)
    if declaration.data.files is not None and given and given.get("path"):
        elsewhere = declaration.data.files.model_copy(update={"path": given["path"]})
        declaration = _of(declaration, Data(files=elsewhere))
    if declaration.data.asset is not None or declaration.data.table is not None:
        cure = "nobody knows which there are before a run has read it. Give partitions.keys."
        raise SourceError(f"partitions.name={partitions.name!r}: {cure}")
    if not by_path(declaration):
        frame, origin = read_table(declaration, None, limits=limits)
        if partitions.name not in frame:
            raise _no_column(frame, partitions.name, origin)
        if (missing := frame[partitions.name].isna()).any():
            row = frame.index[missing][0] + 1
            raise SourceError(
                f"{origin}: {partitions.name} is missing in row {row}; each row has to have its partition."
            )
        return sorted({str(value) for value in frame[partitions.name]})
    if declaration.data.files is None:
        raise SourceError(
            f"partitions.name={partitions.name!r}: nobody knows which there are, since a query or a function is asked "
            "for one at a time. Give partitions.keys."
        )
    return _keys_in_names(declaration, declaration.data.files, partitions.name, limits or LimitSettings())


def _read(
    declaration: Dataset, partition: str | None, data: Data, limits: LimitSettings, overrides: Mapping[str, Any]
) -> tuple[pd.DataFrame, str]:
    if data.files is not None:
        files = data.files
        if overrides.get("path"):
            files = files.model_copy(update={"path": overrides["path"]})
        return _read_files(declaration, files, partition, limits, overrides.get("sha256"))
    if data.sql is not None:
        bound = {}
        if partition is not None and declaration.partitions and by_path(_of(declaration, data)):
            bound = {declaration.partitions.name: partition}
        return read_query(data.sql, bound, limits)
    assert data.function is not None
    return _read_function(declaration, data.function, partition, overrides, limits)


def _read_asset(declaration: Dataset, key: str, read_asset: Callable[[str], object] | None) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    origin = f"asset {key}"
    if read_asset is None:
        job = f"{declaration.name}_build_model_pipeline"
        raise SourceError(f"data.asset={key!r}: only Dagster can read it; run {job} there, or mlops launch {job}.")
    try:
        value = read_asset(key)
    except Exception as error:
        raise SourceError(f"{origin} can't be loaded: {type(error).__name__}: {redacted(str(error))}") from error
    if not isinstance(value, pd.DataFrame):
        raise SourceError(f"{origin} is a {type(value).__name__}; a pandas DataFrame is needed.")
    return value.reset_index(drop=True), origin


def _read_spark_table(
    declaration: Dataset, name: str, partition: str | None, limits: LimitSettings, session: Callable[[], Any] | None
) -> tuple[pd.DataFrame, str]:
    if session is None:
        raise SourceError(f"data.table={name!r}: no Spark is here to read it; build the model, which opens one.")
    from mlops_dagster.stack.spark_tables import read_spark_table

    first = [one for one in (*(declaration.key or []), declaration.time) if one is not None]
    only = (declaration.partitions.name, partition) if declaration.partitions and partition is not None else None
    return read_spark_table(session(), name, limits, first=first, only=only)


# -------------------------------------------------------------------------------------------------------------- files


def _read_files(
    declaration: Dataset, files: Files, partition: str | None, limits: LimitSettings, sha256: str | None
) -> tuple[pd.DataFrame, str]:
    path = placed(declaration, _filled_in(declaration, files.path, partition))
    kind = files.format
    delta = kind == "delta" or (kind is None and (Path(path) / "_delta_log").is_dir())
    if sha256 is not None and (delta or URL.match(path)):
        raise refuse("sha256", sha256, f"it is about files of this machine; {redacted(path)} isn't one. Leave it out.")
    if delta:
        _stay_inside(declaration, files.path, [Path(path)])
        return read_delta(path, limits)
    form = Form(
        kind,
        files.separator,
        files.encoding,
        tuple(files.missing),
        files.index,
        files.sheet,
        declared=True,
    )
    if URL.match(path):
        return read_url(path, form, limits)
    _stay_inside(declaration, files.path, find_files(path, limits))
    return read_files(path, sha256, limits, form)


def placed(declaration: Dataset, path: str) -> str:
    """Return a declared path as one that begins at the root; a URL stays as it is."""
    if URL.match(path):
        return path
    return os.path.normpath(declaration.folder.absolute() / Path(path).expanduser())


def _filled_in(declaration: Dataset, path: str, partition: str | None) -> str:
    if partition is None or declaration.partitions is None:
        return path
    place = "{" + declaration.partitions.name + "}"
    if place in path and (re.search(r"[/\\\0]", partition) or partition in ("", ".", "..")):
        raise refuse(declaration.partitions.name, partition, "it is part of a file's name; give one without / and \\.")
    return path.replace(place, partition if URL.match(path) else glob.escape(partition))


def _stay_inside(declaration: Dataset, said: str, found: list[Path]) -> None:
    if Path(said).expanduser().is_absolute():
        return
    project = project_of(declaration.folder).resolve()
    outside = next((one for one in found if not one.resolve().is_relative_to(project)), None)
    if outside is not None:
        raise SourceError(
            f"data.files.path={said!r} leaves the project {project}: it leads to {outside.resolve()}. "
            "Copy the file into the project, or give its absolute path."
        )


def look_at(path: str, limits: LimitSettings) -> tuple[pd.DataFrame, dict[str, Any], bool]:
    """Read files of which nothing is known but their path, a glob or a URL.

    Returns
    -------
    cells : DataFrame
        What stands in them; of CSV files texts, empty ones missing.
    form : dict
        What a declaration has to say of them beside the path.
    text : bool
        Whether they are CSV files.

    Raises
    ------
    SourceError
        If they can't be read.
    """
    if not URL.match(path) and (Path(path) / "_delta_log").is_dir():
        return read_delta(path, limits)[0], {}, False
    known = Form(declared=True)
    text = known.kind_of(path) == "csv"
    said: dict[str, Any] = {}
    if text:
        with network(path):
            name, content = next(fetched(path, limits)) if URL.match(path) else first_of(path, limits)
        said = recognise_form(unpacked(content, name, limits, UTF_16), name)
        known = replace(known, **said)
    frame, _ = read_url(path, known, limits) if URL.match(path) else read_files(path, None, limits, known)
    frame.columns = [str(name) for name in frame.columns]
    _refuse_twice(frame, redacted(path))
    return frame, said, text


def _keys_in_names(declaration: Dataset, files: Files, name: str, limits: LimitSettings) -> list[str]:
    place = "{" + name + "}"
    path = placed(declaration, files.path)
    if URL.match(path):
        system, inside = file_system(path)
        with network(path):
            found = [str(one) for one in system.glob(inside.replace(place, "*"))]
        path = inside
    elif files.format == "delta":
        found = sorted(glob.glob(path.replace(place, "*")))  # noqa: PTH207 absolute
    else:
        found = [str(one) for one in find_files(path.replace(place, "*"), limits)]
    form = re.escape(path).replace(re.escape(place), "\0", 1).replace(re.escape(place), f"(?P={name})")
    form = form.replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    form = form.replace("\0", f"(?P<{name}>[^/]+?)")
    keys = {match[name] for one in found if (match := re.fullmatch(form, one)) is not None}
    if not keys:
        raise SourceError(f"data.files.path={files.path!r}: no file matches. Check the path, or give partitions.keys.")
    return sorted(keys)


# ----------------------------------------------------------------------------------------------------- SQL, functions


def _read_function(
    declaration: Dataset, said: str, partition: str | None, parameters: Mapping[str, Any], limits: LimitSettings
) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    function = load_function(declaration, said)
    arguments = () if declaration.partitions is None or partition is None else (partition,)
    # One that reads files or networks can keep to what the deployment allows.
    takes = inspect.signature(function).parameters
    named = {**parameters, **({"limits": limits} if "limits" in takes else {})}
    frame = calling(f"data.function={said!r}", function, *arguments, **named)
    origin = f"function {said}" + "".join(f"({one!r})" for one in arguments)
    if not isinstance(frame, pd.DataFrame):
        raise SourceError(f"{origin} returned a {type(frame).__name__}; return a pandas DataFrame.")
    if not isinstance(frame.index, pd.RangeIndex) and frame.index.dtype.kind not in "iu":
        frame = frame.reset_index()
    return frame.copy(deep=False), str(frame.attrs.get("origin", origin))


# --------------------------------------------------------------------------------------------------------------- rows


def _of(declaration: Dataset, data: Data) -> Dataset:
    return declaration if data is declaration.data else declaration.model_copy(update={"data": data})


def _refuse_twice(frame: pd.DataFrame, origin: str) -> None:
    twice = next((name for name in frame.columns[frame.columns.duplicated()] if name), None)
    if twice is not None:
        raise SourceError(f"{origin}: there are several columns {twice!r}. Rename all but one of them.")


def _no_column(frame: pd.DataFrame, name: str, origin: str) -> SourceError:
    import difflib

    meant = difflib.get_close_matches(name, map(str, frame.columns), n=1)
    cure = f"did you mean {meant[0]}?" if meant else f"there are {', '.join(map(str, frame.columns))}."
    return SourceError(f"{origin}: it has no column {name!r} for the partitions; {cure}")


def _rows_of(frame: pd.DataFrame, name: str, partition: str, origin: str) -> pd.DataFrame:
    if name not in frame:
        raise _no_column(frame, name, origin)
    rows: pd.DataFrame = frame[frame[name].astype(str) == partition]
    if rows.empty:
        there = sorted(frame[name].dropna().astype(str).unique())
        some = ", ".join(there[:5]) + (f" and {len(there) - 5:,} more" if len(there) > 5 else "")
        raise SourceError(f"{origin}: no row has {name}={partition!r}; there are {some or 'none'}.")
    return rows
