"""The panels of a training's charts, each drawn on axes that it is given.

Every one takes what is drawn as a ``Lineage``: the iterations that led to the latest one.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.charts import canvas
from oiyolo.charts.canvas import COLOURS, TICK_UP
from oiyolo.trainlog.lineage import drawable, number_text
from oiyolo.trainlog.smoothing import DRAWN_MOST, smooth_curve, thinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.charts.canvas import Axes, Values
    from oiyolo.trainlog.lineage import Lineage

_RECENT: Final = 10
_FEW_POINTS: Final = 30
_TICKS_MOST: Final = 60
_STEPS_MOST: Final = 8
_LAYERS_NAMED: Final = 6
_POINTS_NAMED: Final = 8
_TOO_NEAR: Final = 0.07  # of the axis' width


def draw_loss(led: Lineage, ax: Axes, *, since: float | None = None) -> None:
    """Draw the loss: of each iteration, smoothed, and darknet's average; and what happened."""
    iterations, loss, average = (led.column(n) for n in ("iteration", "loss", "avg_loss"))
    smooth_x, smooth_y, window = smooth_curve(iterations, loss)
    first = iterations[0] if since is None else since
    drawn, smooth_drawn = iterations >= first, smooth_x >= first
    x, loss, average = iterations[drawn], loss[drawn], average[drawn]
    replaced = _draw_replaced(led, ax, x[-1]) if since is None else loss
    marker = _marker(loss)
    ax.plot(
        *thinned(x, loss),
        color=COLOURS["sky"],
        lw=0.8,
        alpha=0.7,
        label="each iteration",
        marker=marker,
        ms=4,
    )
    ax.plot(
        *thinned(x, average),
        color=COLOURS["vermilion"],
        lw=1.5,
        ls="--",
        label="darknet's average",
        marker=marker,
        ms=4,
    )
    if window > 1:
        ax.plot(
            smooth_x[smooth_drawn],
            smooth_y[smooth_drawn],
            color=COLOURS["blue"],
            lw=2.2,
            label=f"smoothed over {window:,}",
        )
    canvas.scaled(ax, np.concatenate([loss, average, replaced]), "loss")
    canvas.across(ax, x[0], x[-1])
    _mark_not_finite(ax, x, loss)
    _mark_events(led, ax, x[0], x[-1])


def draw_iou(led: Lineage, ax: Axes) -> None:
    """Draw the mean IOU of all detection layers and of each; or why there is none."""
    x, iou = led.column("iteration"), led.column("iou")
    canvas.up_to_one(ax, "mean IOU")
    canvas.across(ax, x[0], x[-1])
    if not np.isfinite(iou).any():
        canvas.say(ax, "\n".join(["No IOU in this log.", *_why_no_iou(led)]))
        return
    smooth_x, smooth_y, window = smooth_curve(x, iou)
    if window > 1:
        ax.plot(*thinned(x, iou), color=COLOURS["sky"], lw=0.6, alpha=0.5, label="each iteration")
    layers = led.layers if len(led.layers) > 1 else []
    for place, (name, line) in enumerate(zip(layers, canvas.lines(len(layers)), strict=True)):
        layer_x, layer_y, _ = smooth_curve(x, led.column(name))
        label = f"layer {name.removeprefix('iou_')}" + ("" if len(layer_x) else ": met no object")
        ax.plot(
            layer_x,
            layer_y,
            color=line.colour,
            ls=line.style if len(layer_x) else ":",
            lw=1.4,
            zorder=3,
            label=label if place < _LAYERS_NAMED else None,
        )
    if len(layers) > _LAYERS_NAMED:
        ax.plot([], [], ls="", label=f"and {len(layers) - _LAYERS_NAMED} more layers")
    ax.plot(
        smooth_x,
        smooth_y,
        color=COLOURS["black"],
        lw=2.6,
        zorder=2.5,
        marker=_marker(iou),
        ms=4,
        label=f"all layers, smoothed over {window:,}" if window > 1 else "all layers",
    )


