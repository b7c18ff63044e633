"""What came out of a search, as a table whose columns don't depend on the grid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlops_dagster.errors import MlopsError
from mlops_dagster.search.growing import SIZE
from mlops_dagster.spec.parameters import Parameter

Folds = list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]

TIMES = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")
"""The table's columns that differ each time a search is run: they say how long it took."""

_DTYPES = {"integer": "int64", "number": "float64", "boolean": "bool", "text": "object"}


class SearchError(MlopsError):
    """A search has no result; the message says why, and the cure."""


@dataclass(frozen=True)
class SearchResults:
    """What came out of a search.

    Parameters
    ----------
    table : pandas.DataFrame
        See :func:`results_table`.
    best : int
        The best candidate: its row in the table.
    forest : dict
        All its parameters, to build it with.
    """

    table: pd.DataFrame
    best: int
    best_parameters: dict[str, Any]
    forest: dict[str, Any]

    @property
    def best_score(self) -> float:
        """The best candidate's score, the mean over all folds."""
        return float(self.table["mean_test_score"].iloc[self.best])

    @property
    def failed(self) -> int:
        """How many candidates have no score, since a fit or a scoring failed."""
        return int(self.table["mean_test_score"].isna().sum())


def to_search_results(
    cv_results: Mapping[str, Any],
    fixed: Mapping[str, Any],
    parameters: Sequence[Parameter],
    candidates: Iterable[Mapping[str, Any]],
) -> SearchResults:
    """Turn ``cv_results_`` into the results of a search; its arguments are those of :func:`results_table`.

    Raises
    ------
    SearchError
        If no candidate has a score.
    """
    plain = [{name: _plain(value) for name, value in params.items()} for params in candidates]
    table = results_table(cv_results, fixed, parameters, plain)
    if table["mean_test_score"].isna().all():
        raise SearchError(
            f"none of the {len(table)} candidates could be fitted and scored; the warnings above say why. "
            "Change the grid or the scoring."
        )
    # scikit-learn's rule: the first of those with the highest score.
    best = int(table["rank_test_score"].argmin())
    return SearchResults(table, best, plain[best], {**fixed, **plain[best]})


def results_table(
    cv_results: Mapping[str, Any],
    fixed: Mapping[str, Any],
    parameters: Sequence[Parameter],
    candidates: Sequence[Mapping[str, Any]],
) -> pd.DataFrame:
    """Put ``cv_results_`` into a table whose columns don't depend on the grid.

    Parameters
    ----------
    fixed : mapping
        The parameters that all candidates have in common.
    parameters : sequence of Parameter
        All parameters there are.
    candidates : sequence of mapping
        What the grid says of each candidate, in the order of ``cv_results_``.

    Returns
    -------
    pandas.DataFrame
        One row per candidate, in the grid's order:

        - candidate: its number, from 0
        - param_*: every parameter, whether the grid varies it or not, typed; missing where nobody said anything. A
          forest's `max_features` is a number: up to 1 a share of the features, above 1 a count.
        - params: what the grid says of it, as JSON, types included
        - split*_test_score, mean_test_score, std_test_score, rank_test_score: as scikit-learn names them
        - the times, see `TIMES`
    """
    columns: dict[str, Any] = {"candidate": np.arange(len(candidates), dtype=np.int64)}
    for parameter in parameters:
        values = [params.get(parameter.name, fixed.get(parameter.name)) for params in candidates]
        dtype = _DTYPES[parameter.kind]
        if None in values:
            dtype = "float64" if dtype == "int64" else "object" if dtype == "bool" else dtype
        columns[f"param_{parameter.name}"] = pd.Series(values, dtype=dtype)
    columns["params"] = pd.Series([json.dumps(params) for params in candidates], dtype=object)
    scores = [name for name in cv_results if name.endswith("_score")]
    for name in [*scores, *TIMES]:
        columns[name] = np.asarray(cv_results[name])
    return pd.DataFrame(columns)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def best_at_the_edge(table: pd.DataFrame, parameters: Sequence[Parameter]) -> list[str]:
    """Say of which parameters the best value is the smallest or largest that was tried: a better may lie beyond.

    Parameters with less than three values have no inside. A value that can't go further, and a parameter that makes
    no difference beside the best values of the others, are no edge.

    Parameters
    ----------
    table : pandas.DataFrame
        See :func:`results_table`.
    parameters : sequence of Parameter
        All parameters there are.

    Returns
    -------
    list of str
        One sentence per parameter.
    """
    best = table.iloc[int(table["rank_test_score"].argmin())]
    varied = {f"param_{parameter.name}": parameter for parameter in parameters if f"param_{parameter.name}" in table}
    sentences = []
    for parameter in varied.values():
        if table[f"param_{parameter.name}"].dtype.kind not in "iuf" or parameter.name == "random_state":
            continue
        values = np.unique(table[f"param_{parameter.name}"])
        chosen = best[f"param_{parameter.name}"]
        if len(values) < 3 or chosen not in (values[0], values[-1]) or chosen in _furthest(parameter):
            continue
        if parameter.name == SIZE and chosen == values[0]:
            continue  # fewer trees are cheaper, never better but by chance
        others = [column for column, other in varied.items() if other is not parameter]
        beside = table.loc[(table[others] == best[others]).all(axis=1), "mean_test_score"]
        if beside.nunique() > 1:
            end, further = ("smallest", "smaller") if chosen == values[0] else ("largest", "larger")
            sentences.append(f"{parameter.name}={chosen:g} is the {end} that was tried: try {further} ones.")
    return sentences


def _furthest(parameter: Parameter) -> tuple[float | None, ...]:
    # All features is as far as max_features goes.
    return (parameter.minimum, parameter.maximum, *([1.0] if parameter.name == "max_features" else []))
