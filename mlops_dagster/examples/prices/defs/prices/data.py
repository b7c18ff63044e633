"""Daily prices: the bundled files, files of one's own, or Yahoo Finance; and what they have to be."""

from typing import Any

import pandas as pd
import pandera.pandas as pa

from mlops_dagster.ml.prices import MIN_ROWS, PRICE_COLUMNS, PRICE_SCHEMA, PriceDataError, is_enclosed, pick_columns
from mlops_dagster.stack.sources import read_prices

_REMOVE = "correct it at the source, or remove the row"
_ENCLOSED = [
    pa.Check(is_enclosed(name), name=name, error=f"is {where} the day's {others}", description=_REMOVE)
    for name, where, others in (("High", "below", "Open, Low or Close"), ("Low", "above", "Open or Close"))
]
_A_YEAR = pa.Check(
    lambda prices: len(prices) >= MIN_ROWS,
    name="Date",
    error=f"there are fewer than {MIN_ROWS} rows",
    description=f"give at least {MIN_ROWS}, about one trading year",
)
_DESCRIBED = PRICE_SCHEMA.update_columns({name: {"description": said} for name, said in PRICE_COLUMNS.items()})
PRICES = pa.DataFrameSchema(_DESCRIBED.columns, checks=[*_ENCLOSED, _A_YEAR])
"""Dates increase, prices are above zero, High and Low enclose the day's others. A check says problem and cure."""


def load(symbol: str, **given: Any) -> pd.DataFrame:
    """Return one symbol's daily prices as they were found, their columns by the contract's names."""
    source = given.pop("source", "files" if given.get("path") else "bundled")
    raw, origin = read_prices(symbol, source=source, **given)
    violations, prices = pick_columns(raw)
    if violations:
        raise PriceDataError(origin, violations)
    prices.attrs["origin"] = origin
    return prices
