"""Declarations and tables that are no prices: scikit-learn's bundled ones, and made series."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from mlops_dagster.modeling.training_set import make_training_set
from mlops_dagster.spec.model import Declaration


def declare(table: pd.DataFrame, target: Any, **said: Any) -> Declaration:
    """Declare a model of a table, with whatever a test says otherwise."""
    column = target if isinstance(target, str) else target["column"]
    kinds = {"i": "integer", "f": "number", "b": "boolean", "M": "date", "O": "text"}
    task = "classification" if table[column].dtype.kind in "iOb" and table[column].nunique() < 9 else "regression"
    base = {
        "task": task,
        "data": {"function": ".data:load"},
        "contract": {name: {"type": kinds[dtype.kind], "nullable": True} for name, dtype in table.dtypes.items()},
        "features": [name for name in table.columns if name != column and name not in said.values()],
        "target": target,
        "split": {"kind": "random"},
        "estimator": {"class": "sklearn.dummy.DummyClassifier"},
        "metrics": ["accuracy" if task == "classification" else "r2"],
        "baseline": "prior" if task == "classification" else "mean",
    }
    return Declaration.model_validate(base | said)


def _bundled(loaded: Any, names: dict[int, str] | None = None) -> pd.DataFrame:
    table: pd.DataFrame = loaded.frame.rename(columns=lambda name: name.replace(" ", "_").replace("_(cm)", ""))
    table = table.rename(columns={"target": "outcome"}).astype({"outcome": float if names is None else int})
    return table if names is None else table.assign(outcome=table["outcome"].map(names))


@pytest.fixture(scope="session")
def cancer() -> pd.DataFrame:
    return _bundled(load_breast_cancer(as_frame=True), {0: "malignant", 1: "benign"})


@pytest.fixture(scope="session")
def iris() -> pd.DataFrame:
    return _bundled(load_iris(as_frame=True), {0: "setosa", 1: "versicolor", 2: "virginica"})


@pytest.fixture(scope="session")
def diabetes() -> pd.DataFrame:
    return _bundled(load_diabetes(as_frame=True))


def lagged(table: pd.DataFrame) -> pd.DataFrame:
    """Features that look back: today's sales, those of a week ago, and the day of the week."""
    by_shop = table.groupby("shop", sort=False)["sales"]
    return pd.DataFrame(
        {"today": table["sales"], "week_ago": by_shop.shift(7), "weekday": table["day"].dt.dayofweek}, index=table.index
    )


def ahead(table):
    """The next sales of the same shop."""
    return lagged(table).assign(next=table.groupby("shop")["sales"].shift(-1))


def scaled(table):
    """Everything by the mean of all rows."""
    return table[["bmi", "bp"]] / table[["bmi", "bp"]].mean()


@pytest.fixture(scope="session")
def demand() -> pd.DataFrame:
    """Two shops' sales of 300 days with a weekly pattern; one opens 40 days later, and has a day without a number."""
    random, days = np.random.default_rng(7), pd.date_range("2024-01-01", periods=300, unit="us")
    shops = []
    for shop, begin, level in (("north", 0, 50.0), ("south", 40, 90.0)):
        day = days[begin:]
        sales = level + 10 * np.sin(2 * np.pi * day.dayofweek / 7) + random.normal(0, 2, len(day)).cumsum() / 4
        shops.append(pd.DataFrame({"day": day, "shop": shop, "sales": sales}))
    table = pd.concat(shops).sort_values("day", kind="stable").reset_index(drop=True)
    table.loc[(table["shop"] == "south") & (table["day"] == "2024-06-01"), "sales"] = np.nan
    return table


FORECAST = {"column": "sales", "horizon": 7, "learn": "difference"}


def forecast(demand, target=FORECAST, *, function=lagged, given=None, **said):
    """Make a training set of all shops' sales."""
    base = {"features": ".features:make", "time": "day", "group": "shop", "split": {"kind": "chronological"}}
    declaration = declare(demand, target, **(base | said))
    return make_training_set(declaration, demand, features=function, **(given or {}))
