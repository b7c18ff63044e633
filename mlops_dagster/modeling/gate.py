"""The gate of any model: whether a challenger takes the champion's place, on rows that neither has learned from.

Nothing here knows what a model is: it compares answers, row by row, by a metric, see also `resampling.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import MlopsError
from mlops_dagster.modeling.metrics import Metric
from mlops_dagster.modeling.outputs import Outputs
from mlops_dagster.modeling.quality import identity_of
from mlops_dagster.modeling.resampling import MIN_UNITS, Resamples, Units, members_of
from mlops_dagster.modeling.training_set import TrainingSet
from mlops_dagster.spec.functions import UserCodeError

MIN_ROWS = 10
"""So many rows have to be new to both models."""
MIN_SLICE_ROWS = 20
"""Of fewer rows of a slice nothing is said."""


@dataclass(frozen=True)
class Rules:
    """What a challenger has to fulfil; see :class:`mlops_dagster.spec.model.Gate` for what each means."""

    mode: Literal["enabled", "dry_run", "disabled"] = "enabled"
    margin: float = 0.0
    margin_in: Literal["unit", "share"] = "unit"
    confidence: float | None = None
    beat_baseline: bool = True
    allow_leaks: bool = False
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why, in a sentence; `confidence` is the share of resamples that it rests on."""

    promote: bool
    outcome: str
    reason: str
    confidence: float | None = None


@dataclass(frozen=True, eq=False)
class Answers:
    """What is compared: the answers of everybody on the same rows.

    Parameters
    ----------
    rows : DataFrame
        Those that neither model has learned from, in the order of time if there is one; with the slices' columns.
    truth : array of shape (rows,)
        What came.
    challenger, baseline, champion : Outputs
        What each says of these rows.
    units : Units
        What may be drawn.
    """

    rows: pd.DataFrame
    truth: npt.NDArray[Any]
    units: Units
    challenger: Outputs
    baseline: Outputs
    champion: Outputs | None = None


# ------------------------------------------------------------------------------------------------------------- rows


class NotComparable(MlopsError):  # noqa: N818 it reads better where it is caught
    """There are no rows, or no common scale, to compare two models on; the message says why, and the cure."""


def rows_to_judge_on(challenger: TrainingSet, champion: TrainingSet | None, version: str | None = None) -> pd.DataFrame:
    """Return the challenger's test rows that the champion hasn't learned from either.

    Parameters
    ----------
    champion : TrainingSet, optional
        What the champion has learned from. None: there is no champion, or it is the challenger's own.
    version : str, optional
        The champion's, for messages.

    Raises
    ------
    NotComparable
        If they predict different things, rows can't be told apart, or too few are left.
    """
    rows = challenger.rows("test")
    if challenger.time is not None:
        rows = rows.sort_values(challenger.time, kind="stable")
    if champion is not None:
        _check_same_question(challenger, champion, version)
        rows = rows[~_learned_from(champion, rows, version)]
    if len(rows) < MIN_ROWS:
        few = f"Only {len(rows)} test row{' is' if len(rows) == 1 else 's are'}"
        new = few if champion is None else f"{few} new to both it and champion version {version}"
        raise NotComparable(
            f"{new}; {MIN_ROWS} are needed. Give more rows, or a larger test_size, or decide once with mode: disabled."
        )
    return rows


