"""What all charts are drawn on: figures without pyplot, their look, and their files.

The one door to matplotlib for the charts of a training. There is no global state and no display is
needed. The same figure gives the same bytes.
"""

from __future__ import annotations

import textwrap
import warnings
from typing import TYPE_CHECKING, Final, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import TICKUP
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from oiyolo.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.artist import Artist

__all__ = ["Axes", "Figure"]

COLOURS: Final = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "grey": "#8C8C8C",
}
"""Colours that colour-blind people tell apart (Okabe and Ito, https://jfly.uni-koeln.de/color/)."""

SERIES: Final = ("blue", "vermilion", "green", "purple", "orange", "sky")
"""Names in ``COLOURS`` for series side by side, the most distinct first."""

SIZE_PX: Final = (1200, 600)
"""Width and height of a saved chart; half of it is still to be read."""

TICK_UP: Final = TICKUP
"""A mark that stands on the axis."""

DPI: Final = 120
FONT_PT: Final = {"title": 15.0, "subtitle": 11.0, "panel": 12.0, "label": 11.0, "tick": 10.0}

Values = npt.NDArray[np.float64]

_LOG_SCALE_FROM = 30.0  # highest over lowest value
_FEW_DECADES = 1000.0
_HEAD_LINE_PX = 25
_HEAD_TITLE_PX = 36
_MARGIN_PX = 14
_CHARACTER_PX = 9.6  # of a subtitle, on average
_SOFT = "#444444"


class Line(NamedTuple):
    """How a series is told from others: by colour, and by dashes once the colours are used up."""

    colour: str
    style: str


