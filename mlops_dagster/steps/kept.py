"""What is kept of each model, or of each of its partitions, and what its tables say in short."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_dagster.spec import steps as names
from mlops_dagster.steps.champion import called, champion_in
from mlops_dagster.steps.inputs import Inputs

if TYPE_CHECKING:
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.registry import Registry
    from mlops_dagster.stack.store import Store, TableVersion


@dataclass(frozen=True)
class Kept:
    """Where the state of one model is kept, or of one of its partitions.

    Attributes
    ----------
    registry : Registry
        Says what the champion has learned from; where it can't, the state says so.
    """

    tables: Inputs
    registry: Registry
    model: Declaration

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


def kept_in(store: Store, registry: Registry, model: Declaration) -> list[Kept]:
    """Return where the state of each partition of a model is kept."""
    # The table of its data it may share with others, which have partitions of their own.
    steps = [one for one in names.steps_of(model) if one != names.DATA]
    partitions = sorted({one for step in steps for one in store.symbols(step)})
    return [Kept(Inputs(one, store, known=names.steps_of(model)), registry, model) for one in partitions]


def latest_searches(kept: Kept) -> list[dict[str, Any]]:
    """Return what there is to know about the latest search, as JSON values."""
    return [
        {
            **_whose(kept),
            "engine": table.metadata["engine"],
            "searched_at": table.written_at.isoformat(timespec="seconds"),
            "candidates": int(table.metadata["candidates"]),
            "best_parameters": json.loads(table.metadata["best_parameters"]),
            "best_score": float(table.metadata["best_score"]),
            "scoring": table.metadata["scoring"],
            "work": json.loads(table.metadata["work"]),
            "mlflow_run_id": table.metadata["mlflow_run_id"],
        }
        for table in kept.current(names.GRID_SEARCH_RESULTS)
    ]


def latest_models(kept: Kept) -> list[dict[str, Any]]:
    """Return what there is to know about the latest model, as JSON values."""
    found = []
    for table in kept.current(names.TRAINED_MODEL):
        champion = champion_in(kept.tables.newest(names.CHAMPION_MODEL))
        found.append(
            {
                **_whose(kept),
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
    """Return what there is to know about a model's predictions, as JSON values."""
    made = kept.tables.newest(names.PREDICTIONS)
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


def _whose(kept: Kept) -> dict[str, Any]:
    return {"model": kept.model.name, "partition": kept.tables.symbol}
