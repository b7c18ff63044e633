"""How far a search is, as lines of the run's log."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlops_dagster.search import Progress

SECONDS_BETWEEN_LINES = 10.0


class ProgressLines:
    """Writes a line now and then; the search calls it from any thread, one call at a time.

    Parameters
    ----------
    seconds : float
        How long to be silent after a line.
    """

    def __init__(self, write: Callable[[str], object], seconds: float = SECONDS_BETWEEN_LINES) -> None:
        self._write = write
        self._seconds = seconds
        self._next: float | None = None

    def __call__(self, progress: "Progress") -> None:
        """Take note of how far the search is."""
        now = time.monotonic()
        if self._next is not None and now < self._next:
            return
        first, self._next = self._next is None, now + self._seconds
        to_grow = f"{progress.all:,} {progress.unit}"
        if progress.trees:
            to_grow += f" to grow in {progress.units:,} units of work"
        self._write(to_grow if first else say(progress))


def say(progress: "Progress") -> str:
    """Put progress into words.

    Examples
    --------
    >>> from mlops_dagster.search import Progress
    >>> say(Progress(trees_done=900, trees_needed=3600, units_done=3, units=18, seconds=5.0))
    '900 of 3,600 trees (25 %), about 15 s left'
    """
    done, needed, left = progress.done, progress.all, progress.seconds_left
    if left is None:
        return f"{progress.units_done} of {progress.units} units of work"
    shown = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
    return f"{done:,} of {needed:,} {progress.unit} ({100 * done // needed} %), about {shown} left"
