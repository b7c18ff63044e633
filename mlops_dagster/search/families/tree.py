"""A single tree: it is grown whole, whatever its ``ccp_alpha``, and then pruned."""

from __future__ import annotations

from typing import Any

from mlops_dagster.search.families import Family


class Tree(Family):
    shared = ("ccp_alpha",)
    unread = ()
    counted = "trees"

    def size(self, estimator: Any) -> int:
        return 1

    def widen(self, estimator: Any) -> None:
        estimator.ccp_alpha = 0.0

    def cut(self, served: Any) -> None:
        served._prune_tree()  # scikit-learn's own: it puts another tree in the place of this one
