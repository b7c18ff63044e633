"""What the component says of ten rows within the whole table, and of the same ten as a new file."""

import logging
from types import SimpleNamespace

import pandas as pd
from dagster_community_components.assets.analytics.ml_pipeline import component as steps

FEATURES = ["Solar.R", "Wind", "Temp", "Month", "Day"]
context = SimpleNamespace(log=logging.getLogger())


def prepared(rows):
    """Impute and scale, as the pipeline does."""
    return steps._do_scale(steps._do_impute(rows, {}, "Ozone", FEATURES, context), {}, "Ozone", FEATURES, context)


table = pd.read_csv("airquality.csv")
split = steps._do_split(prepared(table), {"test_size": 0.25}, "Ozone", FEATURES, context)
forest = {"sklearn_class": "sklearn.ensemble.HistGradientBoostingRegressor", "params": {"random_state": 0}}
model = steps._do_train(split, forest, "Ozone", FEATURES, context)
within, alone = (model.predict(rows[FEATURES]) for rows in (prepared(table).tail(10), prepared(table.tail(10))))
print(within.round(1), alone.round(1), abs(within - alone).mean().round(1), sep="\n")
