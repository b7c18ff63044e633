"""From a plan to units: what is left to do after what the cache already has, in pieces that keep every worker busy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sklearn

from mlops_dagster.search.cache import Arrays, SearchCache
from mlops_dagster.search.growing import Limit
from mlops_dagster.search.plan import Group
from mlops_dagster.search.units import GrowUnit, Segment, Sums

_SMALLEST_BLOCK = 32  # trees


def entry_key(rows_digest: str, forest_class: type, group: tuple[Any, ...], seed: int) -> str:
    """Return the cache key of a group's trees: a digest of all that they, and their predictions, depend on."""
    about = (rows_digest, forest_class.__name__, group, seed, sklearn.__version__)
    return hashlib.blake2b(repr(about).encode(), digest_size=20).hexdigest()


def save_segment(cache: SearchCache, key: str, segment: Segment) -> None:
    """Keep a segment."""
    arrays = {f"{x}-{y}": array for x, outputs in enumerate(segment.sums) for y, array in enumerate(outputs)}
    depth, alpha = segment.limit
    name = f"{segment.start}-{segment.stop}-{depth}-{segment.deepest}" + (f"-{alpha}" if alpha else "")
    cache.write(key, name, {"outputs": [len(outputs) for outputs in segment.sums]}, arrays)


def _kept(cache: SearchCache, key: str) -> dict[str, Segment]:
    """Return the segments below a key, without their sums."""
    kept = {}
    for name in cache.names(key):
        try:
            start, stop, depth, deepest, *alpha = name.split("-", 4)
            kept[name] = Segment(int(start), int(stop), (), (int(depth), float(*alpha)), int(deepest), [])
        except ValueError:
            continue  # no segment
    return kept


def _sums(about: Mapping[str, Any], arrays: Arrays) -> Sums:
    return [[arrays[f"{x}-{y}"] for y in range(outputs)] for x, outputs in enumerate(about["outputs"])]


@dataclass(frozen=True)
class Scheduled:
    """The units of one group, and what the cache has of it.

    Parameters
    ----------
    ready : tuple of Segment
        Sums from tree 0 that candidates want and the cache has.
    """

    units: list[GrowUnit]
    ready: tuple[Segment, ...]


def schedule(group: Group, name: str, cache: SearchCache | None, key: str) -> Scheduled:
    """Find out what is left to do of a group."""
    kept = _Kept(cache, key)
    ready: dict[str, tuple[Segment, list[Limit]]] = {}
    # Units by where they begin: limits that go on from as many trees are grown together, each from its own sums.
    marks: dict[int, dict[Limit, list[int]]] = {}
    begins: dict[int, dict[str, tuple[Segment, list[Limit]]]] = {}
    for limit, numbers in group.wanted.items():
        before: tuple[str, Segment] | None = None
        begin = 0
        for mark in sorted(numbers):
            total = kept.total(limit, mark)
            if total is not None:
                before, begin = total, mark
                ready.setdefault(total[0], (total[1], []))[1].append(limit)
                continue
            if limit not in marks.get(begin, {}):
                # Something between two wanted numbers may be there too.
                before = kept.nearest(limit, begin, mark) or before
                if before is not None:
                    chain, segment = before
                    begin = segment.stop
                    begins.setdefault(begin, {}).setdefault(chain, (segment, []))[1].append(limit)
            marks.setdefault(begin, {}).setdefault(limit, []).append(mark)

    units = []
    for begin, by_limit in marks.items():
        stop = max(its_marks[-1] for its_marks in by_limit.values())
        units.append(
            GrowUnit(
                fold=group.fold,
                name=name,
                forest_class=group.forest_class,
                parameters=group.parameters,
                seed=group.seed,
                start=begin,
                stop=stop,
                marks={limit: tuple(its_marks) for limit, its_marks in by_limit.items()},
                begin=_with_limits(begins.get(begin, {}).values()),
                setting=group.setting,
            )
        )
    return Scheduled(units, _with_limits(ready.values()))


