"""Where an asset's step runs, and the nearest place of all: this process."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import dagster as dg

from mlops_dagster.chains import Chain, GivenByStep, Receive, Task, run_task
from mlops_dagster.compute.failures import to_failure
from mlops_dagster.compute.inputs import handed_on, inputs_of, partition_of, resumed_by
from mlops_dagster.compute.report import to_result
from mlops_dagster.errors import MlopsError
from mlops_dagster.pool import run_partitions
from mlops_dagster.session import Session
from mlops_dagster.spec.model import Declaration
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import Origin, Tracker
from mlops_dagster.steps.progress import ProgressLines


class Compute(Protocol):
    """Runs the step of an asset somewhere and says what Dagster shows of it."""

    def run(
        self, context: dg.AssetExecutionContext, step: str, given: Mapping[str, object]
    ) -> dg.MaterializeResult[None]:
        """Run the step for the partition of `context` and wait for it. Whatever ends the wait ends the step."""
        ...

    def run_many(
        self, context: dg.AssetExecutionContext, tasks: Sequence[Task], given: GivenByStep, receive: Receive
    ) -> None:
        """Run chains of steps for many partitions, and tell what came of each as it is done."""
        ...


class LocalCompute:
    """Runs steps in this process; a search's trees may still grow on the deployment's Spark.

    Parameters
    ----------
    deployment, store, tracker
        The settings of the stack, and the tools that were made from them.
    model : Declaration
        Whose steps are run.
    """

    def __init__(self, deployment: Deployment, model: Declaration, store: Store, tracker: Tracker) -> None:
        self.deployment, self.model = deployment, model
        self.store = store
        self.tracker = tracker

    def run(
        self, context: dg.AssetExecutionContext, step: str, given: Mapping[str, object]
    ) -> dg.MaterializeResult[None]:
        """Run the step, see :class:`Compute`."""
        step_context = context.get_step_execution_context()
        origin = dagster_origin(context, self.deployment)
        try:
            with Session(
                self.deployment,
                self.model,
                origin,
                store=self.store,
                tracker=self.tracker,
                read_asset=partial(_value_of, context),
            ) as session:
                inside = self.deployment.inside
                inputs = handed_on(context.run) if inside else inputs_of(step_context, self.store.root, self.model)
                told = ProgressLines(context.log.info)
                report = session.run(step, partition_of(context), given, inputs=inputs, progress=told)
        except MlopsError as error:
            # Our sentence stands first on the run's page, with Dagster's own stack below.
            raise to_failure(error) from error
        if report.metrics:
            context.log.info(f"{step}: {report.metrics}")
        return to_result(report, self.model)

    def run_many(
        self, context: dg.AssetExecutionContext, tasks: Sequence[Task], given: GivenByStep, receive: Receive
    ) -> None:
        """Spread the partitions over processes, or over Spark's executors, see :class:`Compute`."""
        origin = dagster_origin(context, self.deployment)
        chain = Chain(self.deployment, self.model, origin, given, len(tasks), checked=True)
        if chain.travels:
            run_partitions(chain, tasks, receive)
            return
        tools = {"store": self.store, "tracker": self.tracker, "read_asset": partial(_value_of, context)}
        with chain.session(**tools) as session:
            for task in tasks:
                receive(run_task(session, chain, task))


def _value_of(context: dg.AssetExecutionContext, name: str) -> object:
    """Return the value of another asset, of the same partition if it has any, by its own IO manager."""
    import pandas as pd

    key = dg.AssetKey.from_user_string(name)
    partitioned = context.get_step_execution_context().job_def.asset_layer.get(key).partitions_def is not None
    partition = context.partition_key if partitioned and context.has_partition_key else None
    return context.load_asset_value(key, python_type=pd.DataFrame, partition_key=partition)


def dagster_origin(context: dg.AssetExecutionContext, deployment: Deployment) -> Origin:
    """Say which Dagster run is calling."""
    run = context.run
    return Origin(
        "dagster", run.run_id, deployment.dagster_run_url(run.run_id), resumes=resumed_by(run, context.instance)
    )
