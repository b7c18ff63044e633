"""Dagster's definitions of declared models, to be merged into any code location."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence

import dagster as dg

from mlops_dagster.assets.fleet import fleet_report
from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.assets.step_assets import assets_of
from mlops_dagster.catalog import with_code_and_tags
from mlops_dagster.checks import checks_of
from mlops_dagster.errors import ParameterError
from mlops_dagster.jobs import jobs_of
from mlops_dagster.resources import resources_of
from mlops_dagster.schedules import schedules_of
from mlops_dagster.sensors.conditions import keep_current
from mlops_dagster.sensors.failures import run_failed
from mlops_dagster.sensors.inbox import inbox_sensor
from mlops_dagster.sensors.mlflow_runs import mlflow_runs
from mlops_dagster.sensors.partitions import partitions_sensor
from mlops_dagster.sensors.poor_predictions import poor_predictions
from mlops_dagster.sensors.searches import best_parameters_to_model
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment


def model_definitions(*models: Declaration | str, deployment: Deployment | str | None = None) -> dg.Definitions:
    """Return the assets, checks, jobs, schedules and sensors of declared models. Nothing is connected yet.

    All names begin with the model's: the keys of its assets (``churn/data``), its jobs (``churn_build_model_pipeline``)
    and its resources (``mlops_dagster_churn``), so that several models, and whatever else a code location has, stand
    side by side. The jobs have their executor with them; nobody else's get it. The sensors look at the model's own runs
    and experiment only; people are told of failed runs where the deployment says whom (``notify``). A dataset that
    several of the models share has its asset once (``prices/data``): name such models in one call.

    Parameters
    ----------
    *models : Declaration or str
        Declarations, or the names of models in the project's ``defs`` folder.
    deployment : Deployment or str, optional
        Where tables and models are kept, or its name. Not given: as ``MLOPS_DEPLOYMENT`` says.

    Raises
    ------
    ParameterError
        If a declaration is wrong; the message has its file and line.

    Examples
    --------
    >>> import mlops_dagster
    >>> mine = dg.Definitions()
    >>> defs = dg.Definitions.merge(mine, mlops_dagster.model_definitions())
    """
    declared = [one if isinstance(one, Declaration) else find_model(one) for one in models]
    return definitions_of_models(declared, deployment_of(deployment))


def deployment_of(said: Deployment | str | None) -> Deployment:
    """Return the deployment that is meant; on a cluster it is what travelled there, whatever its name is here."""
    if os.environ.get("MLOPS_INSIDE") == "true":
        return load_deployment()
    return said if isinstance(said, Deployment) else load_deployment(said)


def definitions_of_models(
    declared: Sequence[Declaration], deployment: Deployment, *, alone: bool = True
) -> dg.Definitions:
    """Return what belongs to models, and the tables that they share; see :func:`definitions_of_one`."""
    shared = {one.data_owner: one for one in declared if one.data_owner != one.name}
    return dg.Definitions.merge(
        *(definitions_of_one(OfModel(one, dataset=True), deployment) for one in shared.values()),
        *(definitions_of_one(OfModel(one), deployment, alone=alone) for one in declared),
    )


def refuse_unknown_names(declared: Sequence[Declaration], deployment: Deployment) -> None:
    """Refuse what a deployment says of schedules and partitions that no model of a project has.

    Raises
    ------
    ParameterError
        With the nearest name.
    """
    models = [OfModel(one) for one in declared]
    there = {
        "schedules": {one.name for model in models for one in schedules_of(model, deployment)},
        "partitions": {
            one.declaration.data_owner for one in models if isinstance(one.partitions, dg.DynamicPartitionsDefinition)
        },
    }
    said: dict[str, Mapping[str, object]] = {"schedules": deployment.schedules, "partitions": deployment.partitions}
    for what, known in there.items():
        for name in sorted(set(said[what]) - known):
            meant = difflib.get_close_matches(name, known, n=1)
            cure = f"did you mean {meant[0]}?" if meant else f"there are {', '.join(sorted(known)) or 'none'}."
            of = "no model has such a schedule" if what == "schedules" else "no model has open partitions of this name"
            raise ParameterError(f"{what}.{name}: {of}; {cure}")


def definitions_of_one(model: OfModel, deployment: Deployment, *, alone: bool = True) -> dg.Definitions:
    """Return the definitions of a model without the table that it shares with others, or of such a table.

    Parameters
    ----------
    alone : bool
        Whether sensors of the model's own look after its runs: end what they left open in MLflow, tell people of those
        that have failed. Otherwise one for all models does.
    """
    declaration = model.declaration
    deployment.data_parameters(declaration)
    assets = assets_of(model, deployment)
    jobs = jobs_of(model)
    found = [partitions_sensor(model, deployment), inbox_sensor(model, deployment, jobs)]
    sensors = [one for one in found if one is not None]
    if alone and not model.dataset:
        sensors.append(mlflow_runs([model], model.named("mlflow_runs")))
        if deployment.notify.channels:
            sensors.append(run_failed(deployment, only=model))
    if names.PREDICTIONS in model.steps:
        sensors.append(keep_current(model))
    if names.PREDICTION_QUALITY in model.steps:
        sensors.append(poor_predictions(model, deployment))
    if names.GRID_SEARCH_RESULTS in model.steps:
        sensors.append(best_parameters_to_model(model))
    fleet = [] if model.dataset or model.partitions is None else [fleet_report(model)]
    return dg.Definitions(
        assets=[*with_code_and_tags(assets, model), *fleet],
        asset_checks=checks_of(model, {asset.key.path[-1]: asset for asset in assets}),
        jobs=jobs,
        schedules=schedules_of(model, deployment),
        sensors=sensors,
        resources=resources_of(deployment, declaration, model.name, model.refuse_bad_run),
    )
