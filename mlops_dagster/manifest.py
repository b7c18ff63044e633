"""The pipelines as data, for programs that can't import this package: a manifest, its parameters in JSON Schema.

    python -m mlops_dagster.manifest

prints it. What no schema can say, `mlops step --pipeline` says before a run's first step works.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mlops_dagster.grids import RANGE_KEYS
from mlops_dagster.pipelines import (
    BUNDLED_SYMBOLS,
    FOREST,
    PIPELINES,
    STEPS,
    SYMBOL,
    defaults_of,
    explain,
)
from mlops_dagster.spec.parameters import Kind, Parameter

TYPES: Mapping[Kind, str] = {
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "text": "string",
    "grid": "object",
}


def manifest() -> dict[str, Any]:
    """Return what there is to run: pipelines with their steps in order, and what each step may be given.

    A parameter that isn't given is left out, or null; its ``default`` is there if it is the same in every recipe.

    Examples
    --------
    >>> manifest()["pipelines"]["search_model_pipeline"]["steps"]
    ['prices', 'training_set', 'grid_search_results']
    """
    symbol = {
        "type": "string",
        "pattern": f"^{SYMBOL.pattern}$",
        "description": f"Which symbol, for example {' or '.join(BUNDLED_SYMBOLS)}. One per run.",
        "examples": list(BUNDLED_SYMBOLS),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "symbol": symbol,
        "pipelines": {
            one.name: {"description": one.description, "steps": [step.name for step in one.steps]} for one in PIPELINES
        },
        "steps": {
            step.name: {
                "description": step.description,
                "parameters": _object({one.name: _parameter(one) for one in step.parameters}),
            }
            for step in STEPS.values()
        },
    }


def _object(properties: Mapping[str, Any], required: Iterable[str] = ()) -> dict[str, Any]:
    named = {"required": list(required)} if required else {}
    return {"type": "object", "properties": dict(properties), **named, "additionalProperties": False}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    of_grid = _object({one.name: _values(one) for one in FOREST})
    said = of_grid if parameter.kind == "grid" else _value(parameter)
    said["description"] = explain(parameter.name)
    defaults = list(defaults_of(parameter.name).values())
    if defaults and defaults.count(defaults[0]) == len(defaults):
        said["default"] = defaults[0]
    return said


def _value(parameter: Parameter) -> dict[str, Any]:
    """Return the schema of a value: type, bounds and choices."""
    said: dict[str, Any] = {"type": TYPES[parameter.kind]}
    if parameter.choices is not None:
        said["enum"] = list(parameter.choices)
    if parameter.minimum is not None:
        said["minimum"] = parameter.minimum
    if parameter.maximum is not None:
        said["maximum"] = parameter.maximum
    if parameter.whole_above is not None:
        said["anyOf"] = [{"maximum": parameter.whole_above}, {"multipleOf": 1}]
    return said


def _values(parameter: Parameter) -> dict[str, Any]:
    """Return the schema of a grid's values of a parameter: a list, or of numbers also a range."""
    value = _value(parameter)
    a_list = {"type": "array", "minItems": 1, "items": value}
    if parameter.kind not in ("integer", "number"):
        return a_list
    ends = dict.fromkeys(RANGE_KEYS, value)
    a_range = _object({**ends, "step": {"type": value["type"], "exclusiveMinimum": 0}}, required=RANGE_KEYS)
    # Each keyword is of lists or of objects, so both can stand side by side; anyOf would hide which value is wrong.
    return {**a_list, **a_range, "type": ["array", "object"]}


if __name__ == "__main__":
    print(json.dumps(manifest(), indent=2))
