"""The picture of a champion's history: what each decision saw, and whom it left as champion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlops_dagster.modeling.drawing import BAR, FAINT, FORECAST, INK, finish, legend, name_place, new_figure
from mlops_dagster.modeling.drawing import to_png as to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 100  # decisions; more can't be told apart
_APART = 0.045  # of the width: two names nearer than that would cover each other
_DATES = 6


def champion_plot(symbol: str, history: pd.DataFrame) -> Figure:
    """Draw what decisions were made on, one place per decision, with promotions and roll-backs marked.

    Decisions lie at equal distances, since ten of one afternoon matter as much as ten of a year. Each was made on its
    own days, so errors are to be compared within a decision.

    Parameters
    ----------
    history : DataFrame
        The table champion_model, at least one row. The last 100 are drawn; where models were judged by several
        metrics one after the other, those judged by the last.
    """
    champion = history["champion"].iloc[-1]
    changes = int(history["promoted"].sum())
    drawn, measured, unit = _measured(history.tail(_SHOWN))
    decisions, promotions = f"{len(history)} decision{'s'[: len(history) > 1]}", f"{changes} changed the champion"
    figure = new_figure(
        f"{symbol}: {'no champion yet' if pd.isna(champion) else f'version {champion} is the champion'}",
        f"{decisions}, {promotions}" + (f", the last {_SHOWN} are drawn" if len(history) > _SHOWN else ""),
        height=4.1,
    )
    axes = figure.subplots()
    at = drawn.index.to_numpy() + 1
    promoted = drawn["promoted"].to_numpy(dtype=bool)
    back = (drawn["outcome"] == "rolled_back").to_numpy()
    size = 7 if len(drawn) <= 30 else 4

    challenger, before, baseline = measured
    # Steps, and no line from one decision to the next: between them nothing was measured.
    half = 0.5 if len(drawn) > 8 else 0.25
    axes.hlines(baseline, at - half, at + half, color=FAINT, linewidth=1.6, label="baseline")
    unseen = np.isnan(challenger) & ~back
    kinds: tuple[tuple[dict[str, Any], Any, Any, str], ...] = (
        ({"marker": "D", "color": BAR}, ~np.isnan(before), before, "champion before"),
        ({"marker": "o", "color": FORECAST}, promoted & ~back, challenger, "new model, promoted"),
        (
            {"marker": "o", "color": FORECAST, "fillstyle": "none"},
            ~promoted & ~unseen,
            challenger,
            "new model, kept out",
        ),
    )
    for style, where, values, name in kinds:
        if where.any():
            axes.plot(at[where], values[where], linestyle="none", markersize=size, label=name, **style)
    if unseen.any():
        low = axes.get_xaxis_transform()  # along the bottom, whatever the errors are
        bottom: dict[str, Any] = {"linestyle": "none", "transform": low, "label": "new model, not comparable"}
        axes.plot(at[unseen], np.full(unseen.sum(), 0.06), marker="x", color=INK, markersize=size, **bottom)
    if np.isnan([*challenger, *baseline]).all():
        axes.set_yticks([])
    for place in at[promoted & ~back]:
        axes.axvline(place, color=FORECAST, linewidth=0.8, zorder=0)
    for number, place in enumerate(at[back]):
        axes.axvline(place, color=INK, linewidth=1.1, dashes=(4, 3), zorder=0, label="_" if number else "rolled back")
    _name_champions(axes, at, drawn)
    legend(axes)
    finish(axes, xlabel="decision", ylabel=unit)
    axes.set_xlim(at[0] - 0.6, at[-1] + 0.6)
    _date(axes, at, drawn["decided_at"])
    return figure


def _measured(drawn: pd.DataFrame) -> tuple[pd.DataFrame, list[np.ndarray[Any, Any]], str]:
    """Return the rows that can be drawn on one scale; challenger, champion and baseline of them; and the metric."""
    metric = next(iter(drawn["metric"].dropna().iloc[::-1]), None)
    drawn = drawn[drawn["metric"].isna() | (drawn["metric"] == metric)]
    names = ("challenger_score", "champion_score", "baseline_score")
    return drawn, [drawn[name].to_numpy(dtype="float64") for name in names], metric or ""


def _name_champions(axes: Axes, at: np.ndarray[Any, Any], drawn: pd.DataFrame) -> None:
    """Write the new champion's version above each place where it changes, as far as there is room."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
    width, last = len(at) + 0.2, -np.inf
    for place, version in zip(at[drawn["promoted"]], drawn.loc[drawn["promoted"], "champion"], strict=True):
        if (place - last) / width < _APART:
            continue
        last = place
        name_place(axes, place, f"v{version}")


def _date(axes: Axes, at: np.ndarray[Any, Any], decided: pd.Series[pd.Timestamp]) -> None:
    """Write below some decisions, evenly spaced, when they were made."""
    chosen = np.arange(0, len(at), -(-len(at) // _DATES))
    days = [f"{at[place]}\n{decided.iloc[place]:%Y-%m-%d}" for place in chosen]
    axes.set_xticks(at[chosen], days)
