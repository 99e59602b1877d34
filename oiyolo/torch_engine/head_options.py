"""The options of a detection head that concern training (parse_yolo in src/parser.c)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

from oiyolo.networks.layers import mask_of
from oiyolo.torch_engine.box_math import OverlapKind

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Section
    from oiyolo.networks.graph import Head
    from oiyolo.torch_engine.rules import Rules

_KINDS: tuple[str, ...] = get_args(OverlapKind)


@dataclass(frozen=True)
class YoloOptions:
    """A [yolo] or [Gaussian_yolo]; the defaults are what pjreddie's fork computes.

    Attributes:
        head: Its decoding.
        anchors_px: Widths and heights of all anchors, in pixels of the input.
        mask: Indices of those that this head predicts.
        max_truths: Number of truths per image that are used.
        loss: How box deltas are computed.
        iou_thresh: Overlap above which further anchors are assigned to a truth; 1 for none.
        iou_thresh_kind: How that overlap is measured.
        ignore_thresh: IoU with a truth above which an unassigned box may be sure of an object.
        truth_thresh: IoU above which an unassigned box is assigned to a truth; 1 for none.
        box_factor: ``iou_normalizer``: factor of the box deltas.
        object_factor: ``obj_normalizer``: factor of the objectness deltas.
        class_factor: ``cls_normalizer``: read with ``class_weights`` only.
        uncertainty_factor: ``uc_normalizer`` of [Gaussian_yolo].
        max_delta: Limit of box deltas that are gradients of an overlap.
        label_smoothing: ``label_smooth_eps``.
        class_weights: Factor per class (``counters_per_class``); empty for none.
        has_focal_loss: Whether class deltas are weighted by the focal loss.
        has_smooth_objects: ``objectness_smooth``: whether spared boxes learn their overlap.
        has_details: Whether the printed loss has the mean overlap loss instead of the box deltas.
        gradient_factor: ``delta_normalizer``: factor of all deltas, after the loss is printed.
    """

    head: Head
    anchors_px: tuple[tuple[float, float], ...]
    mask: tuple[int, ...]
    max_truths: int
    ignore_thresh: float
    truth_thresh: float
    loss: OverlapKind = "mse"
    iou_thresh: float = 1.0
    iou_thresh_kind: OverlapKind = "iou"
    box_factor: float = 1.0
    object_factor: float = 1.0
    class_factor: float = 1.0
    uncertainty_factor: float = 1.0
    max_delta: float = math.inf
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    has_focal_loss: bool = False
    has_smooth_objects: bool = False
    has_details: bool = False
    gradient_factor: float = 1.0


@dataclass(frozen=True)
class RegionOptions:
    """A [region].

    Attributes:
        head: Its decoding.
        anchors_cells: Widths and heights of the anchors, in cells.
        max_truths: Number of truths per image that are used.
        thresh: IoU with a truth above which an unassigned box may be sure of an object.
        matches_anchors: ``bias_match``: whether truths are assigned by the anchors' sizes instead
            of the predicted ones.
        rescores: Whether the objectness of an assigned box should become its IoU.
        box_factor: ``coord_scale``.
        object_factor: ``object_scale``.
        no_object_factor: ``noobject_scale``.
        class_factor: ``class_scale``.
    """

    head: Head
    anchors_cells: tuple[tuple[float, float], ...]
    max_truths: int
    thresh: float
    matches_anchors: bool
    rescores: bool
    box_factor: float
    object_factor: float
    no_object_factor: float
    class_factor: float


def head_options(section: Section, head: Head, rules: Rules) -> YoloOptions | RegionOptions:
    """Return the options of a head, which the engine can train, as a fork reads them.

    Raises:
        CfgError: A value that is not valid.
    """
    if head.form == "region":
        return _region_options(section, head, rules)
    return _yolo_options(section, head, rules)


def _pairs(section: Section) -> tuple[tuple[float, float], ...]:
    numbers = section.numbers("anchors")
    count = min(len(numbers) // 2, section.integer("num", 1))
    return tuple((numbers[2 * i], numbers[2 * i + 1]) for i in range(count))


def _yolo_options(section: Section, head: Head, rules: Rules) -> YoloOptions:
    common = YoloOptions(
        head=head,
        anchors_px=_pairs(section),
        mask=tuple(mask_of(section)),
        max_truths=section.integer("max", rules.max_truths),
        ignore_thresh=section.number("ignore_thresh", 0.5),
        truth_thresh=section.number("truth_thresh", 1),
    )
    if not rules.has_options:
        return common
    max_delta = section.number("max_delta", math.inf)
    return YoloOptions(
        **{name: getattr(common, name) for name in _COMMON},
        loss=_overlap_kind(section, "iou_loss", "mse"),
        iou_thresh=section.number("iou_thresh", 1),
        iou_thresh_kind=_overlap_kind(section, "iou_thresh_kind", "iou"),
        box_factor=section.number("iou_normalizer", 0.75),
        object_factor=section.number("obj_normalizer", 1),
        class_factor=section.number("cls_normalizer", 1),
        uncertainty_factor=section.number("uc_normalizer", 1),
        max_delta=max_delta,
        label_smoothing=section.number("label_smooth_eps", 0),
        class_weights=_class_weights(section, max_delta),
        has_focal_loss=bool(section.integer("focal_loss", 0)) and head.form == "yolo",
        has_smooth_objects=bool(section.integer("objectness_smooth", 0)),
        has_details=bool(section.integer("show_details", 1)) and head.form == "yolo",
        gradient_factor=section.number("delta_normalizer", 1) if rules.has_delta_factor else 1.0,
    )


_COMMON = ("head", "anchors_px", "mask", "max_truths", "ignore_thresh", "truth_thresh")


def _overlap_kind(section: Section, key: str, default: OverlapKind) -> OverlapKind:
    """Return a kind of overlap; darknet reads every other word as ``iou``."""
    name = section.text(key, default).partition("#")[0]
    return cast("OverlapKind", name) if name in _KINDS else "iou"


def _class_weights(section: Section, limit: float) -> tuple[float, ...]:
    """Return the largest count over each class's (get_classes_multipliers in src/parser.c)."""
    counts = [max(count, 1) for count in section.integers("counters_per_class")]
    return tuple(min(max(counts) / count, limit) for count in counts)


def _region_options(section: Section, head: Head, rules: Rules) -> RegionOptions:
    max_truths = rules.max_region_truths
    return RegionOptions(
        head=head,
        anchors_cells=_pairs(section),
        max_truths=section.integer("max", max_truths) if rules.has_options else max_truths,
        thresh=section.number("thresh", 0.5),
        matches_anchors=bool(section.integer("bias_match", 0)),
        rescores=bool(section.integer("rescore", 0)),
        box_factor=section.number("coord_scale", 1),
        object_factor=section.number("object_scale", 1),
        no_object_factor=section.number("noobject_scale", 1),
        class_factor=section.number("class_scale", 1),
    )
