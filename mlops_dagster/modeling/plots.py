"""The pictures of any trained model, by its task: scikit-learn's displays, small enough to travel in an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    PredictionErrorDisplay,
    RocCurveDisplay,
    confusion_matrix,
)

from mlops_dagster.modeling.drawing import (
    BAR,
    FAINT,
    FORECAST,
    GAP,
    INK,
    TEST,
    finish,
    legend,
    name_place,
    new_figure,
    to_png,
)
from mlops_dagster.modeling.evaluation import Evaluation
from mlops_dagster.modeling.metrics import Metric
from mlops_dagster.modeling.training_set import TrainingSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADES = ("#ffffff", "#dde5ef", "#b9c9dc", "#96aeca", "#7894b8", BAR)
_CURVES = (FORECAST, BAR, INK, FAINT)
_NAMED, _WRITTEN = 30, 10  # classes that still have their name, and their numbers, in the picture
_SERIES, _RECENT = 3, 60
_PIXELS = 600
"""About the width of a panel: more points than this can't be seen, they only make the PNG larger."""


def pngs_of(
    training_set: TrainingSet, evaluation: Evaluation, importance: pd.DataFrame | None = None
) -> dict[str, bytes]:
    """Draw what there is to see of a model, by its task.

    Returns
    -------
    dict of str to bytes
        PNGs by name. Classification: confusion_matrix, of two to four classes also curves, of two also calibration.
        Regression: errors, of a forecast also forecast. With `importance`: permutation_importance.
    """
    figures: dict[str, Any] = {}
    if training_set.classes is None:
        if training_set.time is not None:
            figures["forecast"] = forecast_plot(training_set, evaluation)
        figures["errors"] = error_plot(training_set, evaluation)
    else:
        figures["confusion_matrix"] = confusion_plot(training_set, evaluation)
        answers = evaluation.outputs
        ranked = answers.probabilities is not None or answers.scores is not None
        if ranked and len(training_set.classes) <= len(_CURVES):
            figures["curves"] = curves_plot(training_set, evaluation)
        if answers.probabilities is not None and len(training_set.classes) == 2:
            figures["calibration"] = calibration_plot(training_set, evaluation)
    if importance is not None:
        figures["permutation_importance"] = importance_plot(training_set, importance, evaluation.judged[0])
    colours = {"confusion_matrix": _SHADES[1:]}
    return {name: to_png(figure, colours=colours.get(name, (BAR, TEST, GAP))) for name, figure in figures.items()}


# ---------------------------------------------------------------------------------------------------------- classes


