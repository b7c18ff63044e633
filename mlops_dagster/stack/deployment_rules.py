"""What can't go together in one deployment, said in sentences: setting, value, reason, cure.

A rule is a function that takes a deployment and yields problems. All rules are asked, so that all problems are known
at once. No rule reads a file or speaks to anybody: what they say holds offline.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import printable
from mlops_dagster.stack.databricks import rules
from mlops_dagster.stack.delta import unfit_root
from mlops_dagster.stack.secrets import is_reference, is_secret_name, looks_secret
from mlops_dagster.stack.setting_problems import below_volumes, on_loopback, say

if TYPE_CHECKING:
    from mlops_dagster.stack.deployment import Deployment

OBJECT_STORES = ("s3://", "s3a://", "abfss://", "abfs://", "az://", "adl://", "gs://")
SHARED_PLACES = "s3://..., abfss://..., gs://... or /Volumes/catalog/schema/volume"
# Where a name such as `key` is the name of something else than a secret, or chosen by whoever reads it later.
# Variables of the step have a rule of their own, since they are no better in the environment.
_NAMES_OF_OTHER_THINGS = frozenset({"secrets", "extra_tags", "custom_tags", "environment", "spark_env_vars"})
# In the environment they are no better; they have a rule of their own, too.
_SEEN_BY_ALL = (("dagster_url",), ("tracking", "ui_url"), ("tracking", "extra_tags"))


def problems(deployment: Deployment) -> list[str]:
    """Return what is wrong with a deployment as a whole; an empty list if nothing is.

    Examples
    --------
    >>> from mlops_dagster.stack.deployment import Deployment
    >>> problems(Deployment(compute="databricks_pipes"))[0]
    "compute='databricks_pipes': `databricks` is missing: say which cluster and where files are staged, ..."
    """
    if deployment.inside:
        return []  # what is sent to a cluster was asked for before it was sent
    return [problem for rule in (*rules.RULES, *_RULES) for problem in rule(deployment)]


def warnings(deployment: Deployment) -> list[str]:
    """Return what works, but not as most people would want it."""
    if deployment.inside:
        return []
    return [warning for rule in (_volumes_from_elsewhere, *rules.WARNINGS) for warning in rule(deployment)]


def secrets_in_file(said: Mapping[str, Any]) -> list[str]:
    """Return what of a file's settings is a secret. Files are read by many and kept in version control.

    Parameters
    ----------
    said : mapping
        The settings as the file has them, before anything is added to them.

    Returns
    -------
    list of str
        A sentence for each, without the secret.
    """
    return list(_secrets_in(said, ()))


def _secrets_in(said: Any, where: tuple[str, ...]) -> Iterator[str]:
    if isinstance(said, Mapping):
        for name, value in said.items():
            yield from _secrets_in(value, (*where, str(name)))
    elif isinstance(said, list):
        for value in said:
            yield from _secrets_in(value, where)
    elif isinstance(said, str) and where[:2] not in _SEEN_BY_ALL and (kind := looks_secret(said)):
        yield f"{'.'.join(where)}: {kind} stands in the file; remove it, replace it at its source, and {_cure(where)}."
    elif said not in (None, "") and not isinstance(said, bool) and where and is_secret_name(where[-1]):
        of_something_else = where[-2:-1] and where[-2] in _NAMES_OF_OTHER_THINGS
        if not of_something_else and not is_reference(str(said)):
            reason = "its name says that it is a secret, and a file is no place for one"
            yield f"{'.'.join(where)}: {reason}; {_cure(where)}."


def _cure(where: tuple[str, ...]) -> str:
    if "spark_conf" in where:
        return "write {{secrets/scope/key}}, which the cluster looks up"
    if {"environment", "spark_env_vars"} & set(where):
        return "name the secret of the workspace in databricks.secrets"
    if where[:1] == ("databricks",):
        return (
            "set it in the environment: DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or "
            "ARM_CLIENT_ID, ARM_CLIENT_SECRET and ARM_TENANT_ID"
        )
    variable = "__".join(part.upper() for part in where)
    if re.fullmatch(r"\w+", variable):
        return f"set it in the environment: MLOPS_{variable}"
    return "set it in the environment"


# --------------------------------------------------------------------------------------------- rules of every compute


def _every_tool_can_write_the_texts(deployment: Deployment) -> Iterator[str]:
    for name, text in _texts(deployment.model_dump(mode="python"), ""):
        if printable(text) != text:
            yield say(name, text, "it has bytes that aren't UTF-8; rename the file or folder, or correct the variable.")


def _texts(value: Any, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{at}.{name}" if at else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, at)
    elif isinstance(value, str | Path):
        yield at, str(value)


def _volumes_have_three_parts(deployment: Deployment) -> Iterator[str]:
    prices = {"prices.path": deployment.prices.path or ""}
    for name, path in {"store.root": deployment.store.root, **prices, **_paths_of_data(deployment)}.items():
        if wrong := below_volumes(path):
            yield say(name, path, f"{wrong}.")


def _paths_of_data(deployment: Deployment) -> dict[str, str]:
    return {f"data.{name}.path": str(said["path"]) for name, said in deployment.data.items() if said.get("path")}


def _store_is_no_dbfs(deployment: Deployment) -> Iterator[str]:
    root = deployment.store.root
    if root.startswith("/dbfs/") or re.search(r"(^|/)dbfs:", root):
        yield say("store.root", root, f"DBFS can't hold these tables safely; give {SHARED_PLACES}.")


def _home_can_hold_databases(deployment: Deployment) -> Iterator[str]:
    if set(str(deployment.home)) & set("?%"):
        why = (
            "MLflow and Dagster would make their SQLite databases elsewhere, since ? and % mean something in an address"
        )
        yield say("home", str(deployment.home), f"{why}; choose a folder without them.")


def _store_can_hold_tables(deployment: Deployment) -> Iterator[str]:
    if wrong := unfit_root(deployment.store.root):
        yield say("store.root", deployment.store.root, wrong)


def _prices_are_files(deployment: Deployment) -> Iterator[str]:
    path = deployment.prices.path or ""
    if "://" in path or path.startswith("dbfs:"):
        yield say("prices.path", path, "prices are read from files; copy them, or give a path where it is mounted.")


def _tracking_of_databricks(deployment: Deployment) -> Iterator[str]:
    uri, experiment = str(deployment.tracking.mlflow_tracking_uri), deployment.tracking.experiment_name
    if uri.startswith("databricks-uc"):
        yield say(
            "tracking.mlflow_tracking_uri",
            uri,
            "that is Unity Catalog's registry of models, not where runs are tracked; give 'databricks', whose "
            "models are registered there.",
        )
        return
    model = deployment.tracking.registered_model or ""
    if uri.startswith("databricks") and model and not re.fullmatch(r"[^.]+\.[^.]+\.[^.]+", model):
        yield say(
            "tracking.registered_model", model, "Unity Catalog's names have three parts: catalog.schema.{symbol}."
        )
    if uri.startswith("databricks") and not re.fullmatch(r"/[^/].*", experiment):
        yield say(
            "tracking.experiment_name",
            experiment,
            "an experiment on Databricks is a path in the workspace; give for example "
            f"'/Shared/{experiment.strip('/') or 'mlops_dagster'}'.",
        )


def _tags_and_links_hold_no_secrets(deployment: Deployment) -> Iterator[str]:
    tracking = deployment.tracking
    for name in tracking.env_to_tag:
        if is_secret_name(name):
            yield say("tracking.env_to_tag", name, "everybody who sees a run sees its tags; remove it from the list.")
    for name, value in tracking.extra_tags.items():
        if looks_secret(value):
            yield say(f"tracking.extra_tags.{name}", value, "everybody who sees a run sees its tags; remove it.")
    for name, url in {"dagster_url": deployment.dagster_url, "tracking.ui_url": tracking.ui_url or ""}.items():
        if looks_secret(url):
            yield say(name, url, "everybody who sees a run, a message or a forecast sees this link; leave it out.")


# ------------------------------------------------------------------------------ rules of steps that run on Databricks


def _cluster_sees_the_store(deployment: Deployment) -> Iterator[str]:
    root = deployment.store.root
    if deployment.compute == "here" or root.startswith(("/Volumes", "/dbfs/", *OBJECT_STORES)) or "/dbfs:" in root:
        return
    yield say("store.root", root, f"a folder of this machine, which the cluster can't see; give {SHARED_PLACES}.")


def _cluster_sees_the_tracking(deployment: Deployment) -> Iterator[str]:
    uri, where = str(deployment.tracking.mlflow_tracking_uri), "tracking.mlflow_tracking_uri"
    if deployment.compute == "here":
        return
    if uri.startswith("databricks://"):
        yield say(where, uri, "the cluster doesn't have this machine's profiles; give 'databricks'.")
    elif uri.startswith(("sqlite:", "file:")) or not ("://" in uri or uri.startswith("databricks")):
        yield say(
            where,
            uri,
            "on this machine's disk, which the cluster can't see; give 'databricks' or the URL of an MLflow server.",
        )
    elif looks_secret(uri) and "MLOPS_TRACKING__MLFLOW_TRACKING_URI" not in _secrets_of_the_workspace(deployment):
        yield say(
            where,
            uri,
            "secrets aren't sent to the cluster; track through an MLflow server, or name the secret of the workspace "
            "that holds the address: databricks.secrets, with the name MLOPS_TRACKING__MLFLOW_TRACKING_URI.",
        )
    place = deployment.tracking.artifact_location
    ours = place is not None and not place.startswith(("dbfs:/", "mlflow-artifacts:", "/Volumes/"))
    if place and ours and uri.startswith(("http", "databricks")) and (place.startswith("file:") or "://" not in place):
        yield say("tracking.artifact_location", place, "a folder of this machine, which the cluster can't see.")


def _secrets_of_the_workspace(deployment: Deployment) -> set[str]:
    return {secret.name for secret in deployment.databricks.secrets} if deployment.databricks else set()


def _cluster_reaches_the_addresses(deployment: Deployment) -> Iterator[str]:
    host = (deployment.databricks and deployment.databricks.host) or os.environ.get("DATABRICKS_HOST", "")
    if deployment.compute == "here" or on_loopback(host):
        return  # a workspace on this machine, as for tests, does reach them
    addresses = {
        "tracking.mlflow_tracking_uri": deployment.tracking.mlflow_tracking_uri,
        **{f"store.storage_options.{name}": value for name, value in deployment.store.storage_options.items()},
    }
    for name, address in addresses.items():
        if address and on_loopback(address):
            yield say(name, address, "on the cluster that is the cluster itself; give an address that it can reach.")


def _cluster_sees_the_prices(deployment: Deployment) -> Iterator[str]:
    path = deployment.prices.path
    if deployment.compute == "here" or deployment.prices.source != "files" or path is None or "://" in path:
        return
    if not path.startswith(("/Volumes", "/dbfs/")):
        yield say(
            "prices.path",
            path,
            "a file of this machine, which the cluster can't see; give /Volumes/catalog/schema/volume/{symbol}.csv.",
        )


def _cluster_sees_the_data(deployment: Deployment) -> Iterator[str]:
    for name, path in _paths_of_data(deployment).items() if deployment.compute != "here" else ():
        # A relative one begins in the project, which travels.
        if path.startswith(("/", "~")) and not path.startswith(("/Volumes", "/dbfs/")):
            why = "a file of this machine, which the cluster can't see; give one below /Volumes/catalog/schema/volume."
            yield say(name, path, why)


def _cluster_has_our_tracker(deployment: Deployment) -> Iterator[str]:
    if deployment.compute != "here" and deployment.tracking.client != "mlops":
        yield say(
            "tracking.client",
            deployment.tracking.client,
            "it works in Dagster's own process only; give 'mlops' for steps that run on Databricks.",
        )


def _cluster_has_its_own_spark(deployment: Deployment) -> Iterator[str]:
    spark = deployment.spark
    if deployment.compute == "here":
        return
    if spark.master != "active" and "master" in spark.model_fields_set:
        reason = "a step on Databricks uses the Spark of the cluster that it runs on, and a process can't have two"
        if spark.master.startswith("sc://"):
            reason = (
                "Spark Connect would be a second Spark beside that of the cluster on which the step runs, with a "
                "token that would have to be sent there"
            )
        yield say("spark.master", spark.shown_master, f"{reason}; give 'active', or leave it out.")
    if spark.conf:
        yield (
            f"spark.conf ({', '.join(spark.conf)}): a step on Databricks finds a session that is there already; "
            "say this in databricks.cluster.new.spark_conf."
        )


def _volumes_from_elsewhere(deployment: Deployment) -> Iterator[str]:
    root = deployment.store.root
    if deployment.compute == "here" and root.startswith("/Volumes/") and not Path("/Volumes").is_dir():
        yield say(
            "store.root",
            root,
            "this machine has no /Volumes: what is there can be read from here, but a step that runs here can't "
            "write it; give compute: databricks_pipes, or run on Databricks.",
        )


_RULES = (
    _every_tool_can_write_the_texts,
    _volumes_have_three_parts,
    _store_is_no_dbfs,
    _home_can_hold_databases,
    _store_can_hold_tables,
    _prices_are_files,
    _tracking_of_databricks,
    _tags_and_links_hold_no_secrets,
    _cluster_sees_the_store,
    _cluster_sees_the_tracking,
    _cluster_reaches_the_addresses,
    _cluster_sees_the_prices,
    _cluster_sees_the_data,
    _cluster_has_our_tracker,
    _cluster_has_its_own_spark,
)
