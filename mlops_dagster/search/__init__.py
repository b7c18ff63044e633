"""Exact searches that do all work once that candidates share, and a single forest grown anywhere."""

from mlops_dagster.search.cache import SearchCache
from mlops_dagster.search.engine import Engine, LocalEngine, Progress
from mlops_dagster.search.families import can_share
from mlops_dagster.search.forest import grow_forest
from mlops_dagster.search.plan import SearchPlan
from mlops_dagster.search.search import (
    SharedGridSearchCV,
    SharedHalvingGridSearchCV,
    SharedHalvingRandomSearchCV,
    SharedRandomizedSearchCV,
    shared_validation_curve,
)

__all__ = [
    "Engine",
    "LocalEngine",
    "Progress",
    "SearchCache",
    "SearchPlan",
    "SharedGridSearchCV",
    "SharedHalvingGridSearchCV",
    "SharedHalvingRandomSearchCV",
    "SharedRandomizedSearchCV",
    "can_share",
    "grow_forest",
    "shared_validation_curve",
]
