"""What the tests' model sees of a day."""

import pandas as pd


def look_back(prices):
    """Relative changes, NaN in the first row, and the volume."""
    return pd.DataFrame(
        {
            "return_1d": prices["Adj Close"] / prices["Adj Close"].shift(1) - 1,
            "range": prices["High"] / prices["Low"] - 1,
            "change": prices["Close"] / prices["Open"] - 1,
            "volume": prices["Volume"],
        }
    )
