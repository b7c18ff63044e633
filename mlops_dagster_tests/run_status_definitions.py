"""Definitions for the test of run statuses: assets that succeed, fail or hang on demand, with either tracker.

Two code locations come from here, `ours` and `theirs`; the environment says where they keep their state.
"""

import os
import time
from pathlib import Path

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.resources import key_of, resources_of
from mlops_dagster.run_workers import in_process_executor
from mlops_dagster.sensors.mlflow_runs import mlflow_runs
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.deployment import Deployment, TrackingSettings
from mlops_dagster.stack.tracking import MlflowTracker, Origin
from mlops_dagster_tests.contracts.stock import OWN


class Owner(OfModel):
    """A model to which the runs of these assets belong as well."""

    def has(self, run: dg.DagsterRun) -> bool:
        return True


class Behaviour(dg.Config):
    """What a step does with its run open."""

    how: str = "succeed"


def behave(context: dg.AssetExecutionContext, how: str, tracker: MlflowTracker) -> None:
    name = context.asset_key.to_user_string()
    home = Path(os.environ["RUN_STATUS_HOME"])
    with tracker.run(name, origin=Origin("dagster", context.run.run_id), tags={}) as run:
        run.log_params({f"{name}_how": how})
        # Whoever wants to kill this process reads here that its run is open.
        (home / f"{context.run.run_id}-{name}.pid").write_text(str(os.getpid()))
        if how == "fail":
            raise ValueError("as it was told")
        while how == "hang":
            time.sleep(0.1)
        while how == "wait for the other" and not (home / f"{context.run.run_id}-go").exists():
            time.sleep(0.1)


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["A", "B"]))
def alone(context: dg.AssetExecutionContext, config: Behaviour, tracker: dg.ResourceParam[MlflowTracker]) -> None:
    behave(context, config.how, tracker)


@dg.asset
def left(context: dg.AssetExecutionContext, config: Behaviour, tracker: dg.ResourceParam[MlflowTracker]) -> None:
    behave(context, config.how, tracker)


@dg.asset
def right(context: dg.AssetExecutionContext, config: Behaviour, tracker: dg.ResourceParam[MlflowTracker]) -> None:
    behave(context, config.how, tracker)


def definitions(client: str) -> dg.Definitions:
    home = os.environ.get("RUN_STATUS_HOME", "/nowhere")
    deployment = Deployment(home=home, tracking=TrackingSettings(client=client, experiment_name=client))
    model = Owner(find_model("stock_price", OWN))
    resources = resources_of(deployment, model.declaration, model.name)
    return dg.Definitions(
        assets=[alone, left, right],
        jobs=[
            dg.define_asset_job("one_process", [alone]),
            dg.define_asset_job("a_process_per_step", [left, right], executor_def=dg.multiprocess_executor),
        ],
        sensors=[mlflow_runs([model])],
        resources={**resources, "tracker": resources[key_of("tracker", model.name)]},
        executor=in_process_executor,
    )


ours = definitions("mlops")
theirs = definitions("dagster-mlflow")
