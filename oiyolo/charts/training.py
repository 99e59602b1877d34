"""The charts of one run: drawn on given axes, or saved together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.charts import canvas, panels
from oiyolo.charts.canvas import ChartSheet
from oiyolo.core.errors import InputFormError
from oiyolo.trainlog.lineage import build_lineage
from oiyolo.trainlog.no_iterations import no_iterations_error
from oiyolo.trainlog.verdict import assess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oiyolo.charts.canvas import Axes
    from oiyolo.trainlog.lineage import Lineage
    from oiyolo.trainlog.tables import TrainLog

OVERVIEW_PX: Final = (1200, 1050)
_LAST_PART_START = 2 / 3  # start of the second loss panel
_OVERVIEW_PANELS: Final[Mapping[str, tuple[str, Callable[[Lineage, Axes], None]]]] = {
    "loss": ("loss", panels.draw_loss),
    "iou": ("IOU", panels.draw_iou),
    "map": ("mAP", panels.draw_map),
    "rate": ("learning rate", panels.draw_rate),
    "speed": ("images per second", panels.draw_speed),
}


def plot_loss(
    log: TrainLog, ax: Axes | None = None, *, title: str = "", since: int | None = None
) -> Axes:
    """Draw the loss of each iteration, the smoothed loss and darknet's average loss.

    The y axis is logarithmic if the values span more than a factor of 30. Steps of the learning
    rate, resumes and saved weights are marked; iterations that a later run in the same file
    replaced are grey.

    Args:
        log: A training log.
        ax: Axes to draw on; those of a new figure by default.
        title: Title of the axes; the log's name by default.
        since: First iteration to draw; all iterations by default.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        InputFormError: The log has no iteration lines, or none from ``since`` on.
    """
    lineage = require_lineage(log)
    last = int(lineage.column("iteration")[-1])
    if since is not None and since > last:
        raise InputFormError(
            f"no iteration from {since:,} on in the training log",
            where=log.name,
            found=f"{last:,} as the last iteration",
        )
    ax = canvas.style_axes(ax, title or log.name or "loss", panels.loss_summary(lineage))
    panels.draw_loss(lineage, ax, since=since)
    return canvas.legend(ax)


def plot_iou(log: TrainLog, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw the mean IOU of predictions with their objects, over all layers and for each layer.

    The y axis ranges from 0 to 1. If the log has no IOU, the axes show the reason.

    Args:
        log: A training log.
        ax: Axes to draw on; those of a new figure by default.
        title: Title of the axes; the log's name by default.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    lineage = require_lineage(log)
    ax = canvas.style_axes(ax, title or log.name or "IOU", _subtitle(lineage, panels.iou_summary))
    panels.draw_iou(lineage, ax)
    return canvas.legend(ax)


def plot_map(log: TrainLog, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw the scores of a run's checkpoints and the mean average precision that darknet measured.

    The scores on valid have their 95 % interval as a band, and those on train a line of their own.

    Args:
        log: A training log, with the scores of its run if ``plot`` returned it.
        ax: Axes to draw on; those of a new figure by default.
        title: Title of the axes; the log's name by default.

    Returns:
        The axes; nothing is shown or saved.

    Raises:
        InputFormError: The log has no iteration lines, or there is no mAP.
    """
    lineage = require_lineage(log)
    if not lineage.has_map:
        raise InputFormError(
            "no mean average precision to draw",
            where=log.name,
            expected="scores of the run's checkpoints, or the lines that darknet prints with -map",
            remedy="Run `oiyolo evaluate --all-checkpoints`, then use the log that "
            "`oiyolo.plot` returns for the run",
        )
    ax = canvas.style_axes(ax, title or log.name or "mAP", _subtitle(lineage, panels.map_summary))
    panels.draw_map(lineage, ax)
    return canvas.legend(ax)


def save_charts(
    log: TrainLog, folder: Path, *, title: str, max_batches: int | None = None
) -> list[Path]:
    """Save the charts ``loss``, ``iou``, ``map`` (if there is any) and ``overview`` as PNG and SVG.

    Args:
        log: A training log.
        folder: Folder for the charts, created if it is missing.
        title: Title of each chart, usually the run's name.
        max_batches: Number of iterations that the run is planned to have, if it is known.

    Returns:
        The paths of the PNGs, 1200 pixels wide.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    lineage = require_lineage(log, max_batches=max_batches)
    iou = _subtitle(lineage, panels.iou_summary)
    sheets = {
        "loss": _loss_sheet(lineage, title),
        "iou": _single_panel_sheet(lineage, f"{title}: IOU", iou, panels.draw_iou),
    }
    if lineage.has_map:
        summary = _subtitle(lineage, panels.map_summary)
        sheets["map"] = _single_panel_sheet(lineage, f"{title}: mAP", summary, panels.draw_map)
    sheets["overview"] = overview_sheet(lineage, title)
    return [canvas.save(sheet.figure, folder, name)[0] for name, sheet in sheets.items()]


def _subtitle(lineage: Lineage, summary: Callable[[Lineage], str]) -> str:
    return f"iteration {lineage.column('iteration')[-1]:,.0f} · {summary(lineage)}"


def _loss_sheet(lineage: Lineage, title: str) -> ChartSheet:
    title, subtitle = f"{title}: loss", panels.loss_summary(lineage)
    if len(lineage) < 3:  # noqa: PLR2004  (too few for a third)
        return _single_panel_sheet(lineage, title, subtitle, panels.draw_loss)
    sheet = ChartSheet(title, [subtitle], [["all", "all", "all", "last", "last"]])
    panels.draw_loss(lineage, canvas.style_axes(sheet.panels["all"], "all iterations"))
    since = lineage.column("iteration")[int(len(lineage) * _LAST_PART_START)]
    panels.draw_loss(lineage, canvas.style_axes(sheet.panels["last"], "last third"), since=since)
    sheet.panels["last"].set_ylabel("")
    sheet.legend()
    return sheet


def _single_panel_sheet(
    lineage: Lineage, title: str, subtitle: str, draw: Callable[[Lineage, Axes], None]
) -> ChartSheet:
    sheet = ChartSheet(title, [subtitle], [["one"]])
    draw(lineage, canvas.style_axes(sheet.panels["one"], ""))
    sheet.legend()
    return sheet


def overview_sheet(lineage: Lineage, title: str) -> ChartSheet:
    """Return a sheet with all panels: loss, IOU, mAP (if any), learning rate and speed."""
    sheet = ChartSheet(
        title,
        # The verdict has the mAP.
        [panels.loss_summary(lineage), panels.iou_summary(lineage), assess(lineage).sentence],
        [["loss", "loss"], ["iou", "map" if lineage.has_map else "iou"], ["rate", "speed"]],
        heights=(1.35, 1.1, 0.75),
        size_px=OVERVIEW_PX,
    )
    for name, ax in sheet.panels.items():
        panel_title, draw = _OVERVIEW_PANELS[name]
        draw(lineage, canvas.style_axes(ax, panel_title))
        ax.set_ylabel("")  # redundant with the panel's title
        if name in {"loss", "iou", "map"}:
            ax.set_xlabel("")
    sheet.legend()
    return sheet


def require_lineage(log: TrainLog, *, max_batches: int | None = None) -> Lineage:
    """Return the lineage of a log that has iterations.

    Raises:
        InputFormError: The log has no iteration lines.
    """
    if not len(log):
        raise no_iterations_error(log)
    return build_lineage(log, max_batches=max_batches)
