"""How all pictures here are drawn: their colours, frame and axes, and their rendering as small PNGs.

Figures are built without pyplot, so that no global state is touched and threads don't meet.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.75  # inches
_LEGEND = 50  # characters of names that there is room for on one line
INK, FAINT, GRID = "#1f2937", "#8a99ad", "#e2e8f0"
FORECAST, BAR, TEST, GAP = "#d9480f", "#5b7ea6", "#eef2f7", "#f6c7ad"


def to_png(figure: Figure, *, dpi: int = 72, colours: Sequence[str] = (BAR, TEST, GAP)) -> bytes:
    """Render a figure as a PNG with a palette of few colours: about ten kilobytes.

    Parameters
    ----------
    dpi : int
        Pixels per inch; a figure is `WIDTH` inches wide.
    colours : sequence of str
        Those that it has besides ink, orange, white and the two greys. Up to sixteen in all cost half of what more do.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    # Laid out and drawn once: `savefig` draws twice, and writes a PNG that would have to be read again.
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine("none")
    canvas.draw()  # type: ignore[no-untyped-call]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for colour in _palette(colours) for channel in colour])
    # Our own colours and not the picture's most frequent ones, which would be sixteen shades of grey text.
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = drawn.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, format="png", optimize=True)
    return small.getvalue()


def _palette(colours: Sequence[str]) -> list[tuple[int, ...]]:
    """List the colours in use; the two that text and thin lines have also paler, so that edges stay smooth."""
    shades = [(INK, 1.0), (INK, 0.6), (INK, 0.3), (FORECAST, 1.0), (FORECAST, 0.65), (FORECAST, 0.35)]
    shades += [(colour, 1.0) for colour in ("#ffffff", FAINT, GRID, *colours)]
    return [
        tuple(round(255 - strength * (255 - int(colour[at : at + 2], 16))) for at in (1, 3, 5))
        for colour, strength in shades
    ]


def new_figure(title: str, subtitle: str, *, height: float) -> Figure:
    """Begin a picture with a title and, below, what matters most.

    It is as wide as the place that Dagster has for it on a window of 1280 pixels, which shrinks no picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Constrained layout gives the panels what the title, of a fixed height in inches, leaves.
    engine = ConstrainedLayoutEngine(rect=(0.008, 0.01, 0.98, 0.99 - 0.62 / height))
    figure = Figure(figsize=(WIDTH, height), layout=engine, facecolor="white")
    figure.text(0.015, 1 - 0.1 / height, title, va="top", fontsize=14, fontweight="bold", color=INK)
    figure.text(0.015, 1 - 0.36 / height, subtitle, va="top", fontsize=11, color=INK)
    return figure


def legend(axes: Axes) -> None:
    """Put a legend above the panel, where no data is."""
    names = axes.get_legend_handles_labels()[1]
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.985),
        ncols=3 if sum(map(len, names)) < _LEGEND else 2,
        frameon=False,
        fontsize=11,
        labelcolor=INK,
        borderpad=0.2,
        columnspacing=1.2,
        handlelength=1.4,
        markerscale=2,
    )


def name_place(axes: Axes, left: Any, name: str) -> None:
    """Write a name at the top of a panel, beginning at a place of its horizontal axis."""
    axes.annotate(
        name,
        (left, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(5, -5),
        textcoords="offset points",
        va="top",
        fontsize=11,
        color=INK,
    )


def finish(axes: Axes, *, xlabel: str | None = None, ylabel: str | None = None, dated: bool = False) -> None:
    """Give a panel its labels, and the look that all have."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    axes.tick_params(labelsize=11, color=FAINT, labelcolor=INK)
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    if xlabel:
        axes.set_xlabel(xlabel, fontsize=11, color=INK)
    if ylabel:
        axes.set_ylabel(ylabel, fontsize=11, color=INK)
    if dated:
        locator = AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.margins(x=0.01)
