"""The commands that search: `mlops search-model` and `mlops cluster-search-model`."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from mlops_dagster import grids, pipelines
from mlops_dagster.errors import ParameterError, json_given, refuse
from mlops_dagster.shell.cache import cache_folder
from mlops_dagster.shell.calling import shell_origin
from mlops_dagster.shell.output import (
    AsJson,
    DeploymentName,
    EachSymbol,
    End,
    Horizon,
    PricePath,
    RandomState,
    Recipe,
    Sha256,
    Source,
    Start,
    Symbols,
    TestSize,
    handle_errors,
    option,
    out,
    outputs_of,
    price_parameters,
    progress,
    run_steps,
    say_next,
    shell_tracker,
    step_done,
)

if TYPE_CHECKING:
    from mlops_dagster.ml.grid_search import Progress as SearchProgress

Preset = Annotated[str | None, option("preset")]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        "-g",
        help="A grid of your own, in place of a preset: max_depth=80,90,100 or n_estimators=100:500:100 (start, stop "
        "included, step). Repeat it for several parameters, or give all as JSON.",
        show_default=False,
    ),
]
Cv = Annotated[str | None, option("cv")]
Folds = Annotated[int | None, option("folds")]
Gap = Annotated[int | None, option("gap")]
Scoring = Annotated[str | None, option("scoring")]
Candidates = Annotated[str | None, option("candidates")]
_STOPPED = "Stopped. The trees that were grown are kept: the same command goes on from there."
PlanOnly = Annotated[bool, typer.Option("--plan", help="Only say what the search would do.")]


def search_model(
    symbol: Symbols,
    preset: Preset = None,
    grid: Grid = None,
    cv: Cv = None,
    folds: Folds = None,
    gap: Gap = None,
    scoring: Scoring = None,
    random_state: RandomState = None,
    candidates: Candidates = None,
    recipe: Recipe = "honest",
    horizon: Horizon = None,
    test_size: TestSize = None,
    source: Source = None,
    path: PricePath = None,
    sha256: Sha256 = None,
    start: Start = None,
    end: End = None,
    plan: PlanOnly = False,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Search a grid of hyper-parameters on this machine (search_model_pipeline).

    Example: mlops search-model --symbol GSPC --grid max_depth=4,8 --grid n_estimators=50:200:50
    """
    with handle_errors(as_json, _STOPPED):
        given = {"preset": preset, "grid": parse_grid(grid), "cv": cv, "folds": folds, "gap": gap, "scoring": scoring}
        _Searching(pipelines.SEARCH_MODEL, deployment, as_json).run(
            symbol,
            {**given, "random_state": random_state, "candidates": candidates},
            {"recipe": recipe, "horizon": horizon, "test_size": test_size},
            {"source": source, "path": path, "sha256": sha256, "start": start, "end": end},
            plan_only=plan,
        )


def cluster_search_model(
    symbol: Symbols,
    preset: Preset = None,
    grid: Grid = None,
    cv: Cv = None,
    folds: Folds = None,
    gap: Gap = None,
    scoring: Scoring = None,
    random_state: RandomState = None,
    candidates: Candidates = None,
    recipe: Recipe = "honest",
    horizon: Horizon = None,
    test_size: TestSize = None,
    source: Source = None,
    path: PricePath = None,
    sha256: Sha256 = None,
    start: Start = None,
    end: End = None,
    master: Annotated[
        str | None,
        typer.Option(
            help="Which Spark: local[2], spark://host:7077, sc://host:15002, ... Default: as the deployment says.",
            show_default=False,
        ),
    ] = None,
    plan: PlanOnly = False,
    deployment: DeploymentName = None,
    as_json: AsJson = False,
) -> None:
    """Search a grid of hyper-parameters on Spark (cluster_search_model_pipeline).

    Example: mlops cluster-search-model --symbol GSPC --preset small --master 'local[2]'
    """
    with handle_errors(as_json, _STOPPED):
        given = {"preset": preset, "grid": parse_grid(grid), "cv": cv, "folds": folds, "gap": gap, "scoring": scoring}
        _Searching(pipelines.CLUSTER_SEARCH_MODEL, deployment, as_json, master).run(
            symbol,
            {**given, "random_state": random_state, "candidates": candidates},
            {"recipe": recipe, "horizon": horizon, "test_size": test_size},
            {"source": source, "path": path, "sha256": sha256, "start": start, "end": end},
            plan_only=plan,
        )


