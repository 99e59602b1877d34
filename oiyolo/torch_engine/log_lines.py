"""The lines of a training log, as darknet prints them.

The engine prints the format of the fork whose run it trains, so a log that both wrote reads as one.
Formats: pjreddie's examples/detector.c:129 and src/yolo_layer.c:239; AlexeyAB's src/detector.c:325
and, for the lines of the detection layers, its format of 2019, which has the class scores too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.networks.cfg import Section

_SECONDS_PER_HOUR: Final = 3600.0
_AVERAGE_SHARE: Final = 0.1
"""Share of a new loss in the running average (train_detector in both forks)."""


@dataclass(frozen=True)
class HeadFigures:
    """What a detection layer reports about one part of a batch.

    Attributes:
        layer: Index of the layer in the network.
        loss_kind: ``mse``, ``iou``, ``giou``, ``diou`` or ``ciou``.
        iou: Mean IoU of the boxes with their objects; NaN without objects, likewise below.
        class_score: Mean score of the true classes.
        obj: Mean objectness where an object is.
        no_obj: Mean objectness of all boxes.
        recall50: Share of the objects whose box has an IoU above 0.5.
        recall75: The same above 0.75.
        count: Number of objects that the layer was assigned.
        class_loss: Part of the loss that is due to objectness and classes.
        iou_loss: Part of the loss that is due to the boxes.
        total_loss: The loss of this layer.
    """

    layer: int
    loss_kind: str
    iou: float
    class_score: float
    obj: float
    no_obj: float
    recall50: float
    recall75: float
    count: int
    class_loss: float
    iou_loss: float
    total_loss: float


@dataclass(frozen=True)
class IterationFigures:
    """What is reported about an iteration.

    Attributes:
        iteration: Its number, from 1.
        loss: Its loss.
        average: The running average of the loss.
        rate: The learning rate.
        seconds: Its duration, including the wait for its images.
        images: Number of images of all iterations so far.
        hours_left: Time until the last iteration; -1 if it is not known yet.
    """

    iteration: int
    loss: float
    average: float
    rate: float
    seconds: float
    images: int
    hours_left: float


def running_average(average: float | None, loss: float) -> float:
    """Return the running average of the loss, which starts with the first loss."""
    if average is None:
        return loss
    return (1 - _AVERAGE_SHARE) * average + _AVERAGE_SHARE * loss


def hours_left(iterations: int, seconds_per_iteration: float) -> float:
    """Return the hours that the remaining iterations take."""
    return iterations * seconds_per_iteration / _SECONDS_PER_HOUR


def _pjreddie_head(figures: HeadFigures) -> str:
    return (
        f"Region {figures.layer} Avg IOU: {figures.iou:f}, Class: {figures.class_score:f}, "
        f"Obj: {figures.obj:f}, No Obj: {figures.no_obj:f}, .5R: {figures.recall50:f}, "
        f".75R: {figures.recall75:f},  count: {figures.count}"
    )


def _alexeyab_head(figures: HeadFigures, normalizers: tuple[float, float, float]) -> str:
    iou, obj, cls = normalizers
    # Without objects, AlexeyAB's fork divides by 1 and prints zeros.
    means = [figures.iou, figures.class_score, figures.obj, figures.recall50, figures.recall75]
    mean_iou, class_score, objectness, recall50, recall75 = means if figures.count else [0.0] * 5
    return (
        f"v3 ({figures.loss_kind} loss, Normalizer: (iou: {iou:.2f}, obj: {obj:.2f}, "
        f"cls: {cls:.2f}) Region {figures.layer} Avg (IOU: {mean_iou:f}), "
        f"Class: {class_score:f}, Obj: {objectness:f}, No Obj: {figures.no_obj:f}, "
        f".5R: {recall50:f}, .75R: {recall75:f}, count: {max(1, figures.count)}, "
        f"class_loss = {figures.class_loss:f}, iou_loss = {figures.iou_loss:f}, "
        f"total_loss = {figures.total_loss:f}"
    )


def _pjreddie_iteration(figures: IterationFigures) -> str:
    return (
        f"{figures.iteration}: {figures.loss:f}, {figures.average:f} avg, {figures.rate:f} rate, "
        f"{figures.seconds:f} seconds, {figures.images} images"
    )


def _alexeyab_iteration(figures: IterationFigures) -> str:
    return (
        f" {figures.iteration}: {figures.loss:f}, {figures.average:f} avg loss, "
        f"{figures.rate:f} rate, {figures.seconds:f} seconds, {figures.images} images, "
        f"{figures.hours_left:f} hours left"
    )


@dataclass(frozen=True)
class LogFormat:
    """The format of a fork's log.

    Attributes:
        iteration: Returns the line of an iteration.
        head: Returns the line of a detection layer, given also the normalizers of its loss: those
            of the boxes, of objectness and of the classes.
    """

    iteration: Callable[[IterationFigures], str]
    head: Callable[[HeadFigures, tuple[float, float, float]], str]


def log_format(fork: str) -> LogFormat:
    """Return the format of a fork; that of AlexeyAB's for every fork but pjreddie's."""
    if fork == "pjreddie":
        return LogFormat(_pjreddie_iteration, lambda figures, _: _pjreddie_head(figures))
    return LogFormat(_alexeyab_iteration, _alexeyab_head)


def start_lines(net: Section) -> str:
    """Return the line that every fork prints once, before the first iteration.

    Args:
        net: [net] of the network.
    """
    rate, momentum = net.number("learning_rate", 0.001), net.number("momentum", 0.9)
    decay = net.number("decay", 0.0001)
    return f"Learning Rate: {rate:g}, Momentum: {momentum:g}, Decay: {decay:g}\n"


def resize_lines(fork: str, size_wh: tuple[int, int]) -> str:
    """Return the lines about a new size of the input in pixels."""
    width, height = size_wh
    return f"Resizing\n{width}\n" if fork == "pjreddie" else f"Resizing\n {width} x {height} \n"


def validation_line(loss: float, image_count: int) -> str:
    """Return the line about the mean loss of some valid images, which darknet does not print."""
    return f"Validation loss: {loss:f} ({image_count} image{'s' * (image_count != 1)})\n"
