"""The canvas of all charts: figures without pyplot, their style, and their files.

Charts of runs and datasets use matplotlib only through this module. It has no global state and
needs no display. The same figure is always saved as the same bytes.
"""

from __future__ import annotations

import base64
import io
import itertools
import textwrap
import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import TICKUP
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from oiyolo.core.files import atomic_write

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
"""Colours that colour-blind people can distinguish (Okabe and Ito,
https://jfly.uni-koeln.de/color/)."""

_SERIES_COLOURS: Final = ("blue", "vermilion", "green", "purple", "orange", "sky")
"""Names in ``COLOURS`` for the series of a chart, the most distinct first."""
_DASHES: Final = ("-", "--", ":", "-.")

SIZE_PX: Final = (1200, 600)
"""Width and height of a saved chart in pixels; it is still legible at half the size."""

TICK_UP: Final = TICKUP
"""Marker that points up from the axis."""

DPI: Final = 120
FONT_PT: Final = {"title": 15.0, "subtitle": 11.0, "panel": 12.0, "label": 11.0, "tick": 10.0}

Values = npt.NDArray[np.float64]

_LOG_SCALE_FROM = 30.0  # ratio of the highest to the lowest value
_FEW_DECADES = 1000.0
_HEADER_LINE_PX = 25
_HEADER_TITLE_PX = 36
_MARGIN_PX = 14
_CHARACTER_PX = 9.6  # average width of a character in a subtitle
_TEXT_GREY = "#444444"
_CHARACTER_EM = 0.64  # width of a digit in a label
_POINTS_PER_INCH = 72
_LEGEND_STYLE: Final[dict[str, Any]] = {
    "fontsize": FONT_PT["tick"],
    "frameon": False,
    "handlelength": 1.8,
}
_SAVE_OPTIONS: Final[Any] = {
    "savefig.bbox": None,
    "savefig.dpi": "figure",
    "svg.fonttype": "path",
    "svg.hashsalt": "oiyolo",  # makes element ids reproducible
}


class LineStyle(NamedTuple):
    """The colour and dashes that distinguish a series."""

    colour: str
    dashes: str


def line_styles(n: int) -> list[LineStyle]:
    """Return styles for ``n`` series: different colours first, then different dashes."""
    styles = [LineStyle(COLOURS[name], dashes) for dashes in _DASHES for name in _SERIES_COLOURS]
    return list(itertools.islice(itertools.cycle(styles), n))


def new_figure(size_px: tuple[int, int] = SIZE_PX) -> Figure:
    """Return a figure with automatic layout that is saved at ``size_px`` (width, height)."""
    return Figure(
        figsize=(size_px[0] / DPI, size_px[1] / DPI), dpi=DPI, layout="constrained", facecolor="w"
    )


class ChartSheet:
    """A figure with a title, lines of text below it, and panels.

    Args:
        title: Title of the figure.
        subtitles: Lines below the title; long ones are wrapped.
        mosaic: Rows of panel names; repeating a name in a row makes the panel wider.
        heights: Relative heights of the rows.
        size_px: Width and height of the figure in pixels.
    """

    def __init__(
        self,
        title: str,
        subtitles: Sequence[str],
        mosaic: Sequence[Sequence[str]],
        *,
        heights: Sequence[float] = (1.0,),
        size_px: tuple[int, int] = SIZE_PX,
    ) -> None:
        self.figure = new_figure(size_px)
        text = [
            part
            for line in subtitles
            for part in textwrap.wrap(line, int(size_px[0] / _CHARACTER_PX)) or [""]
        ]
        header_px = _MARGIN_PX + _HEADER_TITLE_PX + _HEADER_LINE_PX * len(text)
        self.figure.set_layout_engine(
            "constrained", rect=(0, 0, 1, 1 - header_px / size_px[1]), h_pad=0.08, w_pad=0.08
        )
        self.panels: dict[str, Axes] = self.figure.subplot_mosaic(
            [list(row) for row in mosaic], height_ratios=heights
        )
        _draw_header(self.figure, title, text)

    def legend(self) -> None:
        """Draw one legend for all panels below them, in which each label appears once."""
        handles_by_label: dict[str, Artist] = {}
        for ax in self.panels.values():
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                handles_by_label.setdefault(label, handle)
        if handles_by_label:
            self.figure.legend(
                list(handles_by_label.values()),
                list(handles_by_label),
                loc="outside lower center",
                ncols=_columns(list(handles_by_label), self.figure.get_figwidth() * DPI),
                columnspacing=1.6,
                **_LEGEND_STYLE,
            )


def _draw_header(figure: Figure, title: str, text: Sequence[str]) -> None:
    """Draw the title and the lines below it above the panels, outside their layout."""
    width_px, height_px = (side * DPI for side in figure.get_size_inches())
    y_px = _MARGIN_PX
    for row, line in enumerate([title, *text]):
        figure.text(
            _MARGIN_PX / width_px,
            1 - y_px / height_px,
            line,
            va="top",
            fontsize=FONT_PT["subtitle" if row else "title"],
            fontweight="normal" if row else "bold",
            color=_TEXT_GREY if row else "black",
            parse_math=False,
            gid="subtitle" if row else "title",
        )
        y_px += _HEADER_LINE_PX if row else _HEADER_TITLE_PX


