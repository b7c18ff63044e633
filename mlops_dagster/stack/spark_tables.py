"""The rows of a table that Spark's catalog knows: Hive's, Unity Catalog's, or a view of the session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlops_dagster.stack.file_finding import OutOfReachError, SourceError
from mlops_dagster.stack.limits import LimitSettings, raise_it
from mlops_dagster.stack.spark_engine import short

if TYPE_CHECKING:
    import pandas as pd


def read_spark_table(
    session: Any, name: str, limits: LimitSettings, *, first: Sequence[str] = (), only: tuple[str, str] | None = None
) -> tuple[pd.DataFrame, str]:
    """Read a table, and say where the rows come from.

    A table has no order, so its rows are sorted: the same rows are the same table.

    Parameters
    ----------
    session : SparkSession
        Classic or Connect.
    name : str
        As ``catalog.schema.table``, or less where the session has defaults.
    first : sequence of str
        The columns to sort by; those that are equal in them are sorted by all others.
    only : (str, str), optional
        A column and its value, as text: which rows are wanted.

    Raises
    ------
    SourceError
        If there is no such table, it is too large, or Spark can't read it.
    """
    from pyspark.errors import AnalysisException, PySparkException

    origin = f"Spark's table {name}"
    try:
        table = session.read.table(name)
        if len(table.columns) > limits.columns:
            raise SourceError(f"{origin} has {len(table.columns):,} columns. {raise_it('columns')}")
        if only is not None and only[0] in table.columns:
            table = table.where(table[only[0]].cast("string") == only[1])
        if table.limit(limits.rows + 1).count() > limits.rows:
            raise SourceError(f"{origin} has more than {limits.rows:,} rows. {raise_it('rows')}")
        unordered = {field.name for field in table.schema.fields if field.dataType.typeName() in ("map", "variant")}
        order = [*(one for one in first if one in table.columns), *table.columns]
        frame: pd.DataFrame = table.orderBy(*(one for one in dict.fromkeys(order) if one not in unordered)).toPandas()
    except AnalysisException as error:
        raise SourceError(
            f"{origin} can't be read: {short(error)}. Check data.table, and that spark.master is the Spark that has it."
        ) from None
    except PySparkException as error:
        raise OutOfReachError(f"{origin} can't be read: {short(error)}") from None
    return frame, origin
