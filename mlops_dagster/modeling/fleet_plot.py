"""The picture of many partitions: how much better than the baseline their models are, and how old."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlops_dagster.modeling.drawing import BAR, FORECAST, INK, finish, new_figure
from mlops_dagster.modeling.drawing import to_png as to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 20
_LEAST = -1.0  # skill; what is worse still stands in the first bar


def fleet_plot(name: str, subtitle: str, skills: Sequence[float], ages: Sequence[float]) -> Figure:
    """Draw the skill of models, those not better than the baseline in another colour, and the champions' age.

    Parameters
    ----------
    skills : sequence of float
        Of each model which share of the way from the baseline to perfect answers it goes.
    ages : sequence of float
        Of each champion, in days.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(name, subtitle, height=3.6)
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    shown = np.clip(np.asarray(skills, dtype=float), _LEAST, None)
    if len(shown):
        low, high = min(shown.min(), 0), max(shown.max(), 0)
        width = (high - low) / _BINS or 0.05
        # 0 is an edge, so that no bar has both those that are better than the baseline and those that aren't.
        edges = width * np.arange(np.floor(low / width), np.ceil(high / width) + 1)
        counts, edges = np.histogram(shown, edges if len(edges) > 1 else [0, width])
        colours = [BAR if edge > -width / 2 else FORECAST for edge in edges[:-1]]
        left.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours, edgecolor="white", linewidth=0.5)
        left.axvline(0, color=INK, linewidth=1)
        left.xaxis.set_major_locator(MaxNLocator(6))
    days = max(ages, default=0) >= 2
    drawn = np.asarray(ages) * (1 if days else 24)
    right.hist(drawn, np.linspace(0, max(drawn.max(initial=1), 1), 13), color=BAR, edgecolor="white")
    worse = f" ({_LEAST:g}: or less)" if len(shown) and min(skills) < _LEAST else ""
    finish(left, xlabel=f"skill beside the baseline{worse}", ylabel="partitions")
    finish(right, xlabel=f"age of champions [{'days' if days else 'hours'}]")
    for axes in (left, right):
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylim(0, max(axes.get_ylim()[1], 1))
    return figure
