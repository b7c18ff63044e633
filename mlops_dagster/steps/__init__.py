"""The steps of the pipelines, as plain functions. Every tool only calls them.

A step checks its parameters, reads its inputs from the store, writes its outputs to it, and returns a
:class:`StepReport`. The science is in `ml/`, the tools are in `stack/`; no step knows which orchestrator is calling.

What most steps take: `symbol`, for example ``GSPC``; `given`, the parameters; `store` and `tracker`, the tools;
`origin`, who is calling; `inputs`, what the caller's run has made so far, see :class:`Inputs`.

All bad parameters are refused before anything is read, and a step that fails leaves the tables as they were.
"""

from mlops_dagster.steps.build_model import prices, trained_model, training_set
from mlops_dagster.steps.champion import champion_of, load_champion
from mlops_dagster.steps.forecast import forecast_quality, newest_as_json, next_forecast, price_forecast
from mlops_dagster.steps.inputs import Inputs
from mlops_dagster.steps.price_models import champion_model
from mlops_dagster.steps.promotion import rollback
from mlops_dagster.steps.report import STEP_SOURCES, StepReport, step_code_version
from mlops_dagster.steps.search import SEARCH_CACHE, grid_search_results, plan_search, spark_grid_search_results

__all__ = [
    "SEARCH_CACHE",
    "STEP_SOURCES",
    "Inputs",
    "StepReport",
    "champion_model",
    "champion_of",
    "forecast_quality",
    "grid_search_results",
    "load_champion",
    "newest_as_json",
    "next_forecast",
    "plan_search",
    "price_forecast",
    "prices",
    "rollback",
    "spark_grid_search_results",
    "step_code_version",
    "trained_model",
    "training_set",
]
