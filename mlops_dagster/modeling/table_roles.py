"""What the columns of a table are for a model: target and task, key, time, features. What is guessed is said."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.errors import refuse
from mlops_dagster.modeling.training_set import MIN_TEST_ROWS, MIN_TRAIN_ROWS

TEST_SIZE = 0.25
MIN_ROWS = math.ceil(max(MIN_TRAIN_ROWS / (1 - TEST_SIZE), MIN_TEST_ROWS / TEST_SIZE))
_MANY = 100  # values of a text that a pipeline still takes for categories
_TAKEN = ("target", "current", "truth", "split", "position")
_NAMELESS = re.compile(r"|Unnamed: \d+|index|__index_level_\d__")  # as pandas calls what has no name
_NAMES_A_ROW = re.compile(r"(^|[_\W])(id|key|nr|no|number|code|uuid|nummer)($|[_\W])|[a-z]I[dD]$", re.IGNORECASE)


@dataclass(frozen=True)
class Wishes:
    """What the user said himself."""

    target: str
    task: str | None = None
    time: str | None = None
    group: str | None = None
    partition: str | None = None
    horizon: int | None = None
    by_file: bool = False


class Roles:
    """What each column of a table is, and what is refused since nothing can be learned from it."""

    def __init__(self, frame: pd.DataFrame, types: Mapping[str, str], wishes: Wishes) -> None:
        self.frame, self.types, self.wishes = frame, dict(types), wishes
        self.notes: list[str] = []
        self.comments: dict[str, str] = {}
        self._check_columns()
        self.target = frame[wishes.target]
        self.known = self.target.dropna()
        self._check_target()
        self.task = wishes.task or self._task()
        self.classes = sorted(map(str, self.known.unique())) if self.task == "classification" else []
        self._check_task()
        self.time = self._time()
        self.group = wishes.group
        self.key = self._key()
        self.features = self._features()
        self.categories = [name for name in self.features if self.types[name] == "text"]

    # ------------------------------------------------------------------------------------------------ what is refused

    def _check_columns(self) -> None:
        wishes, columns = self.wishes, list(self.frame.columns)
        given = {"target": wishes.target, "time": wishes.time, "group": wishes.group}
        if not wishes.by_file:
            given["partition"] = wishes.partition
        for option, name in given.items():
            if name is not None and name not in columns:
                alike = [one for one in columns if one.lower() == name.lower()]
                meant = alike or difflib.get_close_matches(name, columns, n=1)
                there = ", ".join(columns[:30]) + (" ..." if len(columns) > 30 else "")
                cure = f"did you mean {meant[0]}?" if meant else f"there are {there}."
                raise refuse(f"--{option}", name, f"the table has no such column; {cure}")
        if len(self.frame) < MIN_ROWS:
            cure = f"so few rows can't be learned from and tested on; give at least {MIN_ROWS}."
            raise refuse("rows of --data", len(self.frame), cure)
        if wishes.time is not None and self.types[wishes.time] not in ("date", "integer", "number"):
            cure = "it holds texts that are no dates; name a column of dates or numbers, or say how it is written."
            raise refuse("--time", wishes.time, cure)
        for option in ("time", "group"):
            name = getattr(wishes, option)
            if name is not None and self.frame[name].isna().any():
                row = int(np.flatnonzero(self.frame[name].isna())[0]) + 1
                raise refuse(f"--{option}", name, f"it is missing in row {row}; each row has to have it.")
        if wishes.horizon is not None and self._time() is None:
            raise refuse("--horizon", wishes.horizon, "a forecast needs a column that orders rows: give --time.")
        lower: dict[str, str] = {}
        for name in columns:
            if (other := lower.setdefault(name.lower(), name)) != name:
                raise refuse(
                    "--data", name, f"it differs from {other} in upper and lower case only; rename one of them."
                )

    def _check_target(self) -> None:
        name = self.wishes.target
        if self.known.empty:
            raise refuse("--target", name, "it has no values; name a column that has.")
        if self.known.nunique() < 2:
            value = self.known.iloc[0]
            raise refuse("--target", name, f"all rows have {plain_number(value)!r}; there is nothing to learn.")
        if len(self.known) < MIN_ROWS:
            raise refuse("--target", name, f"only {len(self.known)} rows have it; give at least {MIN_ROWS}.")

    def _check_task(self) -> None:
        name, kind = self.wishes.target, self.types[self.wishes.target]
        if self.task == "regression" and kind not in ("integer", "number"):
            cure = f"it holds {kind}s; a regression needs numbers. Leave --task out, or name another target."
            raise refuse("--target", name, cure)
        if self.task == "classification":
            if kind == "date":
                raise refuse("--target", name, "it holds dates, which are no classes; name another.")
            if len(self.classes) > max(2, min(200, len(self.known) // 5)):
                what = f"it has {len(self.classes):,} values in {len(self.known):,} rows, too many for classes"
                more = "; give --task regression, or name another." if kind != "text" else "; name another."
                raise refuse("--target", name, what + more)
            if self.wishes.horizon is not None:
                raise refuse("--horizon", self.wishes.horizon, "forecasts are of numbers: the target has to be one.")

    # ----------------------------------------------------------------------------------------------------- what it is

    def _task(self) -> str:
        kind = self.types[self.wishes.target]
        if self.wishes.horizon is not None and kind in ("integer", "number"):
            return "regression"
        counts = self.known.value_counts()
        if kind == "integer" and (len(counts) == 2 or (len(counts) <= 10 and counts.min() >= 5)):
            if (count := len(counts)) > 2:
                self.notes.append(
                    f"{self.wishes.target}: its {count} different numbers are taken for classes; if they are amounts, "
                    "use --task regression."
                )
            return "classification"
        return "regression" if kind in ("integer", "number") else "classification"

    def _time(self) -> str | None:
        """Return the only column of dates in which every row has one, if the rows are in its order."""
        if self.wishes.time is not None:
            return self.wishes.time
        found = [
            name
            for name in self.frame.columns
            if self.types[name] == "date" and name != self.wishes.target and self.frame[name].notna().all()
        ]
        if len(found) != 1 or self.frame[found[0]].nunique() < 2:
            return None
        by = self.wishes.group or (None if self.wishes.by_file else self.wishes.partition)
        rows = self.frame[found[0]]
        parts = [rows] if by is None or by not in self.frame else [one for _, one in rows.groupby(self.frame[by])]
        ordered = all(one.is_monotonic_increasing or one.is_monotonic_decreasing for one in parts)
        return found[0] if ordered or self.wishes.horizon is not None or self.wishes.by_file else None

    def _key(self) -> list[str]:
        over = [self.group, None if self.wishes.by_file else self.wishes.partition, self.time]
        rows = list(dict.fromkeys(name for name in over if name is not None))
        single = [
            name
            for name in self.frame.columns
            if name not in (self.wishes.target, self.time)
            and not _NAMELESS.fullmatch(name)
            and self.types[name] in ("integer", "text")
            and self.frame[name].notna().all()
            and self.frame[name].is_unique
        ]
        named = [name for name in single if _NAMES_A_ROW.search(name)]
        named += [name for name in single if self.types[name] == "text" and _is_a_name(self.frame[name])]
        counts = [name for name in single if self.types[name] == "integer" and self._counts(name)]
        pair = self._pair() if not (named or counts or self.time) else []
        for key in ([named[0]] if named else [], [counts[0]] if counts else [], rows if self.time else [], pair):
            if key and not self.frame.duplicated(key).any():
                return key
        return []

    def _pair(self) -> list[str]:
        """Return two columns that together identify a row, if that is no chance: most of their pairs are there."""
        rows, counts = len(self.frame), self.frame.nunique()
        able = [
            name
            for name in self.frame.columns
            if name != self.wishes.target and self.types[name] in ("integer", "text") and self.frame[name].notna().all()
        ]
        for pair in combinations([name for name in able if 1 < counts[name] <= rows / 2], 2):
            if counts[pair[0]] * counts[pair[1]] <= 2 * rows and not self.frame.duplicated([*pair]).any():
                self.comments["key"] = "no two rows have the same; leave it out if that is chance"
                return [*pair]
        return []

    def _counts(self, name: str) -> bool:
        values = self.frame[name].to_numpy()
        return name == self.frame.columns[0] and bool((np.diff(values) == 1).all())

    def _features(self) -> list[str]:
        wishes = self.wishes
        ahead = wishes.horizon is not None
        single = self.key if len(self.key) == 1 else []  # of a pair each says something by itself
        apart = {*single, self.time, self.group, wishes.partition} - ({wishes.target} if ahead else set())
        if not ahead:
            apart.add(wishes.target)
        found = []
        for name in self.frame.columns:
            why = None if name in apart else self._useless(name)
            if why:
                self.notes.append(f"{name} is no feature: {why}.")
            if name not in apart and why is None:
                found.append(name)
        if not found:
            raise refuse(
                "columns of --data",
                len(self.frame.columns),
                "no column is left to learn from; give some that say more.",
            )
        return found

    def _useless(self, name: str) -> str | None:
        values = self.frame[name]
        known = values.dropna()
        if name in _TAKEN and self.wishes.horizon is None:
            return "a training set has a column of its own by this name; rename it in the file"
        if _NAMELESS.fullmatch(name):
            return "it only counts rows" if name else "it has no name"
        if known.nunique() < 2:
            return "it has no values" if known.empty else f"it is always {plain_number(known.iloc[0])!r}"
        if self.types[name] == "date":
            return (
                "a date says little by itself; make features of it with a function, or give --time "
                f"{name} if it orders the rows"
            )
        if self.types[name] == "text" and known.nunique() > _MANY:
            return f"it has {known.nunique():,} different texts"
        if name != self.wishes.target and self.wishes.horizon is None and self._tells(name):
            return f"it is {self.wishes.target} by another name: each of its values goes with one of the target's"
        return None

    def _tells(self, name: str) -> bool:
        """Whether a column is the target by another name, or in another unit."""
        target = self.wishes.target
        pairs = self.frame[[name, target]].dropna()
        if len(pairs) < len(self.known) * 0.9 or pairs[name].nunique() != pairs[target].nunique():
            return False
        if self.classes:
            return len(pairs.drop_duplicates()) == pairs[name].nunique()
        if self.types[name] not in ("integer", "number"):
            return False
        return abs(float(np.corrcoef(pairs[name], pairs[target])[0, 1])) > 1 - 1e-9


def _is_a_name(values: pd.Series[Any]) -> bool:
    return bool(values.str.fullmatch(r"\S{1,40}").all()) and bool(values.str.contains(r"\d").any())


def plain_number(value: Any) -> Any:
    """Return a whole double as the integer that people write."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