class _Searching:
    """One call of a search command."""

    def __init__(
        self, pipeline: pipelines.Pipeline, deployment: str | None, as_json: bool, master: str | None = None
    ) -> None:
        self.pipeline = pipeline
        self.step = pipeline.steps[-1].name
        self.deployment = deployment
        self.as_json = as_json
        self.master = master

    def run(
        self,
        symbols: list[str],
        given: dict[str, Any],
        split: dict[str, Any],
        prices: dict[str, Any],
        *,
        plan_only: bool,
    ) -> None:
        for one in symbols:
            pipelines.check_symbol(one)
        pipelines.check_parameters(pipelines.TRAINING_SET.parameters, split)
        grids.resolve_search(split["recipe"], given)

        from mlops_dagster import steps
        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.store import store_of

        settings = load_deployment(self.deployment)
        spark = _spark_settings(settings, self.master)
        where = price_parameters(settings, symbols, prices)
        tracker = shell_tracker(settings)
        store = store_of(settings)
        origin = shell_origin()

        def prepare(one: str) -> dict[str, Any]:
            calls = {
                "prices": partial(steps.prices, one, where, store=store, limits=settings.limits),
                "training_set": partial(steps.training_set, one, split, store=store),
            }
            return run_steps(one, calls, settings, origin)

        each = EachSymbol(symbols)
        reports = each.do(prepare)
        inputs = {one: outputs_of(report) for one, report in reports.items()}
        if plan_only:
            plans = each.do(lambda one: steps.plan_search(one, given, store=store, inputs=inputs[one]))
            planned = {one: plan.as_dict() for one, plan in plans.items()}
            each.say(self.as_json, planned, partial(_print_plans, plans))
            return
        how: Any = {"store": store, "tracker": tracker, "origin": origin, "cache": cache_folder(settings)}

        def search(one: str) -> dict[str, Any]:
            began = time.monotonic()
            with _bar(one, self.step) as tell:
                made = step(one, given, **how, inputs=inputs[one], progress=tell)
            return step_done(one, self.step, made, began, settings, origin)

        with self._stepping(spark) as step:
            found = each.do(search)
        done = {one: {**reports[one], self.step: report} for one, report in found.items()}

        def show() -> None:
            for report in found.values():
                _print_search(report)
            for one, report in list(found.items())[:1]:
                say_next(f"mlops build-model --symbol {one} {_as_options(report['best_parameters'])}")

        each.say(self.as_json, {"pipeline": self.pipeline.name, "run_id": origin.run_id, "symbols": done}, show)

    @contextmanager
    def _stepping(self, spark: Any) -> Iterator[Any]:
        """Yield the step's function; on a cluster with an engine that is open for all symbols."""
        from mlops_dagster import steps

        if self.pipeline is pipelines.SEARCH_MODEL:
            yield steps.grid_search_results
            return
        from mlops_dagster.stack.spark import spark_engine

        # Opening takes seconds, which nobody should have to guess at.
        progress.print(f"Spark {spark.shown_master}", markup=False)
        with spark_engine(spark) as engine:
            yield partial(steps.spark_grid_search_results, engine=engine)


def _print_plans(plans: dict[str, Any]) -> None:
    for symbol, plan in plans.items():
        out.print(f"{symbol}: {plan}", markup=False)
    say_next("the same command without --plan")


def _as_options(parameters: dict[str, Any]) -> str:
    """Write parameters as options of `mlops build-model`.

    Examples
    --------
    >>> _as_options({"max_depth": 80, "bootstrap": False})
    '--max-depth 80 --no-bootstrap'
    """
    options = []
    for name, value in parameters.items():
        option = name.replace("_", "-")
        options.append(f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option} {value}")
    return " ".join(options)


