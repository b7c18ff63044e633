"""The state of all models, or in short of one: champions, predictions, builds, searches, what needs a look."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_dagster.errors import MlopsError
from mlops_dagster.spec import steps as names
from mlops_dagster.stack.store import TableNotFound
from mlops_dagster.steps.champion import champion_in
from mlops_dagster.steps.kept import Kept, latest_searches
from mlops_dagster.steps.questions import questions_of
from mlops_dagster.steps.report import INLINE, written

if TYPE_CHECKING:
    import pandas as pd

LOOK = "no, look"
_BUILDS = 10  # of each model
_PICTURES = 12  # of each kind; more would make a page that nobody scrolls through
Row = tuple[str, ...]


@dataclass
class Section:
    """A part of the state: a sentence, a table with a row per model or more, and pictures.

    Attributes
    ----------
    title, explanation, begin : str
        What it is about, how to read it, and what to do as long as there is nothing.
    in_short : callable
        From the values of a row, without the model's name, to a sentence.
    rows : list of tuple of str
        As people read them.
    pictures : list of bytes
        PNG.
    """

    title: str
    explanation: str
    begin: str
    columns: tuple[str, ...]
    in_short: Callable[..., str] = " ".join
    rows: list[Row] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)


def state_of(models: Iterable[Kept], *, brief: bool = False, pictures: bool = True) -> list[Section]:
    """Return the state of models.

    Parameters
    ----------
    brief : bool
        Whether what takes its time, or a page, is left out.

    Raises
    ------
    StoreError
        If a table can't be read.
    """
    parts = [part for part in _PARTS if part.brief or not brief]
    sections = [
        Section(part.title, part.explanation, part.begin, ("model", *part.columns), part.in_short) for part in parts
    ]
    for kept in models:
        for part, section in zip(parts, sections, strict=True):
            try:
                rows = list(part.rows(kept))
                if rows and part.pictures is not None and pictures and len(section.pictures) < _PICTURES:
                    section.pictures += part.pictures(kept).values()
            except TableNotFound:  # nothing yet, or it has gone meanwhile
                continue
            section.rows += [(kept.name, *row) for row in rows]
    return sections


def state_in_short(kept: Kept) -> str:
    """Return the state of one model as markdown, so short that Dagster's page shows it without a click.

    What can't be found out is said, and stops nothing.
    """
    table = f"| {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC | {kept.name} |\n|-|-|"
    for part in _PARTS[:-1]:  # the builds before the last would fill the page
        try:
            rows = [part.in_short(*row) for row in part.rows(kept)] or ["nothing yet"]
        except TableNotFound:
            rows = ["nothing yet"]
        except MlopsError as error:
            rows = [f"not known: {error}"]
        for number, row in enumerate(rows):
            line = f"\n| {'' if number else part.title} | {' '.join(row.split()).replace('|', '/')} |"
            table += line if len(table) + len(line) < INLINE else ""
    return table


# --------------------------------------------------------------------------------------------------------- the parts


def _champion(kept: Kept) -> Iterator[Row]:
    history, _ = kept.tables.read(names.CHAMPION_MODEL)
    champion, newest = champion_in(history), history.iloc[-1]
    if champion is None:
        why = f"The gate keeps the newest out: {newest['reason']}"
        yield "none yet", "", "", why, f"version {newest['challenger']}"
        return
    since = history[history["promoted"].astype(bool)].iloc[-1]
    when = f"{since['decided_at']:%Y-%m-%d %H:%M}"
    yield f"version {champion.version}", when, _score(since), since["reason"], f"version {newest['challenger']}"


def _score(decision: pd.Series[Any]) -> str:
    """Say how good a model was when it was decided on, and the baseline on the same rows."""
    ours, theirs = decision["challenger_score"], decision["baseline_score"]
    return "not measured" if ours != ours else f"{decision['metric']} {ours:.4g}, baseline {theirs:.4g}"


def _predictions(kept: Kept) -> Iterator[Row]:
    made, _ = kept.tables.read(names.PREDICTIONS)
    if made.empty:
        return
    newest = made.iloc[-1]
    apart = None if kept.model.partitions is None else kept.model.partitions.name
    which = [name for name in (*kept.model.key, kept.model.time) if name not in (None, apart) and name in newest]
    of = ", ".join(f"{name} {written(newest[str(name)])}" for name in dict.fromkeys(which)) or "a row"
    if "horizon" in newest:
        of += f" + {names.rows_ahead(int(newest['horizon']))}"
        then = newest.get("truth_time")  # tables of before don't say it, and of some times nothing does
        of = of if then is None or then != then else f"{written(then)} ({of})"
    interval = "lower" in newest and newest["lower"] == newest["lower"]
    yield (
        f"{newest['made_at']:%Y-%m-%d %H:%M}",
        of,
        written(newest["value"] if "value" in newest else newest["class"]),
        f"{newest['interval']:.0%}: {newest['lower']:,.5g} to {newest['upper']:,.5g}" if interval else "",
        newest["model_version"],
        f"{len(made):,}",
    )


def _predictions_drawn(kept: Kept) -> Mapping[str, bytes]:
    from mlops_dagster.modeling.prediction_plots import pngs_of_predictions

    (table, _), (made, _) = kept.tables.read(names.DATA), kept.tables.read(names.PREDICTIONS)
    return pngs_of_predictions(kept.model, kept.name, table, made)


def _quality_drawn(kept: Kept) -> Mapping[str, bytes]:
    from mlops_dagster.modeling.prediction_plots import pngs_of_quality

    return pngs_of_quality(kept.model, kept.name, kept.tables.read(names.PREDICTION_QUALITY)[0])


def _quality(kept: Kept) -> Iterator[Row]:
    _, scored = kept.tables.read(names.PREDICTION_QUALITY)
    _, trained = kept.tables.read(names.TRAINED_MODEL)
    numbers = json.loads(trained.metadata["metrics"]) | json.loads(scored.metadata["metrics"])
    if not numbers["rows_scored"]:
        return
    metric = (kept.model.gate.metric or kept.model.metrics[0]).removeprefix("neg_").rpartition(":")[2]
    known = [(name, numbers[name]) for name in (f"{metric}{names.OF_LAST}", metric) if name in numbers][:1]
    yield (
        f"{numbers['rows_scored']:,.0f}",
        "".join(f"{metric} {value:.4g}, baseline {numbers[metric + names.OF_BASELINE]:.4g}" for _, value in known),
        f"{numbers['coverage']:.0%}" if "coverage" in numbers else "",
        f"{numbers['interval']:.0%}" if "coverage" in numbers else "",
    )


def _attention(kept: Kept) -> Iterator[Row]:
    kept.tables.read(names.PREDICTIONS)
    for question, ask in questions_of(kept.model).items():
        try:
            found = ask(kept.tables, kept.registry)
        except TableNotFound as error:
            yield question, "not yet", str(error)
        except (MlopsError, ValueError) as error:
            yield question, "not known", str(error)
        else:
            yield question, "not yet" if found.good is None else "yes" if found.good else LOOK, found.said


def _builds(kept: Kept) -> Iterator[Row]:
    for _, one in kept.tables.read(names.CHAMPION_MODEL)[0].tail(_BUILDS)[::-1].iterrows():
        when, promoted = f"{one['decided_at']:%Y-%m-%d %H:%M}", "yes" if one["promoted"] else "no"
        yield when, f"version {one['challenger']}", promoted, _score(one), one["reason"]


def _searches(kept: Kept) -> Iterator[Row]:
    for one in latest_searches(kept):
        yield (
            one["searched_at"][:16].replace("T", " "),
            "Spark" if one["engine"] == "spark" else "this machine",
            f"{one['candidates']:,}",
            ", ".join(f"{name} {value}" for name, value in one["best_parameters"].items()),
            f"{one['best_score']:.5g} ({one['scoring']})",
        )


def _begin(said: str) -> str:
    return said.partition(";")[0].rstrip(".")


class _Part(NamedTuple):
    """What a section says of a model: its rows, one of them in short, and pictures."""

    title: str
    explanation: str
    begin: str
    columns: Row
    rows: Callable[[Kept], Iterator[Row]]
    in_short: Callable[..., str]
    pictures: Callable[[Kept], Mapping[str, bytes]] | None = None
    brief: bool = True


_PARTS = (
    _Part(
        "Champions",
        "The model that predictions are made with, and how good it was when it became so.",
        "Build a model: mlops build-model NAME",
        ("champion", "since", "how good", "why", "newest model"),
        _champion,
        lambda who, since, good, why, newest: (
            f"{who} since {since}: {good}. {_begin(why)}" if since else f"{who}. {_begin(why)}"
        ),
    ),
    _Part(
        "Predictions",
        "The newest that each champion has made, with its prediction interval.",
        "Predict: mlops predict NAME",
        ("made at (UTC)", "of", "prediction", "interval", "by version", "in all"),
        _predictions,
        lambda made, of, value, interval, by, count: (
            f"{value} for {of}" + f"; {interval}" * bool(interval) + f"; made {made} by version {by}, {count} in all"
        ),
        _predictions_drawn,
    ),
    _Part(
        "How good predictions were",
        "The last 100 whose truth has come.",
        "No truth of a prediction has come. Of forecasts, earlier rows, too: mlops predict NAME --catch-up 60",
        ("scored", "how good", "inside the interval", "expected"),
        _quality,
        lambda count, good, inside, meant: (
            f"{count} scored, the last: {good}" + (f"; {inside} inside the interval, {meant} expected" * bool(inside))
        ),
        _quality_drawn,
    ),
    _Part(
        "Worth a look",
        "Whether predictions are up to date and as good as expected, and whether the features still look as they did "
        "in training. Dagster's checks ask the same.",
        "Predict: mlops predict NAME",
        ("question", "answer", "in numbers"),
        _attention,
        lambda question, answer, said: f"{question} {answer}" + ("" if answer == "yes" else f": {_begin(said)}"),
        brief=False,
    ),
    _Part(
        "Last searches",
        "The best candidate of each model's last search, on validation rows. Only a build decides, on "
        "test rows, whether a model with its parameters becomes champion.",
        "Search: mlops search-model NAME",
        ("searched at (UTC)", "on", "candidates", "best parameters", "score"),
        _searches,
        "{0}, the best of {2} candidates: {3}; {4}".format,
    ),
    _Part(
        "Builds compared",
        f"The last {_BUILDS} decisions on each model, newest first. Each challenger is measured on test rows that are "
        "new to it and to the champion.",
        "Build a model: mlops build-model NAME",
        ("decided at (UTC)", "model", "became champion", "how good", "why"),
        _builds,
        lambda when, who, promoted, good, why: (
            f"{when} {who} {'became champion' if promoted == 'yes' else 'was kept out'}: {good}. {_begin(why)}"
        ),
        brief=False,
    ),
)
