"""What the assets, checks and jobs of one model share: names, partitions, config, where its steps run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import dagster as dg
import yaml

from mlops_dagster.errors import ParameterError, refuse
from mlops_dagster.resources import key_of
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.contradictions import refuse_one_path
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.parameters import Parameter, Pipeline, Step, check_partition
from mlops_dagster.spec.parameters import explain as describe
from mlops_dagster.spec.project import find_model, model_names
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import MlflowTracker
from mlops_dagster.steps.versions import declared_code_version

# What a model's steps read of each other.
_READS: Mapping[str, tuple[str, ...]] = {
    names.TRAINING_SET: (names.DATA,),
    names.TRAINED_MODEL: (names.TRAINING_SET,),
    names.CHAMPION_MODEL: (names.TRAINED_MODEL,),
    names.GRID_SEARCH_RESULTS: (names.TRAINING_SET,),
    names.PREDICTIONS: (names.DATA, names.CHAMPION_MODEL),
    names.PREDICTION_QUALITY: (names.PREDICTIONS, names.DATA),
}


class OfModel:
    """A model as Dagster's definitions need it.

    Parameters
    ----------
    declaration : Declaration
        What it is.
    dataset : bool
        Whether only the table is meant that the model shares with others.
    """

    def __init__(self, declaration: Declaration, *, dataset: bool = False) -> None:
        self.declaration, self.dataset = declaration, dataset

    @cached_property
    def steps(self) -> Mapping[str, Step]:
        """The steps by name, in an order in which they can run."""
        steps = names.steps_of(self.declaration)
        return {names.DATA: steps[names.DATA]} if self.dataset else steps

    @property
    def own_steps(self) -> Mapping[str, Step]:
        """The steps without that of a table which is shared: it has its asset once."""
        shared = self.declaration.data_owner != self.name
        return {name: step for name, step in self.steps.items() if not (shared and name == names.DATA)}

    @cached_property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """What there is to run."""
        return () if self.dataset else names.pipelines_of(self.declaration)

    def pipeline(self, step: str) -> Pipeline | None:
        """Return what makes a step's table, the first if there are several."""
        return next((one for one in self.pipelines if any(each.name == step for each in one.steps)), None)

    @property
    def name(self) -> str:
        """What the model, or the shared table, is called."""
        return self.declaration.data_owner if self.dataset else self.declaration.name

    @property
    def group(self) -> str:
        """The group of the assets, one for all that share a table: Dagster's graphs show each group as a closed box."""
        return self.declaration.data_owner

    @property
    def compute(self) -> str:
        """The key of the resource that runs the steps; each model has its own, whatever else is there."""
        return key_of("compute", self.name)

    @property
    def io_manager(self) -> str:
        """The key of what gives the model's tables to other assets as values."""
        return key_of("tables", self.name)

    @cached_property
    def partitions(self) -> dg.PartitionsDefinition[str] | None:
        """None, those that the declaration lists, or those that the data have."""
        said = self.declaration.partitions
        if said is None:
            return None
        if said.keys is not None and not said.more:
            return dg.StaticPartitionsDefinition(said.keys)
        return dg.DynamicPartitionsDefinition(name=f"{self.declaration.data_owner}_{said.name}")

    @property
    def grid(self) -> tuple[Parameter, ...]:
        """The parameters that a search may vary."""
        return names.parameters_of(self.declaration)

    @property
    def grid_examples(self) -> tuple[str, str | None]:
        """How people write a grid: by lists, and by ranges if there are numbers."""
        preset = next(iter(self.declaration.search.presets.values())) if self.declaration.search else {}
        lists = {name: list(values) for name, values in preset.items() if isinstance(values, list)}
        numbers = ((name, one.default) for name, one in self.declaration.parameters.items())
        ranges: dict[str, Any] = next(
            (
                {name: {"start": one, "stop": 3 * one, "step": one}}
                for name, one in numbers
                if isinstance(one, int | float) and not isinstance(one, bool) and one > 0
            ),
            {},
        )
        return _on_one_line(lists or preset), _on_one_line(ranges) if ranges else None

    def named(self, name: str) -> str:
        """Return the name of a sensor or a schedule of the model's, or of the table that it shares."""
        return f"{self.name}_{name}" if self.dataset else self.declaration.named(name)

    def has(self, run: dg.DagsterRun) -> bool:
        """Whether a run makes any of the model's tables."""
        keys = {self.key(step) for step in self.own_steps}
        its_job = run.job_name in {one.name for one in self.pipelines}
        return its_job or bool(keys & (run.asset_selection or set()))

    def key(self, step: str) -> dg.AssetKey:
        """Return the key of a step's asset."""
        return dg.AssetKey([self.declaration.data_owner if step == names.DATA else self.declaration.name, step])

    def op(self, step: str) -> str:
        """Return what run config calls a step's asset."""
        return "__".join(self.key(step).path)

    def code_version(self, step: str) -> str:
        """Return the version of what decides what a step makes."""
        return declared_code_version(self.declaration, step)

    def explain(self, parameter: Parameter, default: Any = None) -> str:
        """Describe a parameter for the launchpad."""
        return describe(parameter, None if default is None else str(default))

    def tools(self, resources: Any) -> tuple[Store, MlflowTracker]:
        """Return where the model's tables and runs are kept."""
        store, tracker = (getattr(resources, key_of(one, self.name)) for one in ("store", "tracker"))
        return store, tracker

    @property
    def tool_keys(self) -> set[str]:
        """The keys of the resources that :meth:`tools` looks at."""
        return {key_of(one, self.name) for one in ("store", "tracker")}

    # ---------------------------------------------------------------------------------------------- refusing a run

    def refuse_bad_run(self, run: dg.DagsterRun, partition: str) -> None:
        """Refuse a run if any of its steps has a bad parameter, whichever step is asked first.

        Dagster checks names and types when a run is launched, but bounds only when a step reads its config. Without
        this, ``max_depth: 0`` would show only after data and training set had been made.

        A backfill gives every partition the same config, so a path in it needs a place for the partition.

        Raises
        ------
        dagster.Failure
            With the parameter's name, its value and the cure. Not retried, since nothing would change.
        """
        ops: Any = run.run_config.get("ops") or {}
        if self.dataset:
            # Its table is made before any of the models' steps could refuse theirs.
            defs = self.declaration.folder.parent
            for name in {op.rpartition("__")[0] for op in ops} & set(model_names(defs)):
                OfModel(find_model(name, defs)).refuse_bad_run(run, partition)
        given = {step: ops[self.op(step)].get("config") or {} for step in self.steps if self.op(step) in ops}
        try:
            check_partition(partition)
            for step, config in given.items():
                self._check(step, config)
            self._check_path(run, given)
        except ParameterError as error:
            metadata = self._config_without(error, given)
            raise dg.Failure(str(error), metadata=metadata, allow_retries=False) from error

    def _check(self, step: str, config: Mapping[str, Any]) -> None:
        from mlops_dagster.steps.checking import resolve

        resolve(self.declaration, step, search_parameters(config) if searches(self.steps[step]) else config)

    def _check_path(self, run: dg.DagsterRun, given: Mapping[str, Mapping[str, Any]]) -> None:
        path = next((config["path"] for config in given.values() if config.get("path") is not None), None)
        if path is not None and {"dagster/backfill", "dagster/asset_partition_range_start"} & set(run.tags):
            refuse_one_path(self.declaration, {"path": path})

    def _config_without(self, error: ParameterError, given: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
        """Return the run's config without the parameter that was refused, for the launchpad: its default then holds."""
        name = str(error).partition("=")[0]
        if not any(name in config for config in given.values()):
            return {}
        kept = {step: {key: value for key, value in config.items() if key != name} for step, config in given.items()}
        ops = {"ops": {self.op(step): {"config": config} for step, config in kept.items() if config}}
        # Of a failure's metadata Dagster's page shows nothing longer than a line without a click.
        return {f"config_without_{name}": dg.MetadataValue.text(_on_one_line(ops if ops["ops"] else {}))}


def searches(step: Step) -> bool:
    """Whether a step takes a grid."""
    return any(one.kind == "grid" for one in step.parameters)


def search_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a search as the shell has them: lists and ranges are one grid.

    Parameters
    ----------
    config : mapping
        As users wrote it, or as the step's config has it, defaults filled in.

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If a parameter has a list and a range.
    """
    given = {name: value for name, value in config.items() if name not in ("grid", "ranges")}
    grid: dict[str, Any] = {}
    for values in (config.get("grid"), config.get("ranges")):
        for name, some in (values or {}).items():
            if some is not None and name in grid:
                raise refuse(f"ranges.{name}", some, "the grid has a list for it; give one of them.")
            if some is not None:
                grid[name] = some
    if config.get("grid") is not None or config.get("ranges") is not None:
        given["grid"] = grid
    return given


def _on_one_line(said: Mapping[str, Any]) -> str:
    return yaml.safe_dump(said, sort_keys=False, default_flow_style=True, width=10_000).strip()


def deps_of(model: OfModel, step: str) -> list[dg.AssetKey]:
    """Return what a model's step reads: tables of its own, and the asset that has its rows."""
    said = model.declaration.predictions
    foreign = {names.DATA: model.declaration.data, names.PREDICTIONS: said.data if said else None}.get(step)
    tables = [model.key(one) for one in _READS.get(step, ())]
    return tables + ([dg.AssetKey.from_user_string(foreign.asset)] if foreign and foreign.asset else [])
