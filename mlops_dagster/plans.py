"""Building each job's execution plan without running it: what Dagster would refuse when a run is launched."""

import dagster as dg
from dagster._core.execution.api import create_execution_plan

from mlops_dagster.errors import MlopsError, extra_of, needs
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.environment import changed_environment
from mlops_dagster.stack.secrets import redacted


def plan_problems(deployment: Deployment, name: str) -> list[str]:
    """Return why a job of the deployment can't be planned, a sentence for each that can't.

    Parameters
    ----------
    name : str
        Under which it was loaded. The code location is one deployment's, and is imported here.
    """
    from mlops_dagster.assets.of_model import OfModel
    from mlops_dagster.jobs import jobs_of
    from mlops_dagster.resources import key_of, resources_of
    from mlops_dagster.spec.project import find_model, model_names

    models = [find_model(one) for one in model_names()]
    problems = []
    try:
        with changed_environment({"MLOPS_DEPLOYMENT": name}):
            from mlops_dagster.definitions import definitions_of
        definitions = definitions_of(deployment)
        dg.Definitions.validate_loadable(definitions)
    except Exception as error:  # noqa: BLE001 - whatever it is, the code location can't be loaded
        return [f"Dagster can't load it: {_first_words(error)}"]
    for job in (job for one in models for job in jobs_of(OfModel(one))):
        try:
            planned = definitions.resolve_job_def(job.name)
            # The config that the launchpad opens with; that of the resources is checked with it.
            config = planned.run_config or {}
            if planned.partitioned_config is not None:
                config = planned.partitioned_config.get_run_config_for_partition_key("any")
            create_execution_plan(planned, config)
        except Exception as error:  # noqa: BLE001 - as above
            problems.append(f"{job.name} can't be planned: {_first_words(error)}")
    try:
        # Some of what a compute refuses it refuses when it is made. Making it connects nothing.
        for model in models:
            made = resources_of(deployment, model, model.name)
            with dg.build_resources(
                {name: made[name] for name in (key_of(one, model.name) for one in ("tracker", "compute"))}
            ):
                break
    except Exception as error:  # noqa: BLE001 - as above
        problems.append(f"its compute can't be made: {_first_words(error)}")
    return problems


def _first_words(error: BaseException) -> str:
    if isinstance(error, dg.DagsterResourceFunctionError) and error.__cause__ is not None:
        error = error.__cause__  # Dagster's own words say only that a resource failed
    said = " ".join(redacted(str(error)).split())[:500]
    if isinstance(error, ModuleNotFoundError) and extra_of(error.name):
        return needs("it", error)
    return said if isinstance(error, MlopsError) else f"{type(error).__name__}: {said}"
