"""An exact grid search that does equal work once: `SharedGridSearchCV`, and a single forest grown anywhere."""

from mlops_dagster.search.cache import SearchCache
from mlops_dagster.search.engine import Engine, LocalEngine, Progress
from mlops_dagster.search.families import can_share
from mlops_dagster.search.forest import grow_forest
from mlops_dagster.search.plan import SearchPlan
from mlops_dagster.search.search import SharedGridSearchCV

__all__ = [
    "Engine",
    "LocalEngine",
    "Progress",
    "SearchCache",
    "SearchPlan",
    "SharedGridSearchCV",
    "can_share",
    "grow_forest",
]
