"""The rows of a database's query. Its URL comes from the environment and is never repeated."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlops_dagster.errors import needs, refuse
from mlops_dagster.spec.model import Sql
from mlops_dagster.stack.file_finding import OutOfReachError, SourceError
from mlops_dagster.stack.limits import LimitSettings, raise_it
from mlops_dagster.stack.secrets import redacted

if TYPE_CHECKING:
    import pandas as pd


def read_query(said: Sql, bound: Mapping[str, str], limits: LimitSettings) -> tuple[pd.DataFrame, str]:
    """Ask a database, and say where the rows come from.

    Parameters
    ----------
    bound : mapping of str to str
        The partition by its name, where the query asks for one; never put into its text.

    Raises
    ------
    SourceError
        If there is no URL, the driver isn't installed, or the query fails.
    """
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
    except ModuleNotFoundError as error:
        raise SourceError(needs("data.sql", error)) from None
    origin = f"the query of {said.url}"
    origin += "".join(f" for {name}={value!r}" for name, value in bound.items())
    try:
        engine = sa.create_engine(url)
        try:
            with engine.connect().execution_options(stream_results=True) as connection:  # never committed
                result = connection.execute(sa.text(said.query), dict(bound))
                rows = result.fetchmany(limits.rows + 1)
                names = list(result.keys())
        finally:
            engine.dispose()
    except ModuleNotFoundError as error:
        raise SourceError(needs(origin, error)) from None
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