def draw_map(led: Lineage, ax: Axes) -> None:
    """Draw the mean average precision that darknet measured, a line for each IOU threshold."""
    points = led.maps
    canvas.up_to_one(ax, "mAP")
    canvas.across(ax, 0, led.column("iteration")[-1])
    thresholds = points["threshold"].fillna(-1)
    values = sorted(thresholds.unique())
    for threshold, line in zip(values, canvas.lines(len(values)), strict=True):
        rows = points[thresholds == threshold]
        at, of = rows["iteration"].to_numpy(float), rows["map"].to_numpy(float)
        ax.plot(
            *thinned(at, of),
            color=line.colour,
            ls=line.style,
            lw=1.8,
            marker="o" if len(rows) <= _TICKS_MOST else "",
            ms=5,
            clip_on=False,
            label="mAP" if threshold < 0 else f"mAP@{threshold:.2f}",
        )
        _name_points(ax, at, of)


def draw_rate(led: Lineage, ax: Axes) -> None:
    """Draw the learning rate."""
    x, rate = led.column("iteration"), led.column("rate")
    ax.plot(*thinned(x, rate), color=COLOURS["green"], lw=1.8, marker=_marker(rate), ms=4)
    canvas.scaled(ax, rate, "learning rate", decades_only=True)
    canvas.across(ax, x[0], x[-1])


def draw_speed(led: Lineage, ax: Axes) -> None:
    """Draw the images that are trained per second, smoothed."""
    x, speed = led.column("iteration"), led.column("images_per_s")
    canvas.across(ax, x[0], x[-1])
    if not np.isfinite(speed).any():
        canvas.say(ax, "No times in this log.")
        return
    smooth_x, smooth_y, _ = smooth_curve(x, speed)
    ax.plot(smooth_x, smooth_y, color=COLOURS["purple"], lw=1.8, marker=_marker(speed), ms=4)
    ax.set_ylim(0, float(np.nanmax(smooth_y)) * 1.15 or 1.0)
    ax.set_ylabel("images per second", fontsize=canvas.FONT_PT["label"])


def loss_told(led: Lineage) -> str:
    """Give the current loss as text."""
    last = led.table.iloc[-1]
    return (
        f"iteration {last['iteration']:,.0f} · loss {number_text(last['loss'])} · "
        f"average {number_text(last['avg_loss'])} · learning rate {last['rate']:.3g}"
    )


def iou_told(led: Lineage) -> str:
    """Say what the last IOU is, and where it is when not at the end."""
    x, iou = led.column("iteration"), led.column("iou")
    known = np.flatnonzero(np.isfinite(iou))
    if not len(known):
        return "no IOU"
    last = known[-1]
    smooth = smooth_curve(x, iou)[1][-1]
    where = "" if last >= len(x) - _RECENT else f" at iteration {x[last]:,.0f}, none since"
    return f"IOU {iou[last]:.3f}" + (f" (smoothed {smooth:.3f})" if len(known) > 1 else "") + where


def map_told(led: Lineage) -> str:
    """Give the last and the best mAP as text."""
    points = led.maps
    if points.empty:
        return "no mAP"
    last, best = points.iloc[-1], points.iloc[int(points["map"].to_numpy(float).argmax())]
    told = f"mAP {last['map']:.3f}"
    if best["map"] > last["map"]:
        told += f" (best {best['map']:.3f} at {best['iteration']:,.0f})"
    return (
        told
        if last["iteration"] == led.table["iteration"].iloc[-1]
        else (f"{told} at iteration {last['iteration']:,.0f}")
    )


def _draw_replaced(led: Lineage, ax: Axes, last: float) -> Values:
    """Draw in grey what a later run took the place of, as far as the axis goes; give its loss."""
    rows = led.replaced[led.replaced["iteration"] <= last]
    label = "of earlier runs, replaced"
    drawn = [np.zeros(0)]
    for _, run in rows.groupby("run"):
        x, loss = run["iteration"].to_numpy(float), drawable(run["loss"])
        drawn.append(loss)
        ax.plot(
            *thinned(x, loss),
            color=COLOURS["grey"],
            lw=0.8,
            alpha=0.6,
            marker=_marker(loss),
            ms=3,
            label=label,
        )
        label = "_again"
    return np.concatenate(drawn)


