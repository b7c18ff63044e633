"""The rows that a declaration names: of files on this machine or behind a URL, of a database, of the user's function.

A relative path begins where the declaration is and may not leave the project, the folder that holds `defs`, be it by
``..`` or by a link: a declaration that came with a project reads nothing else of whoever runs it. An absolute path
names what it means, and is allowed.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import refuse
from mlops_dagster.modeling.contract import by_form, types_of
from mlops_dagster.spec.contradictions import by_path
from mlops_dagster.spec.functions import calling, load_function
from mlops_dagster.spec.model import Data, Declaration, Files, Sql
from mlops_dagster.stack.file_finding import OutOfReachError, SourceError, find_files, too_large
from mlops_dagster.stack.limits import LimitSettings, raise_it
from mlops_dagster.stack.secrets import as_cause, redacted
from mlops_dagster.stack.table_files import UTF_16, Form, first_of, join, read_files, unpacked
from mlops_dagster.stack.text_form import recognise_form

if TYPE_CHECKING:
    import pandas as pd

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def read_table(
    declaration: Declaration,
    partition: str | None,
    *,
    data: Data | None = None,
    limits: LimitSettings | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, str]:
    """Read the rows of a model, not yet checked against its contract.

    Parameters
    ----------
    declaration : Declaration
        Whose.
    partition : str, optional
        The key, for a model with partitions.
    data : Data, optional
        Where from. Not given: the declaration's data.
    limits : LimitSettings, optional
        How much is read at most. Not given: what a deployment allows that says nothing of it.
    overrides : mapping, optional
        ``path``: other files of the same form.

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


def partitions_of(declaration: Declaration, limits: LimitSettings | None = None) -> list[str] | None:
    """Return the keys of a model's partitions, sorted: those declared, else those that its data has; None without any.

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
    declaration: Declaration, partition: str | None, data: Data, limits: LimitSettings, overrides: Mapping[str, Any]
) -> tuple[pd.DataFrame, str]:
    if data.files is not None:
        files = data.files
        if overrides.get("path"):
            files = files.model_copy(update={"path": overrides["path"]})
        return _read_files(declaration, files, partition, limits)
    if data.sql is not None:
        return _read_sql(declaration, data.sql, partition, limits)
    if data.function is not None:
        return _read_function(declaration, data.function, partition)
    kind = "table" if data.table is not None else "asset"
    cure = {
        "table": "Spark's tables can't be read yet: export it to Parquet or Delta and use data.files, or data.sql.",
        "asset": "Other assets can't be read yet: have it write files and use data.files, or data.function.",
    }[kind]
    raise SourceError(f"data.{kind}={getattr(data, kind)!r}: {cure}")


# -------------------------------------------------------------------------------------------------------------- files


def _read_files(
    declaration: Declaration, files: Files, partition: str | None, limits: LimitSettings
) -> tuple[pd.DataFrame, str]:
    path = placed(declaration, _filled_in(declaration, files.path, partition))
    kind = files.format
    if kind == "delta" or (kind is None and (Path(path) / "_delta_log").is_dir()):
        _stay_inside(declaration, files.path, [Path(path)])
        return _read_delta(path, limits)
    form = Form(
        kind,
        files.separator,
        files.encoding,
        tuple(files.missing),
        files.index,
        files.sheet,
        declared=True,
    )
    if _URL.match(path):
        return _read_url(path, form, limits)
    _stay_inside(declaration, files.path, find_files(path, limits))
    return read_files(path, None, limits, form)


def placed(declaration: Declaration, path: str) -> str:
    """Return a declared path as one that begins at the root; a URL stays as it is."""
    if _URL.match(path):
        return path
    return os.path.normpath(declaration.folder.absolute() / Path(path).expanduser())


def _filled_in(declaration: Declaration, path: str, partition: str | None) -> str:
    if partition is None or declaration.partitions is None:
        return path
    place = "{" + declaration.partitions.name + "}"
    if place in path and (re.search(r"[/\\\0]", partition) or partition in ("", ".", "..")):
        raise refuse(declaration.partitions.name, partition, "it is part of a file's name; give one without / and \\.")
    return path.replace(place, partition if _URL.match(path) else glob.escape(partition))


def _stay_inside(declaration: Declaration, said: str, found: list[Path]) -> None:
    if Path(said).expanduser().is_absolute():
        return
    project = project_of(declaration).resolve()
    outside = next((one for one in found if not one.resolve().is_relative_to(project)), None)
    if outside is not None:
        raise SourceError(
            f"data.files.path={said!r} leaves the project {project}: it leads to {outside.resolve()}. "
            "Copy the file into the project, or give its absolute path."
        )


def project_of(declaration: Declaration) -> Path:
    """Return the folder that holds `defs`; of a declaration that isn't below one, the folder in which it stands."""
    folder = declaration.folder.absolute()
    return next((one.parent for one in folder.parents if one.name == "defs"), folder)


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
    if not _URL.match(path) and (Path(path) / "_delta_log").is_dir():
        return _read_delta(path, limits)[0], {}, False
    known = Form(declared=True)
    text = known.kind_of(path) == "csv"
    said: dict[str, Any] = {}
    if text:
        with _network(path):
            name, content = next(_fetched(path, limits)) if _URL.match(path) else first_of(path, limits)
        said = recognise_form(unpacked(content, name, limits, UTF_16), name)
        known = replace(known, **said)
    frame, _ = _read_url(path, known, limits) if _URL.match(path) else read_files(path, None, limits, known)
    frame.columns = [str(name) for name in frame.columns]
    _refuse_twice(frame, redacted(path))
    return frame, said, text


