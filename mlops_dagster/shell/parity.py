"""`mlops parity`: whether two stacks, or two runs, have made the same, and what differs if they haven't."""

from __future__ import annotations

import os
from typing import Annotated, Any, NoReturn

import typer

from mlops_dagster.errors import refuse
from mlops_dagster.shell.output import AsJson, handle_errors, open_tracker, out, print_json, progress
from mlops_dagster.spec.model import Declaration
from mlops_dagster.spec.parameters import check_partition
from mlops_dagster.spec.project import find_model, model_meant

_SIDE = "A deployment: a name below deployments/, or the path of a YAML file. With @RUN one run of it: the id of a "
_SIDE += "Dagster run, of a command's, or of MLflow's."


def parity(
    a: Annotated[str, typer.Argument(help=_SIDE, show_default=False)],
    b: Annotated[str, typer.Argument(help="The same for the other side.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Which model. Default: as of other commands.", show_default=False),
    ] = None,
    symbol: Annotated[
        list[str] | None,
        typer.Option(
            *("--symbol", "-s", "--partition", "-p"),
            help="Which of the model's partitions. Default: all that a side has.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what two deployments, or two runs, have made: tables, metrics, model, MLflow, champion.

    Exit status: 0 the same, 1 something differs, 2 refused.

    Example: mlops parity deployments/local.yaml deployments/spark.yaml --symbol GSPC
    """
    with handle_errors(as_json):
        declaration = model_meant() if model is None else find_model(model)
        what = declaration.partitions.name if declaration.partitions else "partition"
        for one in symbol or ():
            check_partition(one, what)
        sides = [_Side(a, declaration), _Side(b, declaration)]
        if (sides[0].store.root, sides[0].run) == (sides[1].store.root, sides[1].run):
            _refuse_the_same(*sides)
        symbols = symbol or sorted({one for side in sides for one in side.symbols()})
        if not symbols:
            raise refuse(what, None, "neither side has anything yet; run a pipeline on both.")
        verdicts = {one: _compare(one, *sides) for one in symbols}
        for one, verdict in verdicts.items():
            if not verdict:
                raise refuse(what, one, f"neither side has anything of {one}; run a pipeline on both.")
        differing = sum(bool(said["differences"]) for verdict in verdicts.values() for said in verdict)
        if as_json:
            print_json({"a": a, "b": b, "same": not differing, "symbols": verdicts})
        else:
            _print(a, b, verdicts, differing)
    if differing:
        raise typer.Exit(1)


class _Side:
    """One side: a deployment's tools, and perhaps a run."""

    def __init__(self, said: str, model: Declaration) -> None:
        from mlops_dagster.stack.deployment_files import load_deployment
        from mlops_dagster.stack.store import store_of

        name, _, self.run = said.partition("@")
        self.settings: Any = load_deployment(name)
        self.store = store_of(self.settings, model)
        self.tracker = open_tracker(self.settings, model)

    def symbols(self) -> set[str]:
        """Return the symbols that have any table."""
        from mlops_dagster.steps.parity import STEPS

        return {symbol for step in STEPS for symbol in self.store.symbols(step)}

    def left_behind(self, symbol: str) -> Any:
        from mlops_dagster.steps.parity import left_behind

        return left_behind(symbol, store=self.store, tracker=self.tracker, run=self.run or None)


def _refuse_the_same(a: _Side, b: _Side) -> NoReturn:
    said = sorted(name for name in os.environ if name.startswith(("MLOPS_STORE", "MLOPS_HOME")))
    why = f"; the environment overrides both files: {', '.join(said)}" if said else ""
    cure = (
        f"both sides are the same tables, {a.store.root}{why}. Name two deployments with homes of their own, or runs."
    )
    raise refuse("B", b.store.root, cure)


def _compare(symbol: str, a: _Side, b: _Side) -> list[dict[str, Any]]:
    from mlops_dagster.steps.parity import compare

    with progress.status(f"{symbol}  reading both sides"):
        return _said(compare(a.left_behind(symbol), b.left_behind(symbol)))


def _said(compared: list[Any]) -> list[dict[str, Any]]:
    return [{"what": one.what, "size": one.size, "differences": one.differences} for one in compared]


def _print(a: str, b: str, verdicts: dict[str, list[dict[str, Any]]], differing: int) -> None:
    out.print(f"A is {a}, B is {b}.", markup=False)
    for symbol, verdict in verdicts.items():
        for said in verdict:
            if not said["differences"]:
                out.print(f"{symbol}  {said['what']}: the same ({said['size']})", markup=False)
                continue
            out.print(f"{symbol}  {said['what']}: different", markup=False)
            for sentence in said["differences"]:
                out.print(f"    {sentence}", markup=False)
    if differing:
        out.print(f"{differing} of {sum(map(len, verdicts.values()))} differ.")
    else:
        out.print("Everything that was compared is the same, to the last bit.")
