"""What a training will be: the network fitted to the dataset, its schedule, its anchors."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.config import AUTO
from oiyolo.errors import UsageError
from oiyolo.networks import builders, lint
from oiyolo.networks.anchors import choose
from oiyolo.networks.schedule import schedule_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from oiyolo.config import TrainOptions
    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.anchors import AnchorChoice
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.schedule import Schedule

_log = logging.getLogger("oiyolo")

NO_WEIGHTS: Final = "none"


@dataclass(frozen=True)
class Course:
    """What a training will be.

    Attributes:
        network: A plain name for it.
        stock: The network before it was fitted to the dataset.
        cfg: The network that is trained.
        anchors: How its anchors were chosen.
        weights: "none", the name of pretrained weights, or a path.
        warnings: What the linter finds odd but not wrong.
    """

    network: str
    stock: Cfg
    cfg: Cfg
    anchors: AnchorChoice
    weights: str
    warnings: tuple[str, ...]

    @property
    def schedule(self) -> Schedule:
        """The schedule that stands in the network's file."""
        return schedule_of(self.cfg)

    @property
    def told(self) -> str:
        """The course in a line."""
        schedule, choice = self.schedule, self.anchors
        width, height = self.cfg.size_wh
        return (
            f"{self.network} at {width}x{height}, {schedule.max_batches:,} iterations of "
            f"{schedule.batch} images; {choice.used} anchors (average IOU: own "
            f"{choice.average_iou:.3f}, stock {choice.stock_average_iou:.3f})"
        )


def plan(
    options: TrainOptions,
    *,
    base: Path,
    darknet: Darknet,
    class_count: int,
    image_count: int,
    images_size_wh: tuple[int, int],
    box_wh: npt.NDArray[np.float64],
) -> Course:
    """Fit the configured network to a dataset; changes nothing on the disk.

    Args:
        options: ``[train]``.
        base: Relative paths in the options lie below it.
        darknet: What will train it.
        class_count: Classes of the dataset.
        image_count: Images to train on.
        images_size_wh: Size of the prepared images in pixels.
        box_wh: Widths and heights of the training boxes, fractions of the image, shape (n, 2).

    Raises:
        UsageError: No such network, or one that this line of darknet cannot train.
        InputFormError: The user's network file is not in order; the message has the line.
    """
    network = options.network
    if network.endswith(builders.CFG_SUFFIX):
        network = str(base / Path(network).expanduser())
    named = builders.network_named(network)
    if named is not None and darknet.line.name not in named.lines:
        raise UsageError(
            f"{darknet.line.title} cannot train {named.name}",
            where=str(darknet.executable),
            expected=f"one of the lines {', '.join(named.lines)}",
            remedy="Choose yolov3 or yolov3-tiny, or build AlexeyAB's darknet",
        )
    size_wh = images_size_wh if isinstance(options.size_wh, str) else options.size_wh
    stock = builders.build(network, class_count=class_count, size_wh=size_wh)
    choice = choose(box_wh * size_wh, builders.anchors_of(stock))
    cfg = builders.build(
        network,
        class_count=class_count,
        size_wh=size_wh,
        schedule=builders.default_schedule(
            network,
            class_count=class_count,
            image_count=image_count,
            max_batches=_given(options.max_batches),
            batch=_given(options.batch),
            subdivisions=_given(options.subdivisions),
        ),
        anchors=choice.anchors if choice.used == "own" else None,
        multi_scale=None if builders.multi_scale_suits(size_wh, image_count) else False,
    )
    if not darknet.gpu:
        cfg = builders.without_mosaic(cfg)
    findings = lint.check(cfg, class_count=class_count, line=darknet.line.name)
    weights = options.weights
    if weights == AUTO:
        weights = (named.pretrained if named else None) or NO_WEIGHTS
    return Course(
        network=Path(network).stem,
        stock=builders.stock(network),
        cfg=cfg,
        anchors=choice,
        weights=weights,
        warnings=tuple(str(finding) for finding in findings),
    )


def _given(value: int | str) -> int | None:
    return value if isinstance(value, int) else None
