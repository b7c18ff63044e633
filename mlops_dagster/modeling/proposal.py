"""A proposal for a declaration, made from a table and the name of its target. What is guessed is said."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mlops_dagster.errors import refuse
from mlops_dagster.modeling.training_set import MIN_TEST_ROWS, MIN_TRAIN_ROWS

_TEST_SIZE = 0.25
MIN_ROWS = math.ceil(max(MIN_TRAIN_ROWS / (1 - _TEST_SIZE), MIN_TEST_ROWS / _TEST_SIZE))
_FEW = 20  # values of a text that are listed, of an integer that are classes
_MANY = 100  # values of a text that a pipeline still takes for categories
_NAMELESS = re.compile(r"|Unnamed: \d+|index|__index_level_\d__")  # as pandas calls what has no name
_NAMES_A_ROW = re.compile(r"(^|[_\W])(id|key|nr|no|number|code|uuid|nummer)($|[_\W])|[a-z]I[dD]$", re.IGNORECASE)


@dataclass(frozen=True)
class Proposal:
    """What a declaration is proposed to say.

    Parameters
    ----------
    attributes : dict
        The declaration's, but for its data.
    comments : dict of str to str
        To some of them, why.
    python : dict of str to str
        The files beside it, and what they hold.
    notes : tuple of str
        What was left out or assumed, a sentence each.
    facts : dict of str to str
        What is there, in words, for whoever looks it through.
    """

    attributes: dict[str, Any]
    comments: dict[str, str] = field(default_factory=dict)
    python: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


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


def propose(frame: pd.DataFrame, types: Mapping[str, str], wishes: Wishes) -> Proposal:
    """Propose a declaration for a table.

    Parameters
    ----------
    frame : DataFrame
        The rows, each column in the type that `types` says; numbers as doubles, missing values as NaN, NaT or None.
    types : mapping of str to str
        A type of a contract for each column.
    wishes : Wishes
        What the user said.

    Raises
    ------
    ParameterError
        If nothing can be learned from it: the target isn't there, or is constant, or there are too few rows.
    """
    return _Proposing(frame, types, wishes).proposal()


class _Proposing:
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
            raise refuse("--target", name, f"all rows have {_plain(value)!r}; there is nothing to learn.")
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
        for key in ([named[0]] if named else [], [counts[0]] if counts else [], rows if self.time else []):
            if key and not self.frame.duplicated(key).any():
                return key
        return []

    def _counts(self, name: str) -> bool:
        values = self.frame[name].to_numpy()
        return name == self.frame.columns[0] and bool((np.diff(values) == 1).all())

    def _features(self) -> list[str]:
        wishes = self.wishes
        ahead = wishes.horizon is not None
        apart = {*self.key, self.time, self.group, wishes.partition} - ({wishes.target} if ahead else set())
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
        if _NAMELESS.fullmatch(name):
            return "it only counts rows" if name else "it has no name"
        if known.nunique() < 2:
            return "it has no values" if known.empty else f"it is always {_plain(known.iloc[0])!r}"
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

    # ---------------------------------------------------------------------------------------------------- what is said

    def proposal(self) -> Proposal:
        wishes = self.wishes
        said: dict[str, Any] = {"task": self.task}
        said["contract"] = {
            name: self._rule(name) for name in self.frame.columns if name and not self._is_left_out(name)
        }
        if self.key:
            said["key"] = self.key
        if self.time is not None:
            said["time"] = self.time
            if wishes.time is None:
                self.comments["time"] = "the only column of dates; leave it out if it doesn't order the rows"
        if self.group is not None:
            said["group"] = self.group
        if wishes.partition is not None:
            said["partitions"] = {"name": wishes.partition}
        said["features"] = ".features:make" if wishes.horizon is not None else self.features
        said["target"] = wishes.target
        if wishes.horizon is not None:
            said["target"] = {"column": wishes.target, "horizon": wishes.horizon, "learn": "difference"}
        said["split"] = self._split()
        python = {}
        if wishes.horizon is not None:
            python["features.py"] = self._features_ahead()
            self.comments["features"] = "in features.py: where it stands, and how that has changed"
        if made := self._estimator(said):
            python["model.py"] = made
        said["metrics"], said["baseline"] = self._metrics(), self._baseline()
        folds = {name: value for name, value in said["split"].items() if name in ("kind", "seed")}
        said["search"] = {"presets": self._presets(said), "cv": {**folds, "folds": self._folds()}}
        said["gate"] = {"mode": "enabled", "confidence": 0.9, "beat_baseline": True}
        if wishes.horizon is not None or self.target.isna().any():
            values = ["class", "probabilities"] if self.classes else ["value", "interval"]
            said["predictions"] = {"output": values}
            what = "the last rows, whose truth hasn't come" if wishes.horizon else "the rows without a target"
            self.comments["predictions"] = what
        return Proposal(said, self.comments, python, tuple(self.notes), self._facts(said))

    def _is_left_out(self, name: str) -> bool:
        if self.types[name] == "date":
            return False  # for whoever makes a feature of it
        return name not in {*self.features, *self.key, self.time, self.group, self.wishes.partition, self.wishes.target}

    def _rule(self, name: str) -> dict[str, Any]:
        values, kind = self.frame[name], self.types[name]
        rule: dict[str, Any] = {"type": kind}
        if values.isna().any():
            rule["nullable"] = True
        known = values.dropna()
        if name in self.key or name in (self.time, self.wishes.partition):
            return rule
        few = known.nunique()
        is_class = name == self.wishes.target and bool(self.classes)
        if kind == "text" and (is_class or (few <= _FEW and few * 2 <= len(known))):
            rule["allowed"] = sorted(map(str, known.unique()))
        elif kind == "integer" and (is_class or few == 2):
            rule["allowed"] = sorted(int(one) for one in known.unique())
        elif kind in ("integer", "number"):
            rule["minimum"], rule["maximum"] = bounds_of(known, whole=kind == "integer")
        return rule

    def _split(self) -> dict[str, Any]:
        if self.time is not None and self.wishes.group is not None and self.wishes.horizon is None:
            self.notes.append("The last rows are tested on. For rows of groups never seen, say split.kind: group.")
        if self.time is not None:
            return {"kind": "chronological", "test_size": _TEST_SIZE}
        kind = "random"
        if self.group is not None:
            kind = "group"
        elif self.classes and self.known.value_counts().min() >= 2:
            kind = "stratified"
        return {"kind": kind, "test_size": _TEST_SIZE, "seed": 0}

    def _folds(self) -> int:
        if self.group is not None and self.time is None:
            return max(2, min(5, int(self.frame[self.group].nunique() * 0.7)))
        if self.classes and self.time is None:
            return max(2, min(5, int(self.known.value_counts().min() * 0.75)))
        return 5

    def _metrics(self) -> list[str]:
        if not self.classes:
            return ["neg_root_mean_squared_error", "neg_mean_absolute_error", "r2"]
        if len(self.classes) == 2:
            return ["roc_auc", "neg_log_loss", "balanced_accuracy"]
        return ["neg_log_loss", "balanced_accuracy", "f1_macro"]

    def _baseline(self) -> str:
        if self.wishes.horizon is not None:
            return "persistence"
        return "prior" if self.classes else "mean"

    def _estimator(self, said: dict[str, Any]) -> str | None:
        """Say what learns, and what can be changed of it; return the Python that it needs."""
        what = "Classifier" if self.classes else "Regressor"
        gaps = [name for name in self.features if self.frame[name].isna().any()]
        if self.wishes.horizon is not None:
            self.categories = []
        leaf = {"default": 1, "minimum": 1, "maximum": 1000, "description": "Rows that a leaf has at least."}
        depth = {"default": None, "type": "integer", "minimum": 1, "maximum": 1000}
        depth["description"] = "Levels of a tree at most. Not given: no limit."
        if not self.categories and not gaps:
            path = f"sklearn.ensemble.RandomForest{what}"
            said["estimator"] = {"class": path, "arguments": {"random_state": 0}}
            trees = {"default": 100, "minimum": 1, "maximum": 1000, "description": "How many trees vote."}
            said["parameters"] = {"n_estimators": trees, "max_depth": depth, "min_samples_leaf": leaf}
            return None
        why = " and ".join(
            [*(["encodes categories"] if self.categories else []), *(["takes missing values"] if gaps else [])]
        )
        self.comments["estimator"] = f"in model.py: it {why}"
        said["estimator"] = {"function": ".model:make"}
        said["parameters"] = {
            "learning_rate": {"default": 0.1, "minimum": 0.001, "maximum": 1.0, "description": "How much a tree adds."},
            "max_iter": {"default": 100, "minimum": 1, "maximum": 5000, "description": "How many trees are added."},
            "max_depth": depth,
            "min_samples_leaf": {**leaf, "default": 20},
        }
        return (
            _MODEL.format(what=what, categories=_python_list(self.categories))
            if self.categories
            else (_MODEL_OF_NUMBERS.format(what=what))
        )

    def _features_ahead(self) -> str:
        others = [name for name in self.features if self.types[name] != "text" and name != self.wishes.target]
        names = {"target": _quoted(self.wishes.target), "group": _quoted(self.group or "")}
        one = "{group}".format(**names)
        series = f"table.groupby({one}, sort=False)[{names['target']}]" if self.group else f"table[{names['target']}]"
        mean = "series.transform(lambda one: one.rolling(rows).mean())" if self.group else "series.rolling(rows).mean()"
        lines = [f"    features[{_quoted(name)}] = table[{_quoted(name)}]" for name in others]
        if self.time is not None and self.types[self.time] == "date":
            lines += [f'    features["weekday"] = table[{_quoted(self.time)}].dt.dayofweek']
            lines += [f'    features["month"] = table[{_quoted(self.time)}].dt.month']
        return _FEATURES.format(series=series, mean=mean, lines="\n".join([*lines, ""]), **names)

    def _presets(self, said: Mapping[str, Any]) -> dict[str, Any]:
        if "learning_rate" in said["parameters"]:
            return {"quick": {"learning_rate": [0.05, 0.1], "max_depth": [3, 6]}}
        return {"quick": {"max_depth": [4, 8, 16], "min_samples_leaf": [1, 5]}}

    def _facts(self, said: Mapping[str, Any]) -> dict[str, str]:
        rows = f"{len(self.frame):,}"
        if self.classes:
            counts = self.known.value_counts()
            shown = ", ".join(f"{_plain(name)} {count:,}" for name, count in counts.head(8).items())
            rows += f": {shown}" + (" ..." if len(counts) > 8 else "")
        if missing := int(self.target.isna().sum()):
            rows += f"; {missing:,} without {self.wishes.target}, which are predicted"
        few = ", ".join(self.features[:8]) + (f" and {len(self.features) - 8} more" if len(self.features) > 8 else "")
        split = said["split"]
        last = "the last rows" if split["kind"] == "chronological" else split["kind"]
        learns = said["estimator"].get("class") or f"the pipeline in model.py, which {self.comments['estimator'][16:]}"
        return {
            "rows": rows,
            "key": ", ".join(self.key) or "none: no column names a row",
            **({"time": self.time} if self.time else {}),
            **({"group": self.group} if self.group else {}),
            **({"a model for each": self.wishes.partition} if self.wishes.partition else {}),
            "features": few if self.wishes.horizon is None else "those that features.py makes",
            "tested on": f"{split['test_size']:.0%} of the rows, {last}",
            "estimator": learns.removeprefix("sklearn.ensemble."),
            "better than": said["baseline"],
            "metrics": ", ".join(one.removeprefix("neg_") for one in said["metrics"]),
        }


def _is_a_name(values: pd.Series[Any]) -> bool:
    return bool(values.str.fullmatch(r"\S{1,40}").all()) and bool(values.str.contains(r"\d").any())


def bounds_of(values: pd.Series[Any], *, whole: bool) -> tuple[float, float]:
    """Return bounds for values like these, with half of their span as room; what isn't negative stays so.

    Examples
    --------
    >>> bounds_of(pd.Series([18.0, 92.0]), whole=True)
    (0, 150)
    >>> bounds_of(pd.Series([0.1, 0.9]), whole=False)
    (0, 1)
    """
    lowest, highest = float(values.min()), float(values.max())
    room = (highest - lowest) / 2 or abs(highest) or 1.0
    low = 0.0 if lowest >= 0 else _rounded(lowest - room, math.floor)
    high = 1.0 if lowest >= 0 and highest <= 1 and not whole else _rounded(highest + room, math.ceil)
    if highest <= 0 < high:
        high = 0.0
    return _plain(low), _plain(high)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _rounded(value: float, to: Any) -> float:
    if value == 0:
        return 0.0
    digits = math.floor(math.log10(abs(value)))
    step = 10.0**digits / 2
    # By way of the decimal text: 0.15 and not 0.15000000000000002.
    return float(f"{to(value / step) * step:.{max(1, 2 - digits)}f}") if abs(digits) < 15 else value


def _python_list(names: Sequence[str]) -> str:
    lines = "".join(f"    {_quoted(name)},\n" for name in names)
    return f"[\n{lines}]"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'


_FEATURES = '''"""What the model sees of a row: it and those before it, never later ones; `mlops check` tries that."""

import pandas as pd


def make(table):
    """Return the features of each row, in the table's order."""
    now, series = table[{target}], {series}
    features = pd.DataFrame({{"now": now}})
    for rows in (1, 7):
        features[f"since_{{rows}}"] = now - series.shift(rows)
    for rows in (7, 28):
        features[f"to_mean_{{rows}}"] = {mean} - now
{lines}    return features
'''
_MODEL = '''"""What learns: an unfitted scikit-learn estimator, made of the declaration's parameters."""

from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoosting{what}
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

CATEGORIES = {categories}


def make(**parameters):
    """Each category becomes a column; rare and new ones share one. Missing values may stay missing."""
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50, sparse_output=False)
    columns = make_column_transformer((encoder, CATEGORIES), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoosting{what}(random_state=0, **parameters))
'''
_MODEL_OF_NUMBERS = '''"""What learns: an unfitted scikit-learn estimator, made of the declaration's parameters."""

from sklearn.ensemble import HistGradientBoosting{what}


def make(**parameters):
    """Its trees learn which way missing values go."""
    return HistGradientBoosting{what}(random_state=0, **parameters)
'''