def _keys_in_names(declaration: Declaration, files: Files, name: str, limits: LimitSettings) -> list[str]:
    place = "{" + name + "}"
    path = placed(declaration, files.path)
    if _URL.match(path):
        system, inside = _file_system(path)
        with _network(path):
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


def _read_delta(path: str, limits: LimitSettings) -> tuple[pd.DataFrame, str]:
    import pyarrow as pa
    from deltalake import QueryBuilder

    from mlops_dagster.stack.delta import open_table, store_errors

    table = open_table(path, {})
    if table is None:
        raise SourceError(f"path={redacted(path)!r}: there is no Delta table. Check the path.")
    with store_errors(f"read {redacted(path)}"):
        actions = pa.table(table.get_add_actions(flatten=True)).to_pydict()
        sizes, rows = (sum(one or 0 for one in actions.get(name, [])) for name in ("size_bytes", "num_records"))
        if sizes > limits.size:
            raise too_large(redacted(path), f"more than {limits.mebibytes:,} MiB", "mebibytes")
        if rows > limits.rows:
            raise too_large(redacted(path), f"{rows:,} rows", "rows")
        # Not `to_pandas`: if Python ends while a thread of Arrow's holds an object, the process is aborted.
        batches = QueryBuilder().register("t", table).execute("SELECT * FROM t")
        frame: pd.DataFrame = pa.table(batches.read_all()).to_pandas(use_threads=False)
    return frame, f"{redacted(path)}, version {table.version()}"


# ---------------------------------------------------------------------------------------------------------------- URLs


def _read_url(url: str, form: Form, limits: LimitSettings) -> tuple[pd.DataFrame, str]:
    shown = redacted(url)
    with _network(url):
        return join(shown, _fetched(url, limits), limits, form), shown


def _fetched(url: str, limits: LimitSettings) -> Iterator[tuple[str, bytes]]:
    shown, left = redacted(url), limits.size
    system, path = _file_system(url)
    names = sorted(map(str, system.glob(path))) if glob.has_magic(path) and "?" not in path else [path]
    if len(names) > limits.rows:
        raise too_large(shown, f"more than {limits.rows:,} files", "rows")
    if not names:
        raise SourceError(f"path={shown!r}: no file matches. Check the URL.")
    for name in names:
        with system.open(name, "rb") as opened:
            content = opened.read(left + 1)
        left -= len(content)
        if left < 0:
            raise too_large(shown, f"more than {limits.mebibytes:,} MiB", "mebibytes")
        yield redacted(name), content


def _file_system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise SourceError(f"path={redacted(url)!r} needs the package fsspec. Install it: pip install fsspec.") from None
    try:
        found: tuple[Any, str] = url_to_fs(url)
    except (ImportError, ValueError) as error:
        said = redacted(str(error))
        raise SourceError(
            f"path={redacted(url)!r} can't be opened: {said.rstrip('.')}. Install what it names."
        ) from None
    return found


