"""What Dagster checks about each partition of a model, and says in words: no gate depends on them."""

import json
from collections.abc import Mapping, Sequence

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.checks.each_partition import check_of_each_partition
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import trusted_types
from mlops_dagster.stack.registry import CHAMPION, ModelRefused, Registry
from mlops_dagster.steps import Inputs
from mlops_dagster.steps.champion import champion_in
from mlops_dagster.steps.questions import Finding, beats_baseline, questions_of

_OF_PREDICTIONS = {"predictions_are_current", "features_have_not_drifted"}  # the others are about their quality


def checks_of(model: OfModel, assets: Mapping[str, dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Make the checks of a model's assets, given by their steps."""
    declaration = model.declaration
    checks = [_of_data(model, data)] if (data := assets.get(names.DATA)) else []
    if model.dataset:
        return checks

    @check_of_each_partition(assets[names.TRAINING_SET], model=model)
    def training_set_leaks_nothing(tables: Inputs, registry: Registry) -> Finding:
        """Nothing in the training set tells the answers of the test rows."""
        from mlops_dagster.modeling.leaks import find_leaks
        from mlops_dagster.modeling.training_set import TrainingSet

        frame, table = tables.read(names.TRAINING_SET)
        leaks = find_leaks(TrainingSet.from_table(frame, table.metadata))
        return Finding(not leaks, " ".join(leaks) or "No leak was found.", {"leaks": len(leaks)})

    @check_of_each_partition(assets[names.TRAINED_MODEL], model=model)
    def model_beats_baseline(tables: Inputs, registry: Registry) -> Finding:
        """The model is better than its baseline on rows that it has never seen."""
        _, table = tables.read(names.TRAINED_MODEL)
        return beats_baseline(declaration, json.loads(table.metadata["metrics"]))

    @check_of_each_partition(assets[names.CHAMPION_MODEL], severity=dg.AssetCheckSeverity.ERROR, model=model)
    def champion_is_what_was_registered(tables: Inputs, registry: Registry) -> Finding:
        """The champion has the alias, can be loaded, and is the very model that was registered."""
        return _as_registered(tables, registry, trusted_types(declaration))

    checks += [training_set_leaks_nothing, model_beats_baseline, champion_is_what_was_registered]
    if search := assets.get(names.GRID_SEARCH_RESULTS):
        checks += _of_search(model, search)
    for ask in questions_of(declaration).values():
        step = names.PREDICTIONS if ask.__name__ in _OF_PREDICTIONS else names.PREDICTION_QUALITY
        checks.append(check_of_each_partition(assets[step], model=model)(ask))
    return checks


def _of_data(model: OfModel, data: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    declaration = model.declaration

    @check_of_each_partition(data, blocking=True, severity=dg.AssetCheckSeverity.ERROR, model=model)
    def data_keep_the_contract(tables: Inputs, registry: Registry) -> Finding:
        """The stored rows satisfy the contract that they were written under, read back from the table."""
        from mlops_dagster.modeling.contract import check_contract
        from mlops_dagster.modeling.violations import ContractError

        frame, table = tables.read(names.DATA)
        try:
            check_contract(declaration, frame, source=f"table {table.uri}, version {table.version}")
        except ContractError as error:
            return Finding(False, str(error))
        return Finding(True, "They do.", {"rows": table.rows, "table_version": table.version})

    return data_keep_the_contract


def _of_search(model: OfModel, search: dg.AssetsDefinition) -> list[dg.AssetChecksDefinition]:
    @check_of_each_partition(search, model=model)
    def no_candidate_failed(tables: Inputs, registry: Registry) -> Finding:
        """Every candidate of the grid could be fitted and scored on every fold."""
        frame, _ = tables.read(names.GRID_SEARCH_RESULTS)
        failed = frame[frame["mean_test_score"].isna()]
        first = "" if failed.empty else f"the first is {failed['params'].iloc[0]}."
        said = f"{len(failed)} of {len(frame)} have no score, {first}" if first else "All could be scored."
        return Finding(failed.empty, said, {"candidates": len(frame), "failed_candidates": len(failed)})

    @check_of_each_partition(search, model=model)
    def best_is_inside_the_grid(tables: Inputs, registry: Registry) -> Finding:
        """No parameter's best value is the smallest or largest that was tried; a better one might lie beyond it."""
        from mlops_dagster.modeling.search_results import best_at_the_edge

        frame, _ = tables.read(names.GRID_SEARCH_RESULTS)
        edges = best_at_the_edge(frame, model.grid)
        said = " ".join(edges) or "The best candidate lies inside the grid."
        return Finding(not edges, said, {"at_the_edge": len(edges)})

    return [no_candidate_failed, best_is_inside_the_grid]


def _as_registered(tables: Inputs, registry: Registry, trusted: Sequence[str]) -> Finding:
    champion = champion_in(tables.newest(names.CHAMPION_MODEL))
    if champion is None:
        return Finding(None, "there is no champion; no model has been good enough so far.")
    try:
        registry.load(tables.symbol, *champion, trusted=trusted)
    except ModelRefused as error:
        return Finding(False, str(error))
    holder = registry.holder(tables.symbol, CHAMPION)
    if holder != champion:
        other = "nobody has the alias" if holder is None else f"the alias has version {holder.version}"
        said = f"The table says version {champion.version}, {other}: decide again (mlops promote)."
        return Finding(False, said)
    numbers = {"model_version": champion.version, "model_digest": champion.model_digest}
    return Finding(True, f"Version {champion.version} was loaded.", numbers)
