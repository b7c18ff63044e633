"""The assets, one per step, made from its declaration. Each runs its step on the deployment's compute."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mlops_dagster import pipelines
from mlops_dagster.assets.conditions import champion_has_changed, predictions_or_data_have_changed
from mlops_dagster.assets.config import config_of
from mlops_dagster.assets.of_model import PRICES, OfModel, search_parameters, searches
from mlops_dagster.compute.inputs import partition_of
from mlops_dagster.spec import steps as names

OWNERS = ["team:mlops"]
_TABLE, _MODEL = {"deltalake", "pandas"}, {"scikitlearn", "mlflow"}
_KINDS: Mapping[str, set[str]] = {
    names.TRAINED_MODEL: _MODEL,
    names.CHAMPION_MODEL: _MODEL,
    names.GRID_SEARCH_RESULTS: {"scikitlearn", "deltalake", "mlflow"},
    names.PREDICTIONS: {"scikitlearn", "deltalake"},
    pipelines.SPARK_GRID_SEARCH_RESULTS.name: {"spark", "deltalake", "mlflow"},
    pipelines.PRICE_FORECAST.name: {"scikitlearn", "deltalake"},
}
# What a declared model's steps read of each other.
_READS: Mapping[str, tuple[str, ...]] = {
    names.TRAINING_SET: (names.DATA,),
    names.TRAINED_MODEL: (names.TRAINING_SET,),
    names.CHAMPION_MODEL: (names.TRAINED_MODEL,),
    names.GRID_SEARCH_RESULTS: (names.TRAINING_SET,),
    names.PREDICTIONS: (names.DATA, names.CHAMPION_MODEL),
    names.PREDICTION_QUALITY: (names.PREDICTIONS, names.DATA),
}


def asset_of(
    step: pipelines.Step, *deps: dg.AssetKey, model: OfModel = PRICES, automation_condition: Any = None
) -> dg.AssetsDefinition:
    """Make the asset of a step: its config has the step's parameters, its description is the step's."""

    def run_step(context: dg.AssetExecutionContext, config: dg.Config) -> dg.MaterializeResult[None]:
        model.refuse_bad_run(context.run, partition_of(context))
        given = config.model_dump()
        if step.name == names.DATA:
            # The deployment says what the run doesn't; of a default that Dagster has filled in nobody has said it.
            ops: Any = context.run.run_config.get("ops") or {}
            given = {name: given[name] for name in (ops.get(model.op(step.name)) or {}).get("config") or {}}
        if searches(step):
            given = search_parameters(given)
            if "grid" in given:
                del given["preset"]  # Dagster has filled it in; refuse_bad_run has seen what was really given
        job = next((one for one in model.pipelines if one.name == context.run.job_name), None)
        given = job.chosen(step, given) if job else given
        result: dg.MaterializeResult[None] = getattr(context.resources, model.compute).run(context, step.name, given)
        return result

    run_step.__annotations__["config"] = config_of(step, model)
    key = model.key(step.name)
    return dg.asset(
        key=key,
        deps=list(deps),
        partitions_def=model.partitions,
        group_name=model.group,
        kinds=_KINDS.get(step.name, _TABLE),
        owners=OWNERS,
        code_version=model.code_version(step.name),
        automation_condition=automation_condition,
        description=step.description,
        required_resource_keys={model.compute},
        io_manager_key=model.io_manager,
    )(run_step)


def assets_of(model: OfModel) -> list[dg.AssetsDefinition]:
    """Make the assets of a declared model."""
    remade = {
        names.PREDICTIONS: champion_has_changed(model.key(names.CHAMPION_MODEL)),
        names.PREDICTION_QUALITY: predictions_or_data_have_changed,
    }
    return [
        asset_of(step, *deps_of(model, step.name), model=model, automation_condition=remade.get(step.name))
        for step in model.own_steps.values()
    ]


def deps_of(model: OfModel, step: str) -> list[dg.AssetKey]:
    """Return what a declared model's step reads: tables of its own, and the asset that has its rows."""
    assert model.declaration is not None
    said = model.declaration.predictions
    foreign = {names.DATA: model.declaration.data, names.PREDICTIONS: said.data if said else None}.get(step)
    tables = [model.key(one) for one in _READS.get(step, ())]
    return tables + ([dg.AssetKey.from_user_string(foreign.asset)] if foreign and foreign.asset else [])


prices = asset_of(pipelines.PRICES)
training_set = asset_of(pipelines.TRAINING_SET, prices.key)
trained_model = asset_of(pipelines.TRAINED_MODEL, training_set.key)
champion_model = asset_of(pipelines.CHAMPION_MODEL, trained_model.key)
grid_search_results = asset_of(pipelines.GRID_SEARCH_RESULTS, training_set.key)
spark_grid_search_results = asset_of(pipelines.SPARK_GRID_SEARCH_RESULTS, training_set.key)
price_forecast = asset_of(
    pipelines.PRICE_FORECAST,
    prices.key,
    champion_model.key,
    automation_condition=champion_has_changed(champion_model.key),
)
forecast_quality = asset_of(
    pipelines.FORECAST_QUALITY,
    price_forecast.key,
    prices.key,
    automation_condition=predictions_or_data_have_changed,
)
ASSETS = [
    prices,
    training_set,
    trained_model,
    champion_model,
    grid_search_results,
    spark_grid_search_results,
    price_forecast,
    forecast_quality,
]
