"""A trained model in words and numbers: its card, the profile of its training rows, its estimator's diagram."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_html_repr

from mlops_dagster.modeling.evaluation import Evaluation
from mlops_dagster.modeling.training_set import TrainingSet
from mlops_dagster.spec.model import Declaration

LONGEST = 4_500
"""Registries keep descriptions of up to 5,000 characters."""
_LISTED = 20


def model_card(
    declaration: Declaration,
    training_set: TrainingSet,
    evaluation: Evaluation,
    *,
    estimator: Any,
    parameters: Mapping[str, object],
    importance: pd.DataFrame | None = None,
    leaks: Sequence[str] = (),
    source: str | None = None,
) -> str:
    """Say in Markdown what a model is for, what it learned from, how good it is and what to be careful about.

    Parameters
    ----------
    estimator : estimator
        The fitted one.
    parameters : mapping
        Those that it was made with.
    importance : pandas.DataFrame, optional
        See :func:`mlops_dagster.modeling.evaluation.importance_of`.
    leaks : sequence of str
        What :func:`mlops_dagster.modeling.leaks.find_leaks` found.
    source : str, optional
        Where the rows came from.

    Returns
    -------
    str
        At most `LONGEST` characters.
    """
    data, metrics, split = training_set, evaluation.metrics, declaration.split
    baseline = declaration.baseline.kind.replace("_", " ")
    lines = [declaration.description, ""] if declaration.description else []
    lines += [f"Predicts {_code(data.column)}, {_what(data)}. Judged on {metrics['test_rows']:,.0f} test rows:", ""]
    for metric in evaluation.judged:  # a list, since MLflow's pages show the source of a table
        better = "" if metric.greater_is_better else " (the smaller the better)"
        numbers = f"{metrics[metric.name]:,.5g}; baseline ({baseline}) {metrics[f'{metric.name}_baseline']:,.5g}"
        lines.append(f"- **{metric.name}**{better}: {numbers}")
    if "skill_vs_baseline" in metrics:
        first = evaluation.judged[0].name
        lines += [
            "",
            f"Skill: {100 * metrics['skill_vs_baseline']:+.1f} % of the way from the baseline's {first} to a perfect "
            "one.",
        ]
    counts = data.frame["split"].value_counts()
    parts = ", ".join(f"{counts[name]:,} {words}" for name, words in _PARTS.items() if name in counts)
    lines += ["", f"- **Data**: {len(data.frame):,} rows ({parts}){f' from {source}' if source else ''}{_span(data)}."]
    if data.left_out:
        lines.append(f"- **Left out**: {data.left_out:,} first rows, which the features' look-back doesn't reach.")
    seed = f", seed {split.seed}" if split.kind in ("random", "stratified", "group") else ""
    share = f"{100 * data.test_size:.3g} % of the rows are tested on{seed}"
    how = f"by {_code(split.column)}" if split.column else share
    lines.append(f"- **Split**: {split.kind}, {how}.")
    lines.append(f"- **Estimator**: {_estimator(estimator)}.")
    lines.append(f"- **Parameters**: {_listed(f'{_code(name)} {value}' for name, value in parameters.items())}.")
    lines.append(f"- **Features** ({len(data.features)}): {_listed(map(_code, data.features))}.")
    if importance is not None:
        top = importance[importance["importance"] > 0].head(8)
        said = _listed(
            f"{_code(name)} {value:.3g}" for name, value in zip(top["feature"], top["importance"], strict=True)
        )
        unit = evaluation.judged[0].name
        lines.append(f"- **What it goes by** (how much worse {unit} gets when a feature is shuffled): {said}.")
    lines += [f"- **Leak**: {leak}" for leak in leaks] or ["- **Leaks**: none found."]
    return _fitting(lines)


_PARTS = {
    "train": "to train",
    "test": "to test",
    "gap": "between them",
    "unknown": "whose target isn't known yet",
}


def _what(data: TrainingSet) -> str:
    if data.classes is not None:
        positive = f", of which {_code(data.positive)} is the positive one" if data.positive is not None else ""
        return f"one of {len(data.classes)} classes ({_listed(map(_code, data.classes))}{positive})"
    if data.horizon is None:
        return "a number"
    learned = {"value": "", "difference": ", learned as a difference", "return": ", learned as a relative change"}
    rows = f"{data.horizon:,} row{'s'[: data.horizon > 1]}"
    return f"{rows} ahead{f' in each {_code(data.group)}' if data.group else ''}{learned[data.learn]}"


def _span(data: TrainingSet) -> str:
    if data.time is None:
        return ""
    first, last = data.frame[data.time].min(), data.frame[data.time].max()
    said = [f"{at:%Y-%m-%d}" if isinstance(at, pd.Timestamp) else str(at) for at in (first, last)]
    return f", {data.time} {said[0]} to {said[1]}"


def _estimator(estimator: Any) -> str:
    """Name an estimator's class, and those of a pipeline's steps."""
    if isinstance(estimator, Pipeline):
        return " → ".join(_estimator(step) for _, step in estimator.steps if step not in (None, "passthrough"))
    return _code(type(estimator).__name__)


def _code(name: object) -> str:
    text = re.sub(r"[\s`|]+", " ", str(name))
    return f"`{text if len(text) <= 60 else text[:59] + '…'}`"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _LISTED:,} more" if len(every) > _LISTED else ""
    return (", ".join(every[:_LISTED]) or "none") + more


def _fitting(lines: list[str]) -> str:
    lines = [line if len(line) <= LONGEST // 3 else f"{line[: LONGEST // 3]}…" for line in lines]
    while len("\n".join(lines)) > LONGEST:
        lines.pop()
    return "\n".join(lines)


def data_profile(training_set: TrainingSet) -> str:
    """Say in Markdown what the training rows hold: of each feature and the target, what is missing and what is usual.

    Examples
    --------
    >>> frame = pd.DataFrame({"colour": ["red", "red", None], "size": [1.0, 2.0, 6.0], "target": [1.0, 1.5, 2.0],
    ...                       "split": "train", "position": [0, 1, 2]})
    >>> print(data_profile(TrainingSet(frame, "regression", ("colour", "size"), "price", "random", 0.25)))
    | column | type | missing | least | mean | most | most frequent |
    |-|-|-:|-:|-:|-:|-|
    | `colour` | text | 33.3 % | | | | `red` 66.7 % |
    | `size` | number | 0 % | 1 | 3 | 6 | |
    | `price` (target) | number | 0 % | 1 | 1.5 | 2 | |
    """
    train = training_set.rows("train")
    lines = ["| column | type | missing | least | mean | most | most frequent |", "|-|-|-:|-:|-:|-:|-|"]
    for name in training_set.features:
        lines.append(f"| {_code(name)} | {_profiled(train[name])} |")
    target = training_set.targets(train)
    if training_set.classes is not None:
        target = target.astype(object)
    lines.append(f"| {_code(training_set.column)} (target) | {_profiled(target)} |")
    return "\n".join(lines)


_KINDS = {"i": "integer", "f": "number", "b": "boolean", "M": "date", "O": "text"}


def _profiled(column: pd.Series[Any]) -> str:
    kind, missing = column.dtype.kind, f"{100 * column.isna().mean():.3g} %"
    known = column.dropna()
    if kind in "if" and len(known):
        return f"{_KINDS[kind]} | {missing} | {known.min():,.5g} | {known.mean():,.5g} | {known.max():,.5g} |"
    if kind == "M" and len(known):
        return f"date | {missing} | {known.min():%Y-%m-%d} | | {known.max():%Y-%m-%d} |"
    shares = known.value_counts().head(3) / max(len(column), 1)
    frequent = ", ".join(f"{_code(value)} {100 * share:.3g} %" for value, share in shares.items())
    return f"{_KINDS.get(kind, str(column.dtype))} | {missing} | | | | {frequent}"


def estimator_diagram(estimator: Any) -> str:
    """Return scikit-learn's HTML diagram of an estimator, the same in every process.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> estimator_diagram(Ridge()) == estimator_diagram(Ridge())
    True
    """
    numbers: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        # scikit-learn counts all diagrams of a process.
        return numbers.setdefault(found[0], f"{found[1]}{len(numbers) + 1}")

    return re.sub(r"\b(sk-(?:container|estimator)-id-)\d+\b", numbered, estimator_html_repr(estimator))
