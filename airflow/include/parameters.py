"""What a run may be given: the parameters of `pipelines.py` as Airflow's, and the checks that its schema can't make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from include import grids, pipelines

_TYPES: Mapping[str, str] = {
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "text": "string",
    "grid": "object",
}
# The same in every recipe.
_SWITCHES: Mapping[str, Any] = {**pipelines.GATE_DEFAULTS, **pipelines.RECIPE_DEFAULTS[pipelines.RECIPES[0]]}


def params_of(pipeline: pipelines.Pipeline) -> dict[str, Param]:
    """Return the parameters of a DAG: the symbol, those of the step that learns, then the others by step.

    Null is "not given": the recipe or the deployment says it then.
    """
    symbol = Param(
        pipelines.BUNDLED_SYMBOLS[0],
        type="string",
        pattern=r"^[A-Za-z0-9^](?!.*\.\.)[A-Za-z0-9^=._-]{0,31}$",
        examples=list(pipelines.BUNDLED_SYMBOLS),
        title="symbol",
        description="Which symbol, for example GSPC or IXIC. One per run.",
    )
    params = {"symbol": symbol}
    learns = (pipelines.FOREST, pipelines.SEARCH)
    for step in sorted(pipeline.steps, key=lambda step: step.parameters not in learns):
        section = None if step.parameters in learns else step.name
        params |= {parameter.name: _param(parameter, section) for parameter in step.parameters}
    return params


def _param(parameter: pipelines.Parameter, section: str | None) -> Param:
    said: dict[str, Any] = {"type": ["null", _TYPES[parameter.kind]], "title": parameter.name}
    if rules := _rules(parameter):
        # Not beside the type: there the form would turn what is out of bounds into the bound, without a word.
        said["allOf"] = rules
    if parameter.choices is not None:
        said["enum"] = [None, *parameter.choices]
    if section is not None:
        said["section"] = section
    # The form shows a switch, which has no place for null: it stands as it is if nobody touches it.
    default = _SWITCHES[parameter.name] if parameter.kind == "boolean" else None
    return Param(default, description=pipelines.explain(parameter.name), **said)


def _rules(parameter: pipelines.Parameter) -> list[dict[str, Any]]:
    """Return what a JSON schema can say of a parameter's values."""
    if parameter.kind == "grid":
        values = {"type": ["array", "object"], "minItems": 1, "minProperties": 1}
        named = {one.name: values for one in pipelines.FOREST}
        return [{"properties": named, "additionalProperties": False}]
    bounds = {"minimum": parameter.minimum, "maximum": parameter.maximum}
    rules: list[dict[str, Any]] = [{name: bound} for name, bound in bounds.items() if bound is not None]
    if parameter.whole_above is not None:
        rules.append({"anyOf": [{"maximum": parameter.whole_above}, {"multipleOf": 1}]})
    return rules


def check_run(pipeline: pipelines.Pipeline, conf: Mapping[str, object], params: Mapping[str, Any]) -> None:
    """Refuse a run before its first step does anything.

    Parameters
    ----------
    pipeline : Pipeline
        What is to run.
    conf : mapping
        What the run was triggered with. Airflow lets any key pass, so a misspelt one would change nothing.
    params : mapping
        The resolved parameters.

    Raises
    ------
    include.errors.ParameterError
        For a key that no step knows, and for values that don't go together.
    """
    known = params_of(pipeline)
    for name, value in conf.items():
        if name not in known:
            cure = f"{pipeline.name} has no such parameter; there are {', '.join(known)}."
            raise pipelines.refuse(name, value, cure)
    pipelines.check_symbol(params["symbol"])
    for step in pipeline.steps:
        grids.check_step(step, given_to(step, params), params.get("recipe") or pipelines.RECIPES[0])


def given_to(step: pipelines.Step, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step is given; what isn't given stays so. The form shows a grid that isn't given as ``{}``."""
    names = [parameter.name for parameter in step.parameters]
    return {name: params[name] for name in names if params.get(name) not in (None, {})}
