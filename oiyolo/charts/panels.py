"""The panels of a run's charts, each drawn on given axes.

Each panel shows a ``Lineage``: the iterations that led to the latest one.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from oiyolo.charts import canvas
from oiyolo.charts.canvas import COLOURS, TICK_UP
from oiyolo.charts.checkpoints import draw_scores, mark_best, mark_overfitting
from oiyolo.trainlog.lineage import format_number, plottable_values
from oiyolo.trainlog.scores import score_facts
from oiyolo.trainlog.smoothing import MAX_POINTS, downsample, smooth_curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.charts.canvas import Axes, Values
    from oiyolo.trainlog.lineage import Lineage

_RECENT_ITERATIONS: Final = 10
_MAX_MARKED_POINTS: Final = 30
_MAX_TICKS: Final = 60
_MAX_RATE_STEPS: Final = 8
_MAX_LABELLED_LAYERS: Final = 6
_MAX_LABELLED_POINTS: Final = 8
_BELOW_TOP: Final = 0.85
_BELOW_TRAIN: Final = 0.2  # the curve of train is usually above that of valid


def draw_loss(lineage: Lineage, ax: Axes, *, since: float | None = None) -> None:
    """Draw the loss of each iteration, the smoothed loss, darknet's average loss and events."""
    iterations, loss, average = (lineage.column(n) for n in ("iteration", "loss", "avg_loss"))
    smooth_x, smooth_y, window = smooth_curve(iterations, loss)
    first = iterations[0] if since is None else since
    in_range, smooth_in_range = iterations >= first, smooth_x >= first
    x, loss, average = iterations[in_range], loss[in_range], average[in_range]
    replaced_loss = _draw_replaced(lineage, ax, x[-1]) if since is None else loss
    dots: dict[str, Any] = {"marker": _marker(loss), "ms": 4}
    _draw_curve(ax, x, loss, "sky", 0.8, alpha=0.7, label="each iteration", **dots)
    _draw_curve(ax, x, average, "vermilion", 1.5, ls="--", label="average loss (darknet)", **dots)
    if window > 1:
        label = f"smoothed (window {window:,})"
        smooth_x, smooth_y = smooth_x[smooth_in_range], smooth_y[smooth_in_range]
        ax.plot(smooth_x, smooth_y, color=COLOURS["blue"], lw=2.2, label=label)
    valid_loss = _draw_valid_loss(lineage, ax, first)
    canvas.set_value_axis(ax, np.concatenate([loss, average, replaced_loss, valid_loss]), "loss")
    canvas.set_iteration_axis(ax, x[0], x[-1])
    _mark_not_finite(ax, x, loss)
    _mark_events(lineage, ax, x[0], x[-1])


def draw_iou(lineage: Lineage, ax: Axes) -> None:
    """Draw the mean IOU of all detection layers and of each layer, or why the log has no IOU."""
    x, iou = lineage.column("iteration"), lineage.column("iou")
    canvas.set_fraction_axis(ax, "mean IOU")
    canvas.set_iteration_axis(ax, x[0], x[-1])
    if not np.isfinite(iou).any():
        canvas.show_message(ax, "\n".join(["No IOU in this log.", *_missing_iou_reason(lineage)]))
        return
    smooth_x, smooth_y, window = smooth_curve(x, iou)
    if window > 1:
        _draw_curve(ax, x, iou, "sky", 0.6, alpha=0.5, label="each iteration")
    layers = lineage.layers if len(lineage.layers) > 1 else []
    for index, (name, style) in enumerate(
        zip(layers, canvas.line_styles(len(layers)), strict=True)
    ):
        layer_x, layer_y, _ = smooth_curve(x, lineage.column(name))
        label = f"layer {name.removeprefix('iou_')}" + ("" if len(layer_x) else ": no objects")
        ax.plot(
            layer_x,
            layer_y,
            color=style.colour,
            ls=style.dashes if len(layer_x) else ":",
            lw=1.4,
            zorder=3,
            label=label if index < _MAX_LABELLED_LAYERS else None,
        )
    if len(layers) > _MAX_LABELLED_LAYERS:
        ax.plot([], [], ls="", label=f"and {len(layers) - _MAX_LABELLED_LAYERS} more layers")
    label = f"all layers, smoothed (window {window:,})" if window > 1 else "all layers"
    dots: dict[str, Any] = {"marker": _marker(iou), "ms": 4}
    ax.plot(smooth_x, smooth_y, color=COLOURS["black"], lw=2.6, zorder=2.5, label=label, **dots)


