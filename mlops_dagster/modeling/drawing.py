"""How all pictures here are drawn: their colours, frame and axes, and their rendering as small PNGs.

Figures are built without pyplot, so that no global state is touched and threads don't meet.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from PIL.Image import Image

WIDTH = 6.75  # inches
_TITLE = 45  # points for title and subtitle
_LINE, _GAP = 14, 4  # points of a line of text, and between texts and what they are beside
_LEGEND = 50  # characters of names that there is room for on one line
_ABOVE = "above the panel"
INK, FAINT, GRID = "#1f2937", "#8a99ad", "#e2e8f0"
FORECAST, BAR, TEST, GAP = "#d9480f", "#5b7ea6", "#eef2f7", "#f6c7ad"


def to_png(figure: Figure, *, colours: Sequence[str] = (BAR, TEST, GAP)) -> bytes:
    """Render a figure as a PNG with a palette of few colours: about ten kilobytes.

    Parameters
    ----------
    colours : sequence of str
        Those that it has besides ink, orange, white and the two greys. Up to sixteen in all cost half of what more do.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(72)  # a point is a pixel
    scales = _lay_out(figure)
    # Drawn once: `savefig` draws twice, and writes a PNG that would have to be read again.
    canvas.draw()  # type: ignore[no-untyped-call]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for colour in _palette(colours) for channel in colour])
    # Our own colours and not the picture's most frequent ones, which would be sixteen shades of grey text.
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    whole = drawn.convert("RGB")
    for scale in scales:
        _write(scale, whole)
    image = whole.quantize(palette=palette, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, format="png")  # the smallest possible would be 6 % smaller and take ten times as long
    return small.getvalue()


def _palette(colours: Sequence[str]) -> list[tuple[int, ...]]:
    """List the colours in use; the two that text and thin lines have also paler, so that edges stay smooth."""
    shades = [(INK, 1.0), (INK, 0.6), (INK, 0.3), (FORECAST, 1.0), (FORECAST, 0.65), (FORECAST, 0.35)]
    shades += [(colour, 1.0) for colour in ("#ffffff", FAINT, GRID, *colours)]
    return [
        tuple(round(255 - strength * (255 - int(colour[at : at + 2], 16))) for at in (1, 3, 5))
        for colour, strength in shades
    ]


# --------------------------------------------------------------------------------------------- scales and margins


@dataclass
class _Scale:
    """What is written along an axis of a panel, and where; `thick` and `beyond` say how much room it takes."""

    axis: Axis
    across: bool
    places: npt.NDArray[np.float64]
    texts: list[str]
    besides: str
    upright: bool
    thick: float
    beyond: float


