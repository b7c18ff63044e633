"""A deployment on a stand-in workspace, and the project's jobs launched on it as a worker of Dagster launches them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.reconstruct import ReconstructableRepository

from mlops_dagster import definitions
from mlops_dagster.instance import prepare_instance
from mlops_dagster.resources import key_of
from mlops_dagster.stack.deployment import Deployment
from mlops_dagster.stack.deployment_files import load_deployment
from mlops_dagster.stack.store import Store, store_of
from mlops_dagster_tests.contracts.s3_server import S3
from mlops_dagster_tests.contracts.shipped import shipped
from mlops_dagster_tests.contracts.workspace import Workspace

VOLUME = "/Volumes/main/mlops/data"
EXISTING = "0000-000000-standin"
NEW = {"spark_version": "16.4.x-scala2.13", "node_type_id": "i3.xlarge", "num_workers": 0}
CLUSTERS: Mapping[str, dict[str, Any]] = {
    "new": {"new": NEW},
    "existing": {"existing": EXISTING},
    "serverless": {"serverless": {}},
}
KINDS = ("step-new", "step-existing", "pipes-new", "pipes-existing", "pipes-serverless")
SMALL = {"max_depth": 4, "n_estimators": 5, "min_samples_leaf": 5}
GRID = {"grid": {"max_depth": [3, 4], "n_estimators": [3, 5]}, "folds": 2}
RUN_CONFIG: Mapping[str, dict[str, Any]] = {
    "build_model_pipeline": {
        "stock_price__trained_model": {"config": SMALL},
        "stock_price__champion_model": {"config": {"beat_baseline": False}},
    },
    "predict_pipeline": {"stock_price__predictions": {"config": {"catch_up": 5}}},
    "search_model_pipeline": {"stock_price__grid_search_results": {"config": GRID}},
    "cluster_search_model_pipeline": {"stock_price__grid_search_results": {"config": GRID}},
}


@dataclass
class Stack:
    """One deployment with a Dagster home of its own.

    Parameters
    ----------
    name : str
        Names its folder on the volume, its experiment and its bucket's prefix.
    home : Path
        Its state here.
    workspace : Workspace
        Where its steps run.
    settings : dict
        What its file says.
    """

    name: str
    home: Path
    workspace: Workspace
    settings: dict[str, Any]
    launches: int = field(default=0)

    @property
    def file(self) -> Path:
        return self.home / f"{self.name}.yaml"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to work with it."""
        return {
            "MLOPS_DEPLOYMENT": str(self.file),
            "DAGSTER_HOME": str(self.home / "dagster"),
            **self.workspace.environment,
        }

    def write(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.file.write_text(yaml.safe_dump(self.settings))

    @property
    def deployment(self) -> Deployment:
        return load_deployment(str(self.file))

    @property
    def store(self) -> Store:
        return store_of(self.deployment, shipped("stock_price"))

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        prepare_instance(self.deployment)
        with dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance:
            instance.add_dynamic_partitions("prices_symbol", ["ACME"])
            yield instance

    def launch(
        self,
        job: str = "build_model_pipeline",
        *,
        only: str | None = None,
        config: Mapping[str, Any] | None = None,
        compute: Mapping[str, Any] | None = None,
        deployment: Deployment | None = None,
        partition: str | None = "ACME",
        **options: Any,
    ) -> Launched:
        """Run a job in this process, its code reconstructed from its module as a worker does.

        Parameters
        ----------
        job : str
            Its name.
        only : str, optional
            The one asset to make, for example ``stock_price/training_set``. Not given: all of the job's.
        config : mapping, optional
            Of the ops. Not given: small ones.
        compute : mapping, optional
            Config of the resource that runs the step which `only` names.
        deployment : Deployment, optional
            In place of what the file says.
        partition : str, optional
            Which. None for a job that has none.
        **options
            Of `dagster.execute_job`.
        """
        run_config: dict[str, Any] = {"ops": {**(RUN_CONFIG[job] if config is None else config)}}
        if only is not None:
            op = only.replace("/", "__")
            run_config["ops"] = {name: value for name, value in run_config["ops"].items() if name == op}
            options["asset_selection"] = [dg.AssetKey.from_user_string(only)]
        if compute is not None:
            assert only is not None
            run_config["resources"] = {key_of("compute", only.partition("/")[0]): {"config": dict(compute)}}
        self.launches += 1
        before = definitions.defs
        definitions.defs = definitions.definitions_of(deployment or self.deployment)
        try:
            # The folder differs each time, since Dagster keeps what it has loaded by it.
            code = ReconstructableRepository.for_module(
                "mlops_dagster.definitions", "defs", str(self.home / str(self.launches))
            )
            with self.instance() as instance:
                recon = code.get_reconstructable_job(job)
                options.setdefault("tags", {"dagster/partition": partition} if partition else {})
                options.setdefault("run_config", run_config)
                result = dg.execute_job(recon, instance=instance, **options)
                events = list(instance.all_logs(result.run_id))
        finally:
            definitions.defs = before
        return Launched(result.run_id, events)


@dataclass
class Launched:
    """What Dagster's event log has of a run."""

    run_id: str
    entries: list[dg.EventLogEntry]

    @property
    def success(self) -> bool:
        return any(event.is_job_success for event in self.events)

    @property
    def events(self) -> list[dg.DagsterEvent]:
        return [entry.dagster_event for entry in self.entries if entry.dagster_event is not None]

    @property
    def materializations(self) -> dict[str, Any]:
        """The metadata's values by asset."""
        return {
            one.asset_key.to_user_string(): {name: value.value for name, value in one.metadata.items()}
            for one in self._made
        }

    @property
    def inputs(self) -> dict[str, dict[str, str]]:
        """Which data versions each asset was made from, and whether Dagster knows by which events."""
        return {
            one.asset_key.to_user_string(): {
                name: value if name.startswith("dagster/input_data_version/") else str(value != "NULL")
                for name, value in (one.tags or {}).items()
                if name.startswith("dagster/input_")
            }
            for one in self._made
        }

    @property
    def _made(self) -> list[dg.AssetMaterialization]:
        return [
            event.step_materialization_data.materialization for event in self.events if event.is_step_materialization
        ]

    @property
    def checks(self) -> dict[str, bool]:
        found = [
            event.asset_check_evaluation_data
            for event in self.events
            if event.event_type_value == "ASSET_CHECK_EVALUATION"
        ]
        return {one.check_name: one.passed for one in found}

    @property
    def failures(self) -> dict[str, str]:
        """By step, everything that Dagster shows of its failure."""
        found = {}
        for event in self.events:
            if event.is_step_failure:
                data, said = event.step_failure_data, []
                error = data.error
                while error is not None:
                    said.append(error.to_string())
                    error = error.cause
                shown = data.user_failure_data
                if shown is not None:
                    said += [str(shown.description), json.dumps({k: str(v.value) for k, v in shown.metadata.items()})]
                found[event.step_key] = "\n".join(said)
        return found

    @property
    def log(self) -> str:
        return "\n".join(entry.user_message for entry in self.entries)


def stack_of(kind: str, folder: Path, workspace: Workspace, mlflow: str, prices: Path, s3: S3 | None = None) -> Stack:
    """Make the stack of one of :data:`KINDS`, or `here`, with these prices."""
    name = folder.name
    shared = workspace.volumes / "main" / "mlops" / "data" / name
    shared.mkdir(parents=True, exist_ok=True)
    (shared / "ACME.csv").write_bytes(prices.read_bytes())
    settings: dict[str, Any] = {
        "store": {"root": f"{VOLUME}/{name}/store"},
        "tracking": {
            "experiment_name": name,
            "mlflow_tracking_uri": mlflow,
            "ui_url": mlflow,
            "registered_model": f"{name}.{{symbol}}",  # the registry is that of all experiments
        },
        "data": {"prices": {"source": "files", "path": f"{VOLUME}/{name}/{{symbol}}.csv"}},
    }
    if kind == "here":
        settings["store"]["root"] = "store"
        settings["data"]["prices"]["path"] = str(shared / "{symbol}.csv")
    else:
        compute, _, cluster = kind.partition("-")
        settings["compute"] = f"databricks_{compute}"
        settings["databricks"] = {
            "host": workspace.url,
            "auth": "token",
            "cluster": CLUSTERS[cluster],
            "staging": f"{VOLUME}/{name}/staging" if compute == "pipes" else f"/staging/{name}",
            "poll_seconds": 0.2,
            "timeout_seconds": 240,
        }
    if kind.startswith("step") and s3 is not None:
        workspace.set_secret("mlops", "s3_secret", s3.storage_options["aws_secret_access_key"])
        settings["store"] = {
            "root": f"s3://{s3.new_bucket()}/mlops",
            "storage_options": {k: v for k, v in s3.storage_options.items() if "secret" not in k and "key" not in k},
        }
        workspace.set_secret("mlops", "s3_id", s3.storage_options["aws_access_key_id"])
        settings["databricks"]["secrets"] = [
            {"name": "AWS_ACCESS_KEY_ID", "scope": "mlops", "key": "s3_id"},
            {"name": "AWS_SECRET_ACCESS_KEY", "scope": "mlops", "key": "s3_secret"},
        ]
    settings["home"] = str(folder)
    stack = Stack(name, folder, workspace, settings)
    stack.write()
    return stack
