"""What a declaration says that is right by itself, and wrong beside something else that it says."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from mlops_dagster.errors import refuse
from mlops_dagster.spec.model import NAME, Dataset, Declaration
from mlops_dagster.spec.steps import kind_of, steps_of


def contradictions(said: Declaration) -> Iterator[tuple[Sequence[str | int], str]]:
    """Find what is right by itself and wrong beside something else: where it stands, and a sentence with the cure."""
    columns = None if isinstance(said.contract, str) else list(said.contract)

    def refers(place: Sequence[str | int], column: str | None) -> Iterator[tuple[Sequence[str | int], str]]:
        if column is not None and columns is not None and column not in columns:
            meant = difflib.get_close_matches(column, columns, n=1)
            cure = f"did you mean {meant[0]}?" if meant else f"there are {', '.join(columns)}."
            yield place, f"{'.'.join(map(str, place))}={column!r}: the contract has no such column; {cure}"

    yield from refers(["target", "column"], said.target.column)
    yield from refers(["time"], said.time)
    yield from refers(["group"], said.group)
    for at, column in enumerate(said.key):
        yield from refers(["key", at], column)
    for at, column in enumerate(said.gate.slices):
        yield from refers(["gate", "slices", at], column)
    if isinstance(said.features, list):
        for at, column in enumerate(said.features):
            yield from refers(["features", at], column)
            if column == said.target.column and said.target.horizon is None:
                yield (
                    ["features", at],
                    f"features: {column} is the target; a model that is told the answer learns nothing.",
                )
    if said.partitions and not by_path(said):
        yield from refers(["partitions", "name"], said.partitions.name)
    cv = said.search.cv.kind if said.search else None
    for column, needs, place, kind in (
        ("time", said.split.kind == "chronological", ["split", "kind"], said.split.kind),
        ("group", said.split.kind == "group", ["split", "kind"], said.split.kind),
        ("time", cv == "chronological", ["search", "cv", "kind"], cv),
        ("group", cv == "group", ["search", "cv", "kind"], cv),
        ("time", said.target.horizon is not None, ["target", "horizon"], said.target.horizon),
        ("time", said.baseline.kind in ("persistence", "seasonal_naive"), ["baseline", "kind"], said.baseline.kind),
    ):
        if needs and getattr(said, column) is None:
            yield place, f"{'.'.join(place)}={kind!r} needs `{column}`: name the column."
    ahead = said.target.horizon is not None
    if said.target.learn != "value" and not ahead:
        yield ["target", "learn"], f"target.learn={said.target.learn!r} is for forecasts: give target.horizon, too."
    if said.baseline.kind in ("persistence", "seasonal_naive") and not ahead:
        yield ["baseline"], f"baseline.kind={said.baseline.kind!r} is for forecasts: give target.horizon, or another."
    classes = said.task == "classification"
    if classes and ahead:
        yield ["target", "horizon"], "target.horizon is for task regression: forecasts of classes aren't there."
    only = {"mean": False, "median": False, "prior": True, "stratified": True}
    if only.get(said.baseline.kind, classes) != classes:
        yield ["baseline"], f"baseline.kind={said.baseline.kind!r} isn't for task {said.task}."
    for place, kind in ((["split", "kind"], said.split.kind), (["search", "cv", "kind"], cv)):
        if kind == "stratified" and not classes:
            yield place, f"{'.'.join(place)}='stratified' needs classes; the task is regression."
    for at, one in enumerate(said.predictions.output if said.predictions else []):
        if (one in ("class", "probabilities")) != classes:
            yield ["predictions", "output", at], f"predictions.output: {one} isn't for task {said.task}."
    taken = _taken(said)
    for above, named in ((["parameters"], said.parameters), (["data", "parameters"], said.data.parameters)):
        for name, parameter in named.items():
            whole = ".".join([*above, name])
            its = kind_of(parameter)
            for key in ("minimum", "maximum", "choices"):
                of, words = (("text",), "a text") if key == "choices" else (("integer", "number"), "a number")
                if getattr(parameter, key) is not None and its not in of:
                    yield [*above, name, key], f"{whole}.{key} is for {words}; this parameter's type is {its}."
            if not NAME.fullmatch(name):
                cure = "; `argument` has the estimator's" if len(above) == 1 else ""
                yield [*above, name], f"{whole}: give small letters, digits and _{cure}."
            elif name in taken or (len(above) == 2 and name in said.parameters):
                cure = "; call it otherwise, `argument` has the estimator's." if len(above) == 1 else "; rename it."
                yield [*above, name], f"{whole}: a run has a parameter of this name already{cure}"
    if said.search:
        for preset, grid in said.search.presets.items():
            for name in grid:
                if name not in said.parameters:
                    meant = difflib.get_close_matches(name, said.parameters, n=1)
                    cure = (
                        f"did you mean {meant[0]}?" if meant else f"there are {', '.join(said.parameters) or 'none'}."
                    )
                    yield (
                        ["search", "presets", preset, name],
                        f"search.presets.{preset}.{name}: no such parameter; {cure}",
                    )
    if said.predictions and said.predictions.data and said.predictions.data.dataset:
        yield (
            ["predictions", "data", "dataset"],
            "predictions.data.dataset: leave data out, or give files or a function.",
        )
    if said.gate.metric is not None and said.gate.metric not in said.metrics:
        yield ["gate", "metric"], f"gate.metric={said.gate.metric!r} isn't among metrics: {', '.join(said.metrics)}."


def _taken(said: Declaration) -> set[str]:
    """Return the names of what can be given to a run, whatever the declaration calls its own parameters."""
    data = said.data.model_copy(update={"parameters": {}})
    bare = said.model_copy(update={"parameters": {}, "data": data})
    of_commands = {"partition", "all_partitions", "deployment", "as_json"}
    return of_commands | {one.name for step in steps_of(bare).values() for one in step.parameters}


def by_path(said: Dataset) -> bool:
    """Whether each partition is a file of its own, or a query."""
    name = said.partitions.name if said.partitions else ""
    data = said.data
    if data.files is not None:
        return "{" + name + "}" in data.files.path
    if data.sql is not None:
        return re.search(rf":{name}\b", data.sql.query) is not None
    return data.function is not None


def refuse_one_path(said: Dataset, given: Mapping[str, object]) -> None:
    """Refuse a path that would give each of several partitions the same rows.

    Raises
    ------
    ParameterError
        If each partition is a file of its own, and the path doesn't say where its name stands.
    """
    name = said.partitions.name if said.partitions else ""
    path = given.get("path")
    if name and by_path(said) and path is not None and "{" + name + "}" not in str(path):
        raise refuse("path", path, same_rows(name))


def same_rows(name: str) -> str:
    """Say what is wrong with one path for several partitions."""
    return f"every {name} would get the same rows; write {{{name}}} where the {name} stands in the path."