def _lay_out(figure: Figure) -> list[_Scale]:
    """Give each panel what titles, legends and scales leave, and return the scales, which are still to be written.

    Matplotlib's layout engines measure each text several times, and its axes draw each mark by itself: together three
    quarters of the time of a picture. Here its locators and formatters say what to write.
    """
    width, height = figure.bbox.width, figure.bbox.height
    grid: Any = figure.axes[0].get_gridspec()
    above, below, before, after = (np.zeros(count) for count in (grid.nrows, grid.nrows, grid.ncols, grid.ncols))
    panels = []
    for axes in figure.axes:
        spec: Any = axes.get_subplotspec()
        row, column = spec.rowspan.start, spec.colspan.start
        x, y = _scale(axes.xaxis, width), _scale(axes.yaxis, height)
        named: Any = axes.get_legend()
        lines = -(-len(named.get_texts()) // named._ncols) if named and named.get_gid() == _ABOVE else 0
        lines = max(lines, bool(axes.get_title(loc="right") or y.besides))
        above[row] = max(above[row], _LINE * lines + 2 * _GAP)
        below[row] = max(below[row], x.thick + _LINE * bool(axes.get_xlabel() or x.besides) + _GAP)
        before[column] = max(before[column], y.thick + (_LINE + _GAP) * bool(axes.get_ylabel()))
        after[column] = max(after[column], x.beyond + 2 * _GAP)
        panels.append((axes, row, column, x, y))
    left, top = _GAP + (_LINE + _GAP) * bool(figure.get_supylabel()), height - _TITLE
    widths, heights = (np.array(one, dtype=float) for one in (grid.get_width_ratios(), grid.get_height_ratios()))
    widths *= (width - left - before.sum() - after.sum()) / widths.sum()
    heights *= (top - above.sum() - below.sum()) / heights.sum()
    lefts = left + np.cumsum(before + widths + after) - after - widths
    bottoms = top - np.cumsum(above + heights + below) + below
    for axes, row, column, *scales in panels:
        place = (lefts[column] / width, bottoms[row] / height, widths[column] / width, heights[row] / height)
        axes.set_position(place)
        axes.apply_aspect()
        for scale in scales:
            if scale.axis.get_tick_params()["gridOn"]:
                _draw_grid(axes, scale)
            scale.axis.set_visible(False)
    return [scale for panel in panels for scale in panel[3:]]


def _draw_grid(axes: Axes, scale: _Scale) -> None:
    from matplotlib.collections import LineCollection

    lines = np.array([[(place, 0), (place, 1)] for place in scale.places]).reshape(-1, 2, 2)
    where = axes.get_xaxis_transform() if scale.across else axes.get_yaxis_transform()
    lines = lines if scale.across else lines[:, :, ::-1]
    grid = LineCollection([*lines], transform=where, colors=GRID, linewidths=0.7, zorder=0.5)
    axes.add_collection(grid, autolim=False)


def _scale(axis: Axis, length: float) -> _Scale:
    look, (low, high) = axis.get_tick_params(), sorted(axis.get_view_interval())
    places, formatter = np.asarray(axis.get_majorticklocs(), dtype=float), axis.get_major_formatter()
    across = axis is axis.axes.xaxis
    shown, upright = look.get("labelbottom", look.get("labelleft")), look.get("rotation") == 90
    texts = [text.replace(r"\$", "$") for text in formatter.format_ticks([*places])] if shown else []
    seen = np.abs(places - (low + high) / 2) <= 0.5000001 * (high - low)
    places, texts = places[seen], [text for text, there in zip(texts, seen, strict=False) if there]
    wide = [max(map(_font().getlength, text.split("\n"))) for text in texts]
    thick, beyond = max(wide, default=0), 0.0
    if across and texts and not upright:
        thick = _LINE * (1 + max(text.count("\n") for text in texts))
        beyond = max(0.0, wide[-1] / 2 - (high - places[-1]) / (high - low) * length)
    besides = formatter.get_offset() if texts else ""
    return _Scale(axis, across, places, texts, besides, upright, thick + _GAP, beyond)


def _write(scale: _Scale, image: Image) -> None:
    """Write a scale beside its panel, and what it is of."""
    from PIL import ImageDraw

    axis, box = scale.axis, scale.axis.axes.bbox
    name, write = axis.label.get_text().replace(r"\$", "$"), partial(ImageDraw.Draw(image).text, fill=INK, font=_font())
    bottom, left, top = image.height - box.y0 + _GAP, box.x0 - _GAP, image.height - box.y1
    places = axis.axes.transData.transform(np.column_stack([scale.places] * 2))
    for (x, y), text in zip(places, scale.texts, strict=False):  # no texts where the panel below has them
        if scale.upright:
            _write_upright(image, text, x, bottom + _font().getlength(text) / 2)
        elif scale.across:
            write((x, bottom), text, anchor="ma", align="center")
        else:
            write((left, image.height - y), text, anchor="rm")
    if scale.across:
        write(((box.x0 + box.x1) / 2, bottom + scale.thick - _GAP), name, anchor="ma")
        write((box.x1, bottom + scale.thick - _GAP), scale.besides, anchor="ra")
    else:
        _write_upright(image, name, left - scale.thick - _LINE / 2, (top + image.height - box.y0) / 2)
        write((box.x0, top - _GAP), scale.besides, anchor="ls")


def _write_upright(image: Image, text: str, x: float, y: float) -> None:
    """Write a text from below to above, around a place."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (round(_font().getlength(text)) + 1, _LINE))
    ImageDraw.Draw(mask).text((0, _LINE / 2), text, 255, _font(), "lm")
    mask = mask.transpose(Image.Transpose.ROTATE_90)
    image.paste(INK, (round(x - mask.width / 2), round(y - mask.height / 2)), mask)


@cache
def _font() -> Any:
    from matplotlib.font_manager import FontProperties, findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont(FontProperties()), 11, layout_engine=ImageFont.Layout.BASIC)


def new_figure(title: str, subtitle: str, *, height: float) -> Figure:
    """Begin a picture with a title and, below, what matters most.

    It is as wide as the place that Dagster has for it on a window of 1280 pixels, which shrinks no picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), facecolor="white")
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
    ).set_gid(_ABOVE)


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

    axes.grid(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    if xlabel:
        axes.set_xlabel(xlabel)
    if ylabel:
        axes.set_ylabel(ylabel)
    if dated:
        locator = AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.margins(x=0.01)
