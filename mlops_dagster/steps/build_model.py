"""The steps of `build_model_pipeline`: prices, training set, trained model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster import pipelines
from mlops_dagster.stack.provenance import git_commit
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.report import StepReport, step_code_version, table_summary
from mlops_dagster.steps.summary import summary

if TYPE_CHECKING:
    from mlops_dagster.ml.recipes import TrainingSet
    from mlops_dagster.stack.limits import LimitSettings
    from mlops_dagster.stack.store import Store
    from mlops_dagster.stack.tracking import Origin, Tracker


def prices(
    symbol: str, given: Mapping[str, object], *, store: Store, limits: LimitSettings | None = None
) -> StepReport:
    """Read a symbol's daily prices from their source, check them, and keep them as a table.

    Parameters
    ----------
    given : mapping
        ``source``, ``path``, ``start``, ``end`` as in `pipelines.PRICES`.

    Raises
    ------
    ParameterError, SourceError, PriceDataError, StoreError
        The table keeps its last good version.
    """
    pipelines.check_symbol(symbol)
    parameters = pipelines.check_parameters(pipelines.PRICES.parameters, given)

    from mlops_dagster.ml.prices import validate_prices
    from mlops_dagster.stack.sources import read_prices

    raw, origin = read_prices(symbol, **parameters, limits=limits)
    frame = validate_prices(raw, source=origin)
    table = store.write("prices", symbol, frame, metadata={"origin": origin})
    return StepReport(
        step="prices",
        symbol=symbol,
        data_version=table.digest,
        table=table,
        **table_summary(frame),
        facts={
            "origin": origin,
            "first_date": str(frame["Date"].iloc[0].date()),
            "last_date": str(frame["Date"].iloc[-1].date()),
        },
    )


def training_set(symbol: str, given: Mapping[str, object], *, store: Store, inputs: Pins | None = None) -> StepReport:
    """Make features, target and split from the symbol's prices, and keep them as a table.

    Parameters
    ----------
    given : mapping
        ``recipe``, ``horizon``, ``test_size`` as in `pipelines.TRAINING_SET`.
    store : Store
        Holds the table `prices`; gets the table `training_set`.

    Raises
    ------
    ParameterError, TableNotFound, StoreError
        The table keeps its last good version.
    """
    pipelines.check_symbol(symbol)
    parameters = pipelines.check_parameters(pipelines.TRAINING_SET.parameters, given)
    tables = Inputs(symbol, store, inputs)

    from mlops_dagster.ml.evaluation import find_leaks
    from mlops_dagster.ml.recipes import make_training_set

    price_frame, price_table = tables.read("prices")
    made = make_training_set(price_frame, **parameters)
    table = store.write(
        "training_set", symbol, made.frame, metadata={**made.metadata(), "prices_digest": price_table.digest}
    )
    counts = made.frame["split"].value_counts()
    return StepReport(
        step="training_set",
        symbol=symbol,
        data_version=table.digest,
        table=table,
        **table_summary(made.frame),
        facts={
            "recipe": made.recipe,
            "horizon": made.horizon,
            "features": list(made.features),
            "rows_per_split": {str(split): int(count) for split, count in counts.items()},
            "leaks": find_leaks(made),
        },
        inputs=tables.used,
    )


def trained_model(
    symbol: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    inputs: Pins | None = None,
    n_jobs: int = -1,
    engine: Any = None,
) -> StepReport:
    """Fit a random forest to the symbol's training set, evaluate it on the test rows, and track it in MLflow.

    Parameters
    ----------
    given : mapping
        ``max_depth``, ``n_estimators`` and the others of `pipelines.FOREST`. Those not given are the recipe's.
    store : Store
        Holds the table `training_set`; gets the table `trained_model`: the forecasts on the test rows, with metrics,
        parameters and the model's address as the table's metadata.
    tracker : Tracker
        Gets one run with parameters, metrics, tags, plots and the model, and a version of the symbol's registered
        model: the challenger.
    n_jobs : int, default=-1
        Threads to fit with; the model doesn't depend on it. -1 means all cores.
    engine : Engine, optional
        Grows the trees elsewhere, as :class:`mlops_dagster.search.engine.Engine` says; the model doesn't
        depend on it either.

    Raises
    ------
    ParameterError, TableNotFound, StoreError, TrackingError
        The table keeps its last good version; the MLflow run, if it was begun, ends FAILED.
    """
    pipelines.check_symbol(symbol)
    pipelines.check_parameters(pipelines.FOREST, given)
    tables = Inputs(symbol, store, inputs)

    from mlops_dagster.ml import plots
    from mlops_dagster.ml.evaluation import evaluate
    from mlops_dagster.ml.gate import last_day_known
    from mlops_dagster.ml.model import fit_forest
    from mlops_dagster.ml.recipes import TrainingSet
    from mlops_dagster.modeling.digest import model_digest

    frame, table = tables.read("training_set")
    data = TrainingSet.from_table(frame, table.metadata)
    parameters = pipelines.resolve_forest(data.recipe, given)
    version = step_code_version("trained_model")
    tags = {
        "pipeline": pipelines.BUILD_MODEL.name,
        "symbol": symbol,
        "recipe": data.recipe,
        "data_version": table.digest,
        "training_set_version": str(table.version),
        "code_version": version,
        "git_commit": git_commit() or "unknown",
    }
    # The run is begun before the forest grows: a tracking server that is down costs seconds, not a training.
    with tracker.run(f"{symbol}-{data.recipe}", origin=origin, tags=tags) as run:
        run.log_params({"recipe": data.recipe, "horizon": data.horizon, "test_size": data.test_size, **parameters})
        run.log_input(table, table_summary(frame)["columns"])
        model = fit_forest(data, parameters, n_jobs=n_jobs, engine=engine)
        digest = model_digest(model)
        evaluation = evaluate(model, data)
        run.log_metrics(evaluation.metrics)
        images = {
            "forecast": plots.to_png(plots.forecast_plot(evaluation)),
            "residuals": plots.to_png(plots.residual_plot(evaluation)),
            "feature_importance": plots.to_png(plots.importance_plot(model, data.features)),
        }
        for name, image in images.items():
            run.log_png(f"plots/{name}.png", image)
        logged = run.log_model(model, input_example=data.X_train.head(5), digest=digest)
        # This run's own version, by its number: "the latest" may be another run's by now.
        registered = tracker.registry.register(
            symbol,
            logged,
            run.run_id,
            {
                **tags,
                "model_digest": digest,
                "model_file_sha256": logged.file_sha256,
                "horizon": str(data.horizon),
                "test_size": repr(data.test_size),
                "knows_until": last_day_known(data),
            },
            _model_card(symbol, data, parameters, evaluation.metrics, run.url),
        )
        run.set_tags({"model_version": registered})
        result = store.write(
            "trained_model",
            symbol,
            evaluation.forecasts,
            metadata={
                "recipe": data.recipe,
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
        step="trained_model",
        symbol=symbol,
        data_version=digest,
        table=result,
        **table_summary(evaluation.forecasts),
        facts={
            "recipe": data.recipe,
            "parameters": parameters,
            "model_digest": digest,
            "model_version": registered,
            "code_version": version,
        },
        inputs=tables.used,
        metrics=evaluation.metrics,
        plots=images,
        mlflow_run_id=run.run_id,
        mlflow_url=run.url,
        model_uri=logged.uri,
    )


def _model_card(
    symbol: str, data: TrainingSet, parameters: Mapping[str, object], metrics: Mapping[str, float], run_url: str | None
) -> str:
    """Say in Markdown what a registered version is, and how good."""
    ahead = "on the next trading day" if data.horizon == 1 else f"{data.horizon} trading days ahead"
    trained = f"[its run]({run_url})" if run_url else "its run"
    settings = ", ".join(f"{name} {value}" for name, value in parameters.items())
    return "\n".join(
        [
            f"Forecasts the price of {symbol} {ahead}. A random forest, trained by the recipe `{data.recipe}` on "
            f"{len(data.X_train)} rows ({trained} has plots and the training set).",
            "",
            f"On the {len(data.X_test)} test rows:",
            "",
            summary(metrics),
            "",
            f"Parameters: {settings}.",
        ]
    )
