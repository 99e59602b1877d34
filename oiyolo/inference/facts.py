"""What a model says about itself: class names, input, thresholds and scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Layout = Literal["darknet", "yolov8"]
"""Layout of a model's outputs (see ``inference.convert``)."""

InputFit = Literal["letterbox", "stretch"]
"""How an image of another shape is fitted to the input."""

NmsKind = Literal["greedy", "diou"]
"""Rule of non-maximum suppression (see ``inference.suppression``)."""


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a detector that its network does not contain.

    Attributes:
        names: Names of the classes; a class id is a position in them.
        fit: How images are fitted to the input.
        threshold: Lowest confidence to report, chosen on the valid split; ``None`` if it was not.
        nms_kind: Rule of non-maximum suppression.
        nms_iou: IoU above which the less confident of two boxes of a class is dropped.
        nms_beta: Exponent of the distance term of ``diou`` (``beta_nms`` in the ``.cfg``).
        fork: Fork of darknet that trained it; empty if unknown.
        was_trained_on_gpu: Whether that darknet used a GPU.
        scores: Headline scores of the run, by their names in ``evaluation.json``.
        licence: Licence of the model, as far as it is known.
        description: What the model is and where it comes from, for people.
    """

    names: tuple[str, ...]
    fit: InputFit = "letterbox"
    threshold: float | None = None
    nms_kind: NmsKind = "greedy"
    nms_iou: float = 0.45
    nms_beta: float = 0.6
    fork: str = ""
    was_trained_on_gpu: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)
    licence: str = ""
    description: str = ""
