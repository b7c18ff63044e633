"""What a partition may be called, and what a run's parameters may be."""

import math
import re

import pytest

from mlops_dagster.errors import ParameterError
from mlops_dagster.spec.parameters import check_partition
from mlops_dagster.spec.project import find_model
from mlops_dagster.spec.steps import pipelines_of
from mlops_dagster.steps.checking import check_run, resolve
from mlops_dagster_tests.contracts.stock import OWN

MODEL = find_model("stock_price", OWN)
WRONG = ["../x", "/x", "a,b", "", "A" * 33, "a b", "a\\b", "a..b", ".a", "-a", "a\n", "é", "a%2Fb", None, 7]


@pytest.mark.parametrize("symbol", ["GSPC", "^GSPC", "BRK-B", "EURUSD=X", "0700.HK", "A", "A" * 32])
def test_yahoos_symbols_are_taken(symbol):
    assert check_partition(symbol) == symbol


@pytest.mark.parametrize("symbol", WRONG)
def test_a_partition_that_could_be_something_else_is_refused(symbol):
    with pytest.raises(ParameterError, match=r"symbol=.*give 1 to 32 letters"):
        check_partition(symbol, "symbol")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("max_depth", value) for value in (0, -1, 2.5, 80.0, "80", True, 10**9)],
        *[("n_estimators", value) for value in (0, math.nan, [100])],
        *[("max_features", value) for value in (math.inf, 0, 2.5)],
        ("bootstrap", 1),
        ("random_state", -1),
    ],
)
def test_a_bad_value_is_refused_by_name_value_and_type(name, value):
    with pytest.raises(ParameterError, match=rf"^{name}={re.escape(repr(value))} \({type(value).__name__}\): give"):
        resolve(MODEL, "trained_model", {name: value})


def test_none_means_the_declared_default_and_an_unknown_name_is_told_those_that_exist():
    assert resolve(MODEL, "trained_model", {"min_samples_leaf": None})["min_samples_leaf"] == 100
    with pytest.raises(ParameterError, match=r"max_deph=80 \(int\): there is no such parameter; .*max_depth"):
        resolve(MODEL, "trained_model", {"max_deph": 80})
    search = next(one for one in pipelines_of(MODEL) if one.name == "search_model_pipeline")
    with pytest.raises(ParameterError, match=r"margin=0\.1 .*search_model_pipeline has no such parameter; there are "):
        check_run(MODEL, search, {"margin": 0.1})
