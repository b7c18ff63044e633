"""The version of what decides what a model's step makes: our code, the declaration, the user's Python."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping

from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import sources_of
from mlops_dagster.spec.model import Declaration
from mlops_dagster.stack.provenance import code_version

# Of each step: the modules whose code decides what it makes, and the parts of the declaration that do.
_DECIDES: Mapping[str, tuple[tuple[str, ...], set[str]]] = {
    names.DATA: (
        (
            *("modeling/contract.py", "modeling/typed_cells.py", "modeling/pandera_schema.py"),
            *("stack/table_sources.py", "stack/table_files.py", "stack/csv_files.py", "stack/binary_files.py"),
            *("stack/url_files.py", "stack/queries.py"),
        ),
        {"data", "contract", "key", "time", "group", "partitions"},
    ),
    names.TRAINING_SET: (
        ("modeling/training_set.py", "modeling/features.py", "modeling/targets.py", "modeling/splits.py"),
        {"task", "features", "target", "split", "time", "group", "key"},
    ),
    names.TRAINED_MODEL: (
        (
            *("modeling/estimators.py", "modeling/evaluation.py", "modeling/metrics.py", "modeling/outputs.py"),
            "modeling/baselines.py",
        ),
        {"task", "estimator", "parameters", "metrics", "baseline"},
    ),
    names.CHAMPION_MODEL: (
        ("modeling/gate.py", "modeling/resampling.py", "steps/promote.py", "steps/promotion.py"),
        {"gate", "metrics", "baseline"},
    ),
    names.GRID_SEARCH_RESULTS: (
        ("modeling/search.py", "modeling/estimators.py", "search"),
        {"search", "estimator", "parameters"},
    ),
    names.PREDICTIONS: (
        (
            *("steps/predict.py", "steps/rows.py", "modeling/intervals.py"),
            *("modeling/features.py", "modeling/outputs.py"),
        ),
        {"predictions", "features"},
    ),
    names.PREDICTION_QUALITY: (
        ("steps/predict.py", "modeling/quality.py", "modeling/metrics.py"),
        {"metrics", "key", "time", "group", "target"},
    ),
}


def declared_code_version(declaration: Declaration, step: str) -> str:
    """Return a digest that changes if, and only if, what a step would make of the same input may change."""
    said = declaration.model_dump(mode="json", by_alias=True, include=_DECIDES[step][1])
    digest = hashlib.sha256(json.dumps([_our_code(step), said], sort_keys=True).encode())
    shared = step == names.DATA and declaration.data_owner != declaration.name
    for file in sources_of(declaration):
        # A table that models share doesn't change with the Python of one of them.
        if file.suffix == ".py" and not (shared and file.parent == declaration.folder):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache  # the same for all models: each file is parsed for it
def _our_code(step: str) -> str:
    return code_version(*_DECIDES[step][0])
