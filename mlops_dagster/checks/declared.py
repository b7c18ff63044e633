"""What Dagster checks about each partition of a declared model, and says in words: no gate depends on them."""

import json
from collections.abc import Mapping

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.checks.build_model import as_registered
from mlops_dagster.checks.each_partition import check_of_each_partition
from mlops_dagster.checks.search import search_checks
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import trusted_types
from mlops_dagster.stack.registry import Registry
from mlops_dagster.steps import Inputs
from mlops_dagster.steps.declared.findings import beats_baseline, questions_of
from mlops_dagster.steps.findings import Finding

_OF_PREDICTIONS = {"predictions_are_current", "features_have_not_drifted"}  # the others are about their quality


def checks_of(model: OfModel, assets: Mapping[str, dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Make the checks of a declared model's assets, given by their steps."""
    declaration = model.declaration
    assert declaration is not None

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
        return as_registered(tables, registry, trusted_types(declaration))

    checks += [training_set_leaks_nothing, model_beats_baseline, champion_is_what_was_registered]
    if search := assets.get(names.GRID_SEARCH_RESULTS):
        checks += search_checks(search, model)
    for ask in questions_of(declaration).values():
        step = names.PREDICTIONS if ask.__name__ in _OF_PREDICTIONS else names.PREDICTION_QUALITY
        checks.append(check_of_each_partition(assets[step], model=model)(ask))
    return checks


def _of_data(model: OfModel, data: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    declaration = model.declaration
    assert declaration is not None

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
