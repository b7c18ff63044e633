"""The state of things, for people: champions, forecasts, builds, searches, and whether something needs a look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_dagster import pipelines
from mlops_dagster.errors import MlopsError
from mlops_dagster.stack.store import TableNotFound
from mlops_dagster.steps.champion import by_its_recipe, champion_in, champion_of
from mlops_dagster.steps.growing_tables import what_is_there

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.stack.registry import Registry
    from mlops_dagster.stack.store import Store

LOOK = "no, look"
_BUILDS = 10  # of each symbol
_PICTURES = 12  # of each kind; more would make a page that nobody scrolls through


@dataclass
class Section:
    """A part of the state: a sentence, a table with a row per symbol or more, and pictures.

    Attributes
    ----------
    title, explanation, begin : str
        What it is about, how to read it, and what to do as long as there is nothing.
    rows : list of tuple of str
        As people read them.
    pictures : list of bytes
        PNG.
    """

    title: str
    explanation: str
    begin: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)


def state_of(store: Store, registry: Registry) -> list[Section]:
    """Return the state of all symbols.

    Parameters
    ----------
    registry : Registry
        Says what the champions have learned from; where it can't, the state says so.

    Raises
    ------
    StoreError
        If a table can't be read.
    """
    return [_forecasts(store), _attention(store, registry), _quality(store), _champions(store), _builds(store),
            _searches(store)]  # fmt: skip


def _forecasts(store: Store) -> Section:
    from mlops_dagster.ml.forecast_plots import price_forecast_plot, to_png

    section = Section(
        "Forecasts",
        "Each champion's forecast of the next day, with its prediction interval.",
        "Forecast: mlops forecast --symbol GSPC",
        ("symbol", "for", "forecast", "change", "interval", "from the price", "of", "by version"),
    )
    for symbol, frame in _tables("price_forecast", store):
        newest = frame.sort_values("Date", kind="stable").iloc[-1]
        section.rows.append(
            (
                symbol,
                f"{newest['TargetDate']:%Y-%m-%d}",
                f"{newest['forecast']:#,.6g}",
                f"{newest['forecast'] / newest['price'] - 1:+.2%}",
                f"{newest['interval']:.0%}: {newest['lower']:#,.6g} to {newest['upper']:#,.6g}",
                f"{newest['price']:#,.6g}",
                f"{newest['Date']:%Y-%m-%d}",
                newest["model_version"],
            )
        )
        if len(section.pictures) < _PICTURES:
            prices, _ = store.read("prices", symbol)
            section.pictures.append(to_png(price_forecast_plot(symbol, prices, frame, newest.to_frame().T)))
    return section


def _attention(store: Store, registry: Registry) -> Section:
    section = Section(
        "Worth a look",
        "Whether forecasts are up to date and as good as expected, and whether the features still look as they did in "
        "training. Dagster's checks ask the same.",
        "Forecast: mlops forecast --symbol GSPC",
        ("symbol", "question", "answer", "in numbers"),
    )
    for symbol, forecasts in _tables("price_forecast", store):
        prices, _ = store.read("prices", symbol)
        late = int((prices["Date"] > forecasts["Date"].max()).sum())
        numbers = f"newest price of {prices['Date'].iloc[-1]:%Y-%m-%d}, newest forecast {late} days behind"
        section.rows.append((symbol, "Is the forecast up to date?", _answer(late == 0), numbers))
        section.rows += [(symbol, *row) for row in _drift(symbol, prices, store, registry)]
    return section


def _drift(symbol: str, prices: pd.DataFrame, store: Store, registry: Registry) -> Iterator[tuple[str, str, str]]:
    from mlops_dagster.ml import drift
    from mlops_dagster.ml.forecast_quality import of_newest_horizon
    from mlops_dagster.ml.forecasting import rows_learned_from

    question = "Do the features look as in training?"
    try:
        registered = registry.get(symbol, *(champion_of(symbol, store) or ("",)))
        data = by_its_recipe(registered, prices)
        learned, features = rows_learned_from(data, registered.tags["knows_until"]), list(data.features)
        name, most = next(
            iter(drift.share_outside(learned[features], data.frame[features].tail(drift.RECENT_ROWS)).items())
        )
        numbers = f"{most:.0%} of the last {drift.RECENT_ROWS} values of {name} are unusual"
        yield question, _answer(most <= drift.MOST_OUTSIDE), numbers
    except (MlopsError, ValueError) as error:
        yield question, "not known", str(error)
    frame = what_is_there("forecast_quality", symbol, store)[0]
    scored = None if frame is None else of_newest_horizon(frame)
    if scored is None or len(scored) < drift.RECENT_ROWS:
        days = 0 if scored is None else len(scored)
        yield "Is it as good as expected?", "not yet", f"{days} days are scored, {drift.RECENT_ROWS} are needed"
        return
    error_drift = drift.error_drift(scored)
    numbers = f"error of {error_drift.recent:.2%} of the price, expected {error_drift.expected:.2%}"
    yield "Is it as good as expected?", _answer(not error_drift.ratio > drift.MOST_ERROR), numbers
    chance = drift.chance_of_so_few_inside(scored)
    last = scored.tail(drift.COVERAGE_DAYS)
    numbers = f"{last['inside'].mean():.0%} of {len(last)} days inside, {last['interval'].mean():.0%} expected"
    yield "Do the intervals hold?", _answer(chance >= drift.UNLIKELY), numbers


def _answer(good: bool) -> str:
    return "yes" if good else LOOK


def _quality(store: Store) -> Section:
    from mlops_dagster.ml.forecast_plots import quality_plot, to_png
    from mlops_dagster.ml.forecast_quality import of_newest_horizon, rolling_metrics

    section = Section(
        "How good forecasts were",
        "Over the last 60 days whose price has come. Better than 'the price stays as it is' means that the squared "
        "error is smaller by that share; below 0 it is larger.",
        "No day that was forecast has come. Earlier days, too: mlops forecast --symbol GSPC --catch-up 60",
        ("symbol", "days scored", "better than 'the price stays as it is'", "inside the interval", "expected"),
    )
    for symbol, frame in _tables("forecast_quality", store):
        scored = of_newest_horizon(frame)
        if scored.empty:
            continue
        numbers = rolling_metrics(scored)
        section.rows.append(
            (
                symbol,
                f"{numbers['days_scored']:,.0f}",
                f"{numbers['skill_vs_persistence_60']:+.2%}",
                f"{numbers['coverage_60']:.0%}",
                f"{numbers['interval_60']:.0%}",
            )
        )
        if len(section.pictures) < _PICTURES:
            section.pictures.append(to_png(quality_plot(symbol, scored)))
    return section


def _champions(store: Store) -> Section:
    section = Section(
        "Champions",
        "The model that each symbol's forecasts are made with.",
        "Build a model: mlops build-model --symbol GSPC",
        ("symbol", "champion", "since", "why", "newest model"),
    )
    for symbol, history in _tables("champion_model", store):
        champion = champion_in(history)
        newest = history.iloc[-1]
        if champion is None:
            row = ("none yet", "", f"The gate keeps the newest out: {newest['reason']}")
        else:
            since = history[history["promoted"]].iloc[-1]
            row = (f"version {champion.version}", f"{since['decided_at']:%Y-%m-%d %H:%M}", since["reason"])
        section.rows.append((symbol, *row, f"version {newest['challenger']}"))
    return section


def _builds(store: Store) -> Section:
    section = Section(
        "Builds compared",
        f"The last {_BUILDS} decisions of each symbol, newest first. Each model is measured on test rows that are new "
        "to it and to the champion.",
        "Build a model: mlops build-model --symbol GSPC",
        ("symbol", "decided at (UTC)", "model", "became champion", "better than 'the price stays as it is'", "why"),
    )
    for symbol, history in _tables("champion_model", store):
        for _, one in history.tail(_BUILDS)[::-1].iterrows():
            measured = one["challenger_error"] == one["challenger_error"]
            better = f"{1 - one['challenger_error'] / one['persistence_error']:+.2%}" if measured else "not measured"
            section.rows.append(
                (
                    symbol,
                    f"{one['decided_at']:%Y-%m-%d %H:%M}",
                    f"version {one['challenger']}",
                    "yes" if one["promoted"] else "no",
                    better,
                    one["reason"],
                )
            )
    return section


def _searches(store: Store) -> Section:
    section = Section(
        "Last searches",
        "The best candidate of each symbol's last search, on validation rows. Only a build decides, on "
        "test rows, whether a model with its parameters becomes champion.",
        "Search: mlops search-model --symbol GSPC",
        ("symbol", "searched at (UTC)", "on", "candidates", "best parameters", "score"),
    )
    for one in latest_searches(store):
        section.rows.append(
            (
                one["symbol"],
                one["searched_at"][:16].replace("T", " "),
                "Spark" if one["pipeline"] == pipelines.CLUSTER_SEARCH_MODEL.name else "this machine",
                f"{one['candidates']:,}",
                ", ".join(f"{name} {value}" for name, value in one["best_parameters"].items()),
                f"{one['best_score']:.5g} ({one['scoring']})",
            )
        )
    return section


def latest_searches(store: Store) -> list[dict[str, Any]]:
    """Return what there is to know about the latest search of each symbol, as JSON values."""
    found = []
    for pipeline in (pipelines.SEARCH_MODEL, pipelines.CLUSTER_SEARCH_MODEL):
        step = pipeline.steps[-1].name
        for symbol in store.symbols(step):
            table = store.current(step, symbol)
            if table is not None:
                found.append(
                    {
                        "symbol": symbol,
                        "pipeline": pipeline.name,
                        "recipe": table.metadata["recipe"],
                        "searched_at": table.written_at.isoformat(timespec="seconds"),
                        "candidates": int(table.metadata["candidates"]),
                        "best_parameters": json.loads(table.metadata["best_parameters"]),
                        "best_score": float(table.metadata["best_score"]),
                        "scoring": table.metadata["scoring"],
                        "work": json.loads(table.metadata["work"]),
                        "mlflow_run_id": table.metadata["mlflow_run_id"],
                    }
                )
    return found


def latest_models(store: Store) -> list[dict[str, Any]]:
    """Return what there is to know about the latest model of each symbol, as JSON values."""
    found = []
    for symbol in store.symbols("trained_model"):
        table = store.current("trained_model", symbol)
        if table is not None:
            champion = champion_of(symbol, store)
            found.append(
                {
                    "symbol": symbol,
                    "recipe": table.metadata["recipe"],
                    "trained_at": table.written_at.isoformat(timespec="seconds"),
                    "parameters": json.loads(table.metadata["parameters"]),
                    "metrics": json.loads(table.metadata["metrics"]),
                    "model_uri": table.metadata["model_uri"],
                    "model_digest": table.metadata["model_digest"],
                    "mlflow_run_id": table.metadata["mlflow_run_id"],
                    "model_version": table.metadata.get("model_version"),
                    "champion": champion and champion.version,
                }
            )
    return found


def _tables(name: str, store: Store) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each symbol's table; one that has gone meanwhile is left out."""
    for symbol in store.symbols(name):
        try:
            yield symbol, store.read(name, symbol)[0]
        except TableNotFound:
            continue
