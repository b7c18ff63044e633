"""Which version of each table a step reads: the one that its caller's run has made, or the current one, taken once.

Without it two runs of one symbol at the same time would mix: a step would read what the other run wrote last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mlops_dagster.errors import refuse
from mlops_dagster.steps.growing_tables import what_is_there

if TYPE_CHECKING:
    import pandas as pd

    from mlops_dagster.stack.store import Store, TableVersion

Pins = Mapping[str, Mapping[str, Any]]
"""By a table's name its ``version`` and ``digest``, as the `outputs` of a step's report have them."""


class Inputs:
    """The tables that one step reads, each in one version, however often it is read.

    Parameters
    ----------
    made : mapping, optional
        What the caller's run has made so far, see :data:`Pins`. A step takes from it what it reads; a table that isn't
        among it is read as it is when it is first asked for.
    known : collection of str
        The tables there are.

    Raises
    ------
    ParameterError
        As :func:`check_pins` says.

    Attributes
    ----------
    used : dict
        What was read, in the same form.
    """

    def __init__(self, symbol: str, store: Store, made: Pins | None = None, *, known: Collection[str]) -> None:
        self.symbol, self.store, self._made = symbol, store, check_pins(made or {}, known)
        self._read: dict[str, tuple[pd.DataFrame, TableVersion]] = {}

    def read(
        self, table: str, *, version: int | None = None, digest: str | None = None
    ) -> tuple[pd.DataFrame, TableVersion]:
        """Read a table; see :meth:`mlops_dagster.stack.store.Store.read` for what is raised.

        Parameters
        ----------
        version, digest : int, str, optional
            Which version, if another table that was read says so. Not given: as the caller says, or the current one.
        """
        if table not in self._read:
            said = {"version": version, "digest": digest}
            pin = said if any(value is not None for value in said.values()) else self._made.get(table, {})
            self._read[table] = self.store.read(table, self.symbol, **pin)
        return self._read[table]

    def newest(self, table: str) -> pd.DataFrame | None:
        """Read a history as it is now, whatever the caller's run has made; None if there is no such table yet."""
        frame, version = what_is_there(table, self.symbol, self.store)
        if frame is not None and version is not None:
            self._read[table] = frame, version
        return frame

    @property
    def used(self) -> dict[str, dict[str, Any]]:
        """The version and the digest of each table that was read."""
        return {name: pin_of(table) for name, (_, table) in self._read.items()}


def pin_of(table: TableVersion) -> dict[str, Any]:
    """Return what names a version: its number, and its digest, since a number may be given away again."""
    return {"version": table.version, "digest": table.digest}


def check_pins(given: object, known: Collection[str]) -> dict[str, dict[str, Any]]:
    """Refuse what doesn't name versions of tables.

    Raises
    ------
    ParameterError
        If it isn't a mapping of tables that steps make to their version and digest.

    Examples
    --------
    >>> check_pins({"data": 3}, ["data"])
    Traceback (most recent call last):
    ...
    mlops_dagster.errors.ParameterError: inputs.data=3 (int): give version (an integer from 0) and digest (64 \
hexadecimal digits), as the outputs of the step that made it have them.
    """
    if not isinstance(given, Mapping):
        raise refuse("inputs", given, "give an object of tables, as the outputs of earlier steps have them.")
    for name, pin in given.items():
        if name not in known:
            raise refuse("inputs", name, f"no step makes such a table; there are {', '.join(known)}.")
        fields = pin if isinstance(pin, Mapping) else {}
        version, digest = fields.get("version"), fields.get("digest")
        if set(fields) != {"version", "digest"} or type(version) is not int or version < 0 or not _is_digest(digest):
            cure = "give version (an integer from 0) and digest (64 hexadecimal digits), as the outputs of the step"
            raise refuse(f"inputs.{name}", pin, f"{cure} that made it have them.")
    return {name: dict(pin) for name, pin in given.items()}


def _is_digest(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")
