"""What a step can put into its run in MLflow: parameters, metrics, tags, plots, tables, child runs and the model."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mlops_dagster.stack.child_runs import ChildRun, write_child_runs
from mlops_dagster.stack.mlflow_connection import tracking_errors
from mlops_dagster.stack.model_files import FILE, requirements_of, saved_as
from mlops_dagster.stack.trusted_types import TRUSTED, stored

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput

    from mlops_dagster.stack.store import TableVersion

# What MLflow's servers take in one request.
PER_REQUEST = {"params": 100, "tags": 100, "metrics": 1000}

_MLFLOW_TYPES = {"float64": "double", "int64": "long", "bool": "boolean", "datetime64[us]": "datetime"}

T = TypeVar("T")


@dataclass(frozen=True)
class LoggedModel:
    """A model in MLflow: its id, the ``models:/`` address to load it from, where its files lie, its file's SHA-256.

    And which types in it the declaration trusted.
    """

    model_id: str
    uri: str
    artifact_location: str
    file_sha256: str
    trusted: tuple[str, ...] = ()


class TrackedRun:
    """A run in MLflow that is open.

    Parameters
    ----------
    url : str or None
        Where people look at it.

    Raises
    ------
    TrackingError
        By every method, if MLflow refuses or can't be reached any more.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        experiment_id: str,
        url: str | None,
        child_tags: Mapping[str, str] | None = None,
    ) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.url = url
        self._client = client
        self._child_tags = dict(child_tags or {})
        self._params: dict[str, str] = {}
        self._metrics: dict[str, float] = {}

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters; each can be logged once."""
        from mlflow.entities import Param

        texts = {key: str(value) for key, value in params.items()}
        with self._tracking_errors("logging parameters"):
            for some in _in_parts(texts.items(), PER_REQUEST["params"]):
                self._client.log_batch(self.run_id, params=[Param(key, value) for key, value in some], synchronous=True)
        self._params.update(texts)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log metrics, measured at the end of a training (step 0)."""
        numbers = {key: float(value) for key, value in metrics.items()}
        self._log_metrics(numbers)
        self._metrics.update(numbers)

    def log_curve(self, name: str, points: Iterable[tuple[int, float]]) -> None:
        """Log a metric that MLflow draws as a curve: pairs of step and value."""
        self._log_points([(name, float(value), int(step)) for step, value in points])

    def _log_metrics(self, metrics: Mapping[str, float], model_id: str | None = None, **tags: str) -> None:
        self._log_points([(key, value, 0) for key, value in metrics.items()], model_id, **tags)

    def _log_points(self, points: Iterable[tuple[str, float, int]], model_id: str | None = None, **tags: str) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        with self._tracking_errors("logging metrics"):
            for some in _in_parts(points, PER_REQUEST["metrics"]):
                batch = [
                    Metric(key, value, now, step, model_id=model_id, run_id=self.run_id) for key, value, step in some
                ]
                said = [RunTag(key, value) for key, value in tags.items()]
                self._client.log_batch(self.run_id, metrics=batch, tags=said, synchronous=True)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; a tag that exists is replaced."""
        from mlflow.entities import RunTag

        with self._tracking_errors("setting tags"):
            for some in _in_parts(tags.items(), PER_REQUEST["tags"]):
                self._client.log_batch(self.run_id, tags=[RunTag(key, str(v)) for key, v in some], synchronous=True)

    def log_input(self, table: TableVersion, columns: Mapping[str, str]) -> None:
        """Say which table the run has learned from, as MLflow shows data sets; the digest is the table's, shortened."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

        schema = [{"name": name, "type": _MLFLOW_TYPES.get(dtype, "string")} for name, dtype in columns.items()]
        dataset = Dataset(
            name=f"{table.table} {table.symbol}",
            digest=table.digest[:MAX_DATASET_DIGEST_SIZE],
            source_type="delta_table",
            source=json.dumps({"path": table.uri, "delta_table_version": table.version}),
            schema=json.dumps({"mlflow_colspec": [{**column, "required": True} for column in schema]}),
            profile=json.dumps({"num_rows": table.rows}),
        )
        with self._tracking_errors("logging the data set"):
            self._client.log_inputs(
                self.run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
            )

    def log_files(self, files: Mapping[str, bytes | str]) -> None:
        """Keep files as artifacts, by their names, which may have folders: ``plots/forecast.png``."""
        with tempfile.TemporaryDirectory() as scratch, self._tracking_errors(f"logging {', '.join(files)}"):
            for name, content in files.items():
                file = Path(scratch, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.encode() if isinstance(content, str) else content)
            self._client.log_artifacts(self.run_id, scratch)

    def log_table(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table as an artifact that MLflow shows as one, under its run and beside other runs': ``x.json``."""
        with self._tracking_errors(f"logging {name}"):
            self._client.log_table(self.run_id, table, name)

    def log_children(self, children: Sequence[ChildRun]) -> None:
        """Write runs below this one, FINISHED."""
        with self._tracking_errors("logging child runs"):
            write_child_runs(self._client, self.experiment_id, self.run_id, children, self._child_tags)

    def log_model(
        self,
        model: Any,
        *,
        input_example: pd.DataFrame,
        digest: str,
        name: str = "model",
        trusted: Sequence[str] = (),
        metrics: Mapping[str, float] | None = None,
    ) -> LoggedModel:
        """Keep a scikit-learn model in the skops format, with signature and input example.

        The parameters and metrics that were logged before become the model's too.

        Parameters
        ----------
        model : estimator
            Fitted.
        input_example : DataFrame
            A few rows as ``predict`` takes them; the signature is read from them.
        digest : str
            Says which model this is, independent of the file; kept as the tag ``model_digest``.
        trusted : sequence of str
            Types that it may hold beside scikit-learn's own, from its declaration.
        metrics : mapping, optional
            Metrics of run and model that weren't logged before.

        Raises
        ------
        ParameterError
            If the model holds other types; nothing is kept then.
        TrackingError
            If MLflow refuses.
        """
        content, types = stored(model, trusted)

        import mlflow.sklearn
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        with self._tracking_errors("logging the model"), tempfile.TemporaryDirectory() as scratch:
            # mlflow.sklearn.log_model does the same, but only for the global tracking URI.
            logged = self._client.create_logged_model(
                self.experiment_id,
                name=name,
                source_run_id=self.run_id,
                params=self._params,
                tags={"model_digest": digest},
            )
            status: Literal["READY", "FAILED"] = "FAILED"
            try:
                folder = Path(scratch, "model")
                with warnings.catch_warnings(), saved_as(content, model):
                    # The contract says which columns may have missing values, and refuses rows that break it.
                    warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer")
                    mlflow.sklearn.save_model(
                        model,
                        str(folder),
                        mlflow_model=Model(
                            artifact_path=logged.artifact_location,
                            run_id=self.run_id,
                            model_uuid=logged.model_id,
                            model_id=logged.model_id,
                        ),
                        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
                        skops_trusted_types=[*TRUSTED, *trusted],
                        input_example=input_example,
                        pip_requirements=requirements_of(types),
                    )
                file_sha256 = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
                self._client.log_model_artifacts(logged.model_id, str(folder))
                self._client.set_logged_model_tags(logged.model_id, {"model_file_sha256": file_sha256})
                self._link_model(LoggedModelOutput(logged.model_id, step=0))
                status = "READY"
            finally:
                self._client.finalize_logged_model(logged.model_id, status)
            self._remove_twins_of(logged.model_id, name)
        about = {"model_digest": digest, "model_file_sha256": file_sha256}
        self._log_metrics({**self._metrics, **(metrics or {})}, logged.model_id, **about)
        return LoggedModel(logged.model_id, logged.model_uri, logged.artifact_location, file_sha256, tuple(trusted))

    def _link_model(self, output: LoggedModelOutput) -> None:
        """Say that the run has made a model. MLflow refuses the same twice, as its client asks if an answer is lost."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_outputs(self.run_id, [output])
        except MlflowException:
            made = self._client.get_run(self.run_id).outputs
            if made is None or output.model_id not in {one.model_id for one in made.model_outputs}:
                raise

    def _remove_twins_of(self, model_id: str, name: str) -> None:
        """Remove logged models that are there because an answer was lost; see `open_runs.remove_twins`."""
        if not self._client.tracking_uri.startswith(("http", "databricks")):
            return
        for twin in self._client.search_logged_models([self.experiment_id], f"source_run_id = '{self.run_id}'"):
            if twin.model_id != model_id and (twin.name, str(twin.status)) == (name, "PENDING"):
                self._client.delete_logged_model(twin.model_id)

    def _tracking_errors(self, doing: str) -> AbstractContextManager[None]:
        return tracking_errors(f"{doing} of run {self.run_id}", self._client.tracking_uri)


def _in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    everything = list(items)
    return (everything[start : start + size] for start in range(0, max(len(everything), 1), size))
