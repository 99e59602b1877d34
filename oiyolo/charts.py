"""Charts of a training: loss, IOU and mean average precision over the iterations.

``plot_...`` functions draw on the axes they are given, or on a new figure's, and return them;
nothing is shown and nothing is saved but by ``save_charts`` and ``save_png``. Figures are made
without pyplot, so there is no global state and no display is needed. The same log gives the
same bytes.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from oiyolo.errors import InputFormError
from oiyolo.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from oiyolo.trainlog.parse import TrainLog

COLOURS = {
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

SERIES = ("blue", "vermilion", "green", "purple", "orange", "sky")
"""Names in ``COLOURS`` for series side by side, the most distinct first."""

SIZE_PX = (1200, 600)
"""Width and height of a saved chart."""

DPI = 120
FONT_PT = {"title": 12.0, "subtitle": 9.5, "label": 9.5, "tick": 8.5}

Values = npt.NDArray[np.float64]

_LOG_SCALE_FROM = 30.0  # highest over lowest value
_FEW_DECADES = 1000.0
_LARGEST = 3.5e38  # of a 32-bit float; what is above it was no number of darknet's
_FEW_POINTS = 30
_BLOCK = 4096
_LAST_PART = 2 / 3  # the second panel of the loss begins here


def smoothed(values: Values, window: int) -> Values:
    """Smooth a curve: a running median, and a short running mean that takes its steps away.

    Args:
        values: Shape (n,); nan where there is none.
        window: Values per window, at least 1; at the ends, windows are cut off.

    Returns:
        Shape (n,), nan where there was nan. A median first, because single iterations with hard
        images stand out tenfold in both directions and would pull a mean along.
    """
    median = _running(np.nanmedian, values, window)
    mean = _running(np.nanmean, median, window // 3)
    return np.where(np.isfinite(values), mean, np.nan)


def _running(statistic: Callable[..., Values], values: Values, window: int) -> Values:
    """Give a statistic over a centred window around each value; nan where it holds none."""
    half = window // 2
    margin = np.full(half, np.nan)
    padded = np.concatenate([margin, values, margin])
    out = np.full(len(values), np.nan)
    # By blocks: all windows of a training of weeks at once would be gigabytes.
    for start in range(0, len(values), _BLOCK):
        block = padded[start : start + _BLOCK + 2 * half]
        windows = np.lib.stride_tricks.sliding_window_view(block, 2 * half + 1)
        some = np.isfinite(windows).any(axis=1)
        out[start : start + _BLOCK][some] = statistic(windows[some], axis=1)
    return out


def smoothing_window(n: int) -> int:
    """Give the window, an odd number of iterations, that suits a curve of ``n`` points."""
    return max(1, min(301, n // 20)) | 1


def plot_loss(
    log: TrainLog, *, ax: Axes | None = None, title: str = "", since: int | None = None
) -> Axes:
    """Draw the loss: of each iteration, smoothed, and darknet's own average.

    The y axis is logarithmic where the values span more than a factor of 30.

    Args:
        log: A training log.
        ax: Where to draw; a new figure's axes without it.
        title: What stands above the numbers; the log's name without it.
        since: The first iteration to draw; all without it.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    table = _metrics(log)
    last = table.iloc[-1]
    subtitle = (
        f"iteration {last['iteration']:.0f} · loss {_short(last['loss'])} · "
        f"average {_short(last['avg_loss'])} · learning rate {last['rate']:.3g}"
    )
    ax = _dressed(ax, title or log.name, subtitle)
    whole_loss = _finite(table["loss"])
    window = smoothing_window(len(table))
    curve = smoothed(whole_loss, window)
    drawn = np.ones(len(table), bool) if since is None else _column(table, "iteration") >= since
    x, loss = _column(table, "iteration")[drawn], whole_loss[drawn]
    average = _finite(table["avg_loss"])[drawn]
    marker = _marker(loss)
    ax.plot(
        x,
        loss,
        color=COLOURS["sky"],
        lw=0.7,
        alpha=0.75,
        label="each iteration",
        marker=marker,
        ms=3.5,
    )
    if window > 1:
        label = f"smoothed over {window}"
        ax.plot(x, curve[drawn], color=COLOURS["blue"], lw=1.8, label=label)
    ax.plot(
        x,
        average,
        color=COLOURS["vermilion"],
        lw=1.4,
        ls="--",
        label="darknet's average",
        marker=marker,
        ms=3.5,
    )
    _scale_loss(ax, np.concatenate([loss, average]))
    _across(ax, x)
    ax.set_ylabel("loss", fontsize=FONT_PT["label"])
    _tell_not_finite(ax, x, loss)
    _legend(ax)
    return ax


