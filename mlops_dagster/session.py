"""A session: the tools of a deployment, opened once, and any step run with them in this process."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any

from mlops_dagster import pipelines, steps
from mlops_dagster.errors import refuse
from mlops_dagster.spec.steps import GRID_SEARCH_RESULTS, HERE, SPARK

if TYPE_CHECKING:
    from types import TracebackType

    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Deployment
    from mlops_dagster.stack.store import Store
    from mlops_dagster.stack.tracking import Origin, Tracker
    from mlops_dagster.steps.inputs import Pins


class Session:
    """The only place that runs a step: Dagster's assets, the shell and a task on Databricks all come here.

    Spark is opened when the first step needs it, and closed with the session.

    Parameters
    ----------
    deployment : Deployment
        The settings of the stack.
    origin : Origin
        Who is calling, for the tags in MLflow.
    store : Store, optional
        Not given: the deployment's.
    tracker : Tracker, optional
        Not given: our own, for the deployment's MLflow.
    model : Declaration, optional
        Whose steps are run, with tables, an experiment and registered models of its own. Not given: the models of
        daily prices.
    read_asset : callable, optional
        From the key of another Dagster asset to its value, where Dagster is calling.
    """

    def __init__(
        self,
        deployment: Deployment,
        origin: Origin,
        *,
        store: Store | None = None,
        tracker: Tracker | None = None,
        model: Declaration | None = None,
        read_asset: Callable[[str], object] | None = None,
    ) -> None:
        from mlops_dagster.stack.store import store_of
        from mlops_dagster.stack.tracking import MlflowTracker

        self.deployment = deployment
        self.origin = origin
        self.model, self.read_asset = model, read_asset
        self.store = store or store_of(deployment, model)
        self.tracker = tracker or MlflowTracker(**deployment.tracker_settings(model))
        self._opened = ExitStack()
        self._spark: Any = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, traceback)

    def run(
        self,
        step: str,
        symbol: str,
        given: Mapping[str, object],
        *,
        inputs: Pins | None = None,
        progress: Any = None,
    ) -> steps.StepReport:
        """Run a step, its trees on the deployment's Spark if it says so.

        Parameters
        ----------
        step : str
            One of the steps of `pipelines.PIPELINES`, or of the model, for example ``trained_model``.
        symbol : str
            For example ``GSPC``; the partition of a model, ``all`` if it has none.
        given : mapping
            The step's parameters. None counts as not given.
        inputs : mapping, optional
            What the caller's run has made so far, see :class:`mlops_dagster.steps.Inputs`.
        progress : callable, optional
            Told how far a search is.

        Raises
        ------
        ParameterError
            If there is no such step, or a parameter is wrong.
        MlopsError
            If the step fails, as its own function says.
        """
        function: Callable[..., steps.StepReport]
        tools: dict[str, Any] = {
            "store": self.store,
            "tracker": self.tracker,
            "origin": self.origin,
            "inputs": inputs,
            "limits": self.deployment.limits,
            "exchange": self.deployment.schedules.exchange,
            "read_asset": self.read_asset,
            "cache": self.deployment.state_dir / steps.SEARCH_CACHE,
            "progress": progress,
        }
        if self.model is not None:
            from mlops_dagster.steps.declared import step_function

            function = partial(step_function(self.model, step), self.model)
            if self.on_spark(step, given):
                tools["engine"] = self.spark()
        elif step in pipelines.STEPS:
            function = getattr(steps, step)
            if step == pipelines.PRICES.name:
                given = self.deployment.price_parameters(dict(given))
            if self.on_spark(step, given):
                tools["engine"] = self.spark()
        else:
            raise refuse("step", step, f"there is no such step; there are {', '.join(pipelines.STEPS)}.")
        wanted = inspect.signature(function).parameters
        # What a library or a user's function prints is no part of what the caller prints, which may be JSON.
        with redirect_stdout(sys.stderr):
            return function(symbol, given, **{name: tool for name, tool in tools.items() if name in wanted})

    def on_spark(self, step: str, given: Mapping[str, object]) -> bool:
        """Whether a step's trees and candidates are fitted on the deployment's Spark."""
        spark = self.deployment.spark
        if self.model is not None:
            said = given.get("engine") or (SPARK if spark.search else HERE)
            return step == GRID_SEARCH_RESULTS and said == SPARK
        on = step == pipelines.TRAINED_MODEL.name and spark.train
        return on or step == pipelines.SPARK_GRID_SEARCH_RESULTS.name

    def spark(self) -> Any:
        """Return the engine that grows trees on the deployment's Spark."""
        if self._spark is None:
            from mlops_dagster.stack.spark import spark_engine

            self._spark = self._opened.enter_context(spark_engine(self.deployment.spark))
        return self._spark
