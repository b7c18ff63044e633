"""Options of commands, made from the parameters of steps and pipelines, in their words."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from mlops_dagster.errors import json_given, refuse
from mlops_dagster.spec.grids import RANGE_KEYS
from mlops_dagster.spec.parameters import Parameter

_TYPES: dict[str, Any] = {"integer": int, "number": float, "boolean": bool, "text": str, "grid": list[str]}
# In a panel of their own: such long names would leave no room for those of other options.
_PANELS = dict.fromkeys(["margin", "confidence", "beat_baseline", "allow_leaks"], "Who becomes champion")


def takes(
    parameters: Sequence[Parameter], explained: Callable[[str], str]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each parameter; those that are given reach it as its argument `given`.

    Parameters
    ----------
    explained : callable
        Returns what is said of the parameter of a name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        options = [
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[_TYPES[one.kind] | None, _option(one, explained)],
            )
            for one in parameters
        ]

        def run(**values: Any) -> None:
            given = {one.name: values.pop(one.name) for one in parameters}
            # Of an option that may be repeated, none is an empty list.
            command(given={name: value for name, value in given.items() if value not in (None, [])}, **values)

        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in signature.parameters.values()]
        at = list(signature.parameters).index("given")
        run.__signature__ = signature.replace(parameters=[*own[:at], *options, *own[at + 1 :]])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _option(one: Parameter, explained: Callable[[str], str]) -> Any:
    if one.kind == "grid":
        said = (
            "A grid of your own, in place of a preset: max_depth=80,90,100 or max_iter=100:500:100 (start, stop "
            "included, step). Repeat it for several parameters, or give all as JSON."
        )
        return typer.Option("--grid", "-g", help=said, show_default=False)
    return typer.Option(help=explained(one.name), show_default=False, rich_help_panel=_PANELS.get(one.name))


def as_options(parameters: dict[str, Any]) -> str:
    """Write parameters as options of a command.

    Examples
    --------
    >>> as_options({"max_depth": 80, "bootstrap": False})
    '--max-depth 80 --no-bootstrap'
    """
    options = []
    for name, value in parameters.items():
        option = name.replace("_", "-")
        options.append(f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option} {value}")
    return " ".join(options)


def parse_grid(texts: list[str]) -> dict[str, Any]:
    """Read the options ``--grid``.

    Examples
    --------
    >>> parse_grid(["max_depth=80,90", "max_iter=100:300:100", "bootstrap=true"])
    {'max_depth': [80, 90], 'max_iter': {'start': 100, 'stop': 300, 'step': 100}, 'bootstrap': [True]}
    >>> parse_grid(['{"max_features": [2, 0.5]}'])
    {'max_features': [2, 0.5]}

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If one is neither, or names a parameter again.
    """
    grid: dict[str, Any] = {}
    for text in texts:
        for name, values in _parse_one(text).items():
            if name in grid:
                raise refuse("grid", text, f"{name} was given before; give all its values at once.")
            grid[name] = values
    return grid


def with_grid(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given with the options ``--grid``, if any, as the grid that they say."""
    return {**given, "grid": parse_grid(given["grid"])} if "grid" in given else dict(given)


def _parse_one(text: str) -> dict[str, Any]:
    cure = "give max_depth=80,90,100, or max_iter=100:500:100 (start:stop:step), or JSON."
    if text.lstrip().startswith("{"):
        values: dict[str, Any] = json_given("grid", text, cure)
        return values
    name, equals, listed = text.partition("=")
    if not equals:
        raise refuse("grid", text, cure)
    if ":" not in listed:
        return {name.strip(): [_scalar(value) for value in listed.split(",") if value.strip()]}
    parts = [_scalar(part) for part in listed.split(":")]
    if len(parts) != len(RANGE_KEYS):
        raise refuse("grid", text, cure)
    return {name.strip(): dict(zip(RANGE_KEYS, parts, strict=True))}


def _scalar(text: str) -> Any:
    try:
        return json.loads(text.strip().lower())
    except (ValueError, RecursionError):
        return text.strip()
