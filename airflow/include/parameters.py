"""The parameters of a DAG, from the manifest that mlops_dagster makes of its pipelines.

What no schema can say, `mlops step` says before the first step of a run works.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.sdk import Param, conf
from airflow.sdk.exceptions import AirflowFailException

SECTION = "mlops"
SEARCH = "grid_search_results"
_FIRST = ("trained_model", SEARCH)
_NO_RULES = ("type", "enum", "description", "default")


def refuse(option: str, value: str, cure: str) -> AirflowFailException:
    """Say what is wrong with an option of Airflow's configuration, in the form of `mlops`: name, value, cure."""
    return AirflowFailException(f"[{SECTION}] {option}={value!r}: {cure}")


def read_file(option: str, default: str, parse: Callable[[str], Any], parts: tuple[str, ...], command: str) -> Any:
    """Read the file that an option names, by default one of this folder; `command` writes it.

    Raises
    ------
    AirflowFailException
        If it can't be read, or lacks one of its parts.
    """
    file = Path(conf.get(SECTION, option, fallback=str(Path(__file__).with_name(default))))
    try:
        said = parse(file.read_text())
        _ = [said[part] for part in parts]
    except Exception as error:  # noqa: BLE001 - each parser has its own
        cure = f"it can't be read ({type(error).__name__}: {error}). Write it: {command} {file}"
        raise refuse(option, str(file), cure) from None
    return said


_MANIFEST = read_file("manifest", "manifest.json", json.loads, ("pipelines", "steps"), "mlops manifest >")
PIPELINES, STEPS = _MANIFEST["pipelines"], _MANIFEST["steps"]


def task_of(step: str) -> str:
    """Return what the task of a step is called; the step itself is called ``churn/trained_model``."""
    return step.rpartition("/")[2]


def params_of(pipeline: str) -> dict[str, Param]:
    """Return the parameters of a DAG: what a run is for, those of the step that learns, then the others by step.

    Null is "not given": the declaration or the deployment says it then. What the pipeline chooses is shown.
    """
    params = {}
    if partition := PIPELINES[pipeline]["partition"]:
        # Without an example the form asks for it.
        default = {"default": partition["examples"][0]} if "examples" in partition else {}
        params[partition["title"]] = Param(**default, **partition)
    for step in _steps(pipeline):
        shown = {} if task_of(step) in _FIRST else {"section": task_of(step)}
        for name, schema in STEPS[step]["parameters"]["properties"].items():
            params[name] = _param(schema, PIPELINES[pipeline].get("chooses", {}).get(name), title=name, **shown)
    return params


def _steps(pipeline: str) -> list[str]:
    return sorted(PIPELINES[pipeline]["steps"], key=lambda step: task_of(step) not in _FIRST)


def _param(schema: dict[str, Any], chosen: Any, **shown: Any) -> Param:
    said = {"type": ["null", schema["type"]], "description": schema["description"], **shown}
    if "enum" in schema:
        said["enum"] = [None, *schema["enum"]]
    if rules := {name: rule for name, rule in schema.items() if name not in _NO_RULES}:
        # Not beside the type: there the form would turn what is out of bounds into the bound, without a word.
        said["allOf"] = [rules]
    # The form shows a switch, which has no place for null: it stands as it is if nobody touches it.
    return Param(schema.get("default") if schema["type"] == "boolean" and chosen is None else chosen, **said)


def example_of(pipeline: str) -> dict[str, Any]:
    """Return what a run could be given: what it is for, and the first parameter that has a default."""
    partition = PIPELINES[pipeline]["partition"]
    what = {partition["title"]: partition.get("examples", ["..."])[0]} if partition else {}
    properties = STEPS[_steps(pipeline)[0]]["parameters"]["properties"]
    return what | dict([(name, said["default"]) for name, said in properties.items() if "default" in said][:1])


def given_in(pipeline: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what a run is for, empty if there is nothing to say, and what else it was given.

    The form shows a grid that isn't given as ``{}``.
    """
    title = (PIPELINES[pipeline]["partition"] or {}).get("title")
    given = {name: value for name, value in params.items() if name != title and value not in (None, {})}
    return params[title] if title else "", given
