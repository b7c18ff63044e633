"""A proposal for a declaration, made from a table and the name of its target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pandas as pd
import yaml

from mlops_dagster.modeling.proposed_python import features_python, model_python
from mlops_dagster.modeling.table_roles import TEST_SIZE, Roles, Wishes, plain_number

_FEW = 20  # values of a text that are listed


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


class _Proposing(Roles):
    preset: Mapping[str, Any]

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
        said["search"] = {"presets": {"quick": self.preset}, "cv": {**folds, "folds": self._folds()}}
        said["gate"] = {"mode": "enabled", "confidence": 0.9, "beat_baseline": True}
        if wishes.horizon is not None or self.target.isna().any():
            values = ["class", "probabilities"] if self.classes else ["value", "interval"]
            said["predictions"] = {"output": values}
            what = "the last rows, whose truth hasn't come" if wishes.horizon else "the rows without a target"
            self.comments["predictions"] = what
            if not self.key and self.time is None:
                self.notes.append(
                    "Nothing says which row is which: how good predictions were can only be told with a key."
                )
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
        if self.key == [name] or name in (self.time, self.wishes.partition):
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
            return {"kind": "chronological", "test_size": TEST_SIZE}
        kind = "random"
        if self.group is not None:
            kind = "group"
        elif self.classes and self.known.value_counts().min() >= 2:
            kind = "stratified"
        return {"kind": kind, "test_size": TEST_SIZE, "seed": 0}

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
        with files("mlops_dagster.modeling").joinpath("proposed_estimators.yaml").open(encoding="utf-8") as file:
            known = yaml.safe_load(file.read().replace("{what}", what))
        plain = not self.categories and not gaps
        chosen = known["forest" if plain else "boosting"]
        said["estimator"], said["parameters"] = chosen["estimator"], chosen["parameters"]
        self.preset = chosen["preset"]
        if plain:
            if len(self.classes) > 2:
                said["parameters"] |= known["forest of several classes"]["parameters"]
                self.preset |= known["forest of several classes"]["preset"]
            return None
        why = " and ".join(
            [*(["encodes categories"] if self.categories else []), *(["takes missing values"] if gaps else [])]
        )
        self.comments["estimator"] = f"in model.py: it {why}"
        return model_python(what, self.categories)

    def _features_ahead(self) -> str:
        others = [name for name in self.features if self.types[name] != "text" and name != self.wishes.target]
        dated = self.time if self.time is not None and self.types[self.time] == "date" else None
        return features_python(self.wishes.target, self.group, dated, others)

    def _facts(self, said: Mapping[str, Any]) -> dict[str, str]:
        rows = f"{len(self.frame):,}"
        if self.classes:
            counts = self.known.value_counts()
            shown = ", ".join(f"{plain_number(name)} {count:,}" for name, count in counts.head(8).items())
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
    return plain_number(low), plain_number(high)


def _rounded(value: float, to: Any) -> float:
    if value == 0:
        return 0.0
    digits = math.floor(math.log10(abs(value)))
    step = 10.0**digits / 2
    # By way of the decimal text: 0.15 and not 0.15000000000000002.
    return float(f"{to(value / step) * step:.{max(1, 2 - digits)}f}") if abs(digits) < 15 else value
