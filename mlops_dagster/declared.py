"""Dagster's definitions of declared models, to be merged into any code location."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.assets.step_assets import assets_of
from mlops_dagster.catalog import with_code_and_tags
from mlops_dagster.checks.declared import checks_of
from mlops_dagster.jobs import jobs_of
from mlops_dagster.resources import resources_of
from mlops_dagster.schedules import prediction_schedule
from mlops_dagster.sensors.partitions import partitions_sensor
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.project import find_model
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment


def model_definitions(*models: Declaration | str, deployment: Deployment | str | None = None) -> dg.Definitions:
    """Return the assets, checks, jobs, schedules and sensors of declared models. Nothing is connected yet.

    All names begin with the model's: the keys of its assets (``churn/data``), its jobs (``churn_build_model_pipeline``)
    and its resources (``mlops_dagster_churn``), so that several models, and whatever else a code location has, stand
    side by side. The jobs have their executor with them; nobody else's get it.

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
    settings = deployment if isinstance(deployment, Deployment) else load_deployment(deployment)
    declared: Iterable[Declaration] = (one if isinstance(one, Declaration) else find_model(one) for one in models)
    return dg.Definitions.merge(*(_definitions_of(OfModel(one), one, settings) for one in declared))


def _definitions_of(model: OfModel, declaration: Declaration, deployment: Deployment) -> dg.Definitions:
    assets = assets_of(declaration)
    schedule, sensor = prediction_schedule(deployment, model), partitions_sensor(model)
    return dg.Definitions(
        assets=with_code_and_tags(assets, model),
        asset_checks=checks_of(model, {asset.key.path[-1]: asset for asset in assets}),
        jobs=jobs_of(model),
        schedules=[schedule] if schedule else [],
        sensors=[sensor] if sensor else [],
        resources=resources_of(deployment, model.refuse_bad_run, declaration),
    )
