"""Prices that several tests read. Session-wide: whoever changes them works on a copy."""

from pathlib import Path

import pandas as pd
import pytest

from mlops_dagster.ml.prices import validate_prices
from mlops_dagster.ml.recipes import make_training_set

DATA = Path(__file__).parents[2] / "mlops_dagster" / "data"


def bundled(symbol):
    return validate_prices(pd.read_csv(DATA / f"{symbol}.csv", dtype=str), source=symbol)


@pytest.fixture(scope="session")
def gspc():
    return bundled("GSPC")


@pytest.fixture(scope="session")
def article(gspc):
    return make_training_set(gspc, recipe="article")


@pytest.fixture(scope="session")
def honest(gspc):
    return make_training_set(gspc)
