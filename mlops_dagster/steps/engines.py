"""Which engine a step gets, if any: the deployment decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlops_dagster.stack.deployment import Deployment


@contextmanager
def training_engine(deployment: Deployment) -> Iterator[Any]:
    """Yield what grows the forest of `trained_model`: Spark if the deployment says so, otherwise None (threads)."""
    if not deployment.spark.train:
        yield None
        return
    with search_engine(deployment) as engine:
        yield engine


@contextmanager
def search_engine(deployment: Deployment) -> Iterator[Any]:
    """Yield what grows the trees of `spark_grid_search_results`: the deployment's Spark."""
    from mlops_dagster.stack.spark import spark_engine

    with spark_engine(deployment.spark) as engine:
        yield engine