def _with_limits(found: Iterable[tuple[Segment, list[Limit]]]) -> tuple[Segment, ...]:
    return tuple(replace(segment, limits=tuple(limits)) for segment, limits in found)


class _Kept:
    """What the cache has of one group, read when it is needed."""

    def __init__(self, cache: SearchCache | None, key: str) -> None:
        self._cache, self._key = cache, key
        self._segments = _kept(cache, key) if cache is not None else {}
        self._read: dict[str, Segment] = {}
        self._reached: dict[Limit, dict[int, list[str]]] = {}

    def total(self, limit: Limit, mark: int) -> tuple[str, Segment] | None:
        """Return the sum of the first `mark` trees under a limit, with a name for it."""
        while names := self._chains(limit).get(mark):
            segment = self._add_up(names)
            if segment is not None:
                return "+".join(names), segment
        return None

    def _chains(self, limit: Limit) -> dict[int, list[str]]:
        """Return the neighbouring segments that lead from tree 0 to each number of trees that can be reached."""
        if limit not in self._reached:
            reached: dict[int, list[str]] = {0: []}
            # Sums from tree 0 come first: they are the exact ones.
            for name, segment in sorted(self._segments.items(), key=lambda item: (item[1].stop, item[1].start)):
                if segment.holds_for(limit) and segment.start in reached and segment.stop not in reached:
                    reached[segment.stop] = [*reached[segment.start], name]
            self._reached[limit] = reached
        return self._reached[limit]

    def nearest(self, limit: Limit, above: int, below: int) -> tuple[str, Segment] | None:
        """Return the longest sum of more than `above` and less than `below` trees."""
        stops = {segment.stop for segment in self._segments.values() if above < segment.stop < below}
        for stop in sorted(stops, reverse=True):
            total = self.total(limit, stop)
            if total is not None:
                return total
        return None

    def _add_up(self, names: Sequence[str]) -> Segment | None:
        total: Segment | None = None
        for name in names:
            if name not in self._read:
                entry = self._cache.read(self._key, name) if self._cache is not None else None
                if entry is None:
                    del self._segments[name]  # not whole: as if it weren't there
                    self._reached.clear()
                    return None
                part = self._segments[name]
                sums = _sums(*entry)
                self._read[name] = Segment(part.start, part.stop, (), part.limit, part.deepest, sums)
            part = self._read[name]
            total = part if total is None else add(total, part)
        return total


def add(total: Segment, part: Segment) -> Segment:
    """Return the sum of two neighbouring segments; both hold for the limit that it is made for."""
    sums = [
        [one + other for one, other in zip(*outputs, strict=True)]
        for outputs in zip(total.sums, part.sums, strict=True)
    ]
    return Segment(total.start, part.stop, part.limits, part.limit, max(total.deepest, part.deepest), sums)


def cut(units: Sequence[GrowUnit], slots: int) -> list[tuple[int, GrowUnit]]:
    """Cut units into blocks of trees, if there are too few of them to keep all slots busy to the end.

    Returns
    -------
    list of (int, GrowUnit)
        The number of the unit that a block is of, and the block. A unit that isn't cut is its own block.
    """
    wanted = 3 * slots
    if slots <= 1 or len(units) >= wanted:
        return list(enumerate(units))
    block = max(_SMALLEST_BLOCK, -(-sum(unit.trees for unit in units) // wanted))
    blocks = []
    for number, unit in enumerate(units):
        for start in range(unit.start, unit.stop, block):
            stop = min(start + block, unit.stop)
            marks = {}
            for limit, its_marks in unit.marks.items():
                inside = [mark for mark in its_marks if start < mark <= stop]
                if its_marks[-1] > stop:
                    inside = sorted({*inside, stop})  # what comes later goes on from here
                if inside:
                    marks[limit] = tuple(inside)
            begin = unit.begin if start == unit.start else ()
            blocks.append((number, replace(unit, start=start, stop=stop, marks=marks, begin=begin)))
    return blocks
