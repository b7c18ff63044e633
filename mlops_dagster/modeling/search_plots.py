"""The pictures of a search: which parameters matter, how they work together, and what more trees are worth.

A picture that would show nothing (one candidate, no score) isn't drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlops_dagster.modeling.drawing import FAINT, FORECAST, INK, finish, legend, new_figure, to_png
from mlops_dagster.search.growing import SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# From bad to good: pale to deep. Six can still be told apart, and keep the palette within sixteen colours.
SHADES = ("#e4ecf4", "#c3d4e5", "#9db8d3", "#7398bf", "#4a76a5", "#28537f")
_PALE_INK_FROM = 3  # of the shades, those on which ink can't be read
_CELLS_WITH_NUMBERS = 60
_MOST_LINES = 60
_NAME_WIDTH = 12  # characters
_MOST_VALUES = 40  # of a parameter on one axis; more can't be read


class _Candidates:
    """The candidates as pictures need them: who has which value, and scores the way people read them."""

    def __init__(self, cv_results: Mapping[str, Any], scoring: str) -> None:
        self.params: Sequence[Mapping[str, Any]] = cv_results["params"]
        # scikit-learn turns errors around so that larger is better; people read errors.
        self.is_error = scoring.startswith("neg_")
        self.score_name = scoring.removeprefix("neg_").replace("_", " ")
        sign = -1.0 if self.is_error else 1.0
        self.scores: npt.NDArray[np.float64] = sign * np.asarray(cv_results["mean_test_score"], dtype=float)
        self.spread: npt.NDArray[np.float64] = np.asarray(cv_results["std_test_score"], dtype=float)
        self.best = int(np.argmin(cv_results["rank_test_score"]))
        names = dict.fromkeys(name for params in self.params for name in params)
        values = {name: _distinct([params.get(name) for params in self.params]) for name in names}
        self.values = {name: some for name, some in values.items() if len(some) > 1}
        self.known = np.isfinite(self.scores)

    def places(self, name: str) -> npt.NDArray[np.intp]:
        """Return where each candidate's value stands among the parameter's."""
        keys = [_key(value) for value in self.values[name]]
        return np.array([keys.index(_key(params.get(name))) for params in self.params])

    def by_influence(self) -> list[str]:
        """Return the parameters that vary, those first whose values move the mean score most."""
        influence = {}
        if not self.known.any():
            return []
        for name in self.values:
            places = self.places(name)[self.known]
            means = [self.scores[self.known][places == place].mean() for place in np.unique(places)]
            influence[name] = max(means) - min(means)
        return sorted(influence, key=lambda name: -influence[name])

    def good(self) -> npt.NDArray[np.float64]:
        """Return each candidate's score between 0 (the worst) and 1 (the best); NaN where it failed."""
        scores = -self.scores if self.is_error else self.scores
        low, high = np.nanmin(scores), np.nanmax(scores)
        return (scores - low) / (high - low) if high > low else np.where(self.known, 1.0, np.nan)

    def write(self, score: float) -> str:
        """Write a score with the decimals that tell the better half of the candidates apart."""
        known = self.scores[self.known]
        span = (
            abs(float(np.median(known)) - self.scores[self.best]) or float(np.ptp(known)) or abs(float(known[0])) or 1
        )
        return f"{score:,.{int(np.clip(1 - np.floor(np.log10(span)), 0, 8))}f}"

    @property
    def subtitle(self) -> str:
        failed = int((~self.known).sum())
        count = f"{len(self.params):,} candidates" + (f", {failed:,} failed" if failed else "")
        return f"{count}, best {self.score_name} {self.write(self.scores[self.best])}"


def search_pngs(cv_results: Mapping[str, Any], scoring: str) -> dict[str, bytes]:
    """Draw all pictures that show something.

    Parameters
    ----------
    cv_results : mapping
        ``cv_results_`` of a search with one score.
    scoring : str
        The score's name; an error's begins with ``neg_``, and is drawn as an error.

    Returns
    -------
    dict of str to bytes
        PNG images by name: ``heat_map``, ``parallel_coordinates``, ``learning_curve``.
    """
    figures = {
        "heat_map": heat_map(cv_results, scoring),
        "parallel_coordinates": parallel_coordinates(cv_results, scoring),
        "learning_curve": learning_curve(cv_results, scoring),
    }
    return {name: to_png(figure, colours=SHADES) for name, figure in figures.items() if figure is not None}


