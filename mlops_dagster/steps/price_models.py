"""The step `champion_model` of prices: both models on the same days, and the training set that a model's recipe makes.

What is decided is written by :mod:`mlops_dagster.steps.promotion`, as of any model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlops_dagster import pipelines
from mlops_dagster.stack.registry import ModelRefused
from mlops_dagster.steps.champion import champion_in
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.promotion import challenger_of, decision_row, rolled_back_in, write_decision
from mlops_dagster.steps.report import StepReport

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.ml.gate import Decision, Measured
    from mlops_dagster.ml.recipes import TrainingSet
    from mlops_dagster.stack.registry import RegisteredVersion, Registry, VersionKey
    from mlops_dagster.stack.store import Store
    from mlops_dagster.stack.tracking import Origin, Tracker


def champion_model(
    symbol: str,
    given: Mapping[str, object],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    inputs: Pins | None = None,
) -> StepReport:
    """Let the symbol's newest model take the champion's place if it is better, and write down why or why not.

    Parameters
    ----------
    given : mapping
        ``margin``, ``beat_persistence``, ``allow_leaks`` as in `pipelines.GATE`.
    store : Store
        Holds the tables `prices`, `training_set` and `trained_model`; gets a row in the table `champion_model`.
    tracker : Tracker
        Whose registry holds the models.

    Raises
    ------
    ParameterError, TableNotFound, StoreError, TrackingError
        The champion is who it was.
    ModelRefused
        If the challenger can't be loaded, or isn't what was registered. The champion is who it was.
    """
    pipelines.check_symbol(symbol)
    rules = {**pipelines.GATE_DEFAULTS, **pipelines.check_parameters(pipelines.GATE, given)}
    registry = tracker.registry
    tables = Inputs(symbol, store, inputs)

    def decide_on(history: pd.DataFrame | None) -> dict[str, Any]:
        return _judge(symbol, rules, history, tables, registry)

    report = write_decision(symbol, decide_on, store=store, tracker=tracker, origin=origin)
    return replace(report, inputs=tables.used)


def _judge(
    symbol: str, rules: Mapping[str, Any], history: pd.DataFrame | None, tables: Inputs, registry: Registry
) -> dict[str, Any]:
    from mlops_dagster.ml import gate
    from mlops_dagster.ml.evaluation import find_leaks
    from mlops_dagster.ml.prices import PriceDataError, validate_prices
    from mlops_dagster.ml.recipes import TrainingSet

    model, registered, frame, table = challenger_of(tables, registry)
    data = TrainingSet.from_table(frame, table.metadata)
    # Those that its training set was made of, so that both models are judged by the same.
    prices, _ = tables.read("prices", digest=table.metadata["prices_digest"])
    price_problem = None
    try:
        validate_prices(prices, source="the table prices")
    except PriceDataError as error:
        price_problem = str(error)

    key = champion_in(history)
    champion = None if key is None else key.version
    rival, rival_data, problem = _champion(symbol, key, data, prices, registry)
    knows = None
    if rival is not None and rival[1].tags["data_version"] != table.digest:
        knows = rival[1].tags["knows_until"]
    days = gate.days_to_judge_on(data, rival_data, knows)
    decision: Decision
    measured: Measured | None = None
    if rival_data is not None and rival_data.horizon != data.horizon:
        mine, theirs = (f"{days} day{'s'[: days > 1]} ahead" for days in (data.horizon, rival_data.horizon))
        reason = f"It forecasts {mine}, champion version {champion} forecasts {theirs}."
        decision = gate.Decision(False, "not_comparable", reason)
    elif len(days) < gate.MIN_ROWS:
        rows = f"{len(days)} test row{' is' if len(days) == 1 else 's are'}"
        reason = f"Only {rows} new to both it and champion version {champion}; {gate.MIN_ROWS} are needed."
        decision = gate.Decision(False, "not_comparable", reason)
    else:
        measured = gate.Measured(
            challenger=gate.squared_error(model, data, days),
            persistence=gate.persistence_error(data, days),
            champion=None if rival is None or rival_data is None else gate.squared_error(rival[0], rival_data, days),
            rows=len(days),
            first=str(days.iloc[0].date()),
            last=str(days.iloc[-1].date()),
        )
        decision = gate.decide(
            measured,
            gate.Rules(**rules),
            leaks=find_leaks(data),
            champion=champion,
            champion_problem=problem,
            price_problem=price_problem,
            is_champion=registered.key == key,
            rolled_back=registered.model_digest in rolled_back_in(history),
        )
    row: dict[str, str | float | None] = {
        "first_day": measured.first if measured else None,
        "last_day": measured.last if measured else None,
        "challenger_error": measured.challenger if measured else math.nan,
        "champion_error": math.nan if measured is None or measured.champion is None else measured.champion,
        "persistence_error": measured.persistence if measured else math.nan,
        "rows": float(measured.rows) if measured else math.nan,
    }
    return decision_row(decision, registered, key, problem, rules, row)


def _champion(
    symbol: str, champion: VersionKey | None, data: TrainingSet, prices: pd.DataFrame, registry: Registry
) -> tuple[tuple[Any, RegisteredVersion] | None, TrainingSet | None, str | None]:
    """Load the champion with a training set of these prices by its own recipe, or say why it can't be used."""
    if champion is None:
        return None, None, None
    try:
        loaded = registry.load(symbol, *champion)
    except ModelRefused as error:
        return None, None, error.why
    tags = loaded[1].tags
    same = (tags["recipe"], tags["horizon"], tags["test_size"]) == (
        data.recipe,
        str(data.horizon),
        repr(data.test_size),
    )
    try:
        its_data = data if same else training_set_of(*loaded, prices)
        refuse_other_features(loaded[0], its_data)
    except ModelRefused as error:
        return None, None, error.why
    return loaded, its_data, None


def training_set_of(model: Any, registered: RegisteredVersion, prices: pd.DataFrame) -> TrainingSet:
    """Make a training set of these prices by a model's own recipe, horizon and test size.

    Raises
    ------
    ModelRefused
        If the recipe no longer has the features that the model asks for.
    ParameterError
        If the prices are too few.
    """
    data = by_its_recipe(registered, prices)
    refuse_other_features(model, data)
    return data


def by_its_recipe(registered: RegisteredVersion, prices: pd.DataFrame) -> TrainingSet:
    """Make the same without the model itself, and so without looking whether its features are still there."""
    from mlops_dagster.ml.recipes import make_training_set

    tags = registered.tags
    return make_training_set(
        prices, recipe=tags["recipe"], horizon=int(tags["horizon"]), test_size=float(tags["test_size"])
    )


def refuse_other_features(model: Any, data: TrainingSet) -> None:
    """Refuse a model that asks for other features than a training set has."""
    asks_for = list(model.feature_names_in_)
    if asks_for != list(data.features):
        raise ModelRefused(f"the model asks for the features {asks_for}, which recipe {data.recipe} no longer has.")