def draw_map(lineage: Lineage, ax: Axes) -> None:
    """Draw the scores of the checkpoints, and the mean average precision that darknet measured.

    Darknet's has one line per IOU threshold.
    """
    points, x = lineage.maps, lineage.column("iteration")
    thresholds = points["threshold"].fillna(-1)
    values = sorted(thresholds.unique())
    styles, darknets = canvas.line_styles(len(values)), ""
    if lineage.scores:
        _draw_scores(lineage, ax)
        styles, darknets = canvas.line_styles(len(values) + 2)[2:], " (darknet)"
    canvas.set_fraction_axis(ax, "mAP")
    canvas.set_iteration_axis(ax, x[0], x[-1])
    for threshold, style in zip(values, styles, strict=True):
        rows = points[thresholds == threshold]
        iterations, maps = rows["iteration"].to_numpy(float), rows["map"].to_numpy(float)
        ax.plot(
            *downsample(iterations, maps),
            color=style.colour,
            ls=style.dashes,
            lw=1.8,
            marker="o" if len(rows) <= _MAX_TICKS else "",
            ms=5,
            clip_on=False,
            label=("mAP" if threshold < 0 else f"mAP@{threshold:.2f}") + darknets,
        )
    below_from = _BELOW_TRAIN if lineage.scores else _BELOW_TOP
    _label_points(ax, _labelled_points(lineage), below_from=below_from)


def _draw_scores(lineage: Lineage, ax: Axes) -> None:
    """Draw the scores of the checkpoints, the best one, and since when the run overfits."""
    draw_scores(lineage.scores, ax)
    if facts := score_facts(lineage.scores):
        mark_best(facts.best, ax)
    mark_overfitting(lineage.scores, ax)


def draw_rate(lineage: Lineage, ax: Axes) -> None:
    """Draw the learning rate."""
    x, rate = lineage.column("iteration"), lineage.column("rate")
    _draw_curve(ax, x, rate, "green", 1.8, marker=_marker(rate), ms=4)
    canvas.set_value_axis(ax, rate, "learning rate", decades_only=True)
    canvas.set_iteration_axis(ax, x[0], x[-1])


def draw_speed(lineage: Lineage, ax: Axes) -> None:
    """Draw the images trained per second, smoothed."""
    x, speed = lineage.column("iteration"), lineage.column("images_per_s")
    canvas.set_iteration_axis(ax, x[0], x[-1])
    if not np.isfinite(speed).any():
        canvas.show_message(ax, "No iteration times in this log.")
        return
    smooth_x, smooth_y, _ = smooth_curve(x, speed)
    ax.plot(smooth_x, smooth_y, color=COLOURS["purple"], lw=1.8, marker=_marker(speed), ms=4)
    ax.set_ylim(0, float(np.nanmax(smooth_y)) * 1.15 or 1.0)
    ax.set_ylabel("images per second", fontsize=canvas.FONT_PT["label"])


def _draw_curve(ax: Axes, x: Values, y: Values, colour: str, lw: float, **style: Any) -> None:  # noqa: ANN401  (options of Axes.plot)
    """Draw a curve of as many points as a chart can show."""
    ax.plot(*downsample(x, y), color=COLOURS[colour], lw=lw, **style)


