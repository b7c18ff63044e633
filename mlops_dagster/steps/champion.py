"""Who is champion, and loading it as those steps need it that predict with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_dagster.errors import MlopsError
from mlops_dagster.spec.functions import trusted_types
from mlops_dagster.spec.project import needs_no_name
from mlops_dagster.spec.steps import CHAMPION_MODEL, partition_option, pipelines_of
from mlops_dagster.stack.registry import CHAMPION, ModelRefused, VersionKey
from mlops_dagster.steps.growing_tables import what_is_there

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.registry import RegisteredVersion, Registry
    from mlops_dagster.stack.store import Store
    from mlops_dagster.steps.inputs import Inputs


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
    return champion_in(what_is_there(CHAMPION_MODEL, symbol, store)[0])


class Called(NamedTuple):
    """How people call a model.

    Attributes
    ----------
    name : str
        In sentences: ``churn``, ``demand of north``.
    options : str
        After a command: ``churn``, ``demand --region north``.
    pipeline : str
        The pipeline that builds it, as Dagster shows it.
    """

    name: str
    options: str
    pipeline: str


def called(symbol: str, model: Declaration) -> Called:
    """Return how people call a model of one partition."""
    pipeline = pipelines_of(model)[0].name
    if model.partitions is None:
        return Called(model.name, model.name, pipeline)
    named = "" if needs_no_name(model) else f"{model.name} "
    return Called(f"{model.name} of {symbol}", f"{named}--{partition_option(model)} {symbol}", pipeline)


def named_champion(symbol: str, tables: Inputs, registry: Registry, model: Declaration) -> VersionKey:
    """Return whom both the table and the registry's alias call champion.

    Raises
    ------
    NoChampion
        If there is none, or they don't agree. The table is the truth, but while somebody has moved the alias by hand
        nobody knows which model is meant.
    ModelRefused
        If the champion isn't in this registry.
    """
    name, options, pipeline = called(symbol, model)
    history = tables.newest(CHAMPION_MODEL)
    champion = champion_in(history)
    if history is None:
        raise NoChampion(
            f"{name} has no champion: no model was judged yet. Build one: mlops build-model {options}, or {pipeline} "
            "in Dagster."
        )
    if champion is None:
        raise NoChampion(
            f"{name} has no champion: the gate has kept every model out so far. The last, version "
            f"{history['challenger'].iloc[-1]}: {history['reason'].iloc[-1]} Build a better one, or judge it by other "
            f"rules: mlops promote {options}, with its options."
        )
    holder = registry.holder(symbol, CHAMPION)
    if holder != champion:
        registry.get(symbol, *champion)
        alias = "nobody has the alias" if holder is None else f"version {holder.version} has the alias"
        raise NoChampion(
            f"{name}: the table {CHAMPION_MODEL} says that version {champion.version} is champion, but {alias} "
            f"{CHAMPION!r} in {registry.name_of(symbol)}. Decide again, which mends the alias "
            f"(mlops promote {options}), or bring another champion back (mlops rollback {options} --to VERSION)."
        )
    return champion


def load_champion(symbol: str, tables: Inputs, registry: Registry, model: Declaration) -> tuple[Any, RegisteredVersion]:
    """Load the champion.

    Returns
    -------
    estimator, RegisteredVersion
        The fitted model, and what was written down about it.

    Raises
    ------
    NoChampion
        As :func:`named_champion` says.
    ModelRefused
        If it can't be loaded, or isn't what was registered.
    """
    try:
        return registry.load(symbol, *named_champion(symbol, tables, registry, model), trusted=trusted_types(model))
    except ModelRefused as error:
        raise ModelRefused(f"the champion of {called(symbol, model).name} can't be used: {error.why}") from None
