"""The parameters of a DAG, from the manifest that mlops_dagster makes of its pipelines.

What no schema can say, `mlops step` says before the first step of a run works.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow.sdk import Param

MANIFEST: dict[str, Any] = json.loads(Path(__file__).with_name("manifest.json").read_text())
PIPELINES, STEPS = MANIFEST["pipelines"], MANIFEST["steps"]
SEARCHES = ("grid_search_results", "spark_grid_search_results")
_FIRST = ("trained_model", *SEARCHES)
_NO_RULES = ("type", "enum", "description", "default")


def params_of(pipeline: str) -> dict[str, Param]:
    """Return the parameters of a DAG: the symbol, those of the step that learns, then the others by step.

    Null is "not given": the recipe or the deployment says it then.
    """
    symbol = MANIFEST["symbol"]
    params = {"symbol": Param(symbol["examples"][0], title="symbol", **symbol)}
    for step in sorted(PIPELINES[pipeline]["steps"], key=lambda step: step not in _FIRST):
        shown = {} if step in _FIRST else {"section": step}
        for name, schema in STEPS[step]["parameters"]["properties"].items():
            params[name] = _param(schema, title=name, **shown)
    return params


def _param(schema: dict[str, Any], **shown: Any) -> Param:
    said = {"type": ["null", schema["type"]], "description": schema["description"], **shown}
    if "enum" in schema:
        said["enum"] = [None, *schema["enum"]]
    if rules := {name: rule for name, rule in schema.items() if name not in _NO_RULES}:
        # Not beside the type: there the form would turn what is out of bounds into the bound, without a word.
        said["allOf"] = [rules]
    # The form shows a switch, which has no place for null: it stands as it is if nobody touches it.
    return Param(schema["default"] if schema["type"] == "boolean" else None, **said)


def given_in(params: dict[str, Any]) -> dict[str, Any]:
    """Return what a run was given besides its symbol. The form shows a grid that isn't given as ``{}``."""
    return {name: value for name, value in params.items() if name != "symbol" and value not in (None, {})}
