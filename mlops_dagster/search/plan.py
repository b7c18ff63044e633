"""What a search will do, before it does it: which candidates share which trees, why, and what that leaves to grow."""

from __future__ import annotations

import numbers
import pickle
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlops_dagster.search.canonical import ForestReader
from mlops_dagster.search.data import SearchData
from mlops_dagster.search.fronts import Settings
from mlops_dagster.search.growing import FORESTS, Limit, grow, tree_seeds
from mlops_dagster.search.serving import SharedFit, read_candidate
from mlops_dagster.search.units import BATCH, PlainUnit, predict

_SAMPLE = 8  # trees


@dataclass
class Group:
    """Candidates that share trees on one fold.

    Parameters
    ----------
    setting : int
        That of the steps in front, see `fronts.Settings`.
    parameters : mapping
        The forest's parameters, of the first candidate; the others' differ only where it makes no difference.
    seed : int
        The forest's ``random_state``.
    wanted : dict
        For each limit, for each number of trees, the candidates that want it.
    """

    fold: int
    setting: int
    key: tuple[Hashable, ...]
    forest_class: type
    parameters: Mapping[str, Any]
    seed: int
    wanted: dict[Limit, dict[int, list[int]]] = field(default_factory=dict)

    @property
    def trees(self) -> int:
        """How many trees it needs if no depth limit binds."""
        return max(max(by_trees) for by_trees in self.wanted.values())

    @property
    def by_depth(self) -> dict[int, set[int]]:
        """The numbers of whole trees that are wanted, for each depth limit."""
        numbers: dict[int, set[int]] = {}
        for (depth, _), by_trees in self.wanted.items():
            numbers.setdefault(depth, set()).update(by_trees)
        return numbers

    @property
    def trees_at_most(self) -> int:
        """How many trees it needs if every tree meets every depth limit."""
        return sum(max(numbers) for numbers in self.by_depth.values())


