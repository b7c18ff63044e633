"""One deployment: where tables live, runs are tracked, data come from and searches run. One YAML file is one stack.

Relative paths are below the *home* folder (``MLOPS_HOME``, by default ``.mlops`` in the working directory), so that
one folder holds the whole state of a local stack.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from mlops_dagster.errors import ParameterError
from mlops_dagster.spec.contradictions import refuse_one_path
from mlops_dagster.spec.model import Dataset, Declaration, Schedule
from mlops_dagster.spec.parameters import check_partition
from mlops_dagster.spec.steps import WHERE, data_step
from mlops_dagster.stack.automation import InboxSettings, NotifySettings, RetrainSettings, ScheduleChange
from mlops_dagster.stack.databricks.settings import DatabricksSettings
from mlops_dagster.stack.deployment_reading import variable_of
from mlops_dagster.stack.limits import LimitSettings
from mlops_dagster.stack.spark import SparkSettings

Plots: TypeAlias = Literal["always", "champion", "never"]
_FEW = 10  # partitions of a run, whose pictures somebody may look at


class StoreSettings(BaseModel):
    """Where the Delta tables live."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    root: str = Field(
        default="store", description="A folder, or the URL of an object store (s3://, abfss://, gs://), or /Volumes/..."
    )
    storage_options: dict[str, str] = Field(
        default={}, description="delta-rs options such as endpoint and region; secrets come from the environment"
    )


class TrackingSettings(BaseModel):
    """Where models and runs are tracked. The keys up to `extra_tags` are those of dagster-mlflow's resource."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    experiment_name: str = Field(
        default="mlops_dagster", min_length=1, description="MLflow's experiment; made if missing"
    )
    mlflow_tracking_uri: str | None = Field(
        default=None, description="An MLflow server's URL or a database URI. Default: SQLite below the home folder"
    )
    parent_run_id: str | None = Field(default=None, description="An MLflow run that all runs are shown below")
    env: dict[str, str] = Field(default={}, description="Environment variables for MLflow")
    env_to_tag: list[str] = Field(default=[], description="Environment variables that become tags of the run")
    extra_tags: dict[str, str] = Field(default={}, description="Tags of every run")

    client: Literal["mlops", "dagster-mlflow"] = Field(
        default="mlops", description="Our own tracker, or dagster-mlflow's resource (in Dagster only)"
    )
    artifact_location: str | None = Field(
        default=None, description="Where a new experiment keeps its artifacts. Default: as the MLflow server says"
    )
    ui_url: str | None = Field(
        default="http://127.0.0.1:5000",
        description="Where people open MLflow, for links. Not given with tracking on Databricks: the workspace",
    )
    registered_model: str | None = Field(
        default=None,
        pattern=r"^[^/:]*\{symbol\}[^/:]*$",
        description="The name of a symbol's model in MLflow's registry, with {symbol}. Default: "
        "mlops_dagster.{symbol}; with tracking on Databricks main.default.{symbol}, in Unity Catalog",
    )


class RunSettings(BaseModel):
    """Runs of many partitions: a backfill in Dagster, `mlops build-model --all`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    max_partitions_per_run: int = Field(
        default=50, ge=1, le=10_000, description="How many partitions a backfill's run takes at most"
    )
    processes: int | None = Field(
        default=None, ge=1, le=1_000, description="Over how many processes its partitions are spread. Default: cores"
    )
    seconds_per_partition: float | None = Field(
        default=None, gt=0, description="After how long a partition is stopped, and named as failed. Default: never"
    )


