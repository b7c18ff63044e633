"""The pictures of a search can be drawn of every kind of grid, are small, and say what they show."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from mlops_dagster.modeling.search_plots import heat_map, learning_curve, parallel_coordinates, search_pngs
from mlops_dagster_tests.contracts.article import ARTICLE


def results(grid, score=lambda params, number: -float(number)):
    """What scikit-learn's GridSearchCV leaves in `cv_results_`, as far as pictures need it."""
    params = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    scores = np.array([score(one, number) for number, one in enumerate(params)], dtype=float)
    order = np.where(np.isnan(scores), -np.inf, scores)
    rank = np.array([1 + int((order > one).sum()) for one in order])
    spread = np.full(len(params), 0.5)
    return {"params": params, "mean_test_score": scores, "std_test_score": spread, "rank_test_score": rank}


ALL = {"heat_map", "parallel_coordinates", "learning_curve"}
GRIDS = {
    "the article's": (ARTICLE, ALL),
    "one candidate": ({"max_depth": [3]}, set()),
    "one parameter": ({"max_depth": [3, 4, None]}, {"heat_map"}),
    "only trees": ({"n_estimators": [10, 20]}, {"heat_map", "learning_curve"}),
    "booleans and None": (
        {"bootstrap": [True, False], "max_depth": [None, 3]},
        {"heat_map", "parallel_coordinates"},
    ),
    "a share, a count and a word": (
        {"max_features": [1, 1.0, "sqrt"], "max_depth": [3, 4]},
        {"heat_map", "parallel_coordinates"},
    ),
    "of a pipeline": (
        {"forest__n_estimators": [5, 10], "forest__max_depth": [1, 2]},
        ALL,
    ),
    "the same value twice": ({"max_depth": [3, 3], "n_estimators": [5, 10]}, {"heat_map", "learning_curve"}),
    "very many values": (
        {"max_depth": list(range(1, 101)), "n_estimators": list(range(1, 31))},
        {"heat_map", "learning_curve"},
    ),
}


@pytest.mark.parametrize("name", GRIDS)
def test_what_shows_something_is_drawn_small(name):
    grid, expected = GRIDS[name]
    pngs = search_pngs(results(grid), "neg_root_mean_squared_error")
    assert set(pngs) == expected
    for png in pngs.values():
        assert len(png) < 25_000
        image = Image.open(io.BytesIO(png))
        assert (image.format, image.mode, image.width) == ("PNG", "P", 486)
        pixels = np.asarray(image.convert("L"))
        assert (pixels < 100).mean() > 0.003


def texts(figure):
    drawn = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        drawn += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="right")]
        drawn += [text.get_text() for text in axes.texts]
        drawn += [label.get_text() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]]
        drawn += [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []
    return drawn


def by_leaf_and_features(params, number):
    # The error falls by 10 with a smaller leaf and by 1 with more features; nothing else matters.
    return -(10.0 * params["min_samples_leaf"] - params["max_features"] + number * 1e-9)


def test_the_heat_map_shows_the_two_parameters_that_matter():
    figure = heat_map(results(ARTICLE, by_leaf_and_features), "neg_root_mean_squared_error")
    drawn = texts(figure)
    assert {"min_samples_leaf", "max_features"} < set(drawn)
    assert {"max_depth", "n_estimators"}.isdisjoint(drawn)
    # 3 x 2 cells, as errors and not as negative scores.
    assert {"27", "28", "37", "38", "47", "48"} <= {text.split(".")[0] for text in drawn}
    assert any("288 candidates, best root mean squared error 27" in text for text in drawn)


def test_a_score_that_is_no_error_is_drawn_as_it_is():
    drawn = texts(heat_map(results({"max_depth": [1, 2]}, lambda params, number: 0.1 * params["max_depth"]), "r2"))
    assert any("best r2 0.2" in text for text in drawn)
    assert "darker is better (larger)" in drawn


def test_failed_candidates_are_said_to_be():
    def failing(params, number):
        return np.nan if params["max_depth"] == -1 else -1.0 * number

    failed = results({"max_depth": [-1, 1, 2], "max_features": [2, 3]}, failing)
    drawn = texts(heat_map(failed, "r2"))
    assert drawn.count("failed") == 2
    assert any("6 candidates, 2 failed" in text for text in drawn)
    assert search_pngs(failed, "r2")


def test_no_score_at_all_is_no_picture():
    nothing = results({"max_depth": [1, 2], "n_estimators": [1, 2]}, lambda params, number: np.nan)
    assert search_pngs(nothing, "r2") == {}


def test_equal_scores_can_be_drawn():
    equal = results({"max_depth": [1, 2], "n_estimators": [1, 2]}, lambda params, number: 0.0)
    assert set(search_pngs(equal, "r2")) == ALL


def test_parallel_coordinates_lead_from_every_varied_parameter_to_the_score():
    figure = parallel_coordinates(results(ARTICLE, by_leaf_and_features), "neg_root_mean_squared_error")
    (axes,) = figure.axes
    names = [label.get_text().replace("\n", "") for label in axes.get_xticklabels()]
    assert set(names[:-1]) == set(ARTICLE) - {"bootstrap"}
    assert names[-2] == "min_samples_leaf"  # beside the score: what matters most
    assert names[-1] == "root mean squared error"
    assert {"80", "90", "100", "110", "1000"} < set(texts(figure))


def test_the_learning_curve_is_that_of_the_best_combination():
    def score(params, number):
        return -(params["min_samples_leaf"] + 100 / params["n_estimators"])

    figure = learning_curve(results({"min_samples_leaf": [1, 2], "n_estimators": [10, 50, 20]}, score), "neg_max_error")
    (axes,) = figure.axes
    best = next(line for line in axes.lines if line.get_label() == "the best combination")
    assert list(best.get_xdata()) == [10, 20, 50]
    assert list(best.get_ydata()) == [11, 6, 3]
    assert {"n_estimators", "max error", "other combinations"} < set(texts(figure))


def test_numpy_values_are_read_like_pythons():
    assert set(search_pngs(results({"max_depth": np.arange(1, 4), "n_estimators": [1, 2]}), "r2")) == ALL
