"""A session: the tools of a deployment, opened once, and any step run with them in this process."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, redirect_stdout
from typing import TYPE_CHECKING, Any

from mlops_dagster import steps
from mlops_dagster.spec.steps import (
    ALL,
    CHAMPION_MODEL,
    DATA,
    GRID_SEARCH_RESULTS,
    HERE,
    SPARK,
    TRAINED_MODEL,
    TRAINING_SET,
    steps_of,
)

if TYPE_CHECKING:
    from types import TracebackType

    import pandas as pd

    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Deployment, Plots
    from mlops_dagster.stack.registry import Registry
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
    model : Declaration
        Whose steps are run, with tables, an experiment and registered models of its own.
    origin : Origin
        Who is calling, for the tags in MLflow.
    store : Store, optional
        Not given: the deployment's.
    tracker : Tracker, optional
        Not given: our own, for the deployment's MLflow.
    read_asset : callable, optional
        From the key of another Dagster asset to its value, where Dagster is calling.
    plots : {"always", "champion", "never"}, optional
        Which pictures are drawn, see `Deployment.plots`. Not given: as the deployment says for a run of one partition.
    """

    def __init__(
        self,
        deployment: Deployment,
        model: Declaration,
        origin: Origin,
        *,
        store: Store | None = None,
        tracker: Tracker | None = None,
        read_asset: Callable[[str], object] | None = None,
        plots: Plots | None = None,
    ) -> None:
        from mlops_dagster.stack.store import store_of
        from mlops_dagster.stack.tracking import MlflowTracker

        self.deployment = deployment
        self.origin = origin
        self.model, self.read_asset = model, read_asset
        self.plots = plots or deployment.plots_of(1)
        if model is not None:
            deployment.data_parameters(model)  # what is wrong there is refused before anything is opened
        self.store = store or store_of(deployment, model)
        self.tracker = tracker or MlflowTracker(**deployment.tracker_settings(model))
        self._opened = ExitStack()
        self._spark: Any = None

    def __repr__(self) -> str:
        return f"<Session of {self.model.name}: tables in {self.store!r}>"

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, traceback)

    # ------------------------------------------------------------------------------- for notebooks and services

    @classmethod
    def of(cls, model: str | Declaration, deployment: Deployment | str | None = None) -> Session:
        """Open the tools of a model.

        Parameters
        ----------
        model : str or Declaration
            A name in the project's ``defs`` folder, or a declaration.
        deployment : Deployment or str, optional
            Not given: as ``MLOPS_DEPLOYMENT`` says.

        Raises
        ------
        ParameterError
            If there is no such model, or its declaration is wrong.

        Examples
        --------
        >>> with Session.of("churn") as churn:  # doctest: +SKIP
        ...     churn.train(max_depth=8)
        ...     churn.promote()
        ...     churn.predict(customers)
        """
        import uuid

        from mlops_dagster.spec.project import find_model
        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.tracking import Origin

        settings = load_deployment(deployment) if deployment is None or isinstance(deployment, str) else deployment
        declared = find_model(model) if isinstance(model, str) else model
        return cls(settings, declared, Origin("python", str(uuid.uuid4())))

    def train(self, partition: str = ALL, **parameters: object) -> steps.StepReport:
        """Read the data, make the training set, and train a model; return the report of the last step."""
        return self._run_all((DATA, TRAINING_SET, TRAINED_MODEL), partition, parameters)

    def search(self, partition: str = ALL, **parameters: object) -> steps.StepReport:
        """Read the data, make the training set, and search a grid; return the report of the last step."""
        return self._run_all((DATA, TRAINING_SET, GRID_SEARCH_RESULTS), partition, parameters)

    def promote(self, partition: str = ALL, **rules: object) -> steps.StepReport:
        """Let the newest model become the champion if the gate lets it."""
        return self._run_all((CHAMPION_MODEL,), partition, rules)

    def champion(self, partition: str = ALL) -> Any:
        """Load the champion, a fitted estimator; :class:`NoChampion` says why there is none."""
        known = steps_of(self.model)
        tables = steps.Inputs(partition, self.store, known=known)
        return steps.load_champion(partition, tables, self.tracker.registry, self.model)[0]

    @property
    def registry(self) -> Registry:
        """The model's versions in MLflow, one name for each partition."""
        return self.tracker.registry

    def predict(self, frame: pd.DataFrame, partition: str = ALL) -> pd.DataFrame:
        """Let the champion predict rows as the data has them, their target not needed. Nothing is written.

        Of a forecast, the last rows of each series are predicted; the others are what it looks back on.
        """
        from mlops_dagster.steps.predict import predict_rows

        return predict_rows(self.model, partition, frame, store=self.store, tracker=self.tracker)

    def table(self, step: str, partition: str = ALL) -> pd.DataFrame:
        """Read the table that a step has made, as it is now."""
        return self.store.read(step, partition)[0]

    def _run_all(self, names: tuple[str, ...], partition: str, given: Mapping[str, object]) -> steps.StepReport:
        known, left = steps_of(self.model), dict(given)
        made: dict[str, Any] = {}
        for name in names:
            its = {} if name not in known else {one.name for one in known[name].parameters}
            # What no step has is refused by the last, which says what there is.
            some = left if name == names[-1] else {one: left.pop(one) for one in list(left) if one in its}
            report = self.run(name, partition, some, inputs=made)
            made |= report.outputs
        return report

    # -------------------------------------------------------------------------------------------- for every tool

    def run(
        self,
        step: str,
        partition: str,
        given: Mapping[str, object],
        *,
        inputs: Pins | None = None,
        progress: Any = None,
    ) -> steps.StepReport:
        """Run a step, its trees on the deployment's Spark if it says so.

        Parameters
        ----------
        step : str
            One of the model's, for example ``trained_model``.
        partition : str
            For example ``GSPC``; ``all`` if the model has none.
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
        from mlops_dagster.steps.functions import step_function

        function = step_function(self.model, step)
        tools: dict[str, Any] = {
            "store": self.store,
            "tracker": self.tracker,
            "origin": self.origin,
            "inputs": inputs,
            "limits": self.deployment.limits,
            "read_asset": self.read_asset,
            "spark_session": lambda: self.spark().session,
            "cache": self.deployment.state_dir / steps.SEARCH_CACHE,
            "progress": progress,
            "plots": self.plots,
        }
        if step == DATA:
            given = self.deployment.data_parameters(self.model, given)
        if self.on_spark(step, given):
            tools["engine"] = self.spark()
        wanted = inspect.signature(function).parameters
        # What a library or a user's function prints is no part of what the caller prints, which may be JSON.
        with redirect_stdout(sys.stderr):
            made: steps.StepReport = function(
                self.model, partition, given, **{name: tool for name, tool in tools.items() if name in wanted}
            )
        return made

    def reach_tracking(self, steps: Iterable[str]) -> None:
        """Make sure that MLflow can be reached before steps are run, if one of them needs it.

        Raises
        ------
        TrackingError
            Within seconds, if it can't.
        """
        from mlops_dagster.steps.functions import step_function

        if any("tracker" in inspect.signature(step_function(self.model, one)).parameters for one in steps):
            self.tracker.check()

    def on_spark(self, step: str, given: Mapping[str, object]) -> bool:
        """Whether a step's trees and candidates are fitted on the deployment's Spark."""
        return on_spark(self.deployment, self.model, step, given)

    def spark(self) -> Any:
        """Return the engine that works on the deployment's Spark, and knows its session."""
        if self._spark is None:
            from mlops_dagster.stack.spark import spark_engine

            self._spark = self._opened.enter_context(spark_engine(self.deployment.spark))
        return self._spark


def on_spark(deployment: Deployment, model: Declaration, step: str, given: Mapping[str, object]) -> bool:
    """Whether a step's trees and candidates are fitted on the deployment's Spark."""
    spark = deployment.spark
    if step == TRAINED_MODEL:  # the trees of a forest can be grown anywhere; all else is fitted as a whole
        return spark.train and _is_forest(model.estimator.class_)
    said = given.get("engine") or (SPARK if spark.search else HERE)
    return step == GRID_SEARCH_RESULTS and said == SPARK


def _is_forest(path: str | None) -> bool:
    from mlops_dagster.search.growing import FORESTS

    return path in {f"sklearn.ensemble.{one.__name__}" for one in FORESTS}