def _spark_settings(settings: Any, master: str | None) -> Any:
    """Return the deployment's Spark, or another in its place."""
    if master is None:
        return settings.spark
    try:
        return type(settings.spark).model_validate({**settings.spark.model_dump(), "master": master})
    except ValueError:
        # It isn't repeated, since a Connect address may hold a token.
        raise ParameterError(
            "--master: give local[N], local[*], spark://host:port or sc://host:port. YARN and Kubernetes: start the "
            "session there with their own tools, and use it by spark.master=active."
        ) from None


def parse_grid(texts: list[str] | None) -> dict[str, Any] | None:
    """Read the options ``--grid``.

    Examples
    --------
    >>> parse_grid(["max_depth=80,90", "n_estimators=100:300:100", "bootstrap=true"])
    {'max_depth': [80, 90], 'n_estimators': {'start': 100, 'stop': 300, 'step': 100}, 'bootstrap': [True]}
    >>> parse_grid(['{"max_features": [2, 0.5]}'])
    {'max_features': [2, 0.5]}

    Raises
    ------
    mlops_dagster.errors.ParameterError
        If one is neither, or names a parameter again.
    """
    if not texts:
        return None
    grid: dict[str, Any] = {}
    for text in texts:
        for name, values in _parse_one(text).items():
            if name in grid:
                raise refuse("grid", text, f"{name} was given before; give all its values at once.")
            grid[name] = values
    return grid


def _parse_one(text: str) -> dict[str, Any]:
    cure = "give max_depth=80,90,100, or n_estimators=100:500:100 (start:stop:step), or JSON."
    if text.lstrip().startswith("{"):
        values: dict[str, Any] = json_given("grid", text, cure)
        return values
    name, equals, listed = text.partition("=")
    if not equals:
        raise refuse("grid", text, cure)
    if ":" not in listed:
        return {name.strip(): [_scalar(value) for value in listed.split(",") if value.strip()]}
    parts = [_scalar(part) for part in listed.split(":")]
    if len(parts) != len(grids.RANGE_KEYS):
        raise refuse("grid", text, cure)
    return {name.strip(): dict(zip(grids.RANGE_KEYS, parts, strict=True))}


def _scalar(text: str) -> Any:
    try:
        return json.loads(text.strip().lower())
    except (ValueError, RecursionError):
        return text.strip()


@contextmanager
def _bar(symbol: str, step: str) -> Iterator[Any]:
    """Show a bar of trees with the time left."""
    columns = (TextColumn(f"{symbol}  {step}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=progress, transient=True) as bar:
        # Without a total the bar moves to and fro: MLflow is being reached, and the grid planned.
        task = bar.add_task("", total=None, said="")

        def tell(at: "SearchProgress") -> None:
            said = f"{at.trees_done:,} of {at.trees:,} trees"
            if at.seconds_left:
                said += f", {at.seconds_left:,.0f} s left"
            bar.update(task, completed=at.trees_done, total=at.trees, said=said)

        yield tell


def _print_search(report: dict[str, Any]) -> None:
    work = report["work"]
    table = Table(title=f"{report['symbol']}: {report['recipe']} recipe", title_justify="left", show_header=False)
    for name, value in report["best_parameters"].items():
        table.add_row(name, str(value))
    table.add_row("score", f"{report['metrics']['best_score']:.6g} ({report['scoring']})")
    table.add_row("scored on", report["cv"])
    failed = f", {report['failed_candidates']:,} failed" if report["failed_candidates"] else ""
    table.add_row("candidates", f"{report['candidates']:,}{failed}")
    grown = f"{work['trees_grown']:,} grown, {work['trees_reused']:,} from the cache, {work['trees_asked']:,} asked for"
    table.add_row("trees", grown)
    table.add_row("MLflow run", report["mlflow_run_id"])
    out.print(table)
