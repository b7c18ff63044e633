"""What the assets, checks and jobs of one model share: names, partitions, config, where its steps run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import dagster as dg
import yaml

from mlops_dagster import grids, pipelines, steps
from mlops_dagster.assets.partitions import SYMBOLS
from mlops_dagster.errors import ParameterError, refuse
from mlops_dagster.resources import key_of
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.contradictions import refuse_one_path, same_rows
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.parameters import Parameter, Pipeline, Step
from mlops_dagster.spec.parameters import explain as describe
from mlops_dagster.spec.project import find_model, model_names
from mlops_dagster.stack.store import Store
from mlops_dagster.stack.tracking import MlflowTracker
from mlops_dagster.steps.declared.versions import declared_code_version


class OfModel:
    """A declared model, or the models of daily prices, as Dagster's definitions need it.

    Parameters
    ----------
    declaration : Declaration, optional
        Not given: the models of daily prices.
    dataset : bool
        Whether only the table is meant that the model shares with others.
    """

    def __init__(self, declaration: Declaration | None = None, *, dataset: bool = False) -> None:
        self.declaration, self.dataset = declaration, dataset

    @cached_property
    def steps(self) -> Mapping[str, Step]:
        """The steps by name, in an order in which they can run."""
        if self.declaration is None:
            return pipelines.STEPS
        steps = names.steps_of(self.declaration)
        return {names.DATA: steps[names.DATA]} if self.dataset else steps

    @property
    def own_steps(self) -> Mapping[str, Step]:
        """The steps without that of a table which is shared: it has its asset once."""
        shared = self.declaration is not None and self.declaration.data_owner != self.name
        return {name: step for name, step in self.steps.items() if not (shared and name == names.DATA)}

    @cached_property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """What there is to run."""
        if self.declaration is None:
            return pipelines.PIPELINES
        return () if self.dataset else names.pipelines_of(self.declaration)

    def pipeline(self, step: str) -> Pipeline | None:
        """Return what makes a step's table, the first if there are several."""
        return next((one for one in self.pipelines if any(each.name == step for each in one.steps)), None)

    @property
    def name(self) -> str:
        """What the model, or the shared table, is called."""
        if self.declaration is None:
            return "stock_prices"
        return self.declaration.data_owner if self.dataset else self.declaration.name

    @property
    def group(self) -> str:
        """The group of the assets. One for all: of several, Dagster's graphs show closed boxes until each is opened."""
        return self.name

    @property
    def compute(self) -> str:
        """The key of the resource that runs the steps; a declared model has its own, whatever else is there."""
        return self._resource("compute")

    def _resource(self, what: str) -> str:
        return key_of(what, None if self.declaration is None else self.name)

    @property
    def io_manager(self) -> str | None:
        """The key of what gives the model's tables to other assets as values."""
        return None if self.declaration is None else self._resource("tables")

    @cached_property
    def partitions(self) -> dg.PartitionsDefinition[str] | None:
        """One for each symbol; of a declared model none, those that it lists, or those that its data have."""
        if self.declaration is None:
            return SYMBOLS
        said = self.declaration.partitions
        if said is None:
            return None
        if said.keys is not None and not said.more:
            return dg.StaticPartitionsDefinition(said.keys)
        return dg.DynamicPartitionsDefinition(name=f"{self.declaration.data_owner}_{said.name}")

    @property
    def grid(self) -> tuple[Parameter, ...]:
        """The parameters that a search may vary."""
        return pipelines.FOREST if self.declaration is None else names.parameters_of(self.declaration)

    @property
    def grid_examples(self) -> tuple[str, str | None]:
        """How people write a grid: by lists, and by ranges if there are numbers."""
        if self.declaration is None:
            return (
                "{max_depth: [80, 90], n_estimators: [100, 200]}",
                "{n_estimators: {start: 100, stop: 500, step: 100}}",
            )
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
        """Return the name of a sensor of the model's: it begins with the model's own."""
        return name if self.declaration is None else f"{self.name}_{name}"

    def has(self, run: dg.DagsterRun) -> bool:
        """Whether a run makes any of the model's tables. Runs of prices aren't told from others."""
        keys = {self.key(step) for step in self.own_steps}
        its_job = run.job_name in {one.name for one in self.pipelines}
        return self.declaration is None or its_job or bool(keys & (run.asset_selection or set()))

    def key(self, step: str) -> dg.AssetKey:
        """Return the key of a step's asset."""
        if self.declaration is None:
            return dg.AssetKey([step])
        return dg.AssetKey([self.declaration.data_owner if step == names.DATA else self.declaration.name, step])

    def op(self, step: str) -> str:
        """Return what run config calls a step's asset."""
        return "__".join(self.key(step).path)

    def code_version(self, step: str) -> str:
        """Return the version of what decides what a step makes."""
        if self.declaration is None:
            return steps.step_code_version(step)
        return declared_code_version(self.declaration, step)

    def explain(self, parameter: Parameter, default: Any = None) -> str:
        """Describe a parameter for the launchpad."""
        if self.declaration is None:
            return pipelines.explain(parameter.name)
        return describe(parameter, None if default is None else str(default))

    def tools(self, resources: Any) -> tuple[Store, MlflowTracker]:
        """Return where the model's tables and runs are kept."""
        store, tracker = (getattr(resources, self._resource(one)) for one in ("store", "tracker"))
        return store, tracker

    @property
    def tool_keys(self) -> set[str]:
        """The keys of the resources that :meth:`tools` looks at."""
        return {self._resource(one) for one in ("store", "tracker")}

    # ---------------------------------------------------------------------------------------------- refusing a run

    def refuse_bad_run(self, run: dg.DagsterRun, partition: str) -> None:
        """Refuse a run if any of its steps has a bad parameter, whichever step is asked first.

        Dagster checks names and types when a run is launched, but bounds only when a step reads its config. Without
        this, ``n_estimators: 0`` would show only after prices and training set had been made.

        A backfill gives every partition the same config, so a path in it needs ``{symbol}``.

        Raises
        ------
        dagster.Failure
            With the parameter's name, its value and the cure. Not retried, since nothing would change.
        """
        ops: Any = run.run_config.get("ops") or {}
        if self.dataset and self.declaration is not None:
            # Its table is made before any of the models' steps could refuse theirs.
            defs = self.declaration.folder.parent
            for name in {op.rpartition("__")[0] for op in ops} & set(model_names(defs)):
                OfModel(find_model(name, defs)).refuse_bad_run(run, partition)
        given = {step: ops[self.op(step)].get("config") or {} for step in self.steps if self.op(step) in ops}
        try:
            if self.declaration is None:
                pipelines.check_symbol(partition)
            for step, config in given.items():
                self._check(step, config, given)
            self._check_path(run, given)
        except ParameterError as error:
            metadata = self._config_without(error, given)
            raise dg.Failure(str(error), metadata=metadata, allow_retries=False) from error

    def _check(self, step: str, config: Mapping[str, Any], run: Mapping[str, Mapping[str, Any]]) -> None:
        checked = search_parameters(config) if searches(self.steps[step]) else config
        if self.declaration is None:
            recipe = run.get(pipelines.TRAINING_SET.name, {}).get("recipe", pipelines.RECIPES[0])
            grids.check_step(self.steps[step], checked, recipe)
        else:
            from mlops_dagster.steps.declared.checking import resolve

            resolve(self.declaration, step, checked)

    def _check_path(self, run: dg.DagsterRun, given: Mapping[str, Mapping[str, Any]]) -> None:
        path = next((config["path"] for config in given.values() if config.get("path") is not None), None)
        if path is None or "dagster/backfill" not in run.tags:
            return
        if self.declaration is not None:
            refuse_one_path(self.declaration, {"path": path})
        elif "{symbol}" not in path:
            raise refuse("path", path, same_rows("symbol"))

    def _config_without(self, error: ParameterError, given: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
        """Return the run's config without the parameter that was refused, for the launchpad: its default then holds."""
        name = str(error).partition("=")[0]
        if not any(name in config for config in given.values()):
            return {}
        kept = {step: {key: value for key, value in config.items() if key != name} for step, config in given.items()}
        ops = {"ops": {self.op(step): {"config": config} for step, config in kept.items() if config}}
        # Of a failure's metadata Dagster's page shows nothing longer than a line without a click.
        return {f"config_without_{name}": dg.MetadataValue.text(_on_one_line(ops if ops["ops"] else {}))}


PRICES = OfModel()


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