def rows_as_champion_knows_them(
    champion: TrainingSet, rows: pd.DataFrame, version: str | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows, as far as the champion's features of them are known, and the same rows with these features.

    Features that the challenger's training set has, too, are taken from there; otherwise from the champion's own, where
    rows are found by key, or by time and group.

    Raises
    ------
    NotComparable
        If too few rows are found.
    """
    if set(champion.features) <= set(rows):
        return rows, rows
    names = identity_of(champion)
    absent = ", ".join(name for name in champion.features if name not in rows)
    found = np.array([], dtype=np.intp)
    if names and set(names) <= set(rows):
        own = champion.frame.drop_duplicates(names, keep="last")
        found = _identity(own, names).get_indexer(_identity(rows, names))
        rows, found = rows[found >= 0], found[found >= 0]
    if len(found) < MIN_ROWS:
        raise NotComparable(
            f"Champion version {version} asks for features that are no longer made ({absent}), and its own training "
            f"set has {len(found)} of the rows to judge on; {MIN_ROWS} are needed. Keep these features, or decide once "
            "with mode: disabled."
        )
    return rows, own.iloc[found]


def _identity(rows: pd.DataFrame, names: Sequence[str]) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(rows[[*names]].astype(object))


def _check_same_question(challenger: TrainingSet, champion: TrainingSet, version: str | None) -> None:
    cure = "Decide once with mode: disabled if it is to take the champion's place."
    for mine, theirs in zip(_questions(challenger), _questions(champion), strict=True):
        if mine != theirs:
            raise NotComparable(f"It {mine}, champion version {version} {theirs}. {cure}")


def _questions(data: TrainingSet) -> tuple[str, ...]:
    ahead = data.horizon or 0
    return (
        f"predicts {data.column}",
        f"is a model of {data.task}",
        f"looks {ahead} row{'' if ahead == 1 else 's'} ahead",
        f"knows the classes {', '.join(map(repr, data.classes or ()))}",
    )


def _learned_from(champion: TrainingSet, rows: pd.DataFrame, version: str | None) -> npt.NDArray[np.bool_]:
    """Say of each row whether a model of a training set has learned from it, or from what comes after it."""
    trained = champion.frame["split"].eq("train").to_numpy()
    time = champion.time if champion.time in rows else None
    arrivals = champion.truth_times()
    if time is not None and arrivals is not None:
        return np.asarray(rows[time] <= arrivals[trained].max())
    learned = champion.frame[trained]
    names = [champion.group] if champion.split == "group" and champion.group else identity_of(champion)
    if not names or not set(names) <= set(rows):
        raise NotComparable(
            f"Its training set isn't that of champion version {version}, and nothing says which of its rows that one "
            "has learned from: give key, the columns that identify a row, in the declaration, or decide once with "
            "mode: disabled."
        )
    return np.asarray(_identity(rows, names).isin(_identity(learned, names)))


# -------------------------------------------------------------------------------------------------------- deciding


def _beats(metric: Metric, one: float, other: float, margin: float = 0.0) -> bool:
    gain = one - other if metric.greater_is_better else other - one
    # Of 0.93 and 0.92 the difference isn't more than 0.01.
    return bool(gain - margin > 1e-12 * max(abs(one), abs(other)))


def decide(
    answers: Answers,
    metric: Metric,
    rules: Rules,
    *,
    baseline: str,
    leaks: Sequence[str] = (),
    champion: str | None = None,
    champion_problem: str | None = None,
) -> Decision:
    """Decide whether the challenger becomes the champion, by the rules alone; modes are :func:`with_mode`'s.

    Parameters
    ----------
    baseline : str
        What the baseline is, for the reason.
    leaks : list of str
        What the challenger's training set tells of the answers.
    champion : str, optional
        The champion's version; None if there is no champion yet.
    champion_problem : str, optional
        Why the champion can't be used any more, if so.

    Returns
    -------
    Decision
        The first rule that the challenger breaks decides; comparing with the champion comes last but for slices.
    """
    if leaks and not rules.allow_leaks:
        return Decision(False, "leaks", f"Its training set leaks: {leaks[0]}")
    if problem := _problem(metric, answers.challenger, answers.truth):
        return Decision(False, "not_a_number", f"It can't be measured: {problem}")
    resamples, sure = Resamples(answers.units, answers.truth, metric), None
    if rules.beat_baseline:
        if problem := _problem(metric, answers.baseline, answers.truth):
            cure = "Choose another metric or baseline, or give beat_baseline: false."
            reason = f"The baseline ({baseline}) can't be measured: {problem} {cure}"
            return Decision(False, "not_better_than_baseline", reason)
        beaten = _compared(answers, resamples, answers.baseline, f"the baseline ({baseline})", 0.0, rules.confidence)
        if not beaten.promote:
            outcome = "not_better_than_baseline" if beaten.outcome == "not_better" else beaten.outcome
            return Decision(False, outcome, beaten.reason, beaten.confidence)
        sure = beaten.confidence
    if champion is None:
        return Decision(True, "first", "There was no champion before.", sure)
    if champion_problem is None and answers.champion is not None:
        champion_problem = _problem(metric, answers.champion, answers.truth)
    if champion_problem is not None or answers.champion is None:
        reason = f"Champion version {champion} can't be used: {champion_problem}"
        return Decision(True, "champion_unusable", reason, sure)
    whose = f"champion version {champion}"
    margin = rules.margin
    if rules.margin_in == "share":
        margin *= abs(metric.measure(answers.champion, answers.truth))
    decision = _compared(answers, resamples, answers.champion, whose, margin, rules.confidence)
    if decision.promote and (worse := _worse_slice(answers, resamples, answers.champion, rules, whose)):
        return Decision(False, "worse_slice", f"{worse} {decision.reason}", decision.confidence)
    return decision


def _problem(metric: Metric, outputs: Outputs, truth: npt.NDArray[Any]) -> str | None:
    """Say why answers can't be measured, if so. That the user's own function fails is nobody's fault but its own."""
    try:
        metric.measure(outputs, truth)
    except UserCodeError:
        raise
    except MlopsError as error:
        return str(error)
    return None


def with_mode(decision: Decision, mode: str) -> Decision:
    """Return what is done in a mode: what the rules say, nothing but saying it, or promoting whatever can be loaded."""
    if mode == "disabled" and decision.outcome != "already_champion":
        said = "" if decision.promote else f" It would have been kept out ({decision.outcome}): {decision.reason}"
        reason = f"The gate is disabled: every model that can be loaded is promoted.{said}"
        return Decision(True, "gate_disabled", reason, decision.confidence)
    if mode == "dry_run" and decision.promote:
        reason = f"A dry run, the champion stays; it would be promoted ({decision.outcome}): {decision.reason}"
        return Decision(False, "would_promote", reason, decision.confidence)
    return decision


def _compared(
    answers: Answers, resamples: Resamples, other: Outputs, whose: str, margin: float, confidence: float | None
) -> Decision:
    """Compare the challenger with somebody, and say so."""
    metric, units = resamples.metric, answers.units
    mine, theirs = (metric.measure(one, answers.truth) for one in (answers.challenger, other))
    better = _beats(metric, mine, theirs, margin)
    texts = told_apart(mine, theirs)
    said = f"{metric.name} {texts[0]} against {texts[1]} of {whose}"
    by = f" by more than {margin:.6g}" if margin else ""
    if confidence is None or not better:
        larger = "larger" if metric.greater_is_better else "smaller"
        said = f"{said}; it has to be {f'more than {margin:.6g} ' if margin else ''}{larger}."
        return Decision(better, "better" if better else "not_better", said)
    if units.blocks < MIN_UNITS:
        few = f"{len(answers.rows):,} test rows are only {units.blocks} {units.said}"
        cure = f"{MIN_UNITS} are needed to say how sure that is: test on more, or give no confidence."
        return Decision(False, "not_sure", f"{said}, but {few}; {cure}")
    share, counted = _share_better(resamples, answers.challenger, other, margin)
    if counted < resamples.count // 10:
        cure = "test on more rows, or give no confidence."
        return Decision(False, "not_sure", f"{said}, but {metric.name} has no meaning for most resamples; {cure}")
    sure = share >= confidence
    said = f"{said}: better{by} in {_percent(share)} of {counted:,} resamples; {100 * confidence:g} % are needed."
    return Decision(sure, "better" if sure else "not_better", said, share)


def _share_better(
    resamples: Resamples, one: Outputs, other: Outputs, margin: float, rows: Any = None
) -> tuple[float, int]:
    """Return in which share of the resamples in which the metric has a meaning one beats another, and how many."""
    pairs = zip(resamples.measure(one, rows), resamples.measure(other, rows), strict=True)
    beaten = [_beats(resamples.metric, mine, theirs, margin) for mine, theirs in pairs if math.isfinite(mine + theirs)]
    return (sum(beaten) / len(beaten) if beaten else math.nan), len(beaten)


def _worse_slice(answers: Answers, resamples: Resamples, champion: Outputs, rules: Rules, whose: str) -> str | None:
    """Say of the first slice for which the challenger is worse than the champion; with confidence if one is asked for.

    Slices of too few rows, or of rows that the metric has no meaning for, are passed over.
    """
    metric = resamples.metric
    for column in rules.slices:
        for places in members_of(answers.rows[column]):
            if len(places) < MIN_SLICE_ROWS:
                continue
            mine, theirs = (metric.measure(one, answers.truth, places) for one in (answers.challenger, champion))
            if not math.isfinite(mine + theirs) or not _beats(metric, theirs, mine):
                continue
            how = ""
            if rules.confidence is not None:
                share, counted = _share_better(resamples, champion, answers.challenger, 0.0, places)
                if not share >= rules.confidence:
                    continue
                how = f" in {_percent(share)} of {counted:,} resamples"
            value, texts = answers.rows[column].iloc[places[0]], told_apart(mine, theirs)
            return (
                f"It is worse{how} where {column} is {value} ({len(places):,} rows): {metric.name} {texts[0]} "
                f"against {texts[1]} of {whose}. Over all rows:"
            )
    return None


def _percent(share: float) -> str:
    return f"{math.floor(share * 1000 + 1e-9) / 10:g} %"  # never rounded up to what is needed


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Write two numbers with as many digits as it takes to tell them apart.

    Examples
    --------
    >>> told_apart(0.99123, 0.98856)
    ('0.991', '0.989')
    >>> told_apart(0.991234, 0.991237)
    ('0.991234', '0.991237')
    >>> told_apart(140617.3, 1.0)
    ('140,617', '1')
    """
    for digits in (3, 4, 6, 9):
        texts = _written(one, digits), _written(other, digits)
        if texts[0] != texts[1] or one == other:
            return texts
    return repr(one), repr(other)


def _written(number: float, digits: int) -> str:
    """Write a number with so many digits that count, or all those before the point if they are more."""
    if not 1e-4 <= abs(number) < 1e12:
        return f"{number:.{digits}g}"
    text = f"{number:,.{max(0, digits - 1 - math.floor(math.log10(abs(number))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
