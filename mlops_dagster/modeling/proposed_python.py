"""The Python that is proposed beside a declaration, where YAML can't say it: pipelines, features of forecasts."""

from __future__ import annotations

from collections.abc import Sequence


def model_python(what: str, categories: Sequence[str]) -> str:
    """Return a module whose `make` makes a pipeline that takes missing values, and encodes categories if there are any.

    Parameters
    ----------
    what : {"Classifier", "Regressor"}
        Which.
    """
    if categories:
        return _MODEL.format(what=what, categories=_python_list(categories))
    return _MODEL_OF_NUMBERS.format(what=what)


def features_python(target: str, group: str | None, dated: str | None, others: Sequence[str]) -> str:
    """Return a module whose `make` looks back from each row: how the target has changed, and the calendar.

    Parameters
    ----------
    dated : str, optional
        The column of dates that orders the rows.
    others : sequence of str
        Columns of numbers that a row says itself.
    """
    series, mean = f"table[{_quoted(target)}]", "series.rolling(rows).mean()"
    if group is not None:
        series = f"table.groupby({_quoted(group)}, sort=False)[{_quoted(target)}]"
        mean = "series.transform(lambda one: one.rolling(rows).mean())"
    lines = [f"    features[{_quoted(name)}] = table[{_quoted(name)}]" for name in others]
    if dated is not None:
        lines += [f'    features["weekday"] = table[{_quoted(dated)}].dt.dayofweek']
        lines += [f'    features["month"] = table[{_quoted(dated)}].dt.month']
    return _FEATURES.format(series=series, mean=mean, lines="\n".join([*lines, ""]), target=_quoted(target))


def _python_list(names: Sequence[str]) -> str:
    lines = "".join(f"    {_quoted(name)},\n" for name in names)
    return f"[\n{lines}]"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'


_FEATURES = '''"""What the model sees of a row: it and those before it, never later ones; `mlops check` tries that."""

import pandas as pd


def make(table):
    """Return the features of each row, in the table's order."""
    now, series = table[{target}], {series}
    features = pd.DataFrame({{"now": now}})
    for rows in (1, 7):
        features[f"since_{{rows}}"] = now - series.shift(rows)
    for rows in (7, 28):
        features[f"to_mean_{{rows}}"] = {mean} - now
{lines}    return features
'''
_MODEL = '''"""What learns: an unfitted scikit-learn estimator, made of the declaration's parameters."""

from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoosting{what}
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

CATEGORIES = {categories}


def make(**parameters):
    """Each category becomes a column; rare and new ones share one. Missing values may stay missing."""
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50, sparse_output=False)
    columns = make_column_transformer((encoder, CATEGORIES), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoosting{what}(random_state=0, **parameters))
'''
_MODEL_OF_NUMBERS = '''"""What learns: an unfitted scikit-learn estimator, made of the declaration's parameters."""

from sklearn.ensemble import HistGradientBoosting{what}


def make(**parameters):
    """Its trees learn which way missing values go."""
    return HistGradientBoosting{what}(random_state=0, **parameters)
'''