def plot_iou(log: TrainLog, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the mean IOU of predictions with the objects they stand for, over all and by layer.

    The y axis goes from 0 to 1. A log without any IOU gives axes that say why.

    Args:
        log: A training log.
        ax: Where to draw; a new figure's axes without it.
        title: What stands above the numbers; the log's name without it.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    table = _metrics(log)
    x, iou = _column(table, "iteration"), _finite(table["iou"])
    known = np.flatnonzero(np.isfinite(iou))
    window = smoothing_window(len(known))
    curve = _smoothed_where_known(iou, window)
    subtitle = f"iteration {x[-1]:.0f} · {_latest_iou(x, iou, curve)}"
    ax = _dressed(ax, title or log.name, subtitle)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_locator(MaxNLocator(10))
    _across(ax, x)
    ax.set_ylabel("mean IOU", fontsize=FONT_PT["label"])
    if not len(known):
        _say(ax, "\n".join(["No IOU in this log.", *_why_no_iou(log)]))
        return ax
    marker = _marker(iou)
    if window > 1:
        ax.plot(x, iou, color=COLOURS["sky"], lw=0.6, alpha=0.6, label="each iteration")
    layers = [name for name in table.columns if name.startswith("iou_")]
    for name, colour in zip(layers if len(layers) > 1 else [], _cycle(), strict=False):
        values = _finite(table[name])
        label = f"layer {name.removeprefix('iou_')}"
        if not np.isfinite(values).any():
            ax.plot([], [], color=colour, lw=1.4, ls=":", label=f"{label}: met no object")
            continue
        smooth = _smoothed_where_known(values, smoothing_window(int(np.isfinite(values).sum())))
        ax.plot(x, _bridged(smooth), color=colour, lw=1.3, label=label, zorder=3)
    ax.plot(
        x,
        _bridged(curve),
        color=COLOURS["black"],
        lw=2.6,
        zorder=2.5,
        marker=marker,
        ms=4,
        label=f"all, smoothed over {window}" if window > 1 else "all",
    )
    _legend(ax)
    return ax


def plot_map(log: TrainLog, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the mean average precision that darknet measured while training.

    Args:
        log: A training log.
        ax: Where to draw; a new figure's axes without it.
        title: What stands above the numbers; the log's name without it.

    Raises:
        InputFormError: The log has no mean average precision.
    """
    points = log.maps
    points = points[np.isfinite(points["map"]) & (points["iteration"] >= 0)]
    if points.empty:
        raise InputFormError(
            "no mean average precision in the training log",
            where=log.name,
            expected="lines that a training with -map prints",
            remedy="Train with an AlexeyAB or hank-ai darknet and -map",
        )
    last, best = points.iloc[-1], points.loc[points["map"].idxmax()]
    subtitle = (
        f"iteration {last['iteration']:.0f} · mAP {last['map']:.3f} · "
        f"best {best['map']:.3f} at {best['iteration']:.0f}"
    )
    ax = _dressed(ax, title or log.name, subtitle)
    thresholds = points["threshold"].fillna(-1)
    for threshold, colour in zip(sorted(thresholds.unique()), _cycle(), strict=False):
        rows = points[thresholds == threshold]
        label = "mAP" if threshold < 0 else f"mAP@{threshold:.2f}"
        ax.plot(rows["iteration"], rows["map"], color=colour, lw=1.8, marker="o", ms=6, label=label)
        for _, row in rows.tail(12).iterrows():
            ax.annotate(
                f"{row['map']:.2f}",
                (row["iteration"], row["map"]),
                (0, -14 if row["map"] > 0.9 else 7),  # noqa: PLR2004  (below, at the top)
                textcoords="offset points",
                ha="center",
                fontsize=FONT_PT["tick"],
            )
    ax.set_ylim(0, 1.02)
    _across(ax, _column(points, "iteration"), first=0)
    ax.set_ylabel("mean average precision", fontsize=FONT_PT["label"])
    _legend(ax)
    return ax


def save_charts(log: TrainLog, folder: Path, *, title: str) -> list[Path]:
    """Save ``loss.png`` (all of it, and its last third), ``iou.png``, and ``map.png`` if any.

    Args:
        log: A training log.
        folder: Where the pictures go; made when it is missing.
        title: What stands above each, as a rule the run's name.

    Returns:
        The paths, 1200 x 600 pixels each.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    table = _metrics(log)
    iterations = _column(table, "iteration")
    figure = new_figure()
    if len(table) < 3:  # noqa: PLR2004  (no third of it)
        plot_loss(log, ax=figure.subplots(), title=f"{title}: loss")
    else:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        plot_loss(log, ax=left, title=f"{title}: loss")
        since = int(iterations[int(len(table) * _LAST_PART)])
        plot_loss(log, ax=right, title="the last third", since=since)
        right.set_ylabel("")
        right.legend().remove()  # the same as the left one's
        _subtitle(right, f"iterations {since} to {iterations[-1]:.0f}")
    charts = {"loss.png": figure, "iou.png": new_figure()}
    plot_iou(log, ax=charts["iou.png"].subplots(), title=f"{title}: IOU")
    if table["map"].notna().any():
        charts["map.png"] = new_figure()
        plot_map(log, ax=charts["map.png"].subplots(), title=f"{title}: mAP")
    return [save_png(chart, folder / name) for name, chart in charts.items()]


def new_figure(size_px: tuple[int, int] = SIZE_PX) -> Figure:
    """Make a figure of ``size_px`` (width, height) when saved; its parts find their own room."""
    return Figure(
        figsize=(size_px[0] / DPI, size_px[1] / DPI), dpi=DPI, layout="constrained", facecolor="w"
    )


def save_png(figure: Figure, path: Path) -> Path:
    """Save a figure, whole or not at all, without dates or versions in it; return ``path``."""
    with whole_file(path, durable=False) as part, warnings.catch_warnings():
        # A run may be named in a script that the font lacks: boxes in the title, no failure.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        with mpl.rc_context({"savefig.bbox": None, "savefig.dpi": "figure"}):
            figure.savefig(part, format="png", metadata={"Software": None})
    return path


def _metrics(log: TrainLog) -> pd.DataFrame:
    table = log.metrics()
    if table.empty:
        raise InputFormError(
            "no iteration lines in the training log",
            where=log.name,
            expected="lines such as '187: 0.774826, 1.089855 avg, 0.002000 rate, ...'",
            found=str(log.summary).splitlines()[0],
            remedy="Darknet prints them on stdout; a log of stderr alone has none",
        )
    return table


def _column(table: pd.DataFrame, name: str) -> Values:
    return np.asarray(table[name], dtype=np.float64)


def _finite(column: pd.Series[float]) -> Values:
    """Give values that can be drawn; nan in the place of nan, inf and what no float32 holds."""
    values = np.asarray(column, dtype=np.float64)
    return np.where(np.abs(values) < _LARGEST, values, np.nan)


def _smoothed_where_known(values: Values, window: int) -> Values:
    """Smooth over the iterations that have a value, and leave the others out."""
    known = np.isfinite(values)
    out = np.full(len(values), np.nan)
    out[known] = smoothed(values[known], window)
    return out


def _latest_iou(x: Values, iou: Values, curve: Values) -> str:
    """Say what the last IOU is, and where it is when not at the end."""
    known = np.flatnonzero(np.isfinite(iou))
    if not len(known):
        return "no IOU"
    last = known[-1]
    smooth = f" · smoothed {curve[last]:.3f}" if curve[last] != iou[last] else ""
    where = "" if last == len(x) - 1 else f" at iteration {x[last]:.0f}, none since"
    return f"IOU {iou[last]:.3f}{smooth}{where}"


def _bridged(values: Values) -> Values:
    """Draw lines across iterations without a value: interpolate between their neighbours."""
    known = np.flatnonzero(np.isfinite(values))
    at = np.arange(len(values))
    return np.interp(at, known, values[known], left=np.nan, right=np.nan)


def _short(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) and 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"  # noqa: PLR2004


def _cycle() -> list[str]:
    """Give enough colours for any network: no network has 60 detection layers."""
    return [COLOURS[name] for name in SERIES] * 10


def _marker(values: Values) -> str:
    """Draw few values as points too: a line of one point is invisible."""
    return "o" if np.isfinite(values).sum() <= _FEW_POINTS else ""


def _dressed(ax: Axes | None, title: str, subtitle: str) -> Axes:
    """Give axes with a title at the left, the current numbers below it, and a quiet grid."""
    ax = new_figure().subplots() if ax is None else ax
    ax.set_title(
        title,
        loc="left",
        fontsize=FONT_PT["title"],
        fontweight="bold",
        pad=20,
        parse_math=False,
    )
    _subtitle(ax, subtitle)
    ax.grid(visible=True, color="#DDDDDD", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=FONT_PT["tick"])
    return ax


def _subtitle(ax: Axes, text: str) -> None:
    """Write the line below the title, in the place of one that is there."""
    for old in [artist for artist in ax.texts if artist.get_gid() == "subtitle"]:
        old.remove()
    ax.annotate(
        text,
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=FONT_PT["subtitle"],
        color="#444444",
        gid="subtitle",
        parse_math=False,
    )


def _across(ax: Axes, x: Values, first: float | None = None) -> None:
    """Set the axis of iterations: whole numbers, and room for a single point."""
    low, high = (x[0] if first is None else first), x[-1]
    room = max((high - low) * 0.02, high * 1e-6, 0.5)
    ax.set_xlim(low - room, high + room)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("iteration", fontsize=FONT_PT["label"])


def _scale_loss(ax: Axes, values: Values) -> None:
    """Choose the scale of a loss axis by what is drawn on it."""
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) and positive.max() > _LOG_SCALE_FROM * positive.min():
        # A few zeros or near zeros must not press everything else into the upper edge.
        low = max(positive.min(), float(np.quantile(positive, 0.01)) / 3)
        ax.set_yscale("log")
        ax.set_ylim(low / 1.3, positive.max() * 1.3)
        few_decades = positive.max() < _FEW_DECADES * low
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif len(values):
        ax.set_ylim(min(0.0, float(values.min())), float(values.max()) * 1.08 or 1.0)


def _tell_not_finite(ax: Axes, x: Values, loss: Values) -> None:
    """Mark iterations whose loss is nan or inf, which a line simply leaves out."""
    missing = x[~np.isfinite(loss)]
    if len(missing) == len(x):
        _say(ax, "The loss is nan or inf throughout:\nthe training has diverged.")
    elif len(missing):
        ax.plot(
            missing,
            np.full(len(missing), 0.02),
            color=COLOURS["black"],
            ls="",
            marker="x",
            ms=4,
            transform=ax.get_xaxis_transform(),
            label=f"nan or inf ({len(missing)}, first at {missing[0]:.0f})",
        )


def _say(ax: Axes, text: str) -> None:
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
        color="#444444",
        parse_math=False,
    )


def _why_no_iou(log: TrainLog) -> list[str]:
    summary = log.summary
    if summary.regions:
        return [f"{summary.regions} region lines, none of an iteration with an IOU"]
    return [note for note in summary.notes if note.startswith("0 region lines")]


def _legend(ax: Axes) -> None:
    """Name the series below the axes, where nothing is hidden."""
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.11),
        ncols=6,
        fontsize=FONT_PT["tick"],
        frameon=False,
        columnspacing=1.4,
        handlelength=1.8,
    )