def confusion_plot(training_set: TrainingSet, evaluation: Evaluation) -> Figure:
    """Draw how many test rows of each class are taken for which, shaded by their share of the class."""
    from matplotlib.colors import ListedColormap

    labels = list(training_set.classes or ())
    counts = confusion_matrix(evaluation.truth, evaluation.outputs.classes, labels=labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = [_short(label) for label in labels] if len(labels) <= _NAMED else None
    figure = _figure("Confusion matrix", training_set, evaluation, height=4.4 if len(labels) < 6 else 5.4)
    axes = figure.subplots()
    display = ConfusionMatrixDisplay(shares, display_labels=named)
    display.plot(
        ax=axes, cmap=ListedColormap(_SHADES), include_values=False, colorbar=False, im_kw={"vmin": 0, "vmax": 1}
    )
    for (row, column), count in np.ndenumerate(counts if len(labels) <= _WRITTEN else np.zeros((0, 0))):
        share = shares[row, column]
        text = f"{count:,}\n{100 * share:.0f} %" if len(labels) <= 5 else f"{count:,}"
        axes.text(column, row, text, ha="center", va="center", fontsize=11, color="white" if share > 0.7 else INK)
    finish(axes, xlabel="predicted", ylabel="true")
    axes.grid(False)
    if named is None:
        axes.set_xticks([]), axes.set_yticks([])
    elif sum(map(len, named)) > 40:
        axes.tick_params(axis="x", labelrotation=90)
    return figure


def curves_plot(training_set: TrainingSet, evaluation: Evaluation) -> Figure:
    """Draw which thresholds one could choose: the ROC curve, and precision against recall; of more than two, each."""
    figure = _figure("What a threshold would give", training_set, evaluation, height=3.9)
    left, right = figure.subplots(1, 2)
    for colour, (label, scores) in zip(_CURVES, _scores_by_class(evaluation).items(), strict=False):
        truth = evaluation.truth == label
        drawn = {"name": _short(label), "curve_kwargs": {"color": colour, "linewidth": 1.5}}
        RocCurveDisplay.from_predictions(truth, scores, ax=left, **drawn)
        PrecisionRecallDisplay.from_predictions(truth, scores, ax=right, **drawn)
    left.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    for axes, xlabel, ylabel in (
        (left, "false positive rate", "true positive rate"),
        (right, "recall", "precision"),
    ):
        axes.legend(loc="lower right" if axes is left else "lower left", frameon=False, fontsize=10, labelcolor=INK)
        finish(axes, xlabel=xlabel, ylabel=ylabel)
    return figure


def _scores_by_class(evaluation: Evaluation) -> dict[Any, Any]:
    answers = evaluation.outputs
    scores = answers.probabilities if answers.probabilities is not None else answers.scores
    assert scores is not None
    if scores.ndim == 1:
        scores = np.column_stack([-scores, scores])
    by_class = dict(zip(answers.labels, scores.T, strict=True))
    return {answers.positive: by_class[answers.positive]} if answers.positive is not None else by_class


def calibration_plot(training_set: TrainingSet, evaluation: Evaluation) -> Figure:
    """Draw how often the positive class comes true when it is given a probability, and how often that is given."""
    answers = evaluation.outputs
    scores = _scores_by_class(evaluation)[answers.positive]
    figure = _figure("Calibration of the probabilities", training_set, evaluation, height=4.8)
    above, below = figure.subplots(2, 1, height_ratios=[2.4, 1], sharex=True)
    truth = evaluation.truth == answers.positive
    bins = int(np.clip(len(truth) // 20, 3, 10))
    CalibrationDisplay.from_predictions(
        truth,
        scores,
        n_bins=bins,
        strategy="quantile",
        ax=above,
        color=FORECAST,
        linewidth=1.3,
        markersize=5,
        name="model",
    )
    above.legend(loc="upper left", frameon=False, fontsize=11, labelcolor=INK)
    finish(above, ylabel=f"share that is {_short(answers.positive)}")
    above.set_xlabel("")
    below.hist(scores, bins=np.linspace(0, 1, 21), color=BAR)
    finish(below, xlabel=f"predicted probability of {_short(answers.positive)}", ylabel="test rows")
    return figure


# ---------------------------------------------------------------------------------------------------------- numbers


def error_plot(training_set: TrainingSet, evaluation: Evaluation) -> Figure:
    """Draw the truth and the errors against what was predicted; of many rows 1,000."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure("Predictions and errors", training_set, evaluation, height=4.2)
    predicted = evaluation.outputs.value
    dots = {"scatter_kwargs": {"color": FORECAST, "s": 7, "alpha": 0.6, "linewidths": 0}}
    for axes, kind, ylabel in zip(
        figure.subplots(1, 2),
        ("actual_vs_predicted", "residual_vs_predicted"),
        (f"true {_short(training_set.column)}", "truth - prediction"),
        strict=True,
    ):
        PredictionErrorDisplay.from_predictions(
            evaluation.truth, predicted, kind=kind, subsample=1_000, random_state=0, ax=axes,
            line_kwargs={"color": INK, "linewidth": 1}, **dots,
        )  # fmt: skip
        finish(axes, xlabel=f"predicted {_short(training_set.column)}", ylabel=ylabel)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
    return figure


def forecast_plot(training_set: TrainingSet, evaluation: Evaluation) -> Figure:
    """Draw forecasts against the truth over time: of one series all above and the last below, of several the last."""
    frame, rows, group = training_set.frame, evaluation.predictions, training_set.group
    title = "Forecasts against the truth" if training_set.horizon else "Predictions against the truth"
    every = sorted(rows[group].unique(), key=str) if group is not None else []
    several, some = every[:_SERIES], f" ({_SERIES} of {len(every):,} series)" if len(every) > _SERIES else ""
    figure = _figure(title, training_set, evaluation, height=5.4 if len(several) != 1 else 3.6)
    if several:
        for axes, one in zip(np.atleast_1d(figure.subplots(len(several), 1)), several, strict=True):
            _draw_recent(axes, training_set, rows[rows[group] == one], f"{_short(one)}, ")
    else:
        whole, recent = figure.subplots(2, 1, height_ratios=[1.15, 1])
        _draw_whole(whole, training_set, frame, rows)
        _draw_recent(recent, training_set, rows, "")
    figure.supylabel(_short(training_set.column) + some, fontsize=11, color=INK)
    return figure


def _draw_whole(axes: Axes, training_set: TrainingSet, frame: pd.DataFrame, rows: pd.DataFrame) -> None:
    time, dated = training_set.time, frame[training_set.time].dtype.kind == "M"
    values = frame["current" if training_set.horizon else "target"].to_numpy()
    times, seen = frame[time].to_numpy(), slice(None, None, max(1, len(frame) // _PIXELS))
    # Hard edges where nobody sees them: smooth ones cost a kilobyte per line.
    axes.plot(
        times[seen], values[seen], color=FAINT, linewidth=2.2, antialiased=False, label=_short(training_set.column)
    )
    when, seen = _when(training_set, rows), slice(None, None, max(1, len(rows) // _PIXELS))
    train, test = (frame.loc[frame["split"] == split, time] for split in ("train", "test"))
    if train.max() < test.min():
        axes.axvspan(test.min(), times[-1], color=TEST, linewidth=0, zorder=0)
        gap = int((frame["split"] == "gap").sum())
        if gap:
            axes.axvspan(
                train.max(), test.min(), color=GAP, linewidth=0, zorder=0, label=f"gap, {gap:,} row{'s'[: gap > 1]}"
            )
        axes.plot(when[seen], rows["prediction"].to_numpy()[seen], color=FORECAST, linewidth=1.1, label="prediction")
        name_place(axes, times[0], "training period")
        name_place(axes, test.min(), "test period")
    else:
        axes.plot(
            when, rows["prediction"].to_numpy(), ".", color=FORECAST, markersize=1.6, label="prediction (test rows)"
        )
        name_place(axes, times[0], "test rows lie among the training rows")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))  # room for the names
    legend(axes)
    finish(axes, dated=dated)


def _draw_recent(axes: Axes, training_set: TrainingSet, rows: pd.DataFrame, whose: str) -> None:
    last = rows.tail(_RECENT)
    when = _when(training_set, last)
    axes.plot(when, last["truth"].to_numpy(), color=INK, linewidth=1.3, label="truth")
    axes.plot(
        when, last["prediction"].to_numpy(), "s", color=FORECAST, markersize=3, antialiased=False, label="prediction"
    )
    axes.set_title(f"{whose}the last {len(last)} test rows", loc="right", fontsize=11, color=INK)
    legend(axes)
    finish(axes, dated=last[training_set.time].dtype.kind == "M")


def _when(training_set: TrainingSet, rows: pd.DataFrame) -> Any:
    return rows["truth_time" if training_set.horizon else training_set.time].to_numpy()


# ------------------------------------------------------------------------------------------------------------- both


def importance_plot(training_set: TrainingSet, importance: pd.DataFrame, metric: Metric) -> Figure:
    """Draw how much worse the model becomes when a feature is shuffled, the largest on top, at most 20 of them."""
    top = importance.head(20)[::-1]
    some = f" (the first {len(top)} of {len(importance)})" if len(importance) > len(top) else ""
    figure = new_figure(
        "Permutation importance", f"by how much {metric.name} gets worse when a feature is shuffled{some}",
        height=1.5 + 0.29 * len(top),
    )  # fmt: skip
    axes = figure.subplots()
    axes.barh(
        [_short(name, 28) for name in top["feature"]], top["importance"], xerr=top["deviation"], height=0.62, color=BAR,
        error_kw={"ecolor": INK, "elinewidth": 1},
    )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8)
    finish(axes, xlabel=f"{metric.name}, test rows")
    axes.grid(False, axis="y")
    return figure


def _figure(title: str, training_set: TrainingSet, evaluation: Evaluation, height: float) -> Figure:
    first, metrics = evaluation.judged[0], evaluation.metrics
    said = [f"{first.name} {metrics[first.name]:#,.4g}", f"baseline {metrics[f'{first.name}_baseline']:#,.4g}"]
    if "skill_vs_baseline" in metrics:
        said.append(f"skill {100 * metrics['skill_vs_baseline']:+.1f} %")
    ahead = f", {training_set.horizon} row{'s'[: training_set.horizon > 1]} ahead" if training_set.horizon else ""
    return new_figure(f"{title}: {_short(training_set.column)}{ahead}", ", ".join(said), height=height)


def _short(name: object, longest: int = 24) -> str:
    # A dollar sign begins a formula in matplotlib.
    text = str(name).replace("$", r"\$")
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
