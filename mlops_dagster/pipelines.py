"""The pipelines, said once: their names, their steps, and the parameters that each step takes.

Every orchestrator (Dagster, the command line, Airflow, a Databricks job) reads names, defaults, bounds and descriptions
here, so that they can't disagree. Standard library only, so that showing and checking parameters is quick.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlops_dagster.errors import refuse
from mlops_dagster.spec.parameters import CANDIDATES
from mlops_dagster.spec.parameters import Parameter as Parameter
from mlops_dagster.spec.parameters import Pipeline as Pipeline
from mlops_dagster.spec.parameters import Step as Step
from mlops_dagster.spec.parameters import check_parameters as check_parameters
from mlops_dagster.spec.parameters import explain as describe

# ---------------------------------------------------------------------------------------------------------- symbols

BUNDLED_SYMBOLS = ("GSPC", "IXIC")

# A symbol becomes a folder name, a partition key, an MLflow tag and part of a URL: refuse, not escape.
# Yahoo's own symbols (^GSPC, BRK-B, EURUSD=X, 0700.HK) all fit.
SYMBOL = re.compile(r"[A-Za-z0-9^](?!.*\.\.)[A-Za-z0-9^=._-]{0,31}")


def check_symbol(symbol: object) -> str:
    """Return the symbol, or refuse it.

    Raises
    ------
    ParameterError
        If it isn't 1 to 32 letters, digits, ``^``, ``=``, ``.``, ``_`` or ``-`` beginning with a letter, a digit or
        ``^``, or contains ``..``.

    Examples
    --------
    >>> check_symbol("^GSPC")
    '^GSPC'
    >>> check_symbol("../x")
    Traceback (most recent call last):
    ...
    mlops_dagster.errors.ParameterError: symbol='../x' (str): give 1 to 32 letters, digits or ^ = . _ - ...
    """
    if not isinstance(symbol, str) or not SYMBOL.fullmatch(symbol):
        cure = "give 1 to 32 letters, digits or ^ = . _ - beginning with a letter, a digit or ^, without '..'."
        raise refuse("symbol", symbol, cure)
    return symbol


# ------------------------------------------------------------------------------------------------------- parameters

RECIPES = ("honest", "article")
PRICE_SOURCES = ("bundled", "files", "yahoo")

SOURCE = Parameter(
    "source",
    "text",
    "Where the prices come from: the bundled files, your own CSV or Parquet files, or Yahoo Finance. "
    "Default: as the deployment says.",
    choices=PRICE_SOURCES,
)
PATH = Parameter(
    "path",
    "text",
    "For source 'files': a CSV or Parquet file, or a glob of several; {symbol} stands for the symbol.",
)
SHA256 = Parameter(
    "sha256",
    "text",
    "For source 'files': the SHA-256 of the bytes that are meant, of several files in the order of their names. Other "
    "bytes are refused. Default: whatever is there.",
)
START = Parameter("start", "text", "For source 'yahoo': the first day, YYYY-MM-DD. Default: all there is.")
END = Parameter("end", "text", "For source 'yahoo': the day after the last, YYYY-MM-DD. Default: today.")

RECIPE = Parameter(
    "recipe",
    "text",
    "'honest': forward returns, features that only look back, chronological split with a gap. "
    "'article': exactly the blog's, leakage included.",
    choices=RECIPES,
)
HORIZON = Parameter(
    "horizon",
    "integer",
    "How many trading days ahead the forecast looks. Default: 1 (honest), 1 % of the rows (article).",
    minimum=1,
    maximum=250,
)
TEST_SIZE = Parameter(
    "test_size",
    "number",
    "The share of the rows that is kept for testing. Default: 0.33.",
    minimum=0.05,
    maximum=0.5,
)

FOREST = (
    Parameter(
        "max_depth",
        "integer",
        "The deepest that a tree may grow, in levels of splits.",
        minimum=1,
        maximum=1000,
    ),
    Parameter("n_estimators", "integer", "How many trees the forest has.", minimum=1, maximum=10_000),
    Parameter(
        "min_samples_leaf",
        "integer",
        "How many training rows a leaf has at least; large leaves suit noisy daily returns.",
        minimum=1,
        maximum=100_000,
    ),
    Parameter(
        "min_samples_split",
        "integer",
        "How many training rows a node needs to be split.",
        minimum=2,
        maximum=100_000,
    ),
    Parameter(
        "max_features",
        "number",
        "How many features a split looks at: a share of them up to 1.0 (1 means all), or a whole number from 2.",
        minimum=0.001,
        maximum=10_000,
        whole_above=1,
    ),
    Parameter("bootstrap", "boolean", "Whether each tree sees its own random sample of the rows, or all of them."),
    Parameter(
        "random_state",
        "integer",
        "The seed. The same seed, data and parameters give the same model, bit for bit.",
        minimum=0,
        maximum=2**32 - 1,
    ),
)

GATE = (
    Parameter(
        "margin",
        "number",
        "By what share the challenger's squared error has to be smaller than the champion's, on the same rows.",
        minimum=0,
        maximum=1,
    ),
    Parameter(
        "beat_persistence",
        "boolean",
        "Whether the challenger has to forecast better than 'the price stays as it is' to become the champion.",
    ),
    Parameter(
        "allow_leaks",
        "boolean",
        "Whether a model may become the champion that has learned from its test rows, as the article's does.",
    ),
)
GATE_DEFAULTS: Mapping[str, Any] = {"margin": 0.0, "beat_persistence": True, "allow_leaks": False}

PRESETS = ("small", "article")
CV_SCHEMES = ("chronological", "shuffled")
SCORINGS = (
    "neg_root_mean_squared_error",
    "neg_mean_squared_error",
    "neg_mean_absolute_error",
    "neg_median_absolute_error",
    "neg_max_error",
    "r2",
    "explained_variance",
)

SEARCH = (
    Parameter(
        "preset",
        "text",
        "A ready-made grid: 'small' takes seconds, 'article' is the blog's with 288 candidates.",
        choices=PRESETS,
    ),
    Parameter(
        "grid",
        "grid",
        "A grid of your own in place of a preset: each parameter of the forest with a list of values, "
        "or with a range {start, stop, step} that includes its stop. Every combination is a candidate.",
    ),
    Parameter(
        "cv",
        "text",
        "How candidates are scored. 'chronological': on rows that come after those they learn from, with a gap. "
        "'shuffled': on random parts, as the article does. Default: chronological (honest), shuffled (article).",
        choices=CV_SCHEMES,
    ),
    Parameter("folds", "integer", "How many times each candidate is fitted and scored.", minimum=2, maximum=50),
    Parameter(
        "gap",
        "integer",
        "For cv 'chronological': how many rows to leave out before those that are scored. Default: the horizon, "
        "with which nothing leaks.",
        minimum=0,
        maximum=1000,
    ),
    Parameter(
        "scoring",
        "text",
        "What makes a candidate good, by scikit-learn's name; the larger the better.",
        choices=SCORINGS,
    ),
    next(parameter for parameter in FOREST if parameter.name == "random_state"),
    CANDIDATES,
)
SEARCH_DEFAULTS: Mapping[str, Any] = {
    "preset": "small",
    "folds": 3,
    "scoring": "neg_root_mean_squared_error",
    "candidates": "table",
}

FORECASTING = (
    Parameter(
        "interval",
        "number",
        "How sure the prediction interval is: the share of prices that it is meant to hold.",
        minimum=0.5,
        maximum=0.99,
    ),
    Parameter(
        "catch_up",
        "integer",
        "How many of the last days to forecast late, when their price is known already, as after a week without a run. "
        "Days that have a forecast, or that the champion has learned from, are left out.",
        minimum=0,
        maximum=250,
    ),
)
FORECASTING_DEFAULTS: Mapping[str, Any] = {"interval": 0.9, "catch_up": 0}

PARAMETERS: Mapping[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        SOURCE,
        PATH,
        SHA256,
        START,
        END,
        RECIPE,
        HORIZON,
        TEST_SIZE,
        *FOREST,
        *GATE,
        *SEARCH,
        *FORECASTING,
    )
}

# The article gave its forest max_depth and n_estimators only; everything else was scikit-learn's default.
# The honest recipe's were chosen on a validation part of the training rows (benchmarks/choose_honest_defaults.py).
RECIPE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "article": {
        "max_depth": 80,
        "n_estimators": 100,
        "min_samples_leaf": 1,
        "min_samples_split": 2,
        "max_features": 1.0,
        "bootstrap": True,
        "random_state": 0,
    },
    "honest": {
        "max_depth": 80,
        "n_estimators": 200,
        "min_samples_leaf": 100,
        "min_samples_split": 2,
        "max_features": 0.15,
        "bootstrap": True,
        "random_state": 0,
    },
}


def defaults_of(name: str) -> dict[str, Any]:
    """Return what a parameter is by default, for each recipe; empty if its step or the deployment decides.

    Examples
    --------
    >>> defaults_of("n_estimators")
    {'article': 100, 'honest': 200}
    """
    for step in STEPS.values():
        if name in step.defaults:
            return dict.fromkeys(RECIPES, step.defaults[name])
    return {recipe: values[name] for recipe, values in RECIPE_DEFAULTS.items() if name in values}


def explain(name: str) -> str:
    """Describe a parameter for the launchpad and ``--help``: what it is, what may be given, what the defaults are.

    Examples
    --------
    >>> explain("n_estimators")
    'How many trees the forest has. Give an integer from 1 to 10000. Default: 100 (article), 200 (honest).'
    """
    defaults = defaults_of(name)
    if len(set(defaults.values())) == 1:
        said = str(next(iter(defaults.values())))
    else:
        said = ", ".join(f"{value} ({recipe})" for recipe, value in defaults.items())
    return describe(PARAMETERS[name], said or None)


def resolve_forest(recipe: str, given: Mapping[str, object]) -> dict[str, Any]:
    """Check the forest's parameters and fill in the recipe's defaults.

    Parameters
    ----------
    recipe : {"honest", "article"}
        Whose defaults to use.
    given : mapping
        What the user gave. None means: the recipe's default.

    Returns
    -------
    dict
        All parameters, as ``RandomForestRegressor`` takes them.

    Raises
    ------
    ParameterError
        For an unknown recipe or parameter and for any bad value.

    Examples
    --------
    >>> resolve_forest("article", {"max_depth": 7, "n_estimators": 30})["n_estimators"]
    30
    """
    checked = {**RECIPE_DEFAULTS[RECIPE.check(recipe)], **check_parameters(FOREST, given)}
    return {**checked, "max_features": share_or_count(checked["max_features"])}


def share_or_count(max_features: float) -> float | int:
    """Return `max_features` as scikit-learn tells a share (a float) from a count (an integer).

    For scikit-learn 1.0 is a share and 1 is a count; in a config file nobody sees the difference.

    Examples
    --------
    >>> share_or_count(1), share_or_count(3.0)
    (1.0, 3)
    """
    return float(max_features) if max_features <= 1 else int(max_features)


# -------------------------------------------------------------------------------------------------------- pipelines

PRICES = Step(
    "prices",
    "Daily prices of one symbol: open, high, low, close, adjusted close and volume, checked row by row.\n\n"
    "Dates are unique and increasing, prices positive and finite, High and Low enclose the others. Rows that "
    "break the contract are refused as a whole; nothing is filled in.",
    (SOURCE, PATH, SHA256, START, END),
)
TRAINING_SET = Step(
    "training_set",
    "Features, target and split of one symbol, one row per trading day.\n\n"
    "Recipe `honest` looks only back and keeps a gap of one horizon between training and test rows; recipe "
    "`article` repeats the blog's, whose shuffled split lets the future leak into the training rows.",
    (RECIPE, HORIZON, TEST_SIZE),
    {"recipe": RECIPES[0]},
)
TRAINED_MODEL = Step(
    "trained_model",
    "A random forest that forecasts one symbol's price, evaluated on rows it has never seen.\n\n"
    "The model, its parameters, metrics and plots are in MLflow; the forecasts on the test rows are a table.",
    FOREST,
)
CHAMPION_MODEL = Step(
    "champion_model",
    "The model that one symbol's forecasts are made with, and every decision that made it so, one row each.\n\n"
    "The newest model takes the place only if it forecasts better than the one before, on the same rows that "
    "neither has learned from, and keeps the rules of the run. The table is the truth; MLflow's alias `champion` "
    "follows it.",
    GATE,
    GATE_DEFAULTS,
)
GRID_SEARCH_RESULTS = Step(
    "grid_search_results",
    "Every candidate of a grid of hyper-parameters with its cross-validated scores, one row each, for one symbol.\n\n"
    "The scores are exactly those of scikit-learn's `GridSearchCV`; only trees that differ are grown. Candidates "
    "are scored on the training rows alone, so the test rows stay unseen. MLflow has one run per search.",
    SEARCH,
    SEARCH_DEFAULTS,
)
SPARK_GRID_SEARCH_RESULTS = Step(
    "spark_grid_search_results",
    "The same table as grid_search_results, its trees grown on Spark: local, a standalone master, Connect, "
    "Databricks.\n\n"
    "Which Spark is the deployment's choice (`spark.master`). The scores are the same up to the last digit.",
    SEARCH,
    SEARCH_DEFAULTS,
)

PRICE_FORECAST = Step(
    "price_forecast",
    "What the champion says of one symbol's next price, with a prediction interval, one row per forecast.\n\n"
    "The table only grows: a forecast that was made is never rewritten, and the same one isn't made twice. "
    "Without a champion that can be loaded the step fails and the table stays as it was.",
    FORECASTING,
    FORECASTING_DEFAULTS,
)
FORECAST_QUALITY = Step(
    "forecast_quality",
    "Each forecast of one symbol whose day has come, with the price that came, one row per day.\n\n"
    "The truth is the price that the forecast started from times the change since then, so that a later "
    "adjustment for dividends or splits isn't taken for an error. As long as no truth has come the table has no "
    "rows.",
    (),
)

BUILD_MODEL = Pipeline(
    "build_model_pipeline",
    "For one symbol: its prices, the training set, a trained model, and which model is the champion.",
    (PRICES, TRAINING_SET, TRAINED_MODEL, CHAMPION_MODEL),
)
SEARCH_MODEL = Pipeline(
    "search_model_pipeline",
    "For one symbol: its prices, the training set, and a grid search on this machine.",
    (PRICES, TRAINING_SET, GRID_SEARCH_RESULTS),
)
CLUSTER_SEARCH_MODEL = Pipeline(
    "cluster_search_model_pipeline",
    "For one symbol: its prices, the training set, and a grid search on Spark.",
    (PRICES, TRAINING_SET, SPARK_GRID_SEARCH_RESULTS),
)
FORECAST = Pipeline(
    "forecast_pipeline",
    "With the champion of one symbol: its prices, the forecast of the next day, and how good earlier forecasts were.",
    (PRICES, PRICE_FORECAST, FORECAST_QUALITY),
)
PIPELINES = (BUILD_MODEL, SEARCH_MODEL, CLUSTER_SEARCH_MODEL, FORECAST)
STEPS: Mapping[str, Step] = {step.name: step for pipeline in PIPELINES for step in pipeline.steps}
