"""The steps of the pipelines, as plain functions. Every tool only calls them.

A step checks its parameters, reads its inputs from the store, writes its outputs to it, and returns a
:class:`StepReport`. What belongs here: the order of work inside one step. What doesn't: the science (`ml/`), the
tools (`stack/`), and anything that knows which orchestrator is calling.

All bad parameters are refused before anything is read, and a step that fails leaves the tables as they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_dagster import pipelines
from mlops_dagster.stack.provenance import code_version, git_commit

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.stack.store import Store, TableVersion
    from mlops_dagster.stack.tracking import Origin, Tracker


@dataclass(frozen=True)
class StepReport:
    """What a step did, for people and for the tool that called it.

    Parameters
    ----------
    step, symbol : str
        Which step, for which symbol.
    data_version : str
        Changes if, and only if, what the step made has changed.
    table : TableVersion
        The table that the step wrote.
    columns : dict of str to str
        The table's columns and their types.
    last_rows : list of dict
        The table's last five rows, as JSON values.
    facts : dict
        What there is to know about the result, as JSON values.
    metrics : dict of str to float
        Measured on the test rows.
    plots : dict of str to bytes
        PNG images.
    mlflow_run_id, mlflow_url, model_uri : str, optional
        Where the run and its model are tracked.
    """

    step: str
    symbol: str
    data_version: str
    table: TableVersion
    columns: dict[str, str]
    last_rows: list[dict[str, Any]]
    facts: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    plots: dict[str, bytes] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    mlflow_url: str | None = None
    model_uri: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; of the plots, their names."""
        return {
            "step": self.step,
            "symbol": self.symbol,
            "data_version": self.data_version,
            "table": {
                "name": self.table.table,
                "uri": self.table.uri,
                "version": self.table.version,
                "digest": self.table.digest,
                "rows": self.table.rows,
                "columns": self.columns,
            },
            **self.facts,
            "metrics": self.metrics,
            "plots": sorted(self.plots),
            "mlflow_run_id": self.mlflow_run_id,
            "mlflow_url": self.mlflow_url,
            "model_uri": self.model_uri,
        }


def _shown(frame: pd.DataFrame) -> dict[str, Any]:
    """Return what a report shows of a table; JSON has no NaN and no dates."""
    return {
        "columns": {str(column): str(dtype) for column, dtype in frame.dtypes.items()},
        "last_rows": json.loads(frame.tail(5).to_json(orient="records", date_format="iso", double_precision=6)),
    }


# What each step's result depends on, besides its input. Comments and docstrings don't count.
STEP_SOURCES: Mapping[str, tuple[str, ...]] = {
    "prices": ("ml/prices.py", "stack/sources.py"),
    "training_set": ("ml/features.py", "ml/splits.py", "ml/recipes.py"),
    "trained_model": ("ml/model.py", "ml/evaluation.py", "pipelines.py"),
}


def step_code_version(step: str) -> str:
    """Return the version of the code that decides what a step makes."""
    return code_version(*STEP_SOURCES[step])


def prices(symbol: str, given: Mapping[str, object], *, store: Store) -> StepReport:
    """Read a symbol's daily prices from their source, check them, and keep them as a table.

    Parameters
    ----------
    symbol : str
        For example ``GSPC``.
    given : mapping
        ``source``, ``path``, ``start``, ``end`` as in `pipelines.PRICES`.
    store : Store
        Where the table goes.

    Raises
    ------
    ParameterError, PriceSourceError, PriceDataError, StoreError
        The table keeps its last good version.
    """
    pipelines.check_symbol(symbol)
    parameters = pipelines.check_parameters(pipelines.PRICES.parameters, given)

    from mlops_dagster.ml.prices import validate_prices
    from mlops_dagster.stack.sources import read_prices

    raw, origin = read_prices(symbol, **parameters)
    frame = validate_prices(raw, source=origin)
    table = store.write("prices", symbol, frame, metadata={"origin": origin})
    return StepReport(
        step="prices",
        symbol=symbol,
        data_version=table.digest,
        table=table,
        **_shown(frame),
        facts={
            "origin": origin,
            "first_date": str(frame["Date"].iloc[0].date()),
            "last_date": str(frame["Date"].iloc[-1].date()),
        },
    )


def training_set(symbol: str, given: Mapping[str, object], *, store: Store) -> StepReport:
    """Make features, target and split from the symbol's prices, and keep them as a table.

    Parameters
    ----------
    symbol : str
        For example ``GSPC``.
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

    from mlops_dagster.ml.evaluation import find_leaks
    from mlops_dagster.ml.recipes import make_training_set

    price_frame, price_table = store.read("prices", symbol)
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
        **_shown(made.frame),
        facts={
            "recipe": made.recipe,
            "horizon": made.horizon,
            "features": list(made.features),
            "rows_per_split": {str(split): int(count) for split, count in counts.items()},
            "leaks": find_leaks(made),
            "prices_version": price_table.version,
        },
    )


def trained_model(
    symbol: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    n_jobs: int = -1,
) -> StepReport:
    """Fit a random forest to the symbol's training set, evaluate it on the test rows, and track it in MLflow.

    Parameters
    ----------
    symbol : str
        For example ``GSPC``.
    given : mapping
        ``max_depth``, ``n_estimators`` and the others of `pipelines.FOREST`. Those not given are the recipe's.
    store : Store
        Holds the table `training_set`; gets the table `trained_model`: the forecasts on the test rows, with metrics,
        parameters and the model's address as the table's metadata.
    tracker : Tracker
        Gets one run with parameters, metrics, tags, plots and the model.
    origin : Origin
        Who is calling, for the tags.
    n_jobs : int, default=-1
        Threads to fit with; the model doesn't depend on it. -1 means all cores.

    Raises
    ------
    ParameterError, TableNotFound, StoreError, TrackingError
        The table keeps its last good version; the MLflow run, if it was begun, ends FAILED.
    """
    pipelines.check_symbol(symbol)
    pipelines.check_parameters(pipelines.FOREST, given)

    from mlops_dagster.ml import plots
    from mlops_dagster.ml.evaluation import evaluate
    from mlops_dagster.ml.model import fit_forest, model_digest
    from mlops_dagster.ml.recipes import TrainingSet

    frame, table = store.read("training_set", symbol)
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
        model = fit_forest(data, parameters, n_jobs=n_jobs)
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
                "mlflow_run_id": run.run_id,
                "training_set_digest": table.digest,
            },
        )
    return StepReport(
        step="trained_model",
        symbol=symbol,
        data_version=digest,
        table=result,
        **_shown(evaluation.forecasts),
        facts={
            "recipe": data.recipe,
            "parameters": parameters,
            "model_digest": digest,
            "training_set_version": table.version,
            "code_version": version,
        },
        metrics=evaluation.metrics,
        plots=images,
        mlflow_run_id=run.run_id,
        mlflow_url=run.url,
        model_uri=logged.uri,
    )
