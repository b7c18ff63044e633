"""Running steps and pipelines from a shell: what is checked first, what is said meanwhile, what Dagster is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mlops_dagster.errors import refuse
from mlops_dagster.shell.calling import shell_origin
from mlops_dagster.shell.output import EachSymbol, progress
from mlops_dagster.shell.telling import tell_dagster
from mlops_dagster.spec.contradictions import refuse_one_path
from mlops_dagster.spec.parameters import Pipeline, Step
from mlops_dagster.spec.steps import DATA, GRID_SEARCH_RESULTS

if TYPE_CHECKING:
    from mlops_dagster.chains import Chain, Outcome
    from mlops_dagster.search import Progress as SearchProgress
    from mlops_dagster.session import Session
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.steps import StepReport

Reports = dict[str, dict[str, Any]]
"""The reports of one symbol's steps, by step."""


def open_session(settings: Any, model: Declaration) -> Session:
    """Return the session of a command, whose steps are always run here."""
    from mlops_dagster.session import Session

    if settings.compute != "here" and not settings.inside:
        cure = (
            "this command runs steps in its own process. To run them on Databricks start them in Dagster, or as a "
            "Databricks job (mlops databricks-bundle); to run them here choose another deployment."
        )
        raise refuse("compute", settings.compute, cure)
    if settings.tracking.client != "mlops":
        cure = "dagster-mlflow works inside Dagster only; set MLOPS_TRACKING__CLIENT=mlops for the shell."
        raise refuse("tracking.client", settings.tracking.client, cure)
    return Session(settings, model, shell_origin())


def run_pipeline(
    pipeline: Pipeline,
    partitions: list[str],
    given: Mapping[str, Any],
    settings: Any,
    model: Declaration,
    *,
    as_json: bool,
    show: Callable[[dict[str, Reports]], None],
) -> None:
    """Run a pipeline for each partition, and print what came of it.

    Parameters
    ----------
    pipeline : Pipeline
        Which.
    partitions : list of str
        For which.
    given : mapping
        What each step is given, checked.
    settings : Deployment
        With which tools.
    model : Declaration
        Whose pipeline it is.
    as_json : bool
        Whether all reports are printed as JSON; otherwise `show` prints what people want to know.
    show : callable
        Is called with the reports by partition and step.
    """
    # skops looks for each of SciPy's functions in all modules, in the order of their import. First, it saves a second.
    import scipy.special  # noqa: F401

    from mlops_dagster.chains import Chain

    each = EachSymbol(partitions)
    if len(each.symbols) > 1:
        refuse_one_path(model, given.get(DATA, {}))
    with open_session(settings, model) as session:
        by_step = {one.name: given[one.name] for one in pipeline.steps}
        chain = Chain(settings, model, session.origin, by_step, len(each.symbols))
        if len(each.symbols) > 1 and chain.travels:
            done = _run_many(chain, each)
            result = {"pipeline": pipeline.name, "run_id": session.origin.run_id, "symbols": done}
            each.say(as_json, result, lambda: show(done))
            return
        session.reach_tracking(by_step)
        done = each.do(lambda partition: run_steps(session, pipeline.steps, partition, given))
        result = {"pipeline": pipeline.name, "run_id": session.origin.run_id, "symbols": done}
        each.say(as_json, result, lambda: show(done))


def _run_many(chain: Chain, each: EachSymbol) -> dict[str, Reports]:
    """Run the steps for many partitions side by side, with a line for each that is done."""
    from mlops_dagster.chains import Task
    from mlops_dagster.pool import run_partitions

    done: dict[str, Reports] = {}
    steps = tuple(chain.given)
    columns = (TextColumn("{task.completed} of {task.total}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress, transient=True) as bar:
        task = bar.add_task("", total=len(each.symbols))

        def receive(outcome: Outcome) -> None:
            for report in outcome.reports:
                tell_dagster(chain.deployment, report, chain.origin, lambda text: progress.print(text, markup=False))
            label = called(chain.model, outcome.partition)
            if outcome.failure is not None:
                each.failed[outcome.partition] = outcome.failure
                progress.print(f"{escape(label)}  {outcome.step}  [bold red]failed[/bold red]; the others go on")
            else:
                done[outcome.partition] = {report.step: report.as_dict() for report in outcome.reports}
                progress.print(f"{escape(label)}  [dim]{', '.join(steps)}[/dim]")
            bar.advance(task)

        run_partitions(chain, [Task(one, steps) for one in each.symbols], receive)
    return {one: done[one] for one in each.symbols if one in done}


def run_steps(session: Session, steps: Iterable[Step], symbol: str, given: Mapping[str, Mapping[str, Any]]) -> Reports:
    """Run steps one after the other, each on what those before it have made, whatever else is written meanwhile."""
    reports: Reports = {}
    for step in steps:
        reports[step.name] = run_step(session, step.name, symbol, given[step.name], outputs_of(reports))
    return reports


def outputs_of(reports: Reports) -> dict[str, Any]:
    """Return the tables that steps have made, as the next step takes them."""
    return {table: version for report in reports.values() for table, version in report["outputs"].items()}


def run_step(
    session: Session, step: str, symbol: str, given: Mapping[str, Any], inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Run one step, and return its report."""
    call = partial(session.run, step, symbol, given, inputs=inputs)
    searches = step == GRID_SEARCH_RESULTS
    if session.on_spark(step, given):
        # Opening takes seconds, which nobody should have to guess at.
        progress.print(f"Spark {session.deployment.spark.shown_master}", markup=False)
        session.spark()
    if not searches:
        return say_step(session, step, symbol, call)
    with _bar(called(session.model, symbol), step) as tell:
        return say_step(session, step, symbol, partial(call, progress=tell), spinner=False)


def say_step(
    session: Session, step: str, symbol: str, call: Callable[[], StepReport], *, spinner: bool = True
) -> dict[str, Any]:
    """Call a step; say that it goes on and when it is done, and tell the deployment's Dagster. Return its report."""
    began = time.monotonic()
    label = called(session.model, symbol)
    with progress.status(f"{label}  {step}") if spinner else nullcontext():
        made = call()
    progress.print(f"{label}  {step}  [dim]{made.table.rows} rows, {time.monotonic() - began:.1f} s[/dim]")
    tell_dagster(session.deployment, made, session.origin, lambda text: progress.print(text, markup=False))
    return made.as_dict()


def called(model: Declaration, symbol: str) -> str:
    """Return how people call what a step was run for: a model, or a model's partition."""
    return model.name if model.partitions is None else f"{model.name} {symbol}"


@contextmanager
def _bar(label: str, step: str) -> Iterator[Callable[[SearchProgress], None]]:
    """Show a bar of trees, or of fits, with the time left."""
    columns = (TextColumn(f"{label}  {step}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=progress, transient=True) as bar:
        # Without a total the bar moves to and fro: MLflow is being reached, and the grid planned.
        task = bar.add_task("", total=None, said="")

        def tell(at: SearchProgress) -> None:
            said = f"{at.done:,} of {at.all:,} {at.unit}"
            if at.seconds_left:
                said += f", {at.seconds_left:,.0f} s left"
            bar.update(task, completed=at.done, total=at.all, said=said)

        yield tell