def loss_summary(lineage: Lineage) -> str:
    """Return the current loss as text."""
    last = lineage.table.iloc[-1]
    return (
        f"iteration {last['iteration']:,.0f} · loss {format_number(last['loss'])} · "
        f"average loss {format_number(last['avg_loss'])} · learning rate {last['rate']:.3g}"
    )


def iou_summary(lineage: Lineage) -> str:
    """Return the last IOU as text, and its iteration unless it is recent."""
    x, iou = lineage.column("iteration"), lineage.column("iou")
    finite = np.flatnonzero(np.isfinite(iou))
    if not len(finite):
        return "no IOU"
    last = finite[-1]
    text = f"IOU {iou[last]:.3f}"
    if len(finite) > 1:
        text += f" (smoothed {smooth_curve(x, iou)[1][-1]:.3f})"
    if last < len(x) - _RECENT_ITERATIONS:
        text += f" at iteration {x[last]:,.0f}, none since"
    return text


def map_summary(lineage: Lineage) -> str:
    """Return the last and the best scores or mAP as text, and when measured unless just now."""
    if scores := score_facts(lineage.scores):
        low, high = scores.last.valid_map50_interval
        interval = f" · 95 % interval {low:.3f} to {high:.3f}" if np.isfinite(low) else ""
        is_now = scores.last.iteration == lineage.table["iteration"].iloc[-1]
        when = "" if is_now else f" · scored at iteration {scores.last.iteration:,}"
        return f"{scores}{interval}{when}"
    facts = lineage.map_facts
    if facts is None:
        return "no mAP"
    if facts.last_iteration == lineage.table["iteration"].iloc[-1]:
        return str(facts)
    return f"{facts}, measured at iteration {facts.last_iteration:,}"


def _draw_valid_loss(lineage: Lineage, ax: Axes, first: float) -> Values:
    """Draw the loss on the valid images from an iteration on, if it was measured; return it."""
    x, loss = lineage.valid_loss_curve
    x, loss = x[x >= first], loss[x >= first]
    if np.isfinite(loss).any():
        label, marker = "valid images", _marker(loss)
        _draw_curve(ax, x, loss, "black", 1.6, marker=marker, ms=4, zorder=2.6, label=label)
    return loss


def _draw_replaced(lineage: Lineage, ax: Axes, last: float) -> Values:
    """Draw replaced iterations up to ``last`` in grey; return their loss."""
    rows = lineage.replaced_rows[lineage.replaced_rows["iteration"] <= last]
    label = "earlier runs (replaced)"
    losses = [np.zeros(0)]
    for _, run in rows.groupby("run"):
        x, loss = run["iteration"].to_numpy(float), plottable_values(run["loss"])
        losses.append(loss)
        _draw_curve(ax, x, loss, "grey", 0.8, alpha=0.6, marker=_marker(loss), ms=3, label=label)
        label = "_nolegend_"
    return np.concatenate(losses)


def _mark_events(lineage: Lineage, ax: Axes, first: float, last: float) -> None:
    """Mark learning-rate steps (if few), resumes and saved weights (at most 60 of each)."""
    _mark_rate_steps(lineage, ax, first, last)
    resumes = [i for i in lineage.resumed_iterations if first <= i <= last]
    label = f"resumed ({len(lineage.resumed_iterations)})"
    for iteration in _thin(resumes):
        ax.axvline(iteration, color=COLOURS["purple"], lw=1.4, ls=":", label=label)
        label = "_nolegend_"
    saves = _thin([i for i in lineage.saved_iterations if first <= i <= last])
    label = f"weights saved ({len(lineage.saved_iterations)})"
    _draw_marks(ax, saves, 0.0, label=label, marker=TICK_UP, ms=6, mew=1.1)


