"""The steps of models, as plain functions. Every tool only calls them.

What they take: `declaration`; `partition`, ``all`` if the model has none; `given`, the parameters; `store` and
`tracker`, the model's own tools; `origin`, who is calling; `inputs`, what the caller's run has made so far.

A step checks its parameters, reads its inputs from the store, writes its outputs to it, and returns a
:class:`StepReport`. The science is in `modeling/`, the tools are in `stack/`; no step knows which orchestrator is
calling. All bad parameters are refused before anything is read, and a step that fails leaves the tables as they were.
"""

from mlops_dagster.steps.champion import champion_of, load_champion
from mlops_dagster.steps.inputs import Inputs
from mlops_dagster.steps.promotion import rollback
from mlops_dagster.steps.report import StepReport
from mlops_dagster.steps.run_search import SEARCH_CACHE

__all__ = ["SEARCH_CACHE", "Inputs", "StepReport", "champion_of", "load_champion", "rollback"]