@dataclass
class SearchPlan:
    """What a search will do.

    What is counted as trees is, where candidates share other fits than forests', what `counted` says.

    Parameters
    ----------
    groups : list of Group
        Forests that share trees.
    not_shared : dict of str to list of int
        The candidates that are fitted plainly, by reason.
    trees_asked : int
        What fitting every candidate on every fold takes.
    trees_distinct : int
        What is left of them after merging forests whose trees are equal, before they are pruned.
    trees_at_most, trees_needed : int
        What is left to grow after taking smaller forests from larger ones, if every depth limit binds, and if none
        does. The search finds out tree by tree.
    trees_of : list of int
        How many trees each candidate asks for on each fold; 0 if that isn't known, or isn't a number of trees.
    trees_plain : int
        Trees of candidates that aren't shared, part of all numbers above.
    parameters : list of mapping
        The candidates.
    settings_of : list of int
        Each candidate's setting of the steps in front.
    shared_fits : list of SharedFit
        Other fits that serve several candidates each.
    """

    candidates: int
    folds: int
    groups: list[Group]
    not_shared: dict[str, list[int]]
    trees_asked: int
    trees_distinct: int
    trees_at_most: int
    trees_needed: int
    trees_of: list[int]
    trees_plain: int
    parameters: list[Mapping[str, Any]] = field(repr=False)
    settings_of: list[int] = field(repr=False)
    shared_fits: list[SharedFit] = field(default_factory=list)
    estimate: Estimate | None = None

    @property
    def counted(self) -> str:
        """What the numbers of trees count: trees, stages, or fits."""
        return next((shared.counted for shared in self.shared_fits), "trees")

    @property
    def fits(self) -> int:
        """How many fits scikit-learn would do."""
        return self.candidates * self.folds

    def then(self, later: SearchPlan) -> SearchPlan:
        """Return the plan of this round and a later one of the same search."""
        reasons = {reason: list(candidates) for reason, candidates in self.not_shared.items()}
        for reason, candidates in later.not_shared.items():
            reasons.setdefault(reason, []).extend(self.candidates + candidate for candidate in candidates)
        added = (
            "candidates",
            "groups",
            "shared_fits",
            "parameters",
            *(name for name in vars(self) if name.startswith("trees_")),
        )
        return replace(self, **{name: getattr(self, name) + getattr(later, name) for name in added}, not_shared=reasons)

    def plain_unit(self, fold: int, candidate: int) -> PlainUnit:
        """Return the unit that fits one candidate plainly on one fold."""
        return PlainUnit(
            fold, candidate, self.parameters[candidate], self.trees_of[candidate], self.settings_of[candidate]
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return {
            "candidates": self.candidates,
            "folds": self.folds,
            "fits": self.fits,
            "groups": len(self.groups) + len(self.shared_fits),
            "trees_asked": self.trees_asked,
            "trees_saved": {
                "equal forests": self.trees_asked - self.trees_distinct,
                "smaller n_estimators": self.trees_distinct - self.trees_at_most,
                "max_depth that no tree reaches": self.trees_at_most - self.trees_needed,
            },
            "trees_needed": self.trees_needed,
            "trees_at_most": self.trees_at_most,
            "trees_plain": self.trees_plain,
            "not_shared": {reason: len(candidates) for reason, candidates in self.not_shared.items()},
            "estimate": None if self.estimate is None else self.estimate.as_dict(),
        }

    def __str__(self) -> str:
        lines = [f"{self.candidates:,} candidates on {self.folds} folds: {self.fits:,} fits"]
        if self.trees_asked:
            less = f" ({self.trees_asked / self.trees_needed:.1f} times fewer)" if self.trees_needed else ""
            saved = {
                "equal forests": self.trees_asked - self.trees_distinct,
                "fewer n_estimators": self.trees_distinct - self.trees_at_most,
                "max_depth unmet": self.trees_at_most - self.trees_needed,
            }
            if self.shared_fits:
                saved = {"part of larger ones": self.trees_asked - self.trees_needed}
            lines += [
                f"  {f'{self.counted} asked for':<20} {self.trees_asked:>12,}",
                *(f"  - {what:<18} {count:>12,}" for what, count in saved.items()),
                f"  {f'{self.counted} to grow':<20} {self.trees_needed:>12,}{less}",
            ]
            if self.trees_at_most > self.trees_needed:
                lines.append(f"  at most              {self.trees_at_most:>12,} if every tree meets every depth limit")
        for reason, candidates in self.not_shared.items():
            lines.append(f"  {len(candidates):,} candidates fitted plainly: {reason}")
        if self.estimate is not None:
            lines.append(f"  {self.estimate}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Estimate:
    """What a search will cost, extrapolated from a few trees of its largest group.

    Parameters
    ----------
    seconds : float
        Wall time on `slots` threads or cores of this speed.
    bytes : int
        What the search holds in memory besides the data as it was given.
    slots : int
        How many units run at the same time.
    """

    seconds: float
    bytes: int
    slots: int

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return {"seconds": round(self.seconds, 1), "bytes": self.bytes, "slots": self.slots}

    def __str__(self) -> str:
        return f"about {self.seconds:,.0f} s on {self.slots} cores, {self.bytes / 2**20:,.0f} MiB besides the data"


def make_plan(candidates: Sequence[Mapping[str, Any]], data: SearchData, *, unshareable: str = "") -> SearchPlan:
    """Find out which candidates share what, and tell the data which settings of the steps in front there are.

    Parameters
    ----------
    candidates : sequence of mapping
        As ``ParameterGrid`` gives them.
    unshareable : str
        Why no candidate can share anything, if none can.
    """
    settings = Settings(data.estimator)
    readers: dict[int, tuple[dict[str, Any], ForestReader | None, str]] = {}
    shared_fits: dict[tuple[int, str], SharedFit] = {}
    groups: dict[tuple[int, int, tuple[Hashable, ...]], Group] = {}
    reasons: dict[str, dict[int, None]] = {}
    trees_of: list[int] = []
    settings_of: list[int] = []
    plain_trees = 0

    # Folds of the same size read every candidate alike.
    folds_of_size: dict[int, list[int]] = {}
    for fold, (train, _) in enumerate(data.splits):
        folds_of_size.setdefault(len(train), []).append(fold)

    asked = 0
    for number, candidate in enumerate(candidates):
        last, mine, setting, random = settings.of(candidate)
        if id(last) not in readers:
            forest = type(last) in FORESTS
            n_features = _n_features(data) if last is settings.estimator else None
            one_target = getattr(data.y, "ndim", 0) == 1
            reader = ForestReader(last, n_features, one_target=one_target) if forest else None
            own = last.get_params(deep=False) if forest else {}
            readers[id(last)] = own, reader, unshareable or why_nothing_is_shared(data, last)
        own, reader, why = readers[id(last)]
        trees = {**own, **mine}.get("n_estimators")
        trees_of.append(int(trees) if isinstance(trees, numbers.Integral) and int(trees) > 0 else 0)
        settings_of.append(setting)
        for rows, folds in folds_of_size.items():
            read: Any = why
            if not why and reader is None:
                read = read_candidate(data.estimator, candidate, rows, random)
            elif not why and reader is not None:
                read = random or reader.read(mine, rows)
            if isinstance(read, str):
                reasons.setdefault(read, {})[number] = None
                plain_trees += trees_of[number] * len(folds)
                continue
            if isinstance(read, tuple):
                key, counted, size = read
                trees_of[number] = size
                asked += size * len(folds)
                for fold in folds:
                    shared = shared_fits.setdefault((fold, key), SharedFit(fold, key, counted, setting=setting))
                    shared.sizes[number] = size
                continue
            asked += read.n_trees * len(folds)
            for fold in folds:
                group = groups.get((fold, setting, read.group))
                if group is None:
                    parameters = {**own, **mine}
                    group = groups[fold, setting, read.group] = Group(
                        fold, setting, read.group, type(last), parameters, int(parameters["random_state"])
                    )
                group.wanted.setdefault(read.limit, {}).setdefault(read.n_trees, []).append(number)

    data.settings = settings.parameters
    each, fits = list(groups.values()), list(shared_fits.values())
    of_fits = sum(shared.largest for shared in fits)
    return SearchPlan(
        candidates=len(candidates),
        folds=len(data.splits),
        groups=each,
        not_shared={reason: list(its_candidates) for reason, its_candidates in reasons.items()},
        trees_asked=asked + plain_trees,
        trees_distinct=sum(sum(numbers) for group in each for numbers in group.by_depth.values())
        + sum(sum(set(shared.sizes.values())) for shared in fits)
        + plain_trees,
        trees_at_most=sum(group.trees_at_most for group in each) + of_fits + plain_trees,
        trees_needed=sum(group.trees for group in each) + of_fits + plain_trees,
        trees_of=trees_of,
        trees_plain=plain_trees,
        parameters=list(candidates),
        settings_of=settings_of,
        shared_fits=fits,
    )


def measure(plan: SearchPlan, data: SearchData, slots: int) -> Estimate | None:
    """Grow a few trees of the largest group and extrapolate; what a cache may have is not taken off.

    Parameters
    ----------
    slots : int
        How many units will run at the same time.

    Returns
    -------
    Estimate, optional
        None if the trees can't be grown; the search will say why.
    """
    rows_of = [len(train) for train, _ in data.splits]
    largest = max(plan.groups, key=lambda group: group.trees * rows_of[group.fold])
    try:
        rows = data.fold(largest.fold, largest.setting).rows
        seeds = tree_seeds(largest.seed, min(_SAMPLE, largest.trees))
        depth, _ = max(largest.wanted)
        grow(largest.forest_class, largest.parameters, seeds[:1], depth, rows)  # the first one is slow
        began = time.perf_counter()
        trees = grow(largest.forest_class, largest.parameters, seeds, depth, rows)
        for tree in trees:
            predict(tree, rows)
    except Exception:  # noqa: BLE001 - whatever it is, the search itself says it better
        return None
    finally:
        data.release(largest.fold)
    per_row = (time.perf_counter() - began) / len(trees) / rows_of[largest.fold]
    seconds = sum(group.trees * rows_of[group.fold] for group in plan.groups) * per_row
    busy = max(min(slots, len(plan.groups)), 1)
    tree_bytes = max(len(pickle.dumps(tree.tree_)) for tree in trees)
    row_bytes = sum(getattr(X, "nbytes", 0) or X.data.nbytes for X in (rows.X, *rows.evaluate))
    return Estimate(seconds / busy, plan.folds * row_bytes + busy * BATCH * tree_bytes, slots)


def why_nothing_is_shared(data: SearchData, last: Any) -> str:
    """Return why no candidate with this last step can share anything; empty if some may."""
    if type(last) not in FORESTS:
        unknown = sorted(name for name in data.fit_params if not name.endswith("sample_weight"))
        return f"the fit parameters {unknown} may change what a fit does" if unknown else ""
    if data.y is None:
        return "there is no target"
    others = set(data.fit_params) - {"sample_weight"} if type(last) is type(data.estimator) else set()
    return f"the fit parameters {sorted(others)} aren't the forest's alone" if others else ""


def _n_features(data: SearchData) -> int | None:
    shape: tuple[int, ...] = getattr(data.X, "shape", ())
    return int(shape[-1]) if len(shape) == 2 else None