class Deployment(BaseSettings):
    """Everything a stack needs to know. Environment variables such as ``MLOPS_STORE__ROOT`` override the file."""

    model_config = SettingsConfigDict(env_prefix="MLOPS_", env_nested_delimiter="__", extra="forbid")

    file: ClassVar[Path | None] = None
    file_says: ClassVar[Mapping[str, Any]] = {}

    home: Path = Field(default=Path(".mlops"), description="The folder of all local state; relative paths lie below it")
    partitions: dict[str, list[str]] = Field(
        default={},
        description="By the name of a model or dataset with open partitions: those that are always there besides the "
        "declared ones, as {prices: [ACME]}",
    )
    store: StoreSettings = StoreSettings()
    tracking: TrackingSettings = TrackingSettings()
    data: dict[str, dict[str, Any]] = Field(
        default={},
        description="By the name of a model or dataset: what its data step is given unless a run says otherwise, as "
        "{sales: {path: /shared/sales.csv}}",
    )
    limits: LimitSettings = LimitSettings()
    runs: RunSettings = RunSettings()
    spark: SparkSettings = SparkSettings()
    compute: Literal["here", "databricks_step", "databricks_pipes"] = Field(
        default="here",
        description="Where steps run: in this process (searches may use `spark`), or on Databricks, by the step "
        "launcher of dagster-databricks or by Dagster Pipes",
    )
    databricks: DatabricksSettings | None = None
    inside: bool = Field(
        default=False, description="Set on the cluster: this process is the one that runs the steps, wherever it is"
    )
    plots: Plots | None = Field(
        default=None,
        description="Which pictures are drawn: all; only those of models that become the champion, when they do; or "
        f"none. Default: always in a run of up to {_FEW} partitions, champion in one of more",
    )
    dagster_url: str = Field(default="http://127.0.0.1:3000", description="Where people open Dagster, for links")
    schedules: dict[str, ScheduleChange] = Field(
        default={}, description="By the name of a schedule, as Dagster shows it: what is changed of how it is declared"
    )
    inbox: InboxSettings = InboxSettings()
    retrain: RetrainSettings = RetrainSettings()
    notify: NotifySettings = NotifySettings()

    @field_validator("partitions")
    @classmethod
    def _partitions_of_all_tools(cls, partitions: dict[str, list[str]]) -> dict[str, list[str]]:
        return {owner: [check_partition(key) for key in keys] for owner, keys in partitions.items()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, since that is where an operator overrides one value."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, dict(cls.file_says))

    def model_post_init(self, context: Any, /) -> None:
        """Make every path absolute, so that no tool's working directory can change what it means."""
        self.home = self.home.expanduser().absolute()
        if "://" not in self.store.root:
            self.store.root = str(self.home / Path(self.store.root).expanduser())
        if self.inbox.path is not None:
            self.inbox.path = str(self.home / Path(self.inbox.path).expanduser())
        if self.tracking.mlflow_tracking_uri is None:
            self.tracking.mlflow_tracking_uri = f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"
            if self.tracking.artifact_location is None:
                self.tracking.artifact_location = (self.home / "mlflow" / "artifacts").as_uri()
        on_databricks = self.tracking.mlflow_tracking_uri.startswith("databricks")
        if self.tracking.registered_model is None:
            self.tracking.registered_model = "main.default.{symbol}" if on_databricks else "mlops_dagster.{symbol}"
        if on_databricks and "ui_url" not in self.tracking.model_fields_set:
            host = self.databricks.host if self.databricks else None
            self.tracking.ui_url = host or os.environ.get("DATABRICKS_HOST")

    @property
    def state_dir(self) -> Path:
        """A folder on this machine's own disk for what only this machine needs to know."""
        return self.home / "open_runs"

    def plots_of(self, partitions: int) -> Plots:
        """Return which pictures a run of so many partitions draws."""
        return self.plots or ("always" if partitions <= _FEW else "champion")

    def dagster_run_url(self, run_id: str) -> str:
        """Return the address of a Dagster run's page."""
        return f"{self.dagster_url.rstrip('/')}/runs/{run_id}"

    def schedule(self, name: str, said: Schedule) -> Schedule:
        """Return a schedule as it is declared, changed as this deployment says."""
        change = self.schedules.get(name)
        return said if change is None else said.model_copy(update=change.model_dump(exclude_none=True))

    def tracker_settings(self, model: Declaration | None = None) -> dict[str, Any]:
        """Return what a tracker takes; a declared model has an experiment and registered models of its own."""
        settings = self.tracking.model_dump(exclude={"client", "mlflow_tracking_uri"})
        if model is not None:
            settings["experiment_name"] = f"{self.tracking.experiment_name.rstrip('/')}-{model.name}"
            # Unity Catalog's names have three parts, and no other dots.
            between = "_" if str(self.tracking.mlflow_tracking_uri).startswith("databricks") else "."
            name = model.name if model.partitions is None else f"{model.name}{between}{{symbol}}"
            settings["registered_model"] = str(self.tracking.registered_model).replace("{symbol}", name)
        return {**settings, "tracking_uri": self.tracking.mlflow_tracking_uri, "state_dir": self.state_dir}

    def data_parameters(self, model: Dataset, given: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return what the data step of a model is given: what a run says, and of the rest what the deployment says.

        A run that says where the rows come from (one of `WHERE`) replaces all that the deployment says of them: the
        rest of it is about rows from elsewhere.

        Raises
        ------
        ParameterError
            If the deployment says what the step can't be given; the message has the file or the variable.
        """
        owner, said = model.data_owner, {}
        known = {one.name: one for one in data_step(model).parameters}
        for name, value in self.data.get(owner, {}).items():
            variable = variable_of(("data", owner, name), "MLOPS_", os.environ)
            source = f"the environment variable {variable}" if variable else f"deployment {self.file or 'settings'}"
            if name not in known:
                there = f"there are {', '.join(known)}" if known else "it takes none"
                wrong = f"data.{owner}.{name}: the data of {owner} has no such parameter; {there}."
                raise ParameterError(f"{wrong} (It is in {source}.)")
            if value is None:
                continue
            text = known[name].kind == "text"
            if isinstance(value, str) and not text and variable:
                with suppress(ValueError, RecursionError):  # in a variable everything is a text
                    value = json.loads(value)
            try:
                said[name] = known[name].check(value)
                refuse_one_path(model, said if name == "path" else {})
            except ParameterError as error:
                quoted = " Quote it." if text and not isinstance(value, str) else ""
                raise ParameterError(f"data.{owner}.{error}{quoted} (It is in {source}.)") from None
        run = {name: value for name, value in (given or {}).items() if value is not None}
        return run if set(WHERE) & set(run) else {**said, **run}
