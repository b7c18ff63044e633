"""The assets, one per step, made from its declaration. Each runs its step on the deployment's compute."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from mlops_dagster.assets.conditions import champion_has_changed, predictions_or_data_have_changed
from mlops_dagster.assets.config import config_of
from mlops_dagster.assets.many import run_many
from mlops_dagster.assets.of_model import OfModel, deps_of, search_parameters, searches
from mlops_dagster.compute.inputs import many_partitions, partition_of
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.parameters import Step
from mlops_dagster.stack.deployment import Deployment

OWNERS = ["team:mlops"]
_TABLE, _MODEL = {"deltalake", "pandas"}, {"scikitlearn", "mlflow"}
_KINDS: Mapping[str, set[str]] = {
    names.TRAINED_MODEL: _MODEL,
    names.CHAMPION_MODEL: _MODEL,
    names.GRID_SEARCH_RESULTS: {"scikitlearn", "deltalake", "mlflow"},
    names.PREDICTIONS: {"scikitlearn", "deltalake"},
}


def asset_of(
    step: Step, *deps: dg.AssetKey, model: OfModel, automation_condition: Any = None, backfill_policy: Any = None
) -> dg.AssetsDefinition:
    """Make the asset of a step: its config has the step's parameters, its description is the step's."""

    def run_step(context: dg.AssetExecutionContext, config: dg.Config) -> dg.MaterializeResult[None]:
        many = [] if model.partitions is None else many_partitions(context)
        model.refuse_bad_run(context.run, many[0] if many else partition_of(context))
        if many:
            configs = context.get_step_execution_context().resolved_run_config.ops
            given_each = {
                one: given_to(model, one, context.run, configs[op].config)
                for one in model.steps
                if (op := model.op(one)) in configs
            }
            return run_many(context, model, step.name, many, given_each)
        given = given_to(model, step.name, context.run, config.model_dump())
        result: dg.MaterializeResult[None] = getattr(context.resources, model.compute).run(context, step.name, given)
        return result

    run_step.__annotations__["config"] = config_of(step, model)
    key = model.key(step.name)
    with warnings.catch_warnings():
        # Backfill policies are in beta. The exact pin of dagster, and the tests, guard against what may change.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.asset(
            key=key,
            deps=list(deps),
            partitions_def=model.partitions,
            group_name=model.group,
            kinds=_KINDS.get(step.name, _TABLE),
            owners=OWNERS,
            code_version=model.code_version(step.name),
            automation_condition=automation_condition,
            backfill_policy=backfill_policy,
            description=step.description,
            required_resource_keys={model.compute},
            io_manager_key=model.io_manager,
        )(run_step)


def given_to(model: OfModel, step: str, run: dg.DagsterRun, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a step in a run, from its config with Dagster's defaults filled in."""
    given = dict(config)
    if step == names.DATA:
        # The deployment says what the run doesn't; of a default that Dagster has filled in nobody has said it.
        ops: Any = run.run_config.get("ops") or {}
        given = {name: given[name] for name in (ops.get(model.op(step)) or {}).get("config") or {}}
    if searches(model.steps[step]):
        given = search_parameters(given)
        if "grid" in given:
            del given["preset"]  # Dagster has filled it in; refuse_bad_run has seen what was really given
    job = next((one for one in model.pipelines if one.name == run.job_name), None)
    return job.chosen(model.steps[step], given) if job else given


def assets_of(model: OfModel, deployment: Deployment) -> list[dg.AssetsDefinition]:
    """Make the assets of a model."""
    remade = {
        names.PREDICTIONS: champion_has_changed(model.key(names.CHAMPION_MODEL)),
        names.PREDICTION_QUALITY: predictions_or_data_have_changed,
    }
    chunks = None
    if model.partitions is not None and deployment.compute != "databricks_step":  # its runs are of one partition
        chunks = dg.BackfillPolicy.multi_run(deployment.runs.max_partitions_per_run)
    return [
        asset_of(
            step,
            *deps_of(model, step.name),
            model=model,
            automation_condition=remade.get(step.name),
            backfill_policy=chunks,
        )
        for step in model.own_steps.values()
    ]
