"""The partitions of a model all at once: who has a champion, how good, since when; and which are worth a look."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING

from mlops_dagster.spec import steps as names
from mlops_dagster.steps.champion import champion_in
from mlops_dagster.steps.questions import last_predictions_beat_baseline, metric_that_counts
from mlops_dagster.steps.state import Section

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.modeling.metrics import Metric
    from mlops_dagster.spec.model import Declaration
    from mlops_dagster.stack.store import Store

MANY = 20
"""Of more partitions than these nobody reads a row each: people are shown them all at once, and the worst."""
_WORST = 10
_NAMED = 5  # of those that are counted
_BARS = 10
_AT_ONCE = 8  # partitions that are read; on an object store each takes a good part of a second


@dataclass(frozen=True)
class Partition:
    """What the tables say of a partition.

    Attributes
    ----------
    champion : str, optional
        The version that predictions are made with.
    since : datetime, optional
        When it became champion (UTC).
    skill : float
        Of the champion, or without one of the newest model: which share of the way from the baseline to perfect answers
        it goes, on the rows that it was decided on. NaN if that isn't known.
    score : str
        What that was measured by, in words.
    reason : str
        Why it is champion, or why there is none.
    late : str
        Why its predictions are to be made again; empty if they are up to date, or if nothing is predicted.
    poor : bool
        Whether the last predictions were worse than the baseline.
    """

    key: str
    champion: str | None = None
    since: datetime | None = None
    skill: float = math.nan
    score: str = "not measured"
    reason: str = "No model was ever built."
    late: str = ""
    poor: bool = False
    built: bool = True


@dataclass(frozen=True)
class Fleet:
    """The partitions of a model.

    Attributes
    ----------
    failed : mapping of str to str, optional
        Those whose last build failed, and why. None if whoever asks doesn't know.
    drifted : collection of str, optional
        Those whose features have drifted. None if whoever asks doesn't know.
    """

    name: str
    metric: str
    partitions: list[Partition]
    failed: Mapping[str, str] | None = None
    drifted: Collection[str] | None = None

    @cached_property
    def worst(self) -> list[Partition]:
        """The ten partitions of the least skill, the worst first."""
        known = [one for one in self.partitions if not math.isnan(one.skill)]
        return sorted(known, key=lambda one: one.skill)[:_WORST]

    @property
    def missing(self) -> dict[str, str]:
        """The partitions without any model, or whose last build failed, and why."""
        never = {one.key: one.reason for one in self.partitions if not one.built}
        return never | dict(self.failed or {})

    @cached_property
    def ages(self) -> list[float]:
        """The days since each champion became it."""
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        return [max(now - one.since, timedelta()) / timedelta(days=1) for one in self.partitions if one.since]

    @property
    def counts(self) -> dict[str, str]:
        """What there is to say in numbers, by what it is about."""
        every, skills = self.partitions, sorted(one.skill for one in self.partitions if not math.isnan(one.skill))
        poor = [one.key for one in every if one.poor]
        never = [one.key for one in every if not one.built]
        said = {
            "partitions": f"{len(every):,}",
            "with a champion": f"{len(self.ages):,}",
            "no model was good enough": f"{sum(one.built and one.champion is None for one in every):,}",
            "never built": f"{len(never):,}" + _some(never),
        }
        if self.failed is not None:
            said["last build failed"] = f"{len(self.failed):,}" + _some([*self.failed])
        if skills:
            below, median = sum(one <= 0 for one in skills), skills[len(skills) // 2]
            said["skill"] = f"{skills[0]:.2f}\xa0{_bars(skills)}\xa0{skills[-1]:.2f}, median {median:.2f}"
            said["no better than the baseline"] = f"{below:,}"
        if self.ages:
            oldest, usual = (_age(sorted(self.ages)[at]) for at in (-1, len(self.ages) // 2))
            said["age of champions"] = oldest if oldest == usual else f"at most {oldest}, median {usual}"
        late = Counter(one.late for one in every if one.late)
        said["predictions are due"] = f"{late.total():,}" + _some([f"{why} {n:,}" for why, n in late.items()])
        said["predictions worse than the baseline"] = f"{len(poor):,}" + _some(poor)
        if self.drifted is not None:
            said["features have drifted"] = f"{len(self.drifted):,}" + _some([*self.drifted])
        return said

    @property
    def png(self) -> bytes:
        """A picture: how the skill is distributed, and how old the champions are."""
        from mlops_dagster.modeling.fleet_plot import fleet_plot, to_png

        skills = [one.skill for one in self.partitions if not math.isnan(one.skill)]
        champions = f"{len(self.ages):,} of {len(self.partitions):,} partitions have a champion"
        return to_png(fleet_plot(self.name, f"{champions}; skill by {self.metric}", skills, self.ages))


def fleet_of(
    declaration: Declaration,
    store: Store,
    keys: Iterable[str],
    *,
    failed: Mapping[str, str] | None = None,
    drifted: Collection[str] | None = None,
) -> Fleet:
    """Look at the tables of a model's partitions, several at once: of each the decisions, of others the log alone.

    Parameters
    ----------
    keys : iterable of str
        Which.
    failed, drifted : mapping, collection, optional
        What the tables don't say, see :class:`Fleet`.

    Raises
    ------
    StoreError
        If a table can't be read.
    """
    metric = metric_that_counts(declaration)
    judged = set(store.symbols(names.CHAMPION_MODEL))

    def look(key: str) -> Partition:
        if key in judged:
            return _look(declaration, store, key, metric)
        trained = store.current(names.TRAINED_MODEL, key)
        return Partition(key, built=False) if trained is None else Partition(key, reason="Its model wasn't judged yet.")

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = list(threads.map(look, keys))
    return Fleet(declaration.name, metric.name, found, failed, drifted)


def sections_of(fleet: Fleet, *, pictures: bool = True) -> list[Section]:
    """Return what a report says of many partitions: in numbers with a picture, and the worst ones."""
    about, worst = ("of all partitions", "in numbers"), ("partition", "skill", "champion", "since", "how good", "why")
    explanation = (
        "Skill is which share of the way from the baseline to perfect answers a model goes, by "
        f"{fleet.metric} on the rows that it was decided on: 1 is perfect, 0 is no better than the baseline."
    )
    numbers = Section(f"{fleet.name}: all partitions", explanation, "", about, str)
    numbers.rows += fleet.counts.items()
    numbers.pictures += [fleet.png] if pictures else []
    last = Section(
        f"{fleet.name}: the worst {len(fleet.worst)}",
        "The least skill first. What is shown below of this model is of these; mlops report PARTITION shows another.",
        "Build models: mlops build-model NAME --all",
        worst,
        lambda skill, champion, since, good, why: f"skill {skill}: {good}; {champion}. {why.partition(';')[0]}",
        [
            (
                one.key,
                f"{one.skill:.2f}",
                "none" if one.champion is None else f"version {one.champion}",
                f"{one.since:%Y-%m-%d %H:%M}" if one.since else "",
                one.score,
                one.reason,
            )
            for one in fleet.worst
        ],
    )
    return [numbers, last]


def _look(declaration: Declaration, store: Store, key: str, metric: Metric) -> Partition:
    history, _ = store.read(names.CHAMPION_MODEL, key, verify=False)
    champion, newest = champion_in(history), history.iloc[-1]
    if champion is None:
        skill, score = _skill(newest, metric)
        return Partition(key, skill=skill, score=score, reason=str(newest["reason"]))
    since = history[history["promoted"].astype(bool)].iloc[-1]
    measured = history[(history["model_digest"] == champion.model_digest) & history["challenger_score"].notna()]
    skill, score = _skill(since if measured.empty else measured.iloc[-1], metric)
    when = since["decided_at"].to_pydatetime()
    late, poor = _predictions(declaration, store, key, when, metric)
    return Partition(key, champion.version, when, skill, score, str(since["reason"]), late, poor)


def _skill(decision: pd.Series, metric: Metric) -> tuple[float, str]:
    from mlops_dagster.modeling.evaluation import skill_of

    ours, theirs = decision["challenger_score"], decision["baseline_score"]
    if ours != ours or theirs != theirs:
        return math.nan, "not measured"
    score = f"{decision['metric']} {ours:.4g}, baseline {theirs:.4g}"
    numbers = {metric.name: float(ours), f"{metric.name}_baseline": float(theirs)}
    skill = skill_of(metric, numbers) if decision["metric"] == metric.name else None
    return (math.nan if skill is None else skill), score


def _predictions(declaration: Declaration, store: Store, key: str, since: datetime, metric: Metric) -> tuple[str, bool]:
    """Say why predictions are late, and whether the last were worse than the baseline."""
    if declaration.predictions is None:
        return "", False
    made = store.current(names.PREDICTIONS, key)
    if made is None:
        return "none yet", False
    late = ""
    if made.written_at.replace(tzinfo=None) < since:
        late = "the champion is newer"
    elif declaration.target.horizon and declaration.predictions.data is None:
        # Every new row is one to forecast from. Of other models' new rows the truth may be known.
        data = store.current(names.DATA, key)
        late = "the data are newer" if data is not None and data.written_at > made.written_at else ""
    scored, trained = (store.current(one, key) for one in (names.PREDICTION_QUALITY, names.TRAINED_MODEL))
    if scored is None or trained is None:
        return late, False
    return late, last_predictions_beat_baseline(declaration, scored, trained, metric=metric).good is False


def _age(days: float) -> str:
    """Say how old something is.

    Examples
    --------
    >>> _age(0.01), _age(0.5), _age(1.2), _age(45)
    ('less than an hour', '12 hours', '1 day', '45 days')
    """
    if days < 1 / 24:
        return "less than an hour"
    number, unit = (days * 24, "hour") if days < 1 else (days, "day")
    return f"{number:.0f} {unit}{'s'[: round(number) != 1]}"


def _bars(values: Sequence[float]) -> str:
    r"""Draw how values are distributed between the least and the greatest.

    Examples
    --------
    >>> _bars([0, 0, 0, 0, 0.5, 1]).replace("\xa0", " ")  # a page would neither fold nor break those
    '█    ▂   ▂'
    """
    least, span = min(values), max(values) - min(values)
    counts = Counter(min(int((one - least) / span * _BARS), _BARS - 1) if span else 0 for one in values)
    most = max(counts.values())
    return "".join("\xa0▁▂▃▄▅▆▇█"[math.ceil(8 * counts[at] / most)] for at in range(_BARS)) if span else ""


def _some(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _NAMED:,} more"] if len(names) > _NAMED else []
    return f" ({', '.join([*names[:_NAMED], *more])})" if names else ""
