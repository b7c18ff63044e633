"""What is learned of a table: a number, a class, or how a number will be or will have changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.errors import refuse
from mlops_dagster.modeling.features import plain
from mlops_dagster.spec.model import Declaration

Label = str | int | bool


def with_target(
    declaration: Declaration, table: pd.DataFrame, frame: pd.DataFrame, horizon: int | None
) -> tuple[pd.DataFrame, tuple[Label, ...] | None]:
    """Add what is learned of each row to a frame, and for forecasts what is now and what will be.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows that fulfil the contract, in the order of time if there is one.
    frame : pandas.DataFrame
        Of the same rows.
    horizon : int, optional
        How many rows ahead, within their group if there are any.

    Returns
    -------
    DataFrame, tuple or None
        The frame with target (and current, truth), and the classes of a classification, sorted.

    Raises
    ------
    ParameterError
        If the column doesn't hold what the task needs.
    """
    column = plain(table[declaration.target.column])
    if declaration.task == "classification":
        said_boolean = pd.api.types.infer_dtype(table[declaration.target.column], skipna=True) == "boolean"
        classes = _classes(declaration, column, said_boolean)
        return frame.assign(target=column), classes
    if column.dtype.kind not in "if":
        example = next(iter(column.dropna().head(1)), None)
        cure = f"{declaration.target.column} is no number, as a regression needs; give task: classification."
        raise refuse("target", example, cure)
    column = column.astype(np.float64)
    infinite = np.flatnonzero(np.isinf(column))
    if len(infinite):
        raise refuse("target", float(column.iloc[infinite[0]]), f"in row {infinite[0] + 1:,}; give a finite number.")
    if horizon is None:
        return frame.assign(target=column), None
    series = column if declaration.group is None else column.groupby(table[declaration.group], sort=False)
    truth, learn = series.shift(-horizon), declaration.target.learn
    if learn == "return" and (column == 0).any():
        row = int(np.flatnonzero(column == 0)[0])
        cure = f"{declaration.target.column} is 0 in row {row + 1:,}, from which there is no relative change; "
        raise refuse("target.learn", learn, cure + "give difference or value.")
    change = {"value": truth, "difference": truth - column, "return": truth / column - 1.0}[learn]
    return frame.assign(current=column, truth=truth, target=change), None


def _classes(declaration: Declaration, column: pd.Series[Any], said_boolean: bool) -> tuple[Label, ...]:
    known = column.dropna()
    if column.dtype.kind == "f":
        if said_boolean:
            known = known.astype(bool)
        elif (known == np.floor(known)).all():
            known = known.astype(np.int64)
        else:
            example = float(known[known != np.floor(known)].iloc[0])
            raise refuse("target", example, "classes are texts, integers or truth values; give task: regression.")
    elif column.dtype.kind == "M":
        raise refuse("target", str(known.iloc[0]), "a date is no class; choose another target.")
    classes = tuple(one.item() if isinstance(one, np.generic) else one for one in np.unique(known.to_numpy()))
    if len(classes) < 2:
        cure = "there is nothing to learn: give rows of at least two classes."
        raise refuse(
            "target", classes[0] if classes else None, f"all rows with a known target are of one class; {cure}"
        )
    wanted = declaration.target.positive
    if wanted is not None and (len(classes) != 2 or wanted not in classes):
        cure = f"the classes are {', '.join(map(repr, classes[:20]))}; " + (
            "give one of them." if len(classes) == 2 else "with more than two, none is the positive one."
        )
        raise refuse("target.positive", wanted, cure)
    return classes
