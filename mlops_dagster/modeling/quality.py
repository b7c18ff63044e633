"""How good predictions were: each one whose truth has come beside that truth, and what they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.modeling.evaluation import probability_names
from mlops_dagster.modeling.features import plain
from mlops_dagster.modeling.metrics import Metric
from mlops_dagster.modeling.outputs import Outputs
from mlops_dagster.modeling.targets import Label
from mlops_dagster.modeling.training_set import TrainingSet
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.steps import LAST_ROWS, OF_BASELINE, OF_LAST

HORIZON = "horizon"


def identity_of(said: Declaration | TrainingSet) -> list[str]:
    """Return the columns that say which row is which: key, or time and group; none if nothing does."""
    by_time = [name for name in (said.time, said.group) if name is not None]
    return [*said.key] or (by_time if said.time else [])


def score(declaration: Declaration, predictions: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Put beside each prediction the truth that came.

    Parameters
    ----------
    predictions : DataFrame
        As the table predictions has them, in the order in which they were made.
    table : DataFrame
        Rows that fulfil the contract, in the order of time if there is one.

    Returns
    -------
    DataFrame
        One row per row whose truth is known, the newest prediction of it: what the predictions say, without who made
        them when; truth_time, when it came; truth (where a return is learned, what the prediction began with times the
        change since then, so that a later adjustment isn't taken for an error); error (prediction - truth) or correct;
        of intervals inside.
    """
    names, column = identity_of(declaration), declaration.target.column
    ahead = HORIZON in predictions
    newest = predictions.drop_duplicates([*names, *([HORIZON] if ahead else [])], keep="last")
    known = table.drop_duplicates(names, keep="last")
    series = plain(known[column])
    places = _identity(known, names).get_indexer(_identity(newest, names))
    if ahead:
        of_group = np.zeros(len(known)) if declaration.group is None else known[declaration.group].to_numpy()

        def ahead_of(column: pd.Series[Any], missing: object) -> list[Any]:
            later = {one: column.groupby(of_group, sort=False).shift(-int(one)) for one in newest[HORIZON].unique()}
            asked = zip(newest[HORIZON], places, strict=True)
            return [later[one].iloc[place] if place >= 0 else missing for one, place in asked]

        truth = pd.Series(ahead_of(series, np.nan), index=newest.index, dtype=np.float64)
        if "truth_time" in newest and declaration.time is not None:
            came = pd.Series(ahead_of(known[declaration.time], None), newest.index, newest["truth_time"].dtype)
            newest = newest.assign(truth_time=came)
    else:
        truth = series.iloc[places].set_axis(newest.index).where(places >= 0)
    if ahead and declaration.target.learn == "return" and "current" in newest:
        # Prices are adjusted for dividends and splits, all earlier ones by the same factor: a return stays what it was.
        now = series.iloc[places].set_axis(newest.index)
        truth = (newest["current"] * truth / now).where(newest["current"].notna(), truth)
    there = truth.notna()
    rows, truth = newest[there], truth[there]
    # A prediction says which row it is of, so when that was only if the key does.
    by = [name for name in (declaration.time, "made_at") if name is not None and name in rows]
    made = rows.drop(columns=["inputs_digest", "by", "run_id"])
    if "value" in rows:
        made = made.assign(truth=truth.astype(np.float64), error=rows["value"] - truth)
    else:
        truth = truth.astype(rows["class"].dtype)
        made = made.assign(truth=truth, correct=rows["class"] == truth)
    if "lower" in rows:
        # A prediction that was made without an interval says nothing about intervals.
        inside = ((rows["lower"] <= truth) & (truth <= rows["upper"])).astype(np.float64)
        made = made.assign(inside=inside.where(rows["lower"].notna()))
    return made.sort_values(by, kind="stable").reset_index(drop=True)


def _identity(rows: pd.DataFrame, names: Sequence[str]) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(rows[[*names]].astype(object))


def measure(
    scored: pd.DataFrame,
    metrics: Sequence[Metric],
    classes: tuple[Label, ...] | None,
    positive: Label | None,
    baseline: str | None = None,
) -> tuple[dict[str, float], list[str]]:
    """Say what scored predictions add up to: all of them, and the last `LAST_ROWS`.

    Parameters
    ----------
    baseline : str, optional
        Its kind. That all stays as it is (persistence) is measured on the same rows: what it is worth on the test rows
        says little of a price that has doubled since then.

    Returns
    -------
    dict of str to float, list of str
        rows_scored; each metric, and as ``<metric>_last_100``; of persistence the same, as ``<metric>_baseline``; of
        intervals coverage (the share of truths inside) and interval (the share that was meant). Then the metrics that
        have no meaning for these predictions.
    """
    numbers: dict[str, float] = {"rows_scored": float(len(scored))}
    failed: list[str] = []
    for ending, rows in (("", scored), (OF_LAST, scored.tail(LAST_ROWS))):
        if rows.empty:
            continue
        outputs, truth = _outputs(rows, classes, positive), rows["truth"].to_numpy()
        for metric in metrics:
            measured = metric.measure(outputs, truth, np.arange(len(truth)))
            if np.isfinite(measured):
                numbers[f"{metric.name}{ending}"] = measured
            elif not ending:
                failed.append(metric.name)
            if baseline == "persistence" and "current" in rows and rows["current"].notna().all():
                guessed = Outputs(value=rows["current"].to_numpy())
                numbers[f"{metric.name}{OF_BASELINE}{ending}"] = metric.measure(guessed, truth, np.arange(len(truth)))
        if "inside" in rows and rows["inside"].notna().any():
            numbers[f"coverage{ending}"] = float(rows["inside"].mean())
            numbers[f"interval{ending}"] = float(rows["interval"].mean())
    return numbers, failed


def _outputs(rows: pd.DataFrame, classes: tuple[Label, ...] | None, positive: Label | None) -> Outputs:
    if "value" in rows:
        return Outputs(value=rows["value"].to_numpy())
    labels = classes or tuple(np.unique(rows[["class", "truth"]].to_numpy()))
    names = probability_names(labels)
    # Of a row that was predicted before there were probabilities, or other classes, none are known.
    whole = set(names) <= set(rows) and bool(rows[names].notna().all(axis=None))
    probabilities = rows[names].to_numpy() if whole else None
    return Outputs(classes=rows["class"].to_numpy(), probabilities=probabilities, labels=labels, positive=positive)
