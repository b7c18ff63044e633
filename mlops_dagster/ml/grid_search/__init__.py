"""An exact grid search that grows every tree once: `SharedGridSearchCV`, and a single forest grown anywhere."""

from mlops_dagster.ml.grid_search.cache import SearchCache
from mlops_dagster.ml.grid_search.engine import Engine, LocalEngine, Progress
from mlops_dagster.ml.grid_search.forest import grow_forest
from mlops_dagster.ml.grid_search.plan import SearchPlan
from mlops_dagster.ml.grid_search.search import SharedGridSearchCV

__all__ = ["Engine", "LocalEngine", "Progress", "SearchCache", "SearchPlan", "SharedGridSearchCV", "grow_forest"]
