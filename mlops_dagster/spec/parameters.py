"""What a step takes and what a pipeline is made of, as data that every tool reads. Standard library only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlops_dagster.errors import printable, refuse

Kind = Literal["integer", "number", "boolean", "text", "grid"]
PARAMETER_TYPES: Mapping[Kind, str] = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "text": "a text",
    "grid": "parameters with the values to try",
}


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a step.

    Parameters
    ----------
    name : str
        As users write it, in every tool.
    kind : {"integer", "number", "boolean", "text", "grid"}
        Its type. A boolean is not an integer, a text is not a number, 2.0 is an integer's value only if written ``2``.
        What a grid says is checked as a whole, see :mod:`mlops_dagster.spec.grids`.
    description : str
        One or two sentences for the launchpad and ``--help``.
    minimum, maximum : float, optional
        Bounds of a number, inclusive.
    above, below : bool
        Whether the minimum, the maximum itself is no value any more.
    choices : tuple of str, optional
        What a text may be.
    whole_above : float, optional
        Above this a number has to be whole.

    Examples
    --------
    >>> Parameter("max_depth", "integer", "", 1, 1000).check(80)
    80
    >>> Parameter("max_depth", "integer", "", 1, 1000).check("80")
    Traceback (most recent call last):
    ...
    mlops_dagster.errors.ParameterError: max_depth='80' (str): give an integer from 1 to 1000.
    """

    name: str
    kind: Kind
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    whole_above: float | None = None
    above: bool = False
    below: bool = False

    @property
    def domain(self) -> str:
        """The values that are allowed, in words."""
        if self.choices is not None:
            return "one of " + ", ".join(self.choices)
        words = PARAMETER_TYPES[self.kind]
        if self.above or self.below:
            low = (
                None if self.minimum is None else f"{'above' if self.above else 'of at least'} {_number(self.minimum)}"
            )
            high = None if self.maximum is None else f"{'below' if self.below else 'up to'} {_number(self.maximum)}"
            words += f" {' and '.join(filter(None, (low, high)))}"
        elif self.minimum is not None and self.maximum is not None:
            words += f" from {_number(self.minimum)} to {_number(self.maximum)}"
        elif self.minimum is not None:
            words += f" of at least {_number(self.minimum)}"
        elif self.maximum is not None:
            words += f" of at most {_number(self.maximum)}"
        if self.whole_above is not None:
            words += f", above {_number(self.whole_above)} a whole one"
        return words

    def check(self, value: object) -> Any:
        """Return the value as it was given, or raise a :class:`ParameterError`.

        Raises
        ------
        ParameterError
            If the value is of another type or out of bounds. Nothing is ever converted or clipped.
        """
        right_type = {
            "integer": isinstance(value, int) and not isinstance(value, bool),
            "number": isinstance(value, int | float) and not isinstance(value, bool),
            "boolean": isinstance(value, bool),
            "text": isinstance(value, str),
            "grid": isinstance(value, Mapping),
        }[self.kind]
        if not right_type:
            raise refuse(self.name, value, f"give {self.domain}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(self.name, value, f"give {self.domain}.")
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = self.minimum, self.maximum
            too_small = low is not None and (value < low or (self.above and value == low))
            too_large = high is not None and (value > high or (self.below and value == high))
            broken = self.whole_above is not None and value > self.whole_above and value != int(value)
            if too_small or too_large or broken:
                raise refuse(self.name, value, f"give {self.domain}.")
        if isinstance(value, str) and printable(value) != value:
            raise refuse(self.name, value, "it has bytes that aren't UTF-8; rename the file or folder.")
        if self.choices is not None and value not in self.choices:
            raise refuse(self.name, value, f"give {self.domain}.")
        return value


CANDIDATES = Parameter(
    "candidates",
    "text",
    "How MLflow shows the candidates: as one table of the search's run, or as a child run each.",
    choices=("table", "children"),
)
"""A parameter of every search."""


@dataclass(frozen=True)
class Step:
    """A step: its name is the name of its function in ``steps/``, of its table and of its asset.

    The description says what the asset holds. Parameters that are neither given nor in `defaults` are the deployment's,
    or left out.
    """

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline: its steps in the order in which they run, and what it gives them unless the run says otherwise."""

    name: str
    description: str
    steps: tuple[Step, ...]
    chooses: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def chosen(self, step: Step, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a step is given: what the run says, and of the rest what the pipeline chooses."""
        mine = {one.name: self.chooses[one.name] for one in step.parameters if one.name in self.chooses}
        return {**mine, **{name: value for name, value in given.items() if value is not None or name not in mine}}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of all steps, the last step's first: they are what people change."""
        return tuple({one.name: one for step in reversed(self.steps) for one in step.parameters}.values())

    def explain(self, name: str) -> str:
        """Describe a parameter with the default of its step, see :func:`explain`."""
        known = {one.name: one for one in self.parameters}
        defaults = {name: str(value) for step in self.steps for name, value in step.defaults.items()}
        return explain(known[name], defaults.get(name))


def explain(parameter: Parameter, default: str | None = None) -> str:
    """Describe a parameter for forms and ``--help``: what it is, what may be given, what the default is.

    Examples
    --------
    >>> explain(Parameter("folds", "integer", "How often.", 2, 50), "5")
    'How often. Give an integer from 2 to 50. Default: 5.'
    """
    words = [parameter.description] if parameter.description else []
    if {parameter.minimum, parameter.maximum, parameter.choices} != {None}:
        words.append(f"Give {parameter.domain}.")
    if default is not None:
        words.append(f"Default: {default}.")
    return " ".join(words)


def check_parameters(known: tuple[Parameter, ...], given: Mapping[str, object]) -> dict[str, Any]:
    """Check parameters one by one; those that are None count as not given and are left out.

    Raises
    ------
    ParameterError
        For an unknown name, naming those that exist, and for any bad value.
    """
    names = {parameter.name: parameter for parameter in known}
    for name, value in given.items():
        if name not in names:
            raise refuse(name, value, f"there is no such parameter; there are {', '.join(names)}.")
    return {name: names[name].check(value) for name, value in given.items() if value is not None}


def by_step(pipeline: Pipeline, given: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Return what each step of a run takes of what the run was given, not checked yet.

    Raises
    ------
    ParameterError
        For a name that no step of the pipeline knows.
    """
    known = dict.fromkeys(parameter.name for step in pipeline.steps for parameter in step.parameters)
    for name, value in given.items():
        if name not in known:
            raise refuse(name, value, f"{pipeline.name} has no such parameter; there are {', '.join(known) or 'none'}.")
    return {
        step.name: pipeline.chosen(
            step, {one.name: given[one.name] for one in step.parameters if given.get(one.name) is not None}
        )
        for step in pipeline.steps
    }


# A partition becomes a folder's name, a key, an MLflow tag and part of a URL: refuse, not escape.
# Yahoo's symbols (^GSPC, BRK-B, EURUSD=X, 0700.HK) all fit.
PARTITION = re.compile(r"[A-Za-z0-9^](?!.*\.\.)[A-Za-z0-9^=._-]{0,31}")


def check_partition(partition: object, name: str = "partition") -> str:
    """Return a partition's key, or refuse it.

    Parameters
    ----------
    name : str
        What people call it, for example ``symbol``.

    Raises
    ------
    ParameterError
        If it isn't 1 to 32 letters, digits, ``^``, ``=``, ``.``, ``_`` or ``-`` beginning with a letter, a digit or
        ``^``, or contains ``..``.

    Examples
    --------
    >>> check_partition("^GSPC")
    '^GSPC'
    >>> check_partition("../x", "symbol")
    Traceback (most recent call last):
    ...
    mlops_dagster.errors.ParameterError: symbol='../x' (str): give 1 to 32 letters, digits or ^ = . _ - ...
    """
    if not isinstance(partition, str) or not PARTITION.fullmatch(partition):
        cure = "give 1 to 32 letters, digits or ^ = . _ - beginning with a letter, a digit or ^, without '..'."
        raise refuse(name, partition, cure)
    return partition