def _mark_rate_steps(lineage: Lineage, ax: Axes, first: float, last: float) -> None:
    steps = [step for step in lineage.rate_steps if first <= step.iteration <= last]
    if len(steps) > _MAX_RATE_STEPS:
        return
    labels = canvas.LabelRow(ax)
    label = "learning-rate step"
    for step in steps:
        ax.axvline(step.iteration, color=COLOURS["green"], lw=1.2, ls=(0, (5, 3)), label=label)
        label = "_nolegend_"
        text = f"{step.rate:g}"
        centre = labels.place(text, step.iteration, side=1)
        if centre is not None:
            ax.annotate(
                text,
                (centre, 1),
                (0, -2),
                xycoords=ax.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=canvas.FONT_PT["tick"],
                color=COLOURS["green"],
            )


def _mark_not_finite(ax: Axes, x: Values, loss: Values) -> None:
    """Mark iterations whose loss is nan or inf, which the curve leaves out."""
    missing = x[~np.isfinite(loss)].tolist()
    if len(missing) == len(x):
        canvas.show_message(ax, "The loss is nan or inf throughout:\ntraining has diverged.")
    elif missing:
        label = f"nan or inf ({len(missing):,}, first at {missing[0]:,.0f})"
        _draw_marks(ax, _thin(missing, MAX_POINTS // 8), 0.03, label=label, marker="x", ms=5)


def _draw_marks(ax: Axes, iterations: Sequence[float], height: float, **style: Any) -> None:  # noqa: ANN401  (options of Axes.plot)
    """Draw black markers, if any, at a fraction of the height of the axes."""
    if iterations:
        heights = np.full(len(iterations), height)
        transform = ax.get_xaxis_transform()
        ax.plot(iterations, heights, color=COLOURS["black"], ls="", transform=transform, **style)


def _thin(positions: Sequence[float], limit: int = _MAX_TICKS) -> list[float]:
    """Return at most ``limit`` of the positions, including the first and the last."""
    if len(positions) <= limit:
        return list(positions)
    return [positions[i] for i in np.linspace(0, len(positions) - 1, limit).astype(int)]


def _labelled_points(lineage: Lineage) -> list[tuple[float, float]]:
    """Return the last and the best score or mAP, then others to label as far as there is room."""
    if scores := score_facts(lineage.scores):
        return [(score.iteration, score.valid_map50) for score in (scores.last, scores.best)]
    facts = lineage.map_facts
    if facts is None:
        return []
    rows = lineage.latest_maps[["iteration", "map"]].to_numpy(float)[::-1]
    points: list[tuple[float, float]] = [
        (facts.last_iteration, facts.last),
        (facts.best_iteration, facts.best),
    ]
    return points + [(x, y) for x, y in rows[:_MAX_LABELLED_POINTS].tolist()]


def _label_points(ax: Axes, points: Sequence[tuple[float, float]], *, below_from: float) -> None:
    """Label points with their values, the first ones first, as far as there is room.

    Args:
        ax: The axes.
        points: Iterations and values.
        below_from: Value above which a label is below its point.
    """
    labels = canvas.LabelRow(ax)
    for x, y in points:
        text = f"{y:.3f}"
        centre = labels.place(text, x)
        if centre is not None:
            ax.annotate(
                text,
                (centre, y),
                (0, -18 if y > below_from else 8),
                textcoords="offset points",
                ha="center",
                fontsize=canvas.FONT_PT["tick"],
            )


def _marker(values: Values) -> str:
    """Return the marker of a curve: dots if it has few values, because a single one has no line."""
    return "o" if np.isfinite(values).sum() <= _MAX_MARKED_POINTS else ""


def _missing_iou_reason(lineage: Lineage) -> list[str]:
    summary = lineage.log.summary
    if summary.regions:
        return [f"{summary.regions:,} region lines, but no iteration has an IOU"]
    notes = [note for note in summary.notes if note.startswith("0 region lines")]
    return [row for note in notes for row in textwrap.wrap(note, 40)]