def _columns(labels: Sequence[str], width_px: float) -> int:
    """Return the number of legend columns that fit, given the widest label."""
    widest = max(len(label) for label in labels) * _CHARACTER_PX * 0.92 + 60
    return max(1, min(len(labels), int(width_px / widest)))


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Save a figure as ``name.png`` and ``name.svg``; return their paths.

    The files have no dates or versions in them. Text in the SVG is saved as outlines, to look the
    same anywhere.
    """
    png = _save(figure, folder / f"{name}.png", {"Software": None})
    figure.set_layout_engine("none")  # the layout is done; repeating it would take time
    return png, _save(figure, folder / f"{name}.svg", {"Date": None, "Creator": None})


def as_data_url(figure: Figure) -> str:
    """Return a figure as a PNG in a ``data:`` URL."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _save(figure: Figure, path: Path, metadata: dict[str, None]) -> Path:
    with (
        atomic_write(path, durable=False) as part,
        warnings.catch_warnings(),
        mpl.rc_context(_SAVE_OPTIONS),
    ):
        # Characters of a run's name that the font lacks are drawn as boxes, without a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(part, format=path.suffix[1:], metadata=metadata)
    return path


def style_axes(ax: Axes | None, title: str, subtitle: str = "") -> Axes:
    """Return axes (new ones if ``ax`` is None) with a title, a subtitle and a light grid."""
    ax = new_figure().subplots() if ax is None else ax
    ax.set_title(
        title,
        loc="left",
        fontsize=FONT_PT["title" if subtitle else "panel"],
        fontweight="bold",
        pad=24 if subtitle else 8,
        parse_math=False,
    )
    if subtitle:
        ax.annotate(
            subtitle,
            (0, 1),
            (0, 7),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=FONT_PT["subtitle"],
            color=_TEXT_GREY,
            gid="subtitle",
            parse_math=False,
        )
    ax.grid(visible=True, color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=FONT_PT["tick"])
    return ax


def set_iteration_axis(ax: Axes, low: float, high: float) -> None:
    """Set the x axis to iterations: whole numbers, with room for a single point."""
    margin = max((high - low) * 0.02, high * 1e-6, 0.5)
    ax.set_xlim(low - margin, high + margin)
    integer_locator = MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10])
    ax.xaxis.set_major_locator(integer_locator if high > low else FixedLocator([high]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("iteration", fontsize=FONT_PT["label"])


def set_fraction_axis(ax: Axes, label: str) -> None:
    """Set the y axis to the range 0 to 1."""
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_ylabel(label, fontsize=FONT_PT["label"])


def set_value_axis(ax: Axes, values: Values, label: str, *, decades_only: bool = False) -> None:
    """Set the y axis for the given values: logarithmic if they span more than a factor of 30.

    Args:
        ax: The axes.
        values: All values on the axes.
        label: Label of the axis.
        decades_only: Whether to label only decades on a logarithmic axis, because it is short.
    """
    ax.set_ylabel(label, fontsize=FONT_PT["label"])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) and positive.max() > _LOG_SCALE_FROM * positive.min():
        # A few values near zero must not squeeze everything else into the upper edge.
        low = max(positive.min(), float(np.quantile(positive, 0.01)) / 3)
        ax.set_yscale("log")
        ax.set_ylim(low / 1.3, positive.max() * 1.3)
        few_decades = positive.max() < _FEW_DECADES * low and not decades_only
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif len(values):
        ax.set_ylim(min(0.0, float(values.min())), float(values.max()) * 1.08 or 1.0)
    if len(values):
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


class LabelRow:
    """Room for labels along the x axis: they stay within the axes and do not overlap.

    Args:
        ax: The axes, whose x limits are set. Their width is taken as it is before the layout, which
            only makes them wider.
    """

    def __init__(self, ax: Axes) -> None:
        self._low, self._high = ax.get_xlim()
        self._per_px = (self._high - self._low) / ax.get_window_extent().width
        figure = ax.get_figure(root=True)
        dpi = DPI if figure is None else figure.dpi
        self._character_px = _CHARACTER_EM * FONT_PT["tick"] * dpi / _POINTS_PER_INCH
        self._taken: list[tuple[float, float]] = []

    def place(self, text: str, x: float, *, side: int = 0) -> float | None:
        """Return where the centre of a label goes; ``None`` if there is no room.

        Args:
            text: The label.
            x: What it labels.
            side: 0 to centre the label on ``x``, 1 to put it right of it; it is moved left as far
                as the axes require.
        """
        width = (len(text) + 1) * self._character_px * self._per_px
        start = x + (side - 1) * width / 2
        start = max(self._low, min(start, self._high - width))
        if any(start < right and left < start + width for left, right in self._taken):
            return None
        self._taken.append((start, start + width))
        return start + width / 2


def legend(ax: Axes) -> Axes:
    """Draw a legend below the axes, where it hides nothing; return the axes."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure = ax.get_figure(root=True)
        width = SIZE_PX[0] if figure is None else figure.get_figwidth() * figure.dpi
        ax.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
            ncols=_columns(labels, width * ax.get_position().width),
            columnspacing=1.4,
            **_LEGEND_STYLE,
        )
    return ax


def show_message(ax: Axes, text: str) -> None:
    """Draw a message in the middle of axes without data."""
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
        color=_TEXT_GREY,
        parse_math=False,
    )
