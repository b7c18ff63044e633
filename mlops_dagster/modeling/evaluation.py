"""How good a model is on the test rows, what it is worth beside its baseline, and which features it goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import config_context

from mlops_dagster.errors import MlopsError
from mlops_dagster.modeling.baselines import Guess, baseline_outputs
from mlops_dagster.modeling.metrics import Metric
from mlops_dagster.modeling.outputs import Model, Outputs, outputs_of
from mlops_dagster.modeling.training_set import TrainingSet
from mlops_dagster.spec.model import Declaration

_ROWS = 1_000  # of the test, for the importance
_SHUFFLES = 100  # of a feature, in all, for the importance, unless there are more features
_CELLS = 1_000_000  # of the tables that are predicted at once, for the importance


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's answers to the test rows and what they are worth.

    Parameters
    ----------
    metrics : dict of str to float
        Each declared metric, the same of the baseline as ``<metric>_baseline``, of the first one also
        ``skill_vs_baseline`` (which share of the way from the baseline to perfect answers; above 0 is better than the
        baseline), and train_rows, test_rows.
    predictions : pandas.DataFrame
        The test rows in the table's order: key, time, group and the gate's slices; for forecasts truth_time (for
        when) and current; prediction, truth, baseline, and probability_<class> of a classifier that has them.
    outputs, baseline : Outputs
        The answers to the same rows, in the same order.
    truth : array of shape (test rows,)
    rows : pandas.DataFrame
        The test rows of the training set, in the same order.
    judged : tuple of Metric
        The declared metrics, in their order.
    """

    metrics: dict[str, float]
    predictions: pd.DataFrame
    outputs: Outputs
    baseline: Outputs
    truth: npt.NDArray[Any]
    rows: pd.DataFrame
    judged: tuple[Metric, ...]


def evaluate(
    model: Model,
    training_set: TrainingSet,
    declaration: Declaration,
    metrics: Sequence[Metric],
    baseline: tuple[Outputs, Mapping[str, float]],
) -> Evaluation:
    """Let a model answer the test rows, and measure it beside the baseline.

    Parameters
    ----------
    metrics : sequence of Metric
        The declared ones.
    baseline : tuple of Outputs and mapping
        As :func:`measure_baseline` returns them.

    Raises
    ------
    MlopsError
        If a metric has no meaning on these rows.
    """
    rows = training_set.rows("test").sort_index()
    outputs, truth = outputs_of(model, training_set, rows), training_set.truth(rows)
    guessed, measured = baseline
    numbers: dict[str, float] = {}
    for metric in metrics:
        numbers[metric.name] = metric.measure(outputs, truth)
        numbers[f"{metric.name}_baseline"] = measured[metric.name]
    skill = skill_of(metrics[0], numbers)
    if skill is not None:
        numbers["skill_vs_baseline"] = skill
    numbers |= {"train_rows": float(len(training_set.rows("train"))), "test_rows": float(len(rows))}
    predictions = _predictions(training_set, declaration, rows, outputs, guessed)
    return Evaluation(numbers, predictions, outputs, guessed, truth, rows, tuple(metrics))


def measure_baseline(
    training_set: TrainingSet, declaration: Declaration, metrics: Sequence[Metric], function: Guess | None = None
) -> tuple[Outputs, dict[str, float]]:
    """Return the baseline's answers to the test rows, and each metric of them. Nothing has to be fitted for that.

    Raises
    ------
    MlopsError
        If a metric has no meaning for the baseline's answers.
    """
    rows = training_set.rows("test").sort_index()
    outputs, truth = baseline_outputs(declaration, training_set, rows, function), training_set.truth(rows)
    try:
        return outputs, {metric.name: metric.measure(outputs, truth) for metric in metrics}
    except MlopsError as error:
        raise MlopsError(f"baseline {declaration.baseline.kind}: {error}") from error


def skill_of(metric: Metric, numbers: Mapping[str, float]) -> float | None:
    """Return which share of the way from the baseline to perfect answers is gone; None if nobody knows what is perfect.

    Parameters
    ----------
    numbers : mapping
        The metric's value by its name, and the baseline's as ``<metric>_baseline``.
    """
    if metric.perfect is None:
        return None
    measured, reference = numbers[metric.name], numbers[f"{metric.name}_baseline"]
    # Where the baseline is perfect there is nothing to win; infinity would only break what reads metrics.
    return (measured - reference) / (metric.perfect - reference) if reference != metric.perfect else 0.0


