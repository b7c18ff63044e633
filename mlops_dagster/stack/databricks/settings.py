"""The settings of a Databricks workspace: which cluster runs the steps, what travels there, and who may look.

Secrets are no settings. Credentials come from the environment (:mod:`mlops_dagster.stack.databricks.workspace`); what
the cluster needs to know comes from the workspace's secret scopes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Autoscale(_Settings):
    """Between how many workers the cluster may choose."""

    min_workers: int = Field(ge=0)
    max_workers: int = Field(ge=1)


class InitScript(_Settings):
    """A script that every machine of a new cluster runs when it starts; exactly one place."""

    workspace: str | None = Field(default=None, description="/Users/..., a workspace file")
    volumes: str | None = Field(default=None, description="/Volumes/...")
    dbfs: str | None = Field(default=None, description="dbfs:/...; Databricks no longer runs these on new clusters")
    s3: str | None = Field(default=None, description="s3://...")


class NewCluster(_Settings):
    """A job cluster that is made for a run and gone after it. The names are those of the Clusters API."""

    spark_version: str = Field(min_length=1, description="Databricks Runtime, e.g. 17.3.x-scala2.13")
    node_type_id: str | None = None
    driver_node_type_id: str | None = None
    instance_pool_id: str | None = None
    driver_instance_pool_id: str | None = None
    num_workers: int | None = Field(default=None, ge=0, description="0 is a single machine")
    autoscale: Autoscale | None = None
    data_security_mode: Literal["SINGLE_USER", "USER_ISOLATION", "NONE"] = Field(
        default="SINGLE_USER", description="SINGLE_USER (dedicated) has Unity Catalog and sc; USER_ISOLATION is shared"
    )
    spark_conf: dict[str, str] = {}
    spark_env_vars: dict[str, str] = {}
    custom_tags: dict[str, str] = {}
    init_scripts: list[InitScript] = []
    policy_id: str | None = None


class Serverless(_Settings):
    """Databricks' own machines, for Pipes."""

    environment_version: str = Field(
        default="4",
        pattern=r"^\d+$",
        coerce_numbers_to_str=True,
        description="Of Databricks' serverless environment; decides Python",
    )


class Cluster(_Settings):
    """Where steps run: exactly one of the three."""

    new: NewCluster | None = None
    existing: str | None = Field(default=None, min_length=1, description="The id of an all-purpose cluster")
    serverless: Serverless | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Cluster:
        given = [name for name in ("new", "existing", "serverless") if getattr(self, name) is not None]
        if len(given) != 1:
            there = ", ".join(given) or "none"
            raise ValueError(f"give exactly one of new, existing and serverless (given: {there}); the others are null")
        return self

    @property
    def kind(self) -> str:
        """Which of the three: new, existing or serverless."""
        return next(name for name in ("new", "existing", "serverless") if getattr(self, name) is not None)


class SecretVariable(_Settings):
    """A secret of the workspace that the step finds as an environment variable."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    scope: str = Field(min_length=1)
    key: str = Field(min_length=1)


class Accessor(_Settings):
    """Who gets a permission; exactly one."""

    user_name: str | None = None
    group_name: str | None = None
    service_principal_name: str | None = None


JobLevel = Literal["NO_PERMISSIONS", "CAN_VIEW", "CAN_MANAGE_RUN", "IS_OWNER", "CAN_MANAGE"]
ClusterLevel = Literal["NO_PERMISSIONS", "CAN_ATTACH_TO", "CAN_RESTART", "CAN_MANAGE"]


class Permissions(_Settings):
    """Who else may see or manage what a run makes."""

    job: dict[JobLevel, list[Accessor]] = {}
    cluster: dict[ClusterLevel, list[Accessor]] = {}


class DatabricksSettings(_Settings):
    """A workspace, and how steps run there."""

    host: str | None = Field(
        default=None, description="https://....cloud.databricks.com. Default: the environment's DATABRICKS_HOST"
    )
    auth: Literal["token", "oauth", "azure"] | None = Field(
        default=None,
        description="Which of the environment's credentials: token (DATABRICKS_TOKEN), oauth (DATABRICKS_CLIENT_ID and "
        "DATABRICKS_CLIENT_SECRET) or azure (ARM_CLIENT_ID, ARM_CLIENT_SECRET, ARM_TENANT_ID). Default: the one "
        "that is there",
    )
    cluster: Cluster
    staging: str | None = Field(
        default=None,
        description="A folder for what travels: /Volumes/catalog/schema/volume/folder for Pipes, "
        "/a/folder/of/DBFS for the step launcher (not given: /dagster_staging)",
    )
    libraries: list[str] = Field(
        default=[], description="More of what the cluster installs: requirements (xgboost==3.0), or wheels on /Volumes"
    )
    install_requirements: bool = Field(
        default=True,
        description="Whether the cluster installs what the steps require, pinned to the versions here. "
        "False if an image, a policy or an existing cluster has them",
    )
    environment: dict[str, str] = Field(default={}, description="Environment variables of the step; no secrets")
    secrets: list[SecretVariable] = []
    permissions: Permissions = Permissions()
    timeout_seconds: int = Field(
        default=6 * 3600, ge=60, description="A run that takes longer is cancelled, by us and by Databricks"
    )
    poll_seconds: float = Field(default=5, gt=0, le=300, description="How often to ask for a run's state")
