"""How sure intervals are, and how often checks of predictions would have warned, of `stock_price` on bundled prices.

The limits in `mlops_dagster/modeling/drift.py` come from here:

    .venv/bin/python benchmarks/forecast_checks.py      # about two minutes

"Champions" are trained at the end of each year on the first two thirds of the prices up to then; each makes the
forecasts of the next year.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from training_sets import fitted, table_of, training_set_of

from mlops_dagster.modeling import drift
from mlops_dagster.modeling.intervals import intervals
from mlops_dagster.spec.project import find_model

MODEL = find_model("stock_price")
YEARS = range(2006, 2019)


def main() -> None:
    """Print the tables."""
    for symbol in ("GSPC", "IXIC"):
        table = table_of(MODEL, symbol)
        coverage(symbol, table)
        made = walk_forward(table)
        recent = made[made["Date"] >= "2010"]
        for name in ("features", "intervals"):
            months = sorted({f"{day:%Y-%m}" for day in made.loc[made[name], "Date"]})
            of_recent = [month for month in months if month >= "2010"]
            said = f"{recent[name].sum()} of {len(recent)} days, {len(of_recent)} of 108 months of 2010-2018"
            print(f"{symbol}: {name} would have warned on {said}")
            print("   ", " ".join(months))


def coverage(symbol: str, table: pd.DataFrame) -> None:
    """Print how many test rows' truths lie inside of intervals, with the model as build-model trains it."""
    data = training_set_of(MODEL, table)
    model, rows = fitted(MODEL, data), data.rows("test")
    truth, current = data.truth(rows), rows["current"].to_numpy()
    for level in (0.5, 0.9):
        for name, alone in (("leaves", True), ("leaves and errors", False)):
            low, high, _ = intervals(model, data, rows, level, by_leaves_alone=alone)
            inside, width = ((low <= truth) & (truth <= high)).mean(), ((high - low) / current).mean()
            print(f"{symbol} {level:.0%} from {name}: {inside:.1%} of {len(rows)} inside, {width:.2%} wide")


def walk_forward(table: pd.DataFrame) -> pd.DataFrame:
    """Return each day from 2006 on with what its checks would have said."""
    parts = []
    for year in YEARS:
        learned = training_set_of(MODEL, table[table["Date"] < f"{year}-01-01"].reset_index(drop=True))
        model = fitted(MODEL, learned)
        frame = training_set_of(MODEL, table[table["Date"] < f"{year + 1}-01-02"].reset_index(drop=True)).frame
        rows = frame[(frame["Date"] >= f"{year - 1}-09-01") & frame["truth"].notna()].reset_index(drop=True)
        low, high, _ = intervals(model, learned, rows, 0.9, by_leaves_alone=True)
        truth, features = rows["truth"].to_numpy(), learned.inputs(rows)
        scored = pd.DataFrame({"inside": (low <= truth) & (truth <= high), "interval": 0.9})
        of_year = np.flatnonzero(rows["Date"] >= f"{year}-01-01")
        part = rows.loc[of_year, ["Date"]]
        part["features"] = [
            max(drift.share_outside(learned.X_train, features[end - drift.FEWEST_ROWS + 1 : end + 1]).values())
            > drift.MOST_OUTSIDE
            for end in of_year
        ]
        windows = [slice(max(0, end - drift.COVERAGE_ROWS + 1), end + 1) for end in of_year]
        part["intervals"] = [drift.chance_of_so_few_inside(scored[one]) < drift.UNLIKELY for one in windows]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    main()
