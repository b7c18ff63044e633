"""The pipelines as data, for programs that can't import this package: a manifest, its parameters in JSON Schema.

`mlops manifest` prints it. What no schema can say, `mlops step --pipeline` says before a run's first step works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mlops_dagster.spec.grids import RANGE_KEYS
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.parameters import PARTITION, Kind, Parameter, Pipeline, Step, explain
from mlops_dagster.spec.steps import TRAINED_MODEL, partition_option, pipelines_of, steps_of

TYPES: Mapping[Kind, str] = {
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "text": "string",
    "grid": "object",
}


def manifest(models: Iterable[Declaration]) -> dict[str, Any]:
    """Return what there is to run: pipelines with their steps in order, and what each step may be given.

    A parameter that isn't given is left out, or null.

    Parameters
    ----------
    models : iterable of Declaration
        Whose pipelines. Their steps are called as Dagster's assets are, ``churn/trained_model``. A pipeline's
        ``partition`` is null if there are none; otherwise a run is told which, by a parameter of the name that its
        ``title`` says. What it ``chooses`` its steps are given unless a run says otherwise.
    """
    pipelines: dict[str, Any] = {}
    steps: dict[str, Any] = {}
    for model in models:
        of, partition = f"{model.name}/", _partition(model)
        pipelines |= {one.name: _pipeline(one, partition, of) for one in pipelines_of(model)}
        steps |= {f"{of}{name}": _step_of(model, step) for name, step in steps_of(model).items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "pipelines": pipelines, "steps": steps}


def _pipeline(pipeline: Pipeline, partition: dict[str, Any] | None, of: str) -> dict[str, Any]:
    steps = [f"{of}{step.name}" for step in pipeline.steps]
    chosen = {"chooses": dict(pipeline.chooses)} if pipeline.chooses else {}
    return {"description": pipeline.description, "partition": partition, "steps": steps, **chosen}


def _partition(model: Declaration) -> dict[str, Any] | None:
    said = model.partitions
    if said is None:
        return None
    listed = {"examples": said.keys} if said.keys else {}
    rule = {"enum": said.keys} if said.keys and not said.more else {"pattern": f"^{PARTITION.pattern}$"}
    about = f"Which {said.name}. One per run."
    return {"title": partition_option(model), "type": "string", **rule, **listed, "description": about}


def _step_of(model: Declaration, step: Step) -> dict[str, Any]:
    from mlops_dagster.modeling.estimators import narrowed_parameters

    def explained(one: Parameter) -> str:
        return explain(one, str(step.defaults[one.name]) if one.name in step.defaults else None)

    narrowed = narrowed_parameters(model)
    parameters = narrowed if step.name == TRAINED_MODEL else step.parameters
    return _step(step, parameters, narrowed, explained, step.defaults)


def _step(
    step: Step,
    parameters: Iterable[Parameter],
    of_grid: Iterable[Parameter],
    explained: Callable[[Parameter], str],
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    def said(one: Parameter) -> dict[str, Any]:
        value = _object({each.name: _values(each) for each in of_grid}) if one.kind == "grid" else _value(one)
        default = {"default": defaults[one.name]} if one.name in defaults else {}
        return {**value, "description": explained(one), **default}

    return {"description": step.description, "parameters": _object({one.name: said(one) for one in parameters})}


def _object(properties: Mapping[str, Any], required: Iterable[str] = ()) -> dict[str, Any]:
    named = {"required": list(required)} if required else {}
    return {"type": "object", "properties": dict(properties), **named, "additionalProperties": False}


def _value(parameter: Parameter) -> dict[str, Any]:
    """Return the schema of a value: type, bounds and choices."""
    said: dict[str, Any] = {"type": TYPES[parameter.kind]}
    if parameter.choices is not None:
        said["enum"] = list(parameter.choices)
    if parameter.minimum is not None:
        said["exclusiveMinimum" if parameter.above else "minimum"] = _bound(parameter.minimum)
    if parameter.maximum is not None:
        said["exclusiveMaximum" if parameter.below else "maximum"] = _bound(parameter.maximum)
    if parameter.whole_above is not None:
        said["anyOf"] = [{"maximum": _bound(parameter.whole_above)}, {"multipleOf": 1}]
    return said


def _bound(number: float) -> float:
    return int(number) if number == int(number) else number


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
