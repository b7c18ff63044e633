"""The state of things, of all symbols or in short of one: champions, forecasts, builds, searches, what needs a look."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_dagster import pipelines
from mlops_dagster.errors import MlopsError
from mlops_dagster.stack.store import TableNotFound
from mlops_dagster.steps.champion import champion_in, champion_of
from mlops_dagster.steps.findings import QUESTIONS
from mlops_dagster.steps.inputs import Inputs
from mlops_dagster.steps.summary import INLINE

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.stack.registry import Registry
    from mlops_dagster.stack.store import Store

LOOK = "no, look"
_BUILDS = 10  # of each symbol
_PICTURES = 12  # of each kind; more would make a page that nobody scrolls through
_BETTER = "better than 'the price stays as it is'"
Row = tuple[str, ...]


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
    rows: list[Row] = field(default_factory=list)
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
    sections = [Section(part.title, part.explanation, part.begin, ("symbol", *part.columns)) for part in _PARTS]
    for symbol in sorted({symbol for step in pipelines.STEPS for symbol in store.symbols(step)}):
        tables = Inputs(symbol, store)
        for part, section in zip(_PARTS, sections, strict=True):
            try:
                rows = list(part.rows(tables, registry))
                if rows and part.picture is not None and len(section.pictures) < _PICTURES:
                    section.pictures.append(part.picture(tables))
            except TableNotFound:  # nothing yet, or it has gone meanwhile
                continue
            section.rows += [(symbol, *row) for row in rows]
    return sections


def state_in_short(tables: Inputs, registry: Registry) -> str:
    """Return the state of one symbol as markdown, so short that Dagster's page shows it without a click.

    What can't be found out is said, and stops nothing.
    """
    table = f"| {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC | {tables.symbol} |\n|-|-|"
    for part in _PARTS:
        if part.in_short is None:
            continue
        try:
            rows = [part.in_short(*row) for row in part.rows(tables, registry)] or ["nothing yet"]
        except TableNotFound:
            rows = ["nothing yet"]
        except MlopsError as error:
            rows = [f"not known: {error}"]
        for number, row in enumerate(rows):
            line = f"\n| {'' if number else part.title} | {' '.join(row.split()).replace('|', '/')} |"
            table += line if len(table) + len(line) < INLINE else ""
    return table


# --------------------------------------------------------------------------------------------------------- the parts


def _champion(tables: Inputs, registry: Registry) -> Iterator[Row]:
    history, _ = tables.read("champion_model")
    champion, newest = champion_in(history), history.iloc[-1]
    if champion is None:
        why = f"The gate keeps the newest out: {newest['reason']}"
        yield "none yet", "", "", why, f"version {newest['challenger']}"
        return
    since = history[history["promoted"].astype(bool)].iloc[-1]
    when = f"{since['decided_at']:%Y-%m-%d %H:%M}"
    yield f"version {champion.version}", when, _skill(since), since["reason"], f"version {newest['challenger']}"


def _skill(decision: pd.Series[Any]) -> str:
    measured = decision["challenger_error"] == decision["challenger_error"]
    return f"{1 - decision['challenger_error'] / decision['persistence_error']:+.2%}" if measured else "not measured"


def _forecast(tables: Inputs, registry: Registry) -> Iterator[Row]:
    newest = _newest_forecast(tables)
    yield (
        f"{newest['TargetDate']:%Y-%m-%d}",
        f"{newest['forecast']:#,.6g}",
        f"{newest['forecast'] / newest['price'] - 1:+.2%}",
        f"{newest['interval']:.0%}: {newest['lower']:#,.6g} to {newest['upper']:#,.6g}",
        f"{newest['price']:#,.6g}",
        f"{newest['Date']:%Y-%m-%d}",
        newest["model_version"],
    )


def _newest_forecast(tables: Inputs) -> pd.Series[Any]:
    return tables.read("price_forecast")[0].sort_values("Date", kind="stable").iloc[-1]


def _forecast_picture(tables: Inputs) -> bytes:
    from mlops_dagster.ml.forecast_plots import price_forecast_plot, to_png

    (prices, _), (frame, _) = tables.read("prices"), tables.read("price_forecast")
    return to_png(price_forecast_plot(tables.symbol, prices, frame, _newest_forecast(tables).to_frame().T))


def _quality(tables: Inputs, registry: Registry) -> Iterator[Row]:
    from mlops_dagster.ml.forecast_quality import of_newest_horizon, rolling_metrics

    numbers = rolling_metrics(of_newest_horizon(tables.read("forecast_quality")[0]))
    if numbers["days_scored"]:
        yield (
            f"{numbers['days_scored']:,.0f}",
            f"{numbers['skill_vs_persistence_60']:+.2%}",
            f"{numbers['coverage_60']:.0%}",
            f"{numbers['interval_60']:.0%}",
        )


def _quality_picture(tables: Inputs) -> bytes:
    from mlops_dagster.ml.forecast_plots import quality_plot, to_png
    from mlops_dagster.ml.forecast_quality import of_newest_horizon

    return to_png(quality_plot(tables.symbol, of_newest_horizon(tables.read("forecast_quality")[0])))


def _attention(tables: Inputs, registry: Registry) -> Iterator[Row]:
    tables.read("price_forecast")
    for question, ask in QUESTIONS.items():
        try:
            found = ask(tables, registry)
        except TableNotFound as error:
            yield question, "not yet", str(error)
        except (MlopsError, ValueError) as error:
            yield question, "not known", str(error)
        else:
            yield question, "not yet" if found.good is None else "yes" if found.good else LOOK, found.said


def _builds(tables: Inputs, registry: Registry) -> Iterator[Row]:
    for _, one in tables.read("champion_model")[0].tail(_BUILDS)[::-1].iterrows():
        when, promoted = f"{one['decided_at']:%Y-%m-%d %H:%M}", "yes" if one["promoted"] else "no"
        yield when, f"version {one['challenger']}", promoted, _skill(one), one["reason"]


def _searches(tables: Inputs, registry: Registry) -> Iterator[Row]:
    for one in latest_searches(tables.store, [tables.symbol]):
        yield (
            one["searched_at"][:16].replace("T", " "),
            "Spark" if one["pipeline"] == pipelines.CLUSTER_SEARCH_MODEL.name else "this machine",
            f"{one['candidates']:,}",
            ", ".join(f"{name} {value}" for name, value in one["best_parameters"].items()),
            f"{one['best_score']:.5g} ({one['scoring']})",
        )


def _begin(said: str) -> str:
    return said.partition(";")[0].rstrip(".")


class _Part(NamedTuple):
    """What a section says of a symbol: its rows, one of them in short, and a picture."""

    title: str
    explanation: str
    begin: str
    columns: Row
    rows: Callable[[Inputs, Registry], Iterator[Row]]
    in_short: Callable[..., str] | None = None
    picture: Callable[[Inputs], bytes] | None = None


_PARTS = (
    _Part(
        "Forecasts",
        "Each champion's forecast of the next day, with its prediction interval.",
        "Forecast: mlops forecast --symbol GSPC",
        ("for", "forecast", "change", "interval", "from the price", "of", "by version"),
        _forecast,
        "{1} for {0}: {2} from {4} of {5}; {3}".format,
        _forecast_picture,
    ),
    _Part(
        "Champions",
        "The model that each symbol's forecasts are made with.",
        "Build a model: mlops build-model --symbol GSPC",
        ("champion", "since", _BETTER, "why", "newest model"),
        _champion,
        lambda who, since, better, why, newest: (
            f"{who} since {since}: {better} {_BETTER}. {_begin(why)}" if since else f"{who}. {_begin(why)}"
        ),
    ),
    _Part(
        "How good forecasts were",
        "Over the last 60 days whose price has come. Better than 'the price stays as it is' means that the squared "
        "error is smaller by that share; below 0 it is larger.",
        "No day that was forecast has come. Earlier days, too: mlops forecast --symbol GSPC --catch-up 60",
        ("days scored", _BETTER, "inside the interval", "expected"),
        _quality,
        f"{{0}} days scored, the last 60: {{1}} {_BETTER}; {{2}} inside the interval, {{3}} expected".format,
        _quality_picture,
    ),
    _Part(
        "Worth a look",
        "Whether forecasts are up to date and as good as expected, and whether the features still look as they did in "
        "training. Dagster's checks ask the same.",
        "Forecast: mlops forecast --symbol GSPC",
        ("question", "answer", "in numbers"),
        _attention,
        lambda question, answer, said: f"{question} {answer}" + ("" if answer == "yes" else f": {_begin(said)}"),
    ),
    _Part(
        "Last searches",
        "The best candidate of each symbol's last search, on validation rows. Only a build decides, on "
        "test rows, whether a model with its parameters becomes champion.",
        "Search: mlops search-model --symbol GSPC",
        ("searched at (UTC)", "on", "candidates", "best parameters", "score"),
        _searches,
        "{0}, the best of {2} candidates: {3}".format,
    ),
    _Part(
        "Builds compared",
        f"The last {_BUILDS} decisions of each symbol, newest first. Each model is measured on test rows that are new "
        "to it and to the champion.",
        "Build a model: mlops build-model --symbol GSPC",
        ("decided at (UTC)", "model", "became champion", _BETTER, "why"),
        _builds,
    ),
)


# ------------------------------------------------------------------------------------------------------- for programs


def latest_searches(store: Store, symbols: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return what there is to know about the latest search of each symbol, or of some, as JSON values."""
    found = []
    for pipeline in (pipelines.SEARCH_MODEL, pipelines.CLUSTER_SEARCH_MODEL):
        step = pipeline.steps[-1].name
        for symbol in store.symbols(step) if symbols is None else symbols:
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