def heat_map(cv_results: Mapping[str, Any], scoring: str) -> Figure | None:
    """Draw the best score for each pair of values of the two parameters that matter most; None if nothing varies."""
    candidates = _Candidates(cv_results, scoring)
    names = [name for name in candidates.by_influence() if len(candidates.values[name]) <= _MOST_VALUES][:2]
    if not names:
        return None
    names.sort(key=lambda name: len(candidates.values[name]))
    across, down = names[-1], names[0] if len(names) > 1 else None
    columns = len(candidates.values[across])
    rows = len(candidates.values[down]) if down else 1
    cells = np.full((rows, columns), -1)  # which candidate
    order = np.argsort(np.where(candidates.known, candidates.good(), -1.0), kind="stable")
    cells[candidates.places(down)[order] if down else 0, candidates.places(across)[order]] = order

    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Rectangle

    title = "Best score of each pair" if down else "Best score"
    figure = new_figure(title, candidates.subtitle, height=1.7 + 0.42 * rows)
    axes = figure.subplots()
    good = np.where(cells >= 0, candidates.good()[cells], np.nan)
    good = (good - np.nanmin(good)) / (np.nanmax(good) - np.nanmin(good) or 1.0)
    norm = BoundaryNorm(np.linspace(0, 1, len(SHADES) + 1), len(SHADES))
    axes.pcolormesh(good, cmap=ListedColormap(SHADES), norm=norm, edgecolors="white", linewidth=2, antialiased=False)
    if cells.size <= _CELLS_WITH_NUMBERS and columns <= 12:
        for row, column in np.ndindex(cells.shape):
            cell = cells[row, column]
            known = cell >= 0 and candidates.known[cell]
            text = candidates.write(candidates.scores[cell]) if known else "failed" if cell >= 0 else ""
            colour = "white" if known and good[row, column] * len(SHADES) >= _PALE_INK_FROM else INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=11, color=colour)
    at = candidates.best
    corner = (int(candidates.places(across)[at]), int(candidates.places(down)[at]) if down else 0)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=FORECAST, linewidth=2.5))
    finish(axes, xlabel=across, ylabel=down)
    axes.grid(False)
    _value_ticks(axes, "x", candidates.values[across])
    _value_ticks(axes, "y", candidates.values[down] if down else [])
    others = [name for name in candidates.values if name not in names]
    better = "smaller" if candidates.is_error else "larger"
    said = f"darker is better ({better})" + (f"; each cell has the best of {', '.join(others)}" if others else "")
    axes.set_title(said, loc="right", fontsize=11, color=INK)
    return figure