def _mark_events(led: Lineage, ax: Axes, first: float, last: float) -> None:
    """Mark learning-rate steps, resumes and saved weights; many are thinned to a row of ticks."""
    at_foot = ax.get_xaxis_transform()
    steps = [step for step in led.rate_steps if first <= step.iteration <= last]
    if 0 < len(steps) <= _STEPS_MOST:
        named = -np.inf
        for i, step in enumerate(steps):
            label = "learning-rate step" if i == 0 else None
            ax.axvline(step.iteration, color=COLOURS["green"], lw=1.2, ls=(0, (5, 3)), label=label)
            if step.iteration - named > _TOO_NEAR * (last - first):
                named = step.iteration
                ax.annotate(
                    f"{step.rate:g}",
                    (step.iteration, 1),
                    (3, -2),
                    xycoords=at_foot,
                    textcoords="offset points",
                    va="top",
                    fontsize=canvas.FONT_PT["tick"],
                    color=COLOURS["green"],
                )
    resumed = _few([at for at in led.resumed if first <= at <= last])
    for i, at in enumerate(resumed):
        label = f"resumed ({len(led.resumed)})" if i == 0 else None
        ax.axvline(at, color=COLOURS["purple"], lw=1.4, ls=":", label=label)
    saved = [at for at in led.saved if first <= at <= last]
    if saved:
        ax.plot(
            _few(saved),
            np.full(len(_few(saved)), 0.0),
            color=COLOURS["black"],
            ls="",
            marker=TICK_UP,
            ms=6,
            mew=1.1,
            transform=at_foot,
            label=f"weights saved ({len(led.saved)})",
        )


def _mark_not_finite(ax: Axes, x: Values, loss: Values) -> None:
    """Mark iterations whose loss is nan or inf, which a line simply leaves out."""
    missing = x[~np.isfinite(loss)]
    if len(missing) == len(x):
        canvas.say(ax, "The loss is nan or inf throughout:\nthe training has diverged.")
    elif len(missing):
        ax.plot(
            _few(missing.tolist(), DRAWN_MOST // 8),
            np.full(len(_few(missing.tolist(), DRAWN_MOST // 8)), 0.03),
            color=COLOURS["black"],
            ls="",
            marker="x",
            ms=5,
            transform=ax.get_xaxis_transform(),
            label=f"nan or inf ({len(missing):,}, first at {missing[0]:,.0f})",
        )


def _few(places: Sequence[float], most: int = _TICKS_MOST) -> list[float]:
    """Thin marks to as many as can be told apart, the first and the last among them."""
    if len(places) <= most:
        return list(places)
    return [places[i] for i in np.linspace(0, len(places) - 1, most).astype(int)]


def _name_points(ax: Axes, at: Values, of: Values) -> None:
    """Write a few points' values beside them: the last ones, as far as they have room."""
    width = ax.get_xlim()[1] - ax.get_xlim()[0]
    named = np.inf
    for x, y in list(zip(at.tolist(), of.tolist(), strict=True))[: -_POINTS_NAMED - 1 : -1]:
        if named - x < _TOO_NEAR * width:
            continue
        named = x
        ax.annotate(
            f"{y:.2f}",
            (x, y),
            (0, -18 if y > 0.85 else 8),  # noqa: PLR2004  (below, at the top)
            textcoords="offset points",
            ha="center",
            fontsize=canvas.FONT_PT["tick"],
        )


def _marker(values: Values) -> str:
    """Draw few values as points too: a line of one point is invisible."""
    return "o" if np.isfinite(values).sum() <= _FEW_POINTS else ""


def _why_no_iou(led: Lineage) -> list[str]:
    summary = led.log.summary
    if summary.regions:
        return [f"{summary.regions:,} region lines, none of an iteration with an IOU"]
    notes = [note for note in summary.notes if note.startswith("0 region lines")]
    return [line for note in notes for line in textwrap.wrap(note, 40)]
