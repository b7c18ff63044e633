"""What Dagster checks about each partition of a declared model, and says in words: no gate depends on them."""

import json
from collections.abc import Mapping

import dagster as dg

from mlops_dagster.assets.of_model import OfModel
from mlops_dagster.checks.build_model import as_registered
from mlops_dagster.checks.each_partition import check_of_each_partition
from mlops_dagster.checks.search import search_checks
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import function_of, trusted_types
from mlops_dagster.spec.model import Declaration
from mlops_dagster.stack.registry import Registry
from mlops_dagster.steps import Inputs
from mlops_dagster.steps.findings import Finding

_FEWEST = 20  # predictions; of fewer a metric says more of chance than of the model


def checks_of(model: OfModel, assets: Mapping[str, dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Make the checks of a declared model's assets, given by their steps."""
    declaration = model.declaration
    assert declaration is not None

    @check_of_each_partition(assets[names.DATA], blocking=True, severity=dg.AssetCheckSeverity.ERROR, model=model)
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
        return _beats_baseline(declaration, json.loads(table.metadata["metrics"]))

    @check_of_each_partition(assets[names.CHAMPION_MODEL], severity=dg.AssetCheckSeverity.ERROR, model=model)
    def champion_is_what_was_registered(tables: Inputs, registry: Registry) -> Finding:
        """The champion has the alias, can be loaded, and is the very model that was registered."""
        return as_registered(tables, registry, trusted_types(declaration))

    checks = [data_keep_the_contract, training_set_leaks_nothing, model_beats_baseline, champion_is_what_was_registered]
    if search := assets.get(names.GRID_SEARCH_RESULTS):
        checks += search_checks(search, model)
    if quality := assets.get(names.PREDICTION_QUALITY):

        @check_of_each_partition(quality, model=model)
        def predictions_beat_baseline(tables: Inputs, registry: Registry) -> Finding:
            """Predictions whose truth has come are better than the baseline was on the test rows."""
            _, scored = tables.read(names.PREDICTION_QUALITY)
            _, trained = tables.read(names.TRAINED_MODEL)
            measured = json.loads(scored.metadata["metrics"])
            if measured["rows_scored"] < _FEWEST:
                return Finding(None, f"the truth of {scored.rows} predictions has come; {_FEWEST} are needed.")
            return _beats_baseline(declaration, json.loads(trained.metadata["metrics"]) | measured)

        checks.append(predictions_beat_baseline)
    return checks


def _beats_baseline(declaration: Declaration, measured: Mapping[str, float]) -> Finding:
    from mlops_dagster.modeling.metrics import metric_of

    said = declaration.gate.metric or declaration.metrics[0]
    metric = metric_of(said, declaration, function_of(declaration, said))
    ours, theirs = measured[metric.name], measured[f"{metric.name}_baseline"]
    better = metric.better(ours, theirs)
    return Finding(
        better,
        f"{metric.name} is {ours:.5g}, that of the baseline ({declaration.baseline.kind}) {theirs:.5g}; the "
        f"{'larger' if metric.greater_is_better else 'smaller'} the better.",
        {metric.name: ours, f"{metric.name}_baseline": theirs},
    )