def lines(n: int) -> list[Line]:
    """Give ``n`` ways to draw a series, the most distinct first."""
    styles = ("-", "--", ":", "-.")
    return [
        Line(COLOURS[SERIES[i % len(SERIES)]], styles[i // len(SERIES) % len(styles)])
        for i in range(n)
    ]


def new_figure(size_px: tuple[int, int] = SIZE_PX) -> Figure:
    """Make a figure of ``size_px`` (width, height) when saved; its parts find their own room."""
    return Figure(
        figsize=(size_px[0] / DPI, size_px[1] / DPI), dpi=DPI, layout="constrained", facecolor="w"
    )


class Sheet:
    """A figure with a head: a title, lines of text below it, then panels.

    Args:
        title: What stands above all.
        told: Lines below it; long ones are broken.
        mosaic: Rows of panel names; a name again in a row makes the panel wider.
        heights: How high the rows are, relative to each other.
        size_px: Width and height of the figure.
    """

    def __init__(
        self,
        title: str,
        told: Sequence[str],
        mosaic: Sequence[Sequence[str]],
        *,
        heights: Sequence[float] = (1.0,),
        size_px: tuple[int, int] = SIZE_PX,
    ) -> None:
        self.figure = new_figure(size_px)
        text = [
            row
            for line in told
            for row in textwrap.wrap(line, int(size_px[0] / _CHARACTER_PX)) or [""]
        ]
        head_px = _MARGIN_PX + _HEAD_TITLE_PX + _HEAD_LINE_PX * len(text)
        self.figure.set_layout_engine(
            "constrained", rect=(0, 0, 1, 1 - head_px / size_px[1]), h_pad=0.08, w_pad=0.08
        )
        self.panels: dict[str, Axes] = self.figure.subplot_mosaic(
            [list(row) for row in mosaic], height_ratios=heights
        )
        _write_head(self.figure, title, text)

    def legend(self) -> None:
        """Name all series of all panels once, below them."""
        named: dict[str, Artist] = {}
        for ax in self.panels.values():
            old = ax.get_legend()
            if old is not None:
                old.remove()
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                named.setdefault(label, handle)
        if named:
            self.figure.legend(
                list(named.values()),
                list(named),
                loc="outside lower center",
                ncols=_columns(list(named), self.figure.get_figwidth() * DPI),
                fontsize=FONT_PT["tick"],
                frameon=False,
                columnspacing=1.6,
                handlelength=1.8,
            )


def _write_head(figure: Figure, title: str, text: Sequence[str]) -> None:
    """Write above the panels, outside of their layout."""
    width_px, height_px = (side * DPI for side in figure.get_size_inches())
    at_px = _MARGIN_PX
    for place, line in enumerate([title, *text]):
        figure.text(
            _MARGIN_PX / width_px,
            1 - at_px / height_px,
            line,
            va="top",
            fontsize=FONT_PT["subtitle" if place else "title"],
            fontweight="normal" if place else "bold",
            color=_SOFT if place else "black",
            parse_math=False,
            gid="subtitle" if place else "title",
        )
        at_px += _HEAD_LINE_PX if place else _HEAD_TITLE_PX


def _columns(labels: Sequence[str], width_px: float) -> int:
    """Give as many columns as the widest label leaves room for."""
    widest = max(len(label) for label in labels) * _CHARACTER_PX * 0.92 + 60
    return max(1, min(len(labels), int(width_px / widest)))


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Save a figure as ``name.png`` and ``name.svg``; give their paths."""
    png = save_png(figure, folder / f"{name}.png")
    figure.set_layout_engine("none")  # the panels have found their room, which takes time
    return png, save_svg(figure, folder / f"{name}.svg")


def save_png(figure: Figure, path: Path) -> Path:
    """Save a figure, whole or not at all, without dates or versions in it; return ``path``."""
    return _save(figure, path, "png", {"Software": None})


def save_svg(figure: Figure, path: Path) -> Path:
    """Save a figure as SVG in the same way: its words are outlines, so it looks alike anywhere."""
    return _save(figure, path, "svg", {"Date": None, "Creator": None})


def _save(figure: Figure, path: Path, form: str, metadata: dict[str, None]) -> Path:
    with whole_file(path, durable=False) as part, warnings.catch_warnings():
        # A run may be named in a script that the font lacks: boxes in the title, no failure.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        with mpl.rc_context(
            {
                "savefig.bbox": None,
                "savefig.dpi": "figure",
                "svg.fonttype": "path",
                "svg.hashsalt": "oiyolo",  # names of its parts, which are random without
            }
        ):
            figure.savefig(part, format=form, metadata=metadata)
    return path


def dressed(ax: Axes | None, title: str, told: str = "") -> Axes:
    """Give axes with a title at the left, a line of numbers below it, and a quiet grid."""
    ax = new_figure().subplots() if ax is None else ax
    ax.set_title(
        title,
        loc="left",
        fontsize=FONT_PT["title" if told else "panel"],
        fontweight="bold",
        pad=24 if told else 8,
        parse_math=False,
    )
    if told:
        ax.annotate(
            told,
            (0, 1),
            (0, 7),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=FONT_PT["subtitle"],
            color=_SOFT,
            gid="subtitle",
            parse_math=False,
        )
    ax.grid(visible=True, color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=FONT_PT["tick"])
    return ax


def across(ax: Axes, low: float, high: float) -> None:
    """Set the axis of iterations: whole numbers, and room for a single point."""
    room = max((high - low) * 0.02, high * 1e-6, 0.5)
    ax.set_xlim(low - room, high + room)
    whole = MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10])
    ax.xaxis.set_major_locator(whole if high > low else FixedLocator([high]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("iteration", fontsize=FONT_PT["label"])


def up_to_one(ax: Axes, label: str) -> None:
    """Set the y axis of what lies between 0 and 1."""
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_ylabel(label, fontsize=FONT_PT["label"])


def scaled(ax: Axes, values: Values, label: str, *, decades_only: bool = False) -> None:
    """Choose the scale of a y axis by what is drawn on it: logarithmic where it helps.

    Args:
        ax: The axes.
        values: All that is drawn.
        label: What it is.
        decades_only: Have few numbers on a logarithmic axis, because it is short.
    """
    ax.set_ylabel(label, fontsize=FONT_PT["label"])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) and positive.max() > _LOG_SCALE_FROM * positive.min():
        # A few zeros or near zeros must not press everything else into the upper edge.
        low = max(positive.min(), float(np.quantile(positive, 0.01)) / 3)
        ax.set_yscale("log")
        ax.set_ylim(low / 1.3, positive.max() * 1.3)
        few_decades = positive.max() < _FEW_DECADES * low and not decades_only
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif len(values):
        ax.set_ylim(min(0.0, float(values.min())), float(values.max()) * 1.08 or 1.0)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend(ax: Axes) -> None:
    """Name the series below the axes, where nothing is hidden."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure = ax.get_figure(root=True)
        width = SIZE_PX[0] if figure is None else figure.get_figwidth() * figure.dpi
        ax.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
            ncols=_columns(labels, width * ax.get_position().width),
            fontsize=FONT_PT["tick"],
            frameon=False,
            columnspacing=1.4,
            handlelength=1.8,
        )


def say(ax: Axes, text: str) -> None:
    """Write a message into the middle of axes that have nothing to show."""
    ax.grid(visible=False)
    ax.set_yticks([])
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=FONT_PT["label"],
        color=_SOFT,
        parse_math=False,
    )
