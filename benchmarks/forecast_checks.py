"""How sure intervals are, and how often the checks of forecasts would have warned, on the bundled prices.

The numbers of docs/forecast.md come from here:

    .venv/bin/python benchmarks/forecast_checks.py      # about two minutes

"Champions" are trained at the end of each year on the first two thirds of the prices up to then; each makes the
forecasts of the next year.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlops_dagster.ml import drift
from mlops_dagster.ml.forecasting import make_forecasts
from mlops_dagster.ml.gate import last_day_known
from mlops_dagster.ml.model import fit_forest
from mlops_dagster.ml.prices import validate_prices
from mlops_dagster.ml.recipes import make_training_set
from mlops_dagster.modeling.drift import MOST_OUTSIDE, share_outside
from mlops_dagster.pipelines import BUNDLED_SYMBOLS, resolve_forest
from mlops_dagster.stack.sources import read_prices

YEARS = range(2006, 2019)


def main() -> None:
    """Print the tables."""
    for symbol in BUNDLED_SYMBOLS:
        raw, origin = read_prices(symbol, source="bundled")
        prices = validate_prices(raw, source=origin)
        coverage(symbol, prices)
        made = walk_forward(prices)
        for name, warned in (
            ("features_have_not_drifted", made["feature_warns"]),
            ("forecast_error_has_not_drifted", made["error_warns"]),
            ("interval_covers_the_truth", made["interval_warns"]),
        ):
            days = made.loc[warned & (made["Date"] >= "2010"), "Date"]
            months = sorted({f"{day:%Y-%m}" for day in made.loc[warned, "Date"]})
            recent = [month for month in months if month >= "2010"]
            total = int((made["Date"] >= "2010").sum())
            print(f"{symbol} {name}: {len(days)} of {total} days, {len(recent)} of 108 months of 2010-2018")
            print("   ", " ".join(months))


def coverage(symbol: str, prices: pd.DataFrame) -> None:
    """Print how many test rows' prices lie inside of both intervals, with the model as build-model trains it."""
    data = make_training_set(prices)
    model = fit_forest(data, resolve_forest("honest", {}), n_jobs=-1)
    rows = data.rows("test")
    for interval in (0.5, 0.9):
        made = make_forecasts(model, data, rows, knows_until=last_day_known(data), interval=interval)
        for name, prefix in (("leaves", ""), ("trees", "trees_")):
            low, high = made[f"{prefix}lower"].to_numpy(), made[f"{prefix}upper"].to_numpy()
            truth = rows["truth"].to_numpy()
            inside, width = ((low <= truth) & (truth <= high)).mean(), ((high - low) / rows["price"].to_numpy()).mean()
            print(f"{symbol} {interval:.0%} from {name}: {inside:.1%} of {len(rows)} inside, {width:.2%} wide")


def walk_forward(prices: pd.DataFrame) -> pd.DataFrame:
    """Return each day from 2006 on with what its checks would have said."""
    parts = []
    for year in YEARS:
        until = prices[prices["Date"] < f"{year}-01-01"].reset_index(drop=True)
        champion_data = make_training_set(until)
        model = fit_forest(champion_data, resolve_forest("honest", {}), n_jobs=-1)
        knows = last_day_known(champion_data)
        data = make_training_set(prices[prices["Date"] < f"{year + 1}-01-02"].reset_index(drop=True))
        frame, features = data.frame, list(data.features)
        learned = frame.loc[frame["Date"] <= knows, features]
        rows = frame[(frame["Date"] >= f"{year - 1}-09-01") & frame["truth"].notna()]
        made = make_forecasts(model, data, rows, knows_until=knows, interval=0.9)
        truth = rows["truth"].to_numpy()
        unseen = frame[(frame["Date"] > knows) & frame["truth"].notna()]
        errors = ((data.to_price(model.predict(unseen[features]), unseen) - unseen["truth"]) / unseen["price"]) ** 2
        expected = (errors.expanding().mean() ** 0.5).loc[rows.index]
        scored = pd.DataFrame(
            {
                "Date": rows["Date"].to_numpy(),
                "price": rows["price"].to_numpy(),
                "error": made["forecast"].to_numpy() - truth,
                "inside": (made["lower"].to_numpy() <= truth) & (truth <= made["upper"].to_numpy()),
                "interval": 0.9,
                "expected_rmse": expected.to_numpy(),
            }
        )
        of_year = np.flatnonzero(scored["Date"] >= f"{year}-01-01")
        asked = rows[features].reset_index(drop=True)
        part = scored.loc[of_year, ["Date"]]
        windows = [slice(max(0, end - drift.COVERAGE_DAYS + 1), end + 1) for end in of_year]
        part["feature_warns"] = [
            max(share_outside(learned, asked[end - drift.RECENT_ROWS + 1 : end + 1]).values()) > MOST_OUTSIDE
            for end in of_year
        ]
        part["error_warns"] = [drift.error_drift(scored[window]).ratio > drift.MOST_ERROR for window in windows]
        part["interval_warns"] = [drift.chance_of_so_few_inside(scored[window]) < drift.UNLIKELY for window in windows]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    main()
