"""The step that trains a model, evaluates it, and registers it as the challenger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import function_of, trusted_types
from mlops_dagster.spec.model import Declaration
from mlops_dagster.stack.provenance import git_commit
from mlops_dagster.steps.checking import metrics_of, resolve
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.report import StepReport, table_summary
from mlops_dagster.steps.versions import declared_code_version

if TYPE_CHECKING:
    from mlops_dagster.modeling.training_set import TrainingSet
    from mlops_dagster.search import Engine
    from mlops_dagster.stack.deployment import Plots
    from mlops_dagster.stack.store import Store, TableVersion
    from mlops_dagster.stack.tracking import Origin, Tracker


_git_commit = cache(git_commit)  # of the code that this process has imported


class FitError(MlopsError):
    """The estimator can't be fitted to the training rows; the message has its own words, and the cure."""

    exit_status = 2  # it would refuse the same rows again


def trained_model(
    declaration: Declaration,
    partition: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    inputs: Pins | None = None,
    engine: Engine | None = None,
    plots: Plots = "always",
) -> StepReport:
    """Fit the estimator to the training rows, evaluate it on the test rows, and track it in MLflow.

    Parameters
    ----------
    engine : Engine, optional
        Where the trees of a forest grow; the model is the same. Not given: one thread per core.
    plots : {"always", "champion", "never"}
        With "champion" it draws none: nobody knows yet whether the model becomes one.

    Raises
    ------
    ParameterError, UserCodeError, FitError, TableNotFound, StoreError, TrackingError
        The table keeps its last good version; the MLflow run, if it was begun, ends FAILED.
    """
    tables = Inputs(partition, store, inputs, known=names.steps_of(declaration))

    from mlops_dagster.modeling.card import data_profile, estimator_diagram, model_card
    from mlops_dagster.modeling.digest import model_digest
    from mlops_dagster.modeling.estimators import make_estimator
    from mlops_dagster.modeling.evaluation import evaluate, importance_of, measure_baseline
    from mlops_dagster.modeling.leaks import find_leaks
    from mlops_dagster.modeling.metrics import check_metrics
    from mlops_dagster.modeling.training_set import TrainingSet

    parameters = resolve(declaration, names.TRAINED_MODEL, given)
    estimator = make_estimator(declaration, parameters)
    metrics, guess = metrics_of(declaration), function_of(declaration, declaration.baseline.function)
    frame, table = tables.read(names.TRAINING_SET)
    data = TrainingSet.from_table(frame, table.metadata)
    check_metrics(metrics, estimator, data)
    baseline = measure_baseline(data, declaration, metrics, guess)  # what it can't answer is said before a training
    tags = tags_of(declaration, partition, names.TRAINED_MODEL, table)
    # The run is begun before anything is fitted: a tracking server that is down costs seconds, not a training.
    with tracker.run(run_name(declaration, partition), origin=origin, tags=tags) as run:
        run.log_params({**said_of(data), **parameters})
        run.log_input(table, table_summary(frame)["columns"])
        model = fit(estimator, data, engine)
        digest = model_digest(model)
        evaluation = evaluate(model, data, declaration, metrics, baseline)
        importance = importance_of(model, data, metrics[0])
        images: dict[str, bytes] = {}
        if plots == "always":
            from mlops_dagster.modeling.plots import pngs_of

            images = pngs_of(data, evaluation, importance)
        card = model_card(
            declaration,
            data,
            evaluation,
            estimator=model,
            parameters=parameters,
            importance=importance,
            leaks=find_leaks(data),
            source=table.metadata.get("origin"),
        )
        files = {"profile.md": data_profile(data), "estimator.html": estimator_diagram(model), "card.md": card}
        run.log_files({**{f"plots/{name}.png": image for name, image in images.items()}, **files})
        trusted = trusted_types(declaration)
        logged = run.log_model(
            model, input_example=data.example, digest=digest, trusted=trusted, metrics=evaluation.metrics
        )
        about = {"model_digest": digest, "model_file_sha256": logged.file_sha256}
        # This run's own version, by its number: "the latest" may be another run's by now.
        registered = tracker.registry.register(
            partition,
            logged,
            run.run_id,
            {**tags, **about},
            card,
        )
        run.set_tags({"model_version": registered})
        result = store.write(
            names.TRAINED_MODEL,
            partition,
            evaluation.predictions,
            metadata={
                "metrics": json.dumps(evaluation.metrics),
                "parameters": json.dumps(parameters),
                "model_digest": digest,
                "model_uri": logged.uri,
                "model_version": registered,
                "mlflow_run_id": run.run_id,
                "training_set_digest": table.digest,
            },
        )
    return StepReport(
        step=names.TRAINED_MODEL,
        symbol=partition,
        data_version=digest,
        table=result,
        **table_summary(evaluation.predictions),
        facts={
            "parameters": parameters,
            "model_digest": digest,
            "model_version": registered,
            "model_card": card,
            "code_version": tags["code_version"],
        },
        inputs=tables.used,
        metrics=evaluation.metrics,
        plots=images,
        mlflow_run_id=run.run_id,
        mlflow_url=run.url,
        model_uri=logged.uri,
        model=declaration.name,
    )


def fit(estimator: Any, data: TrainingSet, engine: Engine | None = None) -> Any:
    """Fit an estimator to the training rows; the trees of a forest grow on an engine.

    Raises
    ------
    FitError
        If it refuses them.
    """
    from mlops_dagster.search import grow_forest

    try:
        return grow_forest(estimator, data.X_train, data.y_train, engine=engine)
    except MlopsError:
        raise
    except Exception as error:
        texts = [str(name) for name, dtype in data.X_train.dtypes.items() if dtype.kind == "O"]
        missing = [str(name) for name in data.X_train.columns[data.X_train.isna().any()]]
        hints = [
            f"{kind}: {', '.join(some[:5])}; encode or fill them in a pipeline (estimator.function), or leave them out"
            for kind, some in (("texts", texts), ("missing values", missing))
            if some
        ]
        cure = f" The features hold {'; '.join(hints)}." if hints else ""
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FitError(
            f"{type(estimator).__name__} can't be fitted to {len(data.X_train)} rows: {type(error).__name__}: "
            f"{said.rstrip('.')}.{cure}"
        ) from error


def tags_of(declaration: Declaration, partition: str, step: str, table: TableVersion) -> dict[str, str]:
    """Return what is written down with a run in MLflow: what was trained, on what, by which code."""
    pipeline = next(one.name for one in names.pipelines_of(declaration) if step in {each.name for each in one.steps})
    return {
        "pipeline": pipeline,
        "model": declaration.name,
        "symbol": partition,
        "data_version": table.digest,
        "training_set_version": str(table.version),
        "code_version": declared_code_version(declaration, step),
        "git_commit": _git_commit() or "unknown",
    }


def run_name(declaration: Declaration, partition: str) -> str:
    """Return what a run is called in MLflow."""
    return declaration.name if partition == names.ALL else f"{declaration.name}-{partition}"


def said_of(data: TrainingSet) -> dict[str, object]:
    """Return how the training set was made, for MLflow's parameters."""
    return {
        name: value for name, value in (("horizon", data.horizon), ("test_size", data.test_size)) if value is not None
    }
