"""Each task has its pictures, small ones, and a card that says in words what they show."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline

from mlops_dagster.modeling.card import LONGEST, data_profile, estimator_diagram, model_card
from mlops_dagster.modeling.evaluation import evaluate, importance_of, measure_baseline
from mlops_dagster.modeling.metrics import metric_of
from mlops_dagster.modeling.plots import confusion_plot, forecast_plot, pngs_of
from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster_tests.modeling.conftest import FORECAST, declare, lagged


def trained(table, target, model, function=None, **said):
    """Declare, train and evaluate a model."""
    declaration = declare(table, target, **said)
    made = make_training_set(declaration, table, features=function)
    model = make_pipeline(SimpleImputer(), model).fit(made.X_train, made.y_train)
    metrics = [metric_of(name, declaration) for name in declaration.metrics]
    result = evaluate(model, made, declaration, metrics, measure_baseline(made, declaration, metrics))
    return declaration, made, result, model, importance_of(model, made, metrics[0])


@pytest.fixture(scope="module")
def models(cancer, iris, diabetes, demand):
    forest = RandomForestClassifier(10, max_depth=3, random_state=0)
    positive, stratified = {"column": "outcome", "positive": "malignant"}, {"split": {"kind": "stratified"}}
    digits = load_digits(as_frame=True).frame.rename(columns={"target": "outcome"})
    pixels = [name for name in digits.columns if name.endswith(("_3", "_4"))]
    said = {"features": ".f:f", "time": "day", "split": {"kind": "chronological"}, "baseline": "persistence",
            "metrics": ["neg_mean_absolute_error", "r2"]}  # fmt: skip
    north = demand[demand["shop"] == "north"].reset_index(drop=True)
    return {
        "two classes": trained(cancer, positive, forest, metrics=["roc_auc", "f1"], **stratified),
        "no probabilities": trained(cancer, positive, RidgeClassifier(), features=["mean_area"], **stratified),
        "three classes": trained(iris, "outcome", forest, **stratified),
        "ten classes": trained(
            digits, "outcome", forest, features=pixels, task="classification", baseline="prior", metrics=["accuracy"]
        ),
        "numbers": trained(diabetes, "outcome", Ridge()),
        "one series": trained(north, FORECAST, Ridge(), lagged, **said),
        "two series": trained(demand, FORECAST, Ridge(), lagged, group="shop", **said),
        "shuffled days": trained(north, FORECAST, Ridge(), lagged, **(said | {"split": {"kind": "random"}})),
    }


PICTURES = {
    "two classes": {"confusion_matrix", "curves", "calibration"},
    "no probabilities": {"confusion_matrix", "curves"},
    "three classes": {"confusion_matrix", "curves"},
    "ten classes": {"confusion_matrix"},
    "numbers": {"errors"},
    "one series": {"forecast", "errors"},
    "two series": {"forecast", "errors"},
    "shuffled days": {"forecast", "errors"},
}


@pytest.mark.parametrize("kind", PICTURES)
def test_each_task_has_its_pictures(kind, models):
    _, made, result, _, importance = models[kind]
    pngs = pngs_of(made, result, importance)
    assert set(pngs) == PICTURES[kind] | {"permutation_importance"}
    for name, png in pngs.items():
        assert len(png) < 16_000, name
        image = Image.open(io.BytesIO(png))
        assert (image.format, image.mode, image.width) == ("PNG", "P", 486)
        pixels = np.asarray(image.convert("L"))
        # Mostly paper, and ink on it: neither an empty picture nor a palette that went wrong.
        assert (pixels > 200).mean() > 0.5
        assert (pixels < 130).mean() > 0.003


def texts(figure):
    every = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        every += [axes.get_xlabel(), axes.get_title(loc="right"), *(text.get_text() for text in axes.texts)]
        every += [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []
    return every


def test_pictures_say_what_they_show(models):
    _, made, result, _, _ = models["two classes"]
    said = texts(confusion_plot(made, result))
    caught = int(((result.truth == "malignant") & (result.outputs.classes == "malignant")).sum())
    assert f"{caught}\n{100 * caught / (result.truth == 'malignant').sum():.0f} %" in said
    assert any(text.startswith(f"roc_auc {result.metrics['roc_auc']:#,.4g}, baseline 0.5000, skill") for text in said)

    _, made, result, _, _ = models["one series"]
    said = texts(forecast_plot(made, result))
    assert {"training period", "test period", "gap, 7 rows", "the last 60 test rows"} <= set(said)
    assert "Forecasts against the truth: sales, 7 rows ahead" in said
    _, made, result, _, _ = models["two series"]
    assert "north, the last 60 test rows" in texts(forecast_plot(made, result))
    _, made, result, _, _ = models["shuffled days"]
    assert "test rows lie among the training rows" in texts(forecast_plot(made, result))


def test_the_card_says_what_a_model_is_and_how_good(models):
    declaration, made, result, model, importance = models["two classes"]
    card = model_card(
        declaration, made, result, estimator=model, parameters={"max_depth": 3}, importance=importance,
        leaks=["told: (almost) the target."], source="cancer.csv",
    )  # fmt: skip
    for said in (
        "Predicts `outcome`, one of 2 classes (`benign`, `malignant`, of which `malignant` is the positive one).",
        "Judged on 143 test rows:",
        f"- **roc_auc**: {result.metrics['roc_auc']:,.5g}; baseline (prior) 0.5",
        "- **Data**: 569 rows (426 to train, 143 to test) from cancer.csv.",
        "- **Split**: stratified, 25 % of the rows are tested on, seed 0.",
        "- **Estimator**: `SimpleImputer` → `RandomForestClassifier`.",
        "- **Parameters**: `max_depth` 3.",
        "`mean_radius`, `mean_texture`, ",
        " and 10 more.",
        "- **Leak**: told: (almost) the target.",
    ):
        assert said in card

    declaration, made, result, model, _ = models["two series"]
    card = model_card(declaration, made, result, estimator=model, parameters={f"p{i}": "x" * 900 for i in range(9)})
    assert "Predicts `sales`, 7 rows ahead in each `shop`, learned as a difference." in card
    assert "mean_absolute_error** (the smaller the better): " in card
    assert ", day 2024-01-08 to 2024-10-26." in card
    assert "14 first rows, which the features' look-back doesn't reach" in card
    assert len(card) <= LONGEST


def test_the_profile_is_of_the_training_rows(models):
    _, made, _, model, _ = models["two series"]
    lines = data_profile(made).splitlines()
    weekly = made.X_train["week_ago"]
    assert f"| `week_ago` | number | {100 * weekly.isna().mean():.3g} % | {weekly.min():,.5g} |" in "\n".join(lines)
    assert lines[-1].startswith("| `sales` (target) | number | 0 % |")
    assert "`benign` 62.7 %, `malignant`" in data_profile(models["two classes"][1]).splitlines()[-1]
    assert "SimpleImputer" in estimator_diagram(model)