def parallel_coordinates(cv_results: Mapping[str, Any], scoring: str) -> Figure | None:
    """Draw every candidate as a line through its values to its score; None if less than two parameters vary."""
    candidates = _Candidates(cv_results, scoring)
    names = [name for name in reversed(candidates.by_influence()) if len(candidates.values[name]) <= _MOST_VALUES]
    if len(names) < 2:
        return None
    good = candidates.good()
    ranked = np.argsort(np.where(candidates.known, -good, np.inf), kind="stable")[: candidates.known.sum()]
    # Of very many, the best are what people look for; of the others a regular sample shows the shape.
    top = ranked[: len(ranked) // 10 if len(ranked) >= 20 else 0][: _MOST_LINES // 4]
    rest = ranked[len(top) :]
    rest = rest[:: max(1, -(-len(rest) // _MOST_LINES))]

    figure = new_figure("Each line is a candidate, from its parameters to its score", candidates.subtitle, height=4.8)
    axes = figure.subplots()
    heights = []
    for name in names:
        count = len(candidates.values[name])
        # Lines through one value fan out by their score, the best on top, so that none hides another.
        heights.append((candidates.places(name) + 0.15 + 0.7 * np.nan_to_num(good)) / count)
    lines = np.column_stack([*heights, good])
    places = np.arange(len(names) + 1)
    for some, name, colour, width in (
        (rest, "candidates", SHADES[1], 0.8),
        (top, f"the best {len(top)}", SHADES[-2], 1.2),
        (ranked[:1], "the best", FORECAST, 2.6),
    ):
        for number, candidate in enumerate(some):
            label = name if number == 0 else None
            axes.plot(places, lines[candidate], color=colour, linewidth=width, antialiased=width > 1, label=label)
    for place, name in enumerate(names):
        count = len(candidates.values[name])
        axes.axvline(place, color=INK, linewidth=0.8)
        for number in _thinned(count):
            text = _text(candidates.values[name][number])
            _write_beside(axes, text, (place, (number + 0.5) / count), -5)
    axes.axvline(len(names), color=INK, linewidth=0.8)
    scores = candidates.scores[candidates.known]
    worst, best = (scores.max(), scores.min()) if candidates.is_error else (scores.min(), scores.max())
    for height in (0, 0.5, 1):
        _write_beside(axes, candidates.write(worst + height * (best - worst)), (len(names), height), 6)
    finish(axes)
    axes.grid(False)
    axes.set_xlim(-0.45, len(names) + 0.45)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xticks(places, [_in_lines(name, "_") for name in names] + [_in_lines(candidates.score_name, " ")])
    axes.set_xlabel("at each value, better candidates run higher", fontsize=10, color=FAINT)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    legend(axes)
    return figure


def _in_lines(name: str, between: str) -> str:
    """Break a name where it can be, since its neighbours are near."""
    lines = [""]
    for word in name.replace(between, f"{between}\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(word) > _NAME_WIDTH:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)


def learning_curve(cv_results: Mapping[str, Any], scoring: str) -> Figure | None:
    """Draw the score over the number of trees; None if that doesn't vary."""
    candidates = _Candidates(cv_results, scoring)
    name = next((name for name in candidates.values if name.split("__")[-1] == SIZE), None)
    if name is None or not candidates.known.any():
        return None
    curves: dict[Any, list[int]] = {}
    for candidate, params in enumerate(candidates.params):
        others = tuple((key, _key(value)) for key, value in params.items() if key != name)
        curves.setdefault(others, []).append(candidate)
    trees = np.array([params[name] for params in candidates.params])
    best_curve = next(curve for curve in curves.values() if candidates.best in curve)
    good = candidates.good()

    spread = candidates.spread[candidates.best]
    subtitle = f"{candidates.subtitle} (std over the folds {spread:.2g})"
    figure = new_figure("What more trees are worth", subtitle, height=3.9)
    axes = figure.subplots()
    rest = sorted((curve for curve in curves.values() if curve is not best_curve), key=lambda curve: -good[curve].max())
    rest = rest[:: max(1, -(-len(rest) // _MOST_LINES))]
    for number, curve in enumerate(rest):
        some = sorted(curve, key=lambda candidate: trees[candidate])
        label = "other combinations" if number == 0 else None
        axes.plot(trees[some], candidates.scores[some], color=SHADES[2], linewidth=1, antialiased=False, label=label)
    some = sorted(best_curve, key=lambda candidate: trees[candidate])
    style: dict[str, Any] = {"color": FORECAST, "linewidth": 2, "markersize": 5, "label": "the best combination"}
    axes.plot(trees[some], candidates.scores[some], "o-", **style)
    legend(axes)
    finish(axes, xlabel=name, ylabel=candidates.score_name)
    marks = np.unique(trees)
    if len(marks) <= 12:
        gaps = np.diff(marks) / np.ptp(marks)
        axes.set_xticks([mark for mark, gap in zip(marks, [1.0, *gaps], strict=True) if gap > 0.02])
    axes.ticklabel_format(axis="y", useOffset=False)
    return figure


def _distinct(values: list[Any]) -> list[Any]:
    """Return the different values, numbers in their order, others as they came. True isn't 1, and 1 isn't 1.0."""
    found = list({_key(value): value for value in values}.values())
    numbers = [value for value in found if isinstance(value, int | float | np.number) and not isinstance(value, bool)]
    others = [value for value in found if not any(value is number for number in numbers)]
    return [*sorted(numbers), *others]


def _key(value: Any) -> tuple[type, Any]:
    kind = type(value.item()) if isinstance(value, np.generic) else type(value)
    try:
        hash(value)
    except TypeError:
        return kind, repr(value)
    return kind, value


def _text(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.6g}" if not float(value).is_integer() else f"{value:.1f}"
    text = str(value)
    return text if len(text) <= 16 else f"{text[:14]}..."


def _write_beside(axes: Axes, text: str, at: tuple[float, float], right: int) -> None:
    look: dict[str, Any] = {"ha": "left" if right > 0 else "right", "va": "center", "fontsize": 11, "color": INK}
    paper = {"boxstyle": "square,pad=0.15", "facecolor": "white", "linewidth": 0}
    axes.annotate(text, at, xytext=(right, 0), textcoords="offset points", bbox=paper, **look)


def _thinned(count: int, most: int = 12) -> list[int]:
    return list(range(0, count, max(1, -(-count // most))))


def _value_ticks(axes: Axes, which: str, values: Sequence[Any]) -> None:
    shown = _thinned(len(values))
    (axes.set_xticks if which == "x" else axes.set_yticks)(
        [place + 0.5 for place in shown], [_text(values[place]) for place in shown]
    )
