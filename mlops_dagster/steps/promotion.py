"""The step `champion_model`: the gate, and the way back.

Who is champion is written in the table `champion_model`, one row per decision, and the registry's alias follows it. A
row is written only if no other has been since the table was read, so of two promotions at the same moment one decides
again on what the other left. A process that is killed between the two leaves an alias that the next decision mends, as
it mends one that somebody moved by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlops_dagster import pipelines
from mlops_dagster.errors import refuse
from mlops_dagster.stack.registry import CHAMPION, ModelRefused
from mlops_dagster.steps.champion import (
    TABLE,
    champion_in,
    champions_in,
    refuse_other_features,
    training_set_of,
)
from mlops_dagster.steps.growing_tables import append_rows
from mlops_dagster.steps.inputs import Inputs, Pins
from mlops_dagster.steps.report import StepReport, table_summary, with_pictures

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.ml.gate import Decision, Measured
    from mlops_dagster.ml.recipes import TrainingSet
    from mlops_dagster.stack.registry import RegisteredVersion, Registry, VersionKey
    from mlops_dagster.stack.store import Store, TableVersion
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

    report = _write(symbol, decide_on, store=store, tracker=tracker, origin=origin)
    return replace(report, inputs=tables.used)


def rollback(symbol: str, version: str | None = None, *, store: Store, tracker: Tracker, origin: Origin) -> StepReport:
    """Make the champion before the present one the champion again, or any version that once was.

    Parameters
    ----------
    version : str, optional
        Which version. Not given: the champion before.
    store, tracker, origin
        As for :func:`champion_model`.

    Raises
    ------
    ParameterError
        If there was no such champion.
    ModelRefused
        If it can't be loaded any more, or another model has its number now. The champion is who it was.
    """
    pipelines.check_symbol(symbol)
    registry = tracker.registry

    def decide_on(history: pd.DataFrame | None) -> dict[str, Any]:
        champion = champion_in(history)
        earlier = [one for one in champions_in(history) if one != champion]
        if version is None and not earlier:
            before = "the first" if champion is None else champion.version
            raise refuse("symbol", symbol, f"there is no champion before {before}.")
        named = [one for one in earlier if version in (None, one.version)]
        if not named:
            known = ", ".join(dict.fromkeys(one.version for one in earlier)) or "none"
            raise refuse("version", version, f"give one that was champion before: {known}.")
        # Of several that had this number the one that has it now.
        there = None if version is None else registry.get(symbol, version).key
        chosen, digest = there if there in named else named[-1]
        registry.load(symbol, chosen, digest)
        return {
            "challenger": chosen,
            "champion_before": champion and champion.version,
            "champion": chosen,
            "promoted": True,
            "outcome": "rolled_back",
            "reason": f"Somebody rolled back from version {champion and champion.version} to version {chosen}.",
            "model_digest": digest,
        }

    return _write(symbol, decide_on, store=store, tracker=tracker, origin=origin)


# --------------------------------------------------------------------------------------------------------- the gate


def _judge(
    symbol: str, rules: Mapping[str, Any], history: pd.DataFrame | None, tables: Inputs, registry: Registry
) -> dict[str, Any]:
    from mlops_dagster.ml import gate
    from mlops_dagster.ml.evaluation import find_leaks
    from mlops_dagster.ml.prices import PriceDataError, validate_prices
    from mlops_dagster.ml.recipes import TrainingSet

    _, trained = tables.read("trained_model")
    challenger = trained.metadata["model_version"]
    model, registered = registry.load(symbol, challenger)
    frame, table = tables.read("training_set", version=int(registered.tags["training_set_version"]))
    data = TrainingSet.from_table(frame, table.metadata)
    if registered.model_digest != trained.metadata["model_digest"] or registered.tags["data_version"] != table.digest:
        raise ModelRefused(f"{registered.uri} isn't the model that the table trained_model names.")
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
            rolled_back=registered.model_digest in _rolled_back(history),
        )
    # Kept out, while there is nobody to stay champion here: whoever reads the reason has to know both.
    besides = "" if problem is None or decision.promote else f" Champion version {champion} can't be used: {problem}"
    return {
        "challenger": challenger,
        "champion_before": champion,
        "champion": challenger if decision.promote else champion,
        "promoted": decision.promote,
        "outcome": decision.outcome,
        "reason": decision.reason + besides,
        "challenger_error": measured and measured.challenger,
        "champion_error": measured and measured.champion,
        "persistence_error": measured and measured.persistence,
        "rows": measured and measured.rows,
        "first_day": measured and measured.first,
        "last_day": measured and measured.last,
        "rules": json.dumps(rules),
        "model_digest": registered.model_digest,
    }


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


# -------------------------------------------------------------------------------------------------------- the table


def _rolled_back(history: pd.DataFrame | None) -> set[str]:
    """Return the digests of the models that somebody took back, unless somebody made them champion again."""
    if history is None:
        return set()
    champions = champions_in(history)
    outcomes = history.loc[history["promoted"].astype(bool), "outcome"]
    after = zip(champions[:-1], outcomes[1:], strict=True)
    backs = {before.model_digest for before, outcome in after if outcome == "rolled_back"}
    return backs - {champion.model_digest for champion in champions[-1:]}


def _write(
    symbol: str,
    decide_on: Callable[[pd.DataFrame | None], dict[str, Any]],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
) -> StepReport:
    """Decide on the history so far, and write the decision unless somebody else has written one meanwhile."""

    def with_decision(history: pd.DataFrame | None) -> tuple[pd.DataFrame, None]:
        row = decide_on(history)
        who = {"by": origin.orchestrator, "run_id": origin.run_id}
        return _with_row(history, {"decided_at": _now(), **row, **who}), None

    whole, table, _ = append_rows(TABLE, symbol, store, with_decision)
    champion = champion_in(whole)
    if champion is not None and (holder := tracker.registry.holder(symbol, CHAMPION)) != champion:
        try:
            tracker.registry.set_alias(symbol, CHAMPION, tracker.registry.get(symbol, *champion).version)
        except ModelRefused:
            # It isn't in this registry, so nobody here is champion.
            if holder is not None:
                tracker.registry.set_alias(symbol, CHAMPION, None)
    return _report(symbol, whole, table, tracker)


_TEXTS = (
    *("challenger", "champion_before", "champion", "outcome", "reason", "first_day", "last_day", "rules"),
    *("model_digest", "by", "run_id"),
)
_NUMBERS = ("challenger_error", "champion_error", "persistence_error", "rows")


def _with_row(history: pd.DataFrame | None, row: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    texts = {name: row.get(name) for name in _TEXTS}
    numbers = {name: float("nan") if row.get(name) is None else float(row[name]) for name in _NUMBERS}
    new = pd.DataFrame(
        {
            "decided_at": pd.Series([row["decided_at"]], dtype="datetime64[us]"),
            **{name: pd.Series([value], dtype=object) for name, value in texts.items()},
            "promoted": pd.Series([bool(row["promoted"])]),
            **{name: pd.Series([value], dtype="float64") for name, value in numbers.items()},
        }
    )
    if history is None:
        return new
    return pd.concat([history.astype(new.dtypes.to_dict()), new], ignore_index=True)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def _report(symbol: str, history: pd.DataFrame, table: TableVersion, tracker: Tracker) -> StepReport:
    from mlops_dagster.ml.champion_plot import champion_plot, to_png

    last = history.iloc[-1]
    champion = champion_in(history)
    report = StepReport(
        step="champion_model",
        symbol=symbol,
        # Nothing downstream changes unless the champion does.
        data_version="no champion" if champion is None else champion.model_digest,
        table=table,
        **table_summary(history),
        facts={
            "promoted": bool(last["promoted"]),
            "outcome": last["outcome"],
            "reason": last["reason"],
            "champion": None if champion is None else champion.version,
            "champion_before": last["champion_before"] if isinstance(last["champion_before"], str) else None,
            "challenger": last["challenger"],
            "model_digest": last["model_digest"],
        },
        metrics={
            name: float(last[name])
            for name in ("challenger_error", "champion_error", "persistence_error")
            if last[name] == last[name]
        },
    )
    key = champion or (last["challenger"], last["model_digest"])
    return with_pictures(report, key, tracker, {"champion_history": to_png(champion_plot(symbol, history))})
