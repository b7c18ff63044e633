"""Who is champion, decided and written down, and the way back: of models of every kind, however they are judged.

Who is champion is written in the table `champion_model`, one row per decision, and the registry's alias follows it. A
row is written only if no other has been since the table was read, so of two promotions at the same moment one decides
again on what the other left. A process that is killed between the two leaves an alias that the next decision mends, as
it mends one that somebody moved by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from mlops_dagster.errors import refuse
from mlops_dagster.spec import steps as names
from mlops_dagster.spec.functions import trusted_types
from mlops_dagster.stack.registry import CHAMPION, ModelRefused
from mlops_dagster.steps.champion import called, champion_in, champions_in
from mlops_dagster.steps.growing_tables import append_rows
from mlops_dagster.steps.inputs import Inputs
from mlops_dagster.steps.report import StepReport, table_summary, with_pictures

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.deployment import Plots
    from mlops_dagster.stack.registry import RegisteredVersion, Registry, VersionKey
    from mlops_dagster.stack.store import Store, TableVersion
    from mlops_dagster.stack.tracking import Origin, Tracker


def rollback(
    symbol: str,
    version: str | None = None,
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    model: Declaration,
    plots: Plots = "always",
) -> StepReport:
    """Make the champion before the present one the champion again, or any version that once was.

    Parameters
    ----------
    version : str, optional
        Which version. Not given: the champion before.
    model : Declaration
        Whose champion.
    plots : {"always", "champion", "never"}
        Whether the champions' history is drawn.

    Raises
    ------
    ParameterError
        If there was no such champion.
    ModelRefused
        If it can't be loaded any more, or another model has its number now. The champion is who it was.
    """
    registry = tracker.registry

    def decide_on(history: pd.DataFrame | None) -> dict[str, Any]:
        champion = champion_in(history)
        earlier = [one for one in champions_in(history) if one != champion]
        if version is None and not earlier:
            before = "the first" if champion is None else champion.version
            raise refuse("model", called(symbol, model).name, f"there is no champion before {before}.")
        named = [one for one in earlier if version in (None, one.version)]
        if not named:
            known = ", ".join(dict.fromkeys(one.version for one in earlier)) or "none"
            raise refuse("version", version, f"give one that was champion before: {known}.")
        # Of several that had this number the one that has it now.
        there = None if version is None else registry.get(symbol, version).key
        chosen, digest = there if there in named else named[-1]
        registry.load(symbol, chosen, digest, trusted=trusted_types(model))
        return {
            "challenger": chosen,
            "champion_before": champion and champion.version,
            "champion": chosen,
            "promoted": True,
            "outcome": "rolled_back",
            "reason": f"Somebody rolled back from version {champion and champion.version} to version {chosen}.",
            "model_digest": digest,
        }

    return write_decision(symbol, decide_on, store=store, tracker=tracker, origin=origin, model=model, plots=plots)


# ---------------------------------------------------------------------------------------------------------- judging


class Decision(Protocol):
    """What a gate says."""

    @property
    def promote(self) -> bool: ...  # noqa: D102

    @property
    def outcome(self) -> str: ...  # noqa: D102

    @property
    def reason(self) -> str: ...  # noqa: D102


def challenger_of(
    tables: Inputs, registry: Registry, declared: Declaration
) -> tuple[Any, RegisteredVersion, pd.DataFrame, TableVersion]:
    """Load the model that the table `trained_model` names, with the training set that it has learned from.

    Raises
    ------
    ModelRefused
        If it can't be loaded, or isn't the model that the table names.
    """
    _, trained = tables.read(names.TRAINED_MODEL)
    model, registered = registry.load(tables.symbol, trained.metadata["model_version"], trusted=trusted_types(declared))
    frame, table = tables.read(names.TRAINING_SET, version=int(registered.tags["training_set_version"]))
    if registered.model_digest != trained.metadata["model_digest"] or registered.tags["data_version"] != table.digest:
        raise ModelRefused(f"{registered.uri} isn't the model that the table trained_model names.")
    return model, registered, frame, table


def rolled_back_in(history: pd.DataFrame | None) -> set[str]:
    """Return the digests of the models that somebody took back, unless somebody made them champion again."""
    if history is None:
        return set()
    champions = champions_in(history)
    outcomes = history.loc[history["promoted"].astype(bool), "outcome"]
    after = zip(champions[:-1], outcomes[1:], strict=True)
    backs = {before.model_digest for before, outcome in after if outcome == "rolled_back"}
    return backs - {champion.model_digest for champion in champions[-1:]}


def decision_row(
    decision: Decision,
    challenger: RegisteredVersion,
    champion: VersionKey | None,
    champion_problem: str | None,
    rules: Mapping[str, Any],
    measured: Mapping[str, str | float | None],
) -> dict[str, Any]:
    """Return a decision as a row of the history.

    Parameters
    ----------
    measured : mapping
        What it was decided on, as columns of one's own: a text or None, or a number or NaN.
    """
    before = None if champion is None else champion.version
    # Kept out, while there is nobody to stay champion here: whoever reads the reason has to know both.
    alone = champion_problem is not None and not decision.promote and champion_problem not in decision.reason
    return {
        "challenger": challenger.version,
        "champion_before": before,
        "champion": challenger.version if decision.promote else before,
        "promoted": decision.promote,
        "outcome": decision.outcome,
        "reason": decision.reason + f" Champion version {before} can't be used: {champion_problem}" * alone,
        **measured,
        "rules": json.dumps(rules),
        "model_digest": challenger.model_digest,
    }


# -------------------------------------------------------------------------------------------------------- the table


def write_decision(
    symbol: str,
    decide_on: Callable[[pd.DataFrame | None], dict[str, Any]],
    *,
    store: Store,
    tracker: Tracker,
    origin: Origin,
    model: Declaration,
    plots: Plots = "always",
    pictures: Callable[[], Mapping[str, bytes]] = dict,
) -> StepReport:
    """Decide on the history so far, and write the decision unless somebody else has written one meanwhile.

    Parameters
    ----------
    decide_on : callable
        From the history so far, None if there is none, to the row that comes next, as :func:`decision_row` makes it.
        Called again if somebody else has decided meanwhile.
    model : Declaration
        Whose champion.
    plots : {"always", "champion", "never"}
        Whether the history is drawn; with "champion" if the champion has changed.
    pictures : callable
        Draws the new champion, if there is one, by the names of the pictures.
    """

    def with_decision(history: pd.DataFrame | None) -> tuple[pd.DataFrame, None]:
        row = decide_on(history)
        who = {"by": origin.orchestrator, "run_id": origin.run_id}
        return _with_row(history, {"decided_at": datetime.now(timezone.utc).replace(tzinfo=None), **row, **who}), None

    whole, table, _ = append_rows(names.CHAMPION_MODEL, symbol, store, with_decision)
    champion, new, registry = champion_in(whole), bool(whole["promoted"].iloc[-1]), tracker.registry
    last = whole.iloc[-1]
    of: RegisteredVersion | tuple[str, str] = champion or (last["challenger"], last["model_digest"])
    if champion is not None and (new or registry.holder(symbol, CHAMPION) != champion):
        try:
            of = registry.get(symbol, *champion)
            registry.set_alias(symbol, CHAMPION, of.version)
        except ModelRefused:
            # It isn't in this registry, so nobody here is champion.
            if registry.holder(symbol, CHAMPION) is not None:
                registry.set_alias(symbol, CHAMPION, None)
    report = _report(symbol, whole, table, model)
    drawn = dict(pictures()) if new else {}
    if plots == "always" or (plots == "champion" and new):
        from mlops_dagster.modeling.champion_plot import champion_plot, to_png

        drawn["champion_history"] = to_png(champion_plot(called(symbol, model).name, whole))
    return with_pictures(report, of, tracker, drawn)


_DTYPES = {datetime: "datetime64[us]", bool: "bool", float: "float64"}


def _with_row(history: pd.DataFrame | None, row: dict[str, Any]) -> pd.DataFrame:
    """Add a row: times first, then texts, booleans and numbers; what the history has and the row hasn't is missing."""
    import pandas as pd

    dtypes = {name: _DTYPES.get(type(value), "object") for name, value in row.items()}
    order = ("datetime64[us]", "object", "bool", "float64")
    new = pd.DataFrame(
        {
            name: pd.Series([row[name]], dtype=dtype)
            for name, dtype in sorted(dtypes.items(), key=lambda one: order.index(one[1]))
        }
    )
    if history is None:
        return new
    whole = pd.concat([history, new], ignore_index=True)
    missing_texts = whole.columns[(whole.dtypes == "object").to_numpy()]
    return whole.astype({name: history[name].dtype for name in history}).assign(
        **{name: whole[name].where(whole[name].notna(), None) for name in missing_texts}
    )


def _report(symbol: str, history: pd.DataFrame, table: TableVersion, model: Declaration) -> StepReport:
    last = history.iloc[-1]
    champion = champion_in(history)
    return StepReport(
        step=names.CHAMPION_MODEL,
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
            for name in history.columns[(history.dtypes == "float64").to_numpy()]
            if name != "rows" and last[name] == last[name]
        },
        model=model.name,
    )
