"""Nearest neighbours: the rows are indexed once, and of the most neighbours that were found the nearest are fewer.

Which of two equally distant rows comes first depends on how many are asked for. So where the distances of a row's
neighbours, and of the next one, aren't all different, they are looked for again.
"""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np

from mlops_dagster.search.families import Family


class Neighbours(Family):
    shared = ("n_neighbors", "weights")
    unread = ("n_jobs",)
    counted = "neighbours"

    def why_not(self, estimator: Any, rows: int) -> str:
        if estimator.metric == "precomputed":
            return "distances are given, there is nothing to index"
        if estimator.algorithm == "auto" and estimator.n_neighbors >= rows // 2:
            return "algorithm='auto' takes another one for half of the rows"
        return ""

    def size(self, estimator: Any) -> int:
        return int(estimator.n_neighbors)

    def share(self, fitted: Any) -> None:
        fitted._found = {}, fitted.n_neighbors

    def cut(self, served: Any) -> None:
        served.kneighbors = _Nearest(served)


class _Nearest:
    """Takes the place of a model's ``kneighbors``: finds the most once, and returns the nearest of them."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        model, (found, most) = self._model, self._model._found
        search = type(model).kneighbors
        wanted, most = model.n_neighbors, min(most, model.n_samples_fit_)
        if X is None or n_neighbors is not None or wanted > most:
            return search(model, X, n_neighbors, return_distance)
        key = joblib.hash(X)
        if key not in found:
            found[key] = search(model, X, most)
        distances, rows = found[key]
        if wanted < most:
            if not (np.diff(distances[:, : wanted + 1]) > 0).all():
                return search(model, X, None, return_distance)
            distances, rows = np.ascontiguousarray(distances[:, :wanted]), np.ascontiguousarray(rows[:, :wanted])
        return (distances, rows) if return_distance else rows
