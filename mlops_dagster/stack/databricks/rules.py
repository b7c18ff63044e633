"""What can't be right in the `databricks` settings of a deployment, alone or with its compute, said in sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlops_dagster.stack.secrets import is_reference, is_secret_name
from mlops_dagster.stack.setting_problems import below_volumes, on_loopback, say

if TYPE_CHECKING:
    from mlops_dagster.stack.databricks.settings import DatabricksSettings, NewCluster
    from mlops_dagster.stack.deployment import Deployment

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RUNTIME = re.compile(r"\d+\.(\d+|x)\.x-\S+|(auto|custom):\S+")


def _there_when_needed(deployment: Deployment) -> Iterator[str]:
    if deployment.compute != "here" and deployment.databricks is None:
        yield say(
            "compute",
            deployment.compute,
            "`databricks` is missing: say which cluster and where files are staged, as "
            f"deployments/{deployment.compute}.yaml does.",
        )
    if deployment.compute == "here" and deployment.databricks is not None:
        yield (
            "databricks: it says where steps run on Databricks, but compute='here' runs them in this process; give "
            "compute: databricks_pipes (or databricks_step), or remove `databricks`. To track or keep tables there, "
            "tracking and store are enough."
        )


def _host(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    if databricks.host is None:
        return
    address = urlsplit(databricks.host)
    if address.scheme not in ("https", "http") or not address.hostname:
        cure = f"give the whole address: https://{databricks.host.split('://')[-1].split('/')[0]}"
        yield say("databricks.host", databricks.host, f"{cure}.")
    elif address.scheme == "http" and not on_loopback(databricks.host):
        yield say("databricks.host", databricks.host, "tokens would travel readable; give https://...")
    elif address.path.strip("/") or address.query or address.fragment:
        cure = f"give the workspace only: {address.scheme}://{address.netloc}"
        yield say("databricks.host", databricks.host, f"{cure}.")


# --------------------------------------------------------------------------------------------------------- cluster


def _cluster_fits_the_compute(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    if compute != "databricks_step":
        return
    if databricks.cluster.serverless is not None:
        yield (
            "databricks.cluster.serverless: the step launcher needs a SparkContext, which serverless doesn't have; "
            "give compute: databricks_pipes, or cluster.new."
        )
    new = databricks.cluster.new
    if new is not None and new.data_security_mode == "USER_ISOLATION":
        yield say(
            "databricks.cluster.new.data_security_mode",
            new.data_security_mode,
            "the step launcher needs a SparkContext, which shared clusters hide; give SINGLE_USER, or compute: "
            "databricks_pipes.",
        )


def _machines(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    new, where = databricks.cluster.new, "databricks.cluster.new"
    if new is None:
        return
    if not _RUNTIME.fullmatch(new.spark_version):
        yield say(f"{where}.spark_version", new.spark_version, "give a runtime's whole name, e.g. 17.3.x-scala2.13.")
    if new.node_type_id and new.instance_pool_id:
        yield (
            f"{where}: node_type_id={new.node_type_id!r} and instance_pool_id={new.instance_pool_id!r}: a pool decides "
            "its machines' type; give one of the two."
        )
    if not (new.node_type_id or new.instance_pool_id or new.policy_id):
        yield f"{where}: which machines? Give node_type_id, instance_pool_id, or a policy_id that says it."
    if new.driver_instance_pool_id and not new.instance_pool_id:
        yield (
            f"{where}.driver_instance_pool_id={new.driver_instance_pool_id!r}: only a cluster with a pool for its "
            "workers can have one for its driver; give instance_pool_id, too, or driver_node_type_id instead."
        )
    if new.driver_node_type_id and new.instance_pool_id:
        yield (
            f"{where}.driver_node_type_id={new.driver_node_type_id!r}: with instance_pool_id the driver comes from a "
            "pool, too; give driver_instance_pool_id instead."
        )
    yield from _number_of_workers(new, where)


def _number_of_workers(new: NewCluster, where: str) -> Iterator[str]:
    if new.autoscale is not None:
        if new.num_workers is not None:
            yield f"{where}: num_workers={new.num_workers} and autoscale are both given; give one of the two."
        if new.autoscale.min_workers > new.autoscale.max_workers:
            yield (
                f"{where}.autoscale: min_workers={new.autoscale.min_workers} is more than "
                f"max_workers={new.autoscale.max_workers}."
            )
    elif new.num_workers is None:
        yield f"{where}: how many workers? Give num_workers (0 is a single machine) or autoscale."


def _init_scripts(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    new = databricks.cluster.new
    for at, script in enumerate(new.init_scripts if new else ()):
        where = f"databricks.cluster.new.init_scripts.{at}"
        given = script.model_dump(exclude_none=True)
        if len(given) != 1:
            there = ", ".join(given) or "none"
            yield f"{where}: give exactly one of workspace, volumes, dbfs and s3 (given: {there})."
            continue
        ((place, path),) = given.items()
        begins = {"workspace": "/", "volumes": "/Volumes/", "dbfs": "dbfs:/", "s3": "s3://"}[place]
        if not path.startswith(begins):
            yield say(f"{where}.{place}", path, f"it has to begin with {begins}")
        elif wrong := below_volumes(path):
            yield say(f"{where}.{place}", path, f"{wrong}.")
        if place == "dbfs" and new is not None and new.data_security_mode == "USER_ISOLATION":
            yield say(f"{where}.dbfs", path, "a shared cluster runs no script of DBFS; put it on a volume.")


# ----------------------------------------------------------------------------------------------------- permissions


def _permissions(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    where, kind = "databricks.permissions", databricks.cluster.kind
    if databricks.permissions.cluster and kind != "new":
        if kind == "existing":
            why = (
                f"cluster {databricks.cluster.existing!r} would keep what a run grants; grant it once in the workspace"
            )
        else:
            why = "nothing can be granted on Databricks' own machines"
        yield f"{where}.cluster: {why}. Remove it here."
    granted: tuple[tuple[str, Mapping[Any, list[Any]]], ...] = (
        ("job", databricks.permissions.job),
        ("cluster", databricks.permissions.cluster),
    )
    for what, levels in granted:
        for level, accessors in levels.items():
            for at, accessor in enumerate(accessors):
                names = list(accessor.model_dump(exclude_none=True))
                if len(names) != 1:
                    yield (
                        f"{where}.{what}.{level}.{at}: give exactly one of user_name, group_name and "
                        f"service_principal_name (given: {', '.join(names) or 'none'})."
                    )
    owners = databricks.permissions.job.get("IS_OWNER", [])
    if len(owners) > 1:
        yield f"{where}.job.IS_OWNER: {len(owners)} owners; a job has one. Give the others CAN_MANAGE."
    for owner in owners:
        if owner.group_name is not None:
            cure = "a group can't own a job; give it CAN_MANAGE."
            yield say(f"{where}.job.IS_OWNER", owner.group_name, cure)


# ----------------------------------------------------------------------------------------------------- what travels


def _staging(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    staging, where = databricks.staging, "databricks.staging"
    if compute == "databricks_pipes":
        if staging is None:
            yield f"{where} is missing: Pipes sends files through a volume; give /Volumes/catalog/schema/volume/folder."
        elif not staging.startswith("/Volumes"):
            yield say(where, staging, "Pipes sends files through a volume; give /Volumes/catalog/schema/volume/folder.")
        elif wrong := below_volumes(staging):
            yield say(where, staging, f"{wrong}.")
    elif staging is not None:
        if staging.startswith("/Volumes"):
            cure = "the step launcher sends files through DBFS; give a folder there, e.g. /dagster_staging."
            yield say(where, staging, cure)
        elif staging.startswith(("dbfs:", "/dbfs/")):
            plain = "/" + staging.removeprefix("dbfs:").removeprefix("/dbfs").strip("/")
            yield say(where, staging, f"give the folder as DBFS has it: {plain}")
        elif not staging.startswith("/") or not staging.strip("/"):
            yield say(where, staging, "give an absolute folder of DBFS, e.g. /dagster_staging.")
        elif ".." in staging.split("/"):
            yield say(where, staging, "leave out '..'.")


def _libraries(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement

    for at, library in enumerate(databricks.libraries):
        where = f"databricks.libraries.{at}"
        if library.startswith(("/Volumes", "/Workspace/", "dbfs:/")):
            if wrong := below_volumes(library):
                yield say(where, library, f"{wrong}.")
            elif not library.endswith(".whl"):
                yield say(where, library, "give a wheel (....whl).")
            continue
        try:
            requirement = Requirement(library)
        except InvalidRequirement:
            cure = "give a requirement such as xgboost==3.0.5, or a wheel on /Volumes/..."
            yield say(where, library, cure)
            continue
        if requirement.url:
            yield say(where, library, "a cluster installs by name; put the wheel on /Volumes/... and give its path.")
        elif _plain(requirement.name) == "pyspark":
            yield say(where, library, "the cluster brings its own Spark, and another would break it; remove it.")
        elif _plain(requirement.name) == "mlops-dagster":
            yield say(where, library, "this very code is sent along with each run; remove it.")


def _environment(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    new = databricks.cluster.new
    variables = {"databricks.environment": databricks.environment}
    if new is not None:
        variables["databricks.cluster.new.spark_env_vars"] = new.spark_env_vars
    for where, given in variables.items():
        for name, value in given.items():
            if not _ENVIRONMENT_NAME.fullmatch(name):
                yield say(where, name, "that can't be the name of an environment variable.")
            elif name.upper().startswith("MLOPS_"):
                setting = name.upper().removeprefix("MLOPS_").lower().replace("__", ".")
                yield f"{where}.{name}: that is a setting; say it in the deployment itself: {setting}."
            elif is_secret_name(name) and not (where.endswith("spark_env_vars") and is_reference(value)):
                cure = "it would be readable on the way; name the secret of the workspace in databricks.secrets."
                yield f"{where}.{name}: its name says that it is a secret: {cure}"
            if where == "databricks.environment" and is_reference(value):
                yield f"{where}.{name}: only spark_env_vars are looked up; name the secret in databricks.secrets."


def _secrets(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    for name, times in Counter(secret.name for secret in databricks.secrets).items():
        if times > 1:
            yield f"databricks.secrets: {name} is given {times} times; which one is meant? Remove the others."
        if name in databricks.environment:
            yield f"databricks.secrets: {name} is in databricks.environment, too; remove one of the two."


def _times(databricks: DatabricksSettings, compute: str) -> Iterator[str]:
    if databricks.poll_seconds >= databricks.timeout_seconds:
        yield (
            f"databricks.poll_seconds={databricks.poll_seconds:g}: a run is cancelled after "
            f"timeout_seconds={databricks.timeout_seconds}, before it would be looked at; give less."
        )


_OF_DATABRICKS = (
    _host,
    _cluster_fits_the_compute,
    _machines,
    _init_scripts,
    _permissions,
    _staging,
    _libraries,
    _environment,
    _secrets,
    _times,
)


def _each(deployment: Deployment) -> Iterator[str]:
    if deployment.databricks is not None and deployment.compute != "here":
        for rule in _OF_DATABRICKS:
            yield from rule(deployment.databricks, deployment.compute)


RULES = (_there_when_needed, _each)


# --------------------------------------------------------------------------------------------------------- warnings


def _unpinned(deployment: Deployment) -> Iterator[str]:
    from packaging.requirements import Requirement

    for at, library in enumerate(deployment.databricks.libraries if deployment.databricks else ()):
        if library.startswith(("/", "dbfs:/")):
            continue
        if not any(one.operator in ("==", "===") for one in Requirement(library).specifier):
            cure = "without a version (==) two runs may get two different ones."
            yield say(f"databricks.libraries.{at}", library, cure)


def _old_init_scripts(deployment: Deployment) -> Iterator[str]:
    new = deployment.databricks.cluster.new if deployment.databricks else None
    for at, script in enumerate(new.init_scripts if new else ()):
        if script.dbfs is not None:
            where = f"databricks.cluster.new.init_scripts.{at}.dbfs"
            yield say(where, script.dbfs, "new clusters no longer run scripts of DBFS; put it on a volume.")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


WARNINGS = (_unpinned, _old_init_scripts)
