"""Which rows a model's champion is asked about, and what it knows of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import function_of
from mlops_dagster.spec.model import Declaration
from mlops_dagster.steps.inputs import Inputs

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.modeling.training_set import TrainingSet
    from mlops_dagster.stack.limits import LimitSettings

DRIFT_ROWS = 20
"""Of fewer rows nothing is said about drift: their shares would be chance."""


def table_to_predict(
    declaration: Declaration,
    partition: str,
    tables: Inputs,
    limits: LimitSettings | None = None,
    read_asset: Callable[[str], object] | None = None,
    spark_session: Callable[[], Any] | None = None,
) -> tuple[pd.DataFrame, str]:
    """Return the rows among which are those to predict, and where they are from."""
    data = declaration.predictions.data if declaration.predictions else None
    if data is None:
        frame, version = tables.read(names.DATA)
        return frame, version.metadata.get("origin", "the table data")
    from mlops_dagster.modeling.contract import check_contract
    from mlops_dagster.stack.table_sources import read_table

    only = None if declaration.partitions is None else partition
    raw, source = read_table(
        declaration, only, data=data, limits=limits, read_asset=read_asset, spark_session=spark_session
    )
    return check_contract(without_target(declaration, raw), raw, source=source), source


def without_target(declaration: Declaration, raw: pd.DataFrame) -> Declaration:
    """Return the declaration with a contract that asks for no target; a forecast begins with what is now."""
    target, contract = declaration.target, declaration.contract
    if target.horizon is not None or isinstance(contract, str):
        return declaration
    rest = {name: one for name, one in contract.items() if name != target.column}
    if target.column in raw:
        rest[target.column] = contract[target.column].model_copy(update={"nullable": True})
    return declaration.model_copy(update={"contract": rest})


def rows_to_predict(
    declaration: Declaration, table: pd.DataFrame, learned: TrainingSet
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all rows with the features that the champion asks for, and of these the ones to predict."""
    from mlops_dagster.modeling.features import features_of, plain, reached_by_look_back
    from mlops_dagster.modeling.quality import identity_of

    function = function_of(declaration, declaration.features)
    frame = features_of(declaration, table, function)
    if absent := [name for name in learned.features if name not in frame]:
        raise MlopsError(
            f"the champion of {declaration.name} asks for features that are no longer made: {', '.join(absent)}. Make "
            f"them again, or train again: mlops build-model {declaration.name}."
        )
    reached = reached_by_look_back(declaration, table, frame) if function is not None and learned.horizon else None
    for at, name in enumerate(name for name in identity_of(declaration) if name not in frame):
        frame.insert(at, name, plain(table[name]))
    if declaration.group is not None and declaration.group not in frame:
        frame[declaration.group] = plain(table[declaration.group])
    if learned.column not in table:
        return frame, frame
    target = plain(table[learned.column])
    if learned.horizon is None:
        # Rows of their own are all to be predicted.
        return frame, frame[target.isna()] if declaration.predictions and not declaration.predictions.data else frame
    frame = frame.assign(current=target)
    unknown = target.groupby(_series_of(declaration, table), sort=False).shift(-learned.horizon).isna()
    # From what isn't known no change can be counted.
    unknown &= target.notna() | (learned.learn == "value")
    return frame, frame[unknown if reached is None else unknown & reached]


def late_rows(
    declaration: Declaration,
    table: pd.DataFrame,
    learned: TrainingSet,
    frame: pd.DataFrame,
    made: pd.DataFrame | None,
    count: int,
) -> pd.DataFrame:
    """Return those of the last rows of each series whose truth is known, but not to the champion.

    Parameters
    ----------
    frame : DataFrame
        All rows with the champion's features, see :func:`rows_to_predict`.
    made : DataFrame, optional
        The predictions so far: what they have of this horizon is left out.
    count : int
        How many rows of each series at most.
    """
    import pandas as pd

    from mlops_dagster.modeling.quality import HORIZON, identity_of

    series = _series_of(declaration, table)
    there = table[learned.column].groupby(series, sort=False).shift(-(learned.horizon or 0)).notna()
    last = table[there].groupby(series[there], sort=False).tail(count).index
    arrivals = learned.truth_times()
    assert arrivals is not None
    rows: pd.DataFrame = frame.loc[last.sort_values()]
    rows = rows[table.loc[rows.index, learned.time] > arrivals[learned.frame["split"].eq("train")].max()]
    if made is not None:
        by = identity_of(declaration)
        earlier = made.loc[made[HORIZON] == learned.horizon, by]
        rows = rows[~pd.MultiIndex.from_frame(rows[by]).isin(pd.MultiIndex.from_frame(earlier))]
    return rows


def truth_times(declaration: Declaration, table: pd.DataFrame, learned: TrainingSet) -> tuple[pd.DataFrame, str]:
    """Say of each row of a table when what is forecast of it is to come, and how that was found.

    Returns
    -------
    DataFrame, str
        truth_time: as it came; of rows whose truth is still to come as it is expected, missing where nothing says it.
        late: whether it has come.
    """
    import pandas as pd

    from mlops_dagster.stack.exchanges import next_times

    times, ahead = table[str(learned.time)], learned.horizon or 0
    series = _series_of(declaration, table)
    came = times.groupby(series, sort=False).shift(-ahead)
    late = came.notna()
    found: dict[bytes, tuple[pd.Index[Any] | None, str]] = {}  # series that end alike go on alike
    for _, its in times.groupby(series, sort=False):
        known = pd.util.hash_pandas_object(its, index=False).to_numpy().tobytes()
        if known not in found:
            found[known] = next_times(its, ahead, declaration.calendar)
        expected, last = found[known][0], its.index[-ahead:]
        if expected is not None:
            came.loc[last] = expected[-len(last) :]
    return pd.DataFrame({"truth_time": came, "late": late}), "; ".join(dict.fromkeys(how for _, how in found.values()))


def _series_of(declaration: Declaration, table: pd.DataFrame) -> pd.Series[Any]:
    """Return for each row which series it is of; without groups all are of one."""
    import pandas as pd

    return pd.Series(0, table.index) if declaration.group is None else table[declaration.group]


def digests_of(rows: pd.DataFrame, learned: TrainingSet) -> list[str]:
    """Return for each row 16 hexadecimal digits that say what the model saw of it."""
    import pandas as pd

    seen = rows[[*learned.features, *({"current"} & set(rows))]]
    # The type of a column depends on the other rows: a missing value turns integers and truth values into floats.
    alike = {
        name: column.astype("float64") if column.dtype.kind in "iufb" else column.astype(str)
        for name, column in seen.items()
    }
    hashed = pd.util.hash_pandas_object(pd.DataFrame(alike, index=rows.index), index=False, categorize=False)
    return [f"{one:016x}" for one in hashed]


def drift_in(
    declaration: Declaration, learned: TrainingSet, frame: pd.DataFrame, asked: pd.DataFrame
) -> tuple[dict[str, float], int]:
    """Return for each feature how many of the recent values are unusual, the largest share first, and of how many.

    Recent are the rows that are asked about; if these are few, the last of all. Of fewer than `DRIFT_ROWS` no shares.
    """
    from mlops_dagster.modeling.drift import share_outside

    own = declaration.predictions is not None and declaration.predictions.data is not None
    recent = asked if own or len(asked) >= DRIFT_ROWS else frame.tail(DRIFT_ROWS)
    if len(recent) < DRIFT_ROWS:
        return {}, len(recent)
    return share_outside(learned.X_train, recent[[*learned.features]]), len(recent)