def _predictions(
    training_set: TrainingSet, declaration: Declaration, rows: pd.DataFrame, outputs: Outputs, baseline: Outputs
) -> pd.DataFrame:
    named = [*training_set.key, training_set.time, training_set.group, *declaration.gate.slices]
    made = rows[[*dict.fromkeys(name for name in named if name is not None)]].copy()
    truth_times = training_set.truth_times()
    if truth_times is not None:
        made["truth_time"], made["current"] = truth_times.loc[rows.index], rows["current"]
    made["prediction"], made["truth"] = outputs.predicted, training_set.truth(rows)
    made["baseline"] = baseline.predicted
    if outputs.probabilities is not None:
        for name, column in zip(probability_names(outputs.labels), outputs.probabilities.T, strict=True):
            made[name] = column
    return made.reset_index(drop=True)


def probability_names(labels: Sequence[Any]) -> list[str]:
    """Return how the columns of the classes' probabilities are called; a store tells no upper from lower case.

    Examples
    --------
    >>> probability_names(["no", "yes"]), probability_names(["a", "A"])
    (['probability_no', 'probability_yes'], ['probability_0_a', 'probability_1_A'])
    """
    alike = len({str(label).lower() for label in labels}) < len(labels)
    return [f"probability_{place}_{label}" if alike else f"probability_{label}" for place, label in enumerate(labels)]


def importance_of(model: Model, training_set: TrainingSet, metric: Metric) -> pd.DataFrame:
    """Measure how much worse a model becomes on the test rows when one feature is shuffled among them.

    What :func:`sklearn.inspection.permutation_importance` says with ``random_state=0``; but where that asks the model
    once for each shuffled feature, here the tables of many stand below each other: most of a prediction of a few rows
    is its beginning. It costs about 100 predictions of at most 1,000 rows, and is the same in every process.

    Returns
    -------
    pandas.DataFrame
        One row a feature, the most important first: feature, importance (in the metric's unit, above 0 where the
        feature helps), deviation (of the repeats).
    """
    rows = training_set.rows("test").sort_index()
    if len(rows) > _ROWS:
        rows = rows.sample(_ROWS, random_state=0).sort_index()
    features, truth, places = list(training_set.features), training_set.truth(rows), np.arange(len(rows))

    def score(shuffled: Sequence[str], order: npt.NDArray[np.intp]) -> list[float]:
        columns = {name: np.tile(rows[name].to_numpy(), len(shuffled)) for name in seen}
        parts = [places + at * len(rows) for at in range(len(shuffled))]
        for name, part in zip(shuffled, parts, strict=True):
            columns[name][part] = rows[name].to_numpy()[order]
        outputs, truths = outputs_of(model, training_set, pd.DataFrame(columns)), np.tile(truth, len(shuffled))
        with config_context(skip_parameter_validation=True):  # they are the same each time
            return [metric.measure(outputs, truths, part) for part in parts]

    seen = [*features, *({"current"} & set(rows))]
    draws = np.random.RandomState(np.random.RandomState(0).randint(np.iinfo(np.int32).max + 1))
    shuffle, order = places.copy(), places
    at_once = max(1, _CELLS // rows.size)
    measured = []
    for _ in range(max(1, min(5, _SHUFFLES // len(features)))):
        draws.shuffle(shuffle)
        order = order[shuffle]  # shuffled again, as scikit-learn does it
        parts = [features[start : start + at_once] for start in range(0, len(features), at_once)]
        measured.append([one for part in parts for one in score(part, order)])
    lost = score(features[:1], places)[0] - np.array(measured)
    if not metric.greater_is_better:
        lost = -lost
    table = pd.DataFrame(
        {
            "feature": features,
            "importance": np.nan_to_num(lost.mean(axis=0)),
            "deviation": np.nan_to_num(lost.std(axis=0)),
        }
    )
    return table.sort_values("importance", ascending=False, kind="stable").reset_index(drop=True)
