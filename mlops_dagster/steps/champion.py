"""Who is champion, and loading it as those steps need it that forecast with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import MlopsError
from mlops_dagster.stack.registry import CHAMPION, ModelRefused, VersionKey
from mlops_dagster.steps.growing_tables import what_is_there

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.ml.recipes import TrainingSet
    from mlops_dagster.stack.registry import RegisteredVersion, Registry
    from mlops_dagster.stack.store import Store
    from mlops_dagster.steps.inputs import Inputs

TABLE = "champion_model"


class NoChampion(MlopsError):  # noqa: N818 it reads better where it is caught
    """There is no champion to forecast with, or not one champion; the message says why, and the cure."""


def champions_in(history: pd.DataFrame | None) -> list[VersionKey]:
    """Return who has been champion, one after the other; the last is champion after the last decision."""
    if history is None:
        return []
    changes = history[history["promoted"].astype(bool)]
    return [VersionKey(*one) for one in zip(changes["champion"], changes["model_digest"], strict=True)]


def champion_in(history: pd.DataFrame | None) -> VersionKey | None:
    """Return who is champion after the last decision, or None if there is none."""
    champions = champions_in(history)
    return champions[-1] if champions else None


def champion_of(symbol: str, store: Store) -> VersionKey | None:
    """Return who is champion, or None if there is none."""
    return champion_in(what_is_there(TABLE, symbol, store)[0])


def named_champion(symbol: str, tables: Inputs, registry: Registry) -> VersionKey:
    """Return whom both the table and the registry's alias call champion.

    Raises
    ------
    NoChampion
        If there is none, or they don't agree. The table is the truth, but while somebody has moved the alias by hand
        nobody knows which model is meant.
    ModelRefused
        If the champion isn't in this registry.
    """
    history = tables.newest(TABLE)
    champion = champion_in(history)
    if history is None:
        raise NoChampion(
            f"{symbol} has no champion: no model was judged yet. Build one: mlops build-model --symbol {symbol}, "
            "or build_model_pipeline in Dagster."
        )
    if champion is None:
        raise NoChampion(
            f"{symbol} has no champion: the gate has kept every model out so far. The last, version "
            f"{history['challenger'].iloc[-1]}: {history['reason'].iloc[-1]} Build a better one, or judge it by other "
            f"rules: mlops promote --symbol {symbol}, with its options."
        )
    holder = registry.holder(symbol, CHAMPION)
    if holder != champion:
        registry.get(symbol, *champion)
        alias = "nobody has the alias" if holder is None else f"version {holder.version} has the alias"
        raise NoChampion(
            f"{symbol}: the table {TABLE} says that version {champion.version} is champion, but {alias} {CHAMPION!r} "
            f"in {registry.name_of(symbol)}. Decide again, which mends the alias (mlops promote --symbol {symbol}), or "
            f"bring another champion back (mlops rollback --symbol {symbol} --to VERSION)."
        )
    return champion


def load_champion(symbol: str, tables: Inputs, registry: Registry) -> tuple[Any, RegisteredVersion]:
    """Load the champion.

    Returns
    -------
    estimator, RegisteredVersion
        The fitted forest, and what was written down about it.

    Raises
    ------
    NoChampion
        As :func:`named_champion` says.
    ModelRefused
        If it can't be loaded, or isn't what was registered.
    """
    try:
        return registry.load(symbol, *named_champion(symbol, tables, registry))
    except ModelRefused as error:
        raise ModelRefused(f"the champion of {symbol} can't be used: {error.why}") from None


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