class _network:  # noqa: N801 a context manager
    """Whatever a file system behind a URL raises, as an error of ours."""

    def __init__(self, url: str) -> None:
        self.shown = redacted(url)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, FileNotFoundError):
            # fsspec says so of a server that doesn't answer, too.
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                error = error.__cause__
            else:
                raise SourceError(f"path={self.shown!r}: there is no such file. Check the URL.") from None
        if isinstance(error, Exception) and not isinstance(error, SourceError):
            said = redacted(str(error)).rstrip(".") or type(error).__name__
            raise OutOfReachError(
                f"path={self.shown!r} can't be read: {said}. Check network and credentials."
            ) from as_cause(error)


# ----------------------------------------------------------------------------------------------------- SQL, functions


def _read_sql(
    declaration: Declaration, said: Sql, partition: str | None, limits: LimitSettings
) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    url = os.environ.get(said.url)
    if not url:
        raise SourceError(
            f"data.sql.url: the environment variable {said.url} isn't set. Set it to the database's URL, as "
            "dialect+driver://user:password@host/database."
        )
    if not re.match(r"\s*(--[^\n]*\n\s*)*(select|with)\b", said.query, re.IGNORECASE):
        raise refuse("data.sql.query", said.query, "give one SELECT.")
    try:
        import sqlalchemy as sa
        from sqlalchemy.exc import SQLAlchemyError
    except ModuleNotFoundError:
        raise SourceError("data.sql needs the package sqlalchemy. Install it: pip install sqlalchemy.") from None
    origin = f"the query of {said.url}"
    parameters = {}
    if declaration.partitions is not None and partition is not None and by_path(_of(declaration, Data(sql=said))):
        parameters = {declaration.partitions.name: partition}
        origin += f" for {declaration.partitions.name}={partition!r}"
    try:
        engine = sa.create_engine(url)
        try:
            with engine.connect().execution_options(stream_results=True) as connection:  # never committed
                result = connection.execute(sa.text(said.query), parameters)
                rows = result.fetchmany(limits.rows + 1)
                names = list(result.keys())
        finally:
            engine.dispose()
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{origin}: the driver {error.name} isn't installed. Install it: pip install {error.name}."
        ) from None
    except (SQLAlchemyError, OSError, ValueError) as error:
        raise _sql_failure(origin, url, error) from None
    if len(rows) > limits.rows:
        raise SourceError(f"{origin}: there are more than {limits.rows:,} rows. {raise_it('rows')}")
    frame: pd.DataFrame = pd.DataFrame([tuple(row) for row in rows], columns=pd.Index(names), dtype=object)
    return frame, origin


def _sql_failure(origin: str, url: str, error: Exception) -> SourceError:
    """Say why a query failed; drivers repeat the URL, or parts of it."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

    if isinstance(error, ArgumentError | NoSuchModuleError):
        said = "it isn't a database's URL" if not isinstance(error, NoSuchModuleError) else "there is no such dialect"
        return SourceError(f"{origin}: {said}. Write it as dialect+driver://user:password@host/database.")
    said = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
    try:
        secret = make_url(url).password
    except ArgumentError:
        secret = url
    said = redacted(said.replace(str(secret), "***") if secret else said).rstrip(".")
    kind = OutOfReachError if isinstance(error, OperationalError | OSError) else SourceError
    return kind(f"{origin} failed: {said}. Check the query, the URL and the database.")


def _read_function(declaration: Declaration, said: str, partition: str | None) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    function = load_function(declaration, said)
    arguments = () if declaration.partitions is None or partition is None else (partition,)
    frame = calling(f"data.function={said!r}", function, *arguments)
    origin = f"function {said}" + "".join(f"({one!r})" for one in arguments)
    if not isinstance(frame, pd.DataFrame):
        raise SourceError(f"{origin} returned a {type(frame).__name__}; return a pandas DataFrame.")
    if not isinstance(frame.index, pd.RangeIndex) and frame.index.dtype.kind not in "iu":
        frame = frame.reset_index()
    return frame.copy(deep=False), origin


# --------------------------------------------------------------------------------------------------------------- rows


def _of(declaration: Declaration, data: Data) -> Declaration:
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
