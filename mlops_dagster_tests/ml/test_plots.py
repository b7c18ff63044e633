"""Plots can be drawn of every kind of training set, are small, and leave nothing behind."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mlops_dagster.ml.evaluation import evaluate
from mlops_dagster.ml.model import fit_forest
from mlops_dagster.ml.plots import forecast_plot, importance_plot, residual_plot, to_png
from mlops_dagster.ml.recipes import make_training_set
from mlops_dagster.pipelines import resolve_forest

KINDS = {
    "honest": {},
    "article": {"recipe": "article"},
    "a long horizon": {"horizon": 60},
    "a year": {"rows": 250},
}


@pytest.fixture(scope="module", params=KINDS)
def results(request, gspc):
    given = dict(KINDS[request.param])
    made = make_training_set(gspc.tail(given.pop("rows", len(gspc))).reset_index(drop=True), **given)
    forest = fit_forest(made, resolve_forest(made.recipe, {"n_estimators": 10}))
    return made, forest, evaluate(forest, made)


def texts(figure):
    drawn = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        drawn += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="right")]
        drawn += [text.get_text() for text in axes.texts]
        drawn += [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []
    return [*drawn, figure.get_supylabel()]


def test_plots_are_small_pngs_with_something_on_them(results):
    made, forest, evaluation = results
    for figure in (forecast_plot(evaluation), residual_plot(evaluation), importance_plot(forest, made.features)):
        png = to_png(figure)
        assert len(png) < 16_000
        image = Image.open(io.BytesIO(png))
        assert image.format == "PNG"
        assert image.mode == "P"
        assert image.width == 486
        pixels = np.asarray(image.convert("L"))
        # Mostly paper, and ink on it: neither an empty picture nor a palette that went wrong.
        assert (pixels > 235).mean() > 0.7
        assert (pixels < 100).mean() > 0.003


def test_a_figure_gives_the_same_png_again(results):
    _, _, evaluation = results
    assert to_png(forecast_plot(evaluation)) == to_png(forecast_plot(evaluation))


def test_the_forecast_plot_says_what_it_shows(results):
    made, _, evaluation = results
    drawn = texts(forecast_plot(evaluation))
    assert any(f"{made.recipe} recipe" in text for text in drawn)
    assert any(f"rmse {evaluation.metrics['rmse']:#,.4g}" in text for text in drawn)
    assert "adjusted close (points or currency)" in drawn
    regions = {"training period", "test period"}
    if made.recipe == "article":
        assert "test days drawn at random from all days" in drawn
        assert not regions & set(drawn)
    else:
        assert regions < set(drawn)
        assert f"gap, {made.horizon} row{'s' if made.horizon > 1 else ''}" in drawn


def test_the_residual_plot_compares_with_persistence(results):
    _, _, evaluation = results
    assert {"model", "persistence", "forecast - truth (points or currency)", "test days"} < set(
        texts(residual_plot(evaluation))
    )


def test_the_importance_plot_has_the_largest_on_top(results):
    made, forest, _ = results
    (axes,) = importance_plot(forest, made.features).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    best = made.features[int(np.argmax(forest.feature_importances_))]
    assert sorted(names) == sorted(made.features)
    assert names[-1] == best or not forest.feature_importances_.any()


def test_a_forest_without_a_split_says_so(gspc):
    made = make_training_set(gspc.head(300))
    forest = fit_forest(made, resolve_forest("honest", {"n_estimators": 3, "min_samples_leaf": 5000}))
    figure = importance_plot(forest, made.features)
    assert "no tree has a split" in texts(figure)
    assert to_png(figure)


def test_no_errors_at_all_can_be_drawn(honest):
    class Perfect:
        def predict(self, X):
            return honest.frame.loc[X.index, "target"]

    evaluation = evaluate(Perfect(), honest)
    evaluation.forecasts["price"] = evaluation.forecasts["forecast"] = evaluation.forecasts["truth"]
    assert to_png(residual_plot(evaluation))


def test_pyplot_is_never_imported():
    # It would choose a backend and keep every figure of the process alive.
    code = """
import sys
import numpy as np
from mlops_dagster.ml import plots
class Forest:
    feature_importances_ = np.array([0.4, 0.6])
    estimators_ = [None]
plots.to_png(plots.importance_plot(Forest(), ["a", "b"]))
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
