"""From a plan to units: what is left to do after what the cache already has, in pieces that keep every worker busy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sklearn

from mlops_dagster.search.cache import Arrays, SearchCache
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
    name = f"{segment.start}-{segment.stop}-{segment.limit}-{segment.deepest}"
    cache.write(key, name, {"outputs": [len(outputs) for outputs in segment.sums]}, arrays)


def _kept(cache: SearchCache, key: str) -> dict[str, Segment]:
    """Return the segments below a key, without their sums."""
    kept = {}
    for name in cache.names(key):
        try:
            start, stop, limit, deepest = (int(part) for part in name.split("-"))
        except ValueError:
            continue  # no segment
        kept[name] = Segment(start, stop, (), limit, deepest, [])
    return kept


def _sums(about: Mapping[str, Any], arrays: Arrays) -> Sums:
    return [[arrays[f"{x}-{y}"] for y in range(outputs)] for x, outputs in enumerate(about["outputs"])]


@dataclass(frozen=True)
class Scheduled:
    """The units of one group, and what the cache has of it.

    Parameters
    ----------
    ready : list of Segment
        Sums from tree 0 that candidates want and the cache has.
    """

    units: list[GrowUnit]
    ready: list[Segment]


def schedule(group: Group, name: str, cache: SearchCache | None, key: str) -> Scheduled:
    """Find out what is left to do of a group."""
    kept = _Kept(cache, key)
    ready: dict[str, tuple[Segment, list[int]]] = {}
    # Units by where they begin: depth limits that go on from the same sums are grown together.
    marks: dict[tuple[int, str], dict[int, list[int]]] = {}
    begins: dict[str, Segment] = {}
    for limit, numbers in group.wanted.items():
        begin, chain = 0, ""
        for mark in sorted(numbers):
            total = kept.total(limit, mark)
            if total is not None:
                chain, segment = total
                begin = mark
                begins[chain] = segment
                ready.setdefault(chain, (segment, []))[1].append(limit)
                continue
            if (begin, chain) not in marks or limit not in marks[begin, chain]:
                # Something between two wanted numbers may be there too.
                between = kept.nearest(limit, begin, mark)
                if between is not None:
                    chain, segment = between
                    begin = segment.stop
                    begins[chain] = segment
            marks.setdefault((begin, chain), {}).setdefault(limit, []).append(mark)

    units = []
    for (begin, chain), by_limit in marks.items():
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
                begin=begins.get(chain),
                setting=group.setting,
            )
        )
    segments = [
        Segment(0, segment.stop, tuple(limits), segment.limit, segment.deepest, segment.sums)
        for segment, limits in ready.values()
    ]
    return Scheduled(units, segments)


class _Kept:
    """What the cache has of one group, read when it is needed."""

    def __init__(self, cache: SearchCache | None, key: str) -> None:
        self._cache, self._key = cache, key
        self._segments = _kept(cache, key) if cache is not None else {}
        self._read: dict[str, Segment] = {}
        self._reached: dict[int, dict[int, list[str]]] = {}

    def total(self, limit: int, mark: int) -> tuple[str, Segment] | None:
        """Return the sum of the first `mark` trees under a depth limit, with a name for it."""
        while names := self._chains(limit).get(mark):
            segment = self._add_up(names)
            if segment is not None:
                return "+".join(names), segment
        return None

    def _chains(self, limit: int) -> dict[int, list[str]]:
        """Return the neighbouring segments that lead from tree 0 to each number of trees that can be reached."""
        if limit not in self._reached:
            reached: dict[int, list[str]] = {0: []}
            # Sums from tree 0 come first: they are the exact ones.
            for name, segment in sorted(self._segments.items(), key=lambda item: (item[1].stop, item[1].start)):
                if segment.holds_for(limit) and segment.start in reached and segment.stop not in reached:
                    reached[segment.stop] = [*reached[segment.start], name]
            self._reached[limit] = reached
        return self._reached[limit]

    def nearest(self, limit: int, above: int, below: int) -> tuple[str, Segment] | None:
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
    """Return the sum of two neighbouring segments; both hold for the depth limit that it is made for."""
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
            begin = unit.begin if start == unit.start else None
            blocks.append((number, replace(unit, start=start, stop=stop, marks=marks, begin=begin)))
    return blocks
