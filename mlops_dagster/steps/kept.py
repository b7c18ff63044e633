"""What is kept of each model, a symbol's or a declared one of a partition, and what its tables say in short."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_dagster import pipelines
from mlops_dagster.spec import steps as names
from mlops_dagster.steps.champion import called, champion_in
from mlops_dagster.steps.inputs import Inputs

if TYPE_CHECKING:
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.registry import Registry
    from mlops_dagster.stack.store import Store, TableVersion


@dataclass(frozen=True)
class Kept:
    """Where the state of one model is kept: a symbol's, or a declared model's of one partition.

    Attributes
    ----------
    registry : Registry
        Says what the champion has learned from; where it can't, the state says so.
    """

    tables: Inputs
    registry: Registry
    model: Declaration | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return called(self.tables.symbol, self.model).name

    def current(self, *steps: str) -> Iterator[TableVersion]:
        """Return the tables of these steps, as far as there are any."""
        for step in steps:
            table = self.tables.store.current(step, self.tables.symbol)
            if table is not None:
                yield table


def kept_in(store: Store, registry: Registry, model: Declaration | None = None) -> list[Kept]:
    """Return where the state of each partition of a model is kept, or that of each symbol."""
    steps = pipelines.STEPS if model is None else names.steps_of(model)
    partitions = sorted({one for step in steps for one in store.symbols(step)})
    return [Kept(Inputs(one, store, known=steps), registry, model) for one in partitions]


# Of tables that were written before they said it.
_ENGINE_OF_OLD = {names.GRID_SEARCH_RESULTS: names.HERE, pipelines.SPARK_GRID_SEARCH_RESULTS.name: names.SPARK}


def latest_searches(kept: Kept) -> list[dict[str, Any]]:
    """Return what there is to know about the latest search, here and on Spark, as JSON values."""
    return [
        {
            **_whose(kept, table),
            "pipeline": _searched_by(kept, table.table),
            "engine": table.metadata.get("engine", _ENGINE_OF_OLD[table.table]),
            "searched_at": table.written_at.isoformat(timespec="seconds"),
            "candidates": int(table.metadata["candidates"]),
            "best_parameters": json.loads(table.metadata["best_parameters"]),
            "best_score": float(table.metadata["best_score"]),
            "scoring": table.metadata["scoring"],
            "work": json.loads(table.metadata["work"]),
            "mlflow_run_id": table.metadata["mlflow_run_id"],
        }
        for table in kept.current(names.GRID_SEARCH_RESULTS, pipelines.SPARK_GRID_SEARCH_RESULTS.name)
    ]


def latest_models(kept: Kept) -> list[dict[str, Any]]:
    """Return what there is to know about the latest model, as JSON values."""
    found = []
    for table in kept.current(names.TRAINED_MODEL):
        champion = champion_in(kept.tables.newest("champion_model"))
        found.append(
            {
                **_whose(kept, table),
                "trained_at": table.written_at.isoformat(timespec="seconds"),
                "parameters": json.loads(table.metadata["parameters"]),
                "metrics": json.loads(table.metadata["metrics"]),
                "model_uri": table.metadata["model_uri"],
                "model_digest": table.metadata["model_digest"],
                "mlflow_run_id": table.metadata["mlflow_run_id"],
                "model_version": table.metadata.get("model_version"),
                "champion": champion and champion.version,
            }
        )
    return found


def latest_predictions(kept: Kept) -> list[dict[str, Any]]:
    """Return what there is to know about a declared model's predictions, as JSON values."""
    made = None if kept.model is None else kept.tables.newest(names.PREDICTIONS)
    if made is None or made.empty:
        return []
    numbers = [json.loads(table.metadata["metrics"]) for table in kept.current(names.PREDICTION_QUALITY)]
    return [
        {
            **_whose(kept),
            "rows": len(made),
            "made_at": made["made_at"].max().isoformat(timespec="seconds"),
            "model_version": made["model_version"].iloc[-1],
            "quality": numbers[0] if numbers else None,
        }
    ]


def _whose(kept: Kept, table: TableVersion | None = None) -> dict[str, Any]:
    recipe = {} if kept.model or table is None else {"recipe": table.metadata["recipe"]}
    return {"model": kept.model and kept.model.name, "symbol": kept.tables.symbol, **recipe}


def _searched_by(kept: Kept, step: str) -> str:
    known = pipelines.PIPELINES if kept.model is None else names.pipelines_of(kept.model)
    return next((one.name for one in known if one.steps[-1].name == step), step)
