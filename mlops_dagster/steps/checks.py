"""What is checked of each partition after a step has made its table, and said in words: no gate depends on it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import trusted_types
from mlops_dagster.stack.store import TableNotFound
from mlops_dagster.steps.champion import champion_in
from mlops_dagster.steps.questions import Finding, beats_baseline, questions_of

if TYPE_CHECKING:
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.registry import Registry
    from mlops_dagster.steps.inputs import Inputs

Ask = Callable[["Inputs", "Registry"], Finding]
_OF_PREDICTIONS = {"predictions_are_current", "features_have_not_drifted"}  # the others are about their quality


@dataclass(frozen=True)
class Check:
    """A question about what a step has made.

    Attributes
    ----------
    name, description : str
        What it is called, and what is true if it passes.
    step : str
        Whose table it is about.
    ask : callable
        Answers it from the tables and the registry.
    severe : bool
        Whether it is an error if it fails; otherwise a warning.
    blocking : bool
        Whether nothing is made of a table that fails it.
    """

    name: str
    description: str
    step: str
    ask: Ask
    severe: bool = False
    blocking: bool = False

    def answer(self, tables: Inputs, registry: Registry) -> Finding:
        """Answer it; what can't be judged yet is neither good nor bad."""
        try:
            return self.ask(tables, registry)
        except TableNotFound as error:
            return Finding(None, str(error))


def checks_of(declaration: Declaration) -> list[Check]:
    """Return what is checked of a model's tables, in the order of its steps."""

    def check(step: str, ask: Callable[..., Finding], *, severe: bool = False, blocking: bool = False) -> Check:
        return Check(ask.__name__, inspect.getdoc(ask) or "", step, partial(ask, declaration), severe, blocking)

    found = [
        check(names.DATA, data_keep_the_contract, severe=True, blocking=True),
        check(names.TRAINING_SET, training_set_leaks_nothing),
        check(names.TRAINED_MODEL, model_beats_baseline),
        check(names.CHAMPION_MODEL, champion_is_what_was_registered, severe=True),
    ]
    if declaration.search:
        asks = (no_candidate_failed, best_is_inside_the_grid)
        found += [check(names.GRID_SEARCH_RESULTS, ask) for ask in asks]
    for ask in questions_of(declaration).values():
        step = names.PREDICTIONS if ask.__name__ in _OF_PREDICTIONS else names.PREDICTION_QUALITY
        found.append(Check(ask.__name__, inspect.getdoc(ask) or "", step, ask))
    return found


def data_keep_the_contract(declaration: Declaration, tables: Inputs, registry: Registry) -> Finding:
    """The stored rows satisfy the contract that they were written under, read back from the table."""
    from mlops_dagster.modeling.contract import check_contract
    from mlops_dagster.modeling.violations import ContractError

    frame, table = tables.read(names.DATA)
    try:
        check_contract(declaration, frame, source=f"table {table.uri}, version {table.version}")
    except ContractError as error:
        return Finding(False, str(error))
    return Finding(True, "They do.", {"rows": table.rows, "table_version": table.version})


def training_set_leaks_nothing(declaration: Declaration, tables: Inputs, registry: Registry) -> Finding:
    """Nothing in the training set tells the answers of the test rows."""
    from mlops_dagster.modeling.leaks import find_leaks
    from mlops_dagster.modeling.training_set import TrainingSet

    frame, table = tables.read(names.TRAINING_SET)
    leaks = find_leaks(TrainingSet.from_table(frame, table.metadata))
    return Finding(not leaks, " ".join(leaks) or "No leak was found.", {"leaks": len(leaks)})


def model_beats_baseline(declaration: Declaration, tables: Inputs, registry: Registry) -> Finding:
    """The model is better than its baseline on rows that it has never seen."""
    _, table = tables.read(names.TRAINED_MODEL)
    return beats_baseline(declaration, json.loads(table.metadata["metrics"]))


def champion_is_what_was_registered(declaration: Declaration, tables: Inputs, registry: Registry) -> Finding:
    """The champion has the alias, can be loaded, and is the very model that was registered."""
    from mlops_dagster.stack.registry import CHAMPION, ModelRefused

    champion = champion_in(tables.newest(names.CHAMPION_MODEL))
    if champion is None:
        return Finding(None, "there is no champion; no model has been good enough so far.")
    try:
        registry.load(tables.symbol, *champion, trusted=trusted_types(declaration))
    except ModelRefused as error:
        return Finding(False, str(error))
    holder = registry.holder(tables.symbol, CHAMPION)
    if holder != champion:
        other = "nobody has the alias" if holder is None else f"the alias has version {holder.version}"
        said = f"The table says version {champion.version}, {other}: decide again (mlops promote)."
        return Finding(False, said)
    numbers = {"model_version": champion.version, "model_digest": champion.model_digest}
    return Finding(True, f"Version {champion.version} was loaded.", numbers)


def no_candidate_failed(declaration: Declaration, tables: Inputs, registry: Registry) -> Finding:
    """Every candidate of the grid could be fitted and scored on every fold."""
    frame, _ = tables.read(names.GRID_SEARCH_RESULTS)
    failed = frame[frame["mean_test_score"].isna()]
    first = "" if failed.empty else f"the first is {failed['params'].iloc[0]}."
    said = f"{len(failed)} of {len(frame)} have no score, {first}" if first else "All could be scored."
    return Finding(failed.empty, said, {"candidates": len(frame), "failed_candidates": len(failed)})


def best_is_inside_the_grid(declaration: Declaration, tables: Inputs, registry: Registry) -> Finding:
    """No parameter's best value is the smallest or largest that was tried; a better one might lie beyond it."""
    from mlops_dagster.modeling.search_results import best_at_the_edge

    frame, _ = tables.read(names.GRID_SEARCH_RESULTS)
    edges = best_at_the_edge(frame, names.parameters_of(declaration))
    said = " ".join(edges) or "The best candidate lies inside the grid."
    return Finding(not edges, said, {"at_the_edge": len(edges)})
