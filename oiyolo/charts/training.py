"""The charts of one training: on given axes, or saved together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.charts import canvas, panels
from oiyolo.charts.canvas import Sheet
from oiyolo.core.errors import InputFormError
from oiyolo.trainlog.lineage import lineage
from oiyolo.trainlog.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.charts.canvas import Axes
    from oiyolo.trainlog.lineage import Lineage
    from oiyolo.trainlog.tables import TrainLog

OVERVIEW_PX: Final = (1200, 1050)
_LAST_PART = 2 / 3  # the second panel of the loss begins here


def plot_loss(
    log: TrainLog, ax: Axes | None = None, *, title: str = "", since: int | None = None
) -> Axes:
    """Draw the loss: of each iteration, smoothed, and darknet's own average.

    The y axis is logarithmic where the values span more than a factor of 30. Steps of the learning
    rate, resumes and saved weights are marked; iterations that a later run in the same file took
    the place of are grey.

    Args:
        log: A training log.
        ax: Where to draw; a new figure's axes without it.
        title: What stands above the numbers; the log's name without it.
        since: The first iteration to draw; all without it.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        InputFormError: The log has no iteration lines, or none from ``since`` on.
    """
    led = lineage_or_complain(log)
    last = int(led.column("iteration")[-1])
    if since is not None and since > last:
        raise InputFormError(
            f"no iteration from {since:,} on in the training log",
            where=log.name,
            found=f"{last:,} as the last one",
        )
    ax = canvas.dressed(ax, title or log.name or "loss", panels.loss_told(led))
    panels.draw_loss(led, ax, since=since)
    canvas.legend(ax)
    return ax


def plot_iou(log: TrainLog, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw the mean IOU of predictions with the objects they stand for, over all and by layer.

    The y axis goes from 0 to 1. A log without any IOU gives axes that say why.

    Args:
        log: A training log.
        ax: Where to draw; a new figure's axes without it.
        title: What stands above the numbers; the log's name without it.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    led = lineage_or_complain(log)
    told = f"iteration {led.column('iteration')[-1]:,.0f} · {panels.iou_told(led)}"
    ax = canvas.dressed(ax, title or log.name or "IOU", told)
    panels.draw_iou(led, ax)
    canvas.legend(ax)
    return ax


def plot_map(log: TrainLog, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw the mean average precision that darknet measured while training.

    Args:
        log: A training log.
        ax: Where to draw; a new figure's axes without it.
        title: What stands above the numbers; the log's name without it.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        InputFormError: The log has no mean average precision.
    """
    led = lineage_or_complain(log)
    if led.maps.empty:
        raise InputFormError(
            "no mean average precision in the training log",
            where=log.name,
            expected="lines that a training with -map prints",
            remedy="Train with an AlexeyAB or hank-ai darknet and -map",
        )
    told = f"iteration {led.column('iteration')[-1]:,.0f} · {panels.map_told(led)}"
    ax = canvas.dressed(ax, title or log.name or "mAP", told)
    panels.draw_map(led, ax)
    canvas.legend(ax)
    return ax


def save_charts(log: TrainLog, folder: Path, *, title: str) -> list[Path]:
    """Save ``loss``, ``iou``, ``map`` if there is any, and ``overview``, each as PNG and SVG.

    Args:
        log: A training log.
        folder: Where the pictures go; made when it is missing.
        title: What stands above each, as a rule the run's name.

    Returns:
        The paths of the PNGs, 1200 pixels wide.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    led = lineage_or_complain(log)
    sheets = {
        "loss": _loss_sheet(led, title),
        "iou": _sheet_of_one(led, f"{title}: IOU", panels.iou_told(led), panels.draw_iou),
    }
    if not led.maps.empty:
        told = panels.map_told(led)
        sheets["map"] = _sheet_of_one(led, f"{title}: mAP", told, panels.draw_map)
    sheets["overview"] = overview_sheet(led, title)
    return [canvas.save(sheet.figure, folder, name)[0] for name, sheet in sheets.items()]


def _loss_sheet(led: Lineage, title: str) -> Sheet:
    told = [panels.loss_told(led)]
    if len(led) < 3:  # noqa: PLR2004  (no third of it)
        sheet = Sheet(f"{title}: loss", told, [["all"]])
        panels.draw_loss(led, canvas.dressed(sheet.panels["all"], ""))
    else:
        sheet = Sheet(f"{title}: loss", told, [["all", "all", "all", "last", "last"]])
        panels.draw_loss(led, canvas.dressed(sheet.panels["all"], "all iterations"))
        since = led.column("iteration")[int(len(led) * _LAST_PART)]
        panels.draw_loss(led, canvas.dressed(sheet.panels["last"], "the last third"), since=since)
        sheet.panels["last"].set_ylabel("")
    sheet.legend()
    return sheet


def _sheet_of_one(
    led: Lineage, title: str, told: str, draw: Callable[[Lineage, Axes], None]
) -> Sheet:
    head = f"iteration {led.column('iteration')[-1]:,.0f} · {told}"
    sheet = Sheet(title, [head], [["one"]])
    draw(led, canvas.dressed(sheet.panels["one"], ""))
    sheet.legend()
    return sheet


def overview_sheet(led: Lineage, title: str) -> Sheet:
    """Draw everything on one sheet: loss, IOU, mAP if there is any, learning rate and speed."""
    told = [panels.loss_told(led), panels.iou_told(led)]
    has_map = not led.maps.empty
    if has_map:
        told[1] += f" · {panels.map_told(led)}"
    sheet = Sheet(
        title,
        [*told, judge(led).sentence],
        [["loss", "loss"], ["iou", "map" if has_map else "iou"], ["rate", "speed"]],
        heights=(1.35, 1.1, 0.75),
        size_px=OVERVIEW_PX,
    )
    draw = {
        "loss": panels.draw_loss,
        "iou": panels.draw_iou,
        "map": panels.draw_map,
        "rate": panels.draw_rate,
        "speed": panels.draw_speed,
    }
    names = {"iou": "IOU", "map": "mAP", "rate": "learning rate", "speed": "images per second"}
    for name, ax in sheet.panels.items():
        draw[name](led, canvas.dressed(ax, names.get(name, name)))
        ax.set_ylabel("")  # the panel's name says it
        if name in {"loss", "iou", "map"}:
            ax.set_xlabel("")
    sheet.legend()
    return sheet


def lineage_or_complain(log: TrainLog) -> Lineage:
    """Give the iterations to draw.

    Raises:
        InputFormError: There are none.
    """
    led = lineage(log)
    if not len(led):
        raise InputFormError(
            "no iteration lines in the training log",
            where=log.name,
            expected="lines such as '187: 0.774826, 1.089855 avg, 0.002000 rate, ...'",
            found=str(log.summary).splitlines()[0],
            remedy="Darknet prints them on stdout; a log of stderr alone has none",
        )
    return led
