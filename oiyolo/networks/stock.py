"""Generators of the published networks, composed of their building blocks.

YOLOv3 (https://arxiv.org/abs/1804.02767) is Darknet-53 with three heads. YOLOv4
(https://arxiv.org/abs/2004.10934) adds cross-stage partial (CSP) blocks to the backbone, spatial
pyramid pooling, and a top-down and bottom-up feature path (PANet). Layer by layer, the results
equal the files that darknet ships.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_V3_ANCHORS = "10,13,  16,30,  33,23,  30,61,  62,45,  59,119,  116,90,  156,198,  373,326"
_V4_ANCHORS = "12,16,  19,36,  40,28,  36,75,  76,55,  72,146,  142,110,  192,243,  459,401"
_TINY_ANCHORS = "10,14,  23,27,  37,58,  81,82,  135,169,  344,319"

_COCO_CLASSES = 80
_NUMBERS_PER_ANCHOR = 4 + 1 + _COCO_CLASSES
_STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
"""Filters and residual blocks of the backbones' five stages; each halves the resolution."""

_Options = dict[str, str | float]
_V3_LOSS: _Options = {"jitter": 0.3, "ignore_thresh": 0.7, "truth_thresh": 1}
_V4_LOSS: _Options = {
    **_V3_LOSS,
    "cls_normalizer": 1.0,
    "iou_normalizer": 0.07,
    "iou_loss": "ciou",
    "nms_kind": "greedynms",
    "beta_nms": 0.6,
}


class _CfgWriter:
    """Writer of a network file; each method adds layers and returns the index of the last one."""

    def __init__(self, *, side_px: int, subdivisions: int, **overrides: str | float) -> None:
        self._sections: list[str] = []
        options: _Options = {
            "batch": 64,
            "subdivisions": subdivisions,
            "width": side_px,
            "height": side_px,
            "channels": 3,
            "momentum": 0.9,
            "decay": 0.0005,
            "angle": 0,
            "saturation": 1.5,
            "exposure": 1.5,
            "hue": 0.1,
            "learning_rate": 0.001,
            "burn_in": 1000,
            "max_batches": 500200,
            "policy": "steps",
            "steps": "400000,450000",
            "scales": ".1,.1",
        }
        self.add("net", **(options | overrides))

    @property
    def last(self) -> int:
        """Index of the last layer; [net] does not count."""
        return len(self._sections) - 2

    def text(self) -> str:
        return "\n".join(self._sections)

    def add(self, kind: str, **options: str | float) -> int:
        body = "".join(f"{key}={value}\n" for key, value in options.items())
        self._sections.append(f"[{kind}]\n{body}")
        return self.last

    def conv(self, filters: int, size: int, *, stride: int = 1, activation: str = "leaky") -> int:
        return self.add(
            "convolutional",
            batch_normalize=1,
            filters=filters,
            size=size,
            stride=stride,
            pad=1,
            activation=activation,
        )

    def bottleneck(self, narrow: int, count: int) -> int:
        """Add ``count`` convolutions: 1x1 (``narrow`` filters) and 3x3 (twice as many) in turn."""
        for i in range(count):
            self.conv(2 * narrow, 3) if i % 2 else self.conv(narrow, 1)
        return self.last

    def residual(self, narrow: int, wide: int, activation: str = "leaky") -> int:
        self.conv(narrow, 1, activation=activation)
        self.conv(wide, 3, activation=activation)
        return self.add("shortcut", **{"from": -3}, activation="linear")

    def maxpool(self, size: int, stride: int) -> int:
        return self.add("maxpool", size=size, stride=stride)

    def route(self, *sources: int, **options: int) -> int:
        """Add a route to layers: absolute indices become relative ones in the file."""
        here = self.last + 1
        return self.add("route", layers=",".join(str(i - here) for i in sources), **options)

    def upsample(self, filters: int, source: int) -> int:
        """Reduce the channels of ``source``, and double its width and height."""
        if source != self.last:
            self.route(source)
        self.conv(filters, 1)
        return self.add("upsample", stride=2)

    def head(self, mask: str, anchors: str, **options: str | float) -> int:
        """Add a linear convolution and a [yolo] head for COCO's classes."""
        self.add(
            "convolutional",
            size=1,
            stride=1,
            pad=1,
            filters=_NUMBERS_PER_ANCHOR * len(mask.split(",")),
            activation="linear",
        )
        count = len(anchors.split(",")) // 2
        return self.add(
            "yolo", mask=mask, anchors=anchors, classes=_COCO_CLASSES, num=count, **options
        )


def yolov3() -> str:
    """Return YOLOv3 for COCO at 608x608."""
    net = _CfgWriter(side_px=608, subdivisions=16)
    net.conv(32, 3)
    ends = []
    for filters, blocks in _STAGES:
        net.conv(filters, 3, stride=2)
        for _ in range(blocks):
            net.residual(filters // 2, filters)
        ends.append(net.last)
    trunk = _yolov3_head(net, 512, "6,7,8")
    # The finer heads concatenate features of the coarser ones with stages of the backbone.
    for narrow, mask, end in ((256, "3,4,5", ends[3]), (128, "0,1,2", ends[2])):
        net.route(net.upsample(narrow, trunk), end)
        trunk = _yolov3_head(net, narrow, mask)
    return net.text()


def _yolov3_head(net: _CfgWriter, narrow: int, mask: str) -> int:
    """Add a head, and return the layer from which the next finer one branches off."""
    trunk = net.bottleneck(narrow, 5)
    net.conv(2 * narrow, 3)
    net.head(mask, _V3_ANCHORS, **_V3_LOSS, random=1)
    return trunk


def yolov3_tiny() -> str:
    """Return YOLOv3-tiny for COCO at 416x416."""
    net = _CfgWriter(side_px=416, subdivisions=2)
    fine = 0
    for filters in (16, 32, 64, 128, 256):
        fine = net.conv(filters, 3)
        net.maxpool(2, 2)
    net.conv(512, 3)
    net.maxpool(2, 1)
    net.conv(1024, 3)
    _tiny_heads(net, fine, "0,1,2", {**_V3_LOSS, "random": 1})
    return net.text()


def _tiny_heads(net: _CfgWriter, fine: int, fine_mask: str, loss: _Options) -> None:
    """Add two heads: one for the last layer, and one for it and a finer layer together."""
    trunk = net.conv(256, 1)
    net.conv(512, 3)
    net.head("3,4,5", _TINY_ANCHORS, **loss)
    net.route(net.upsample(128, trunk), fine)
    net.conv(256, 3)
    net.head(fine_mask, _TINY_ANCHORS, **loss)


def yolov4() -> str:
    """Return YOLOv4 for COCO at 608x608."""
    net = _CfgWriter(
        side_px=608,
        subdivisions=8,
        learning_rate=0.0013,
        max_batches=500500,
        momentum=0.949,
        mosaic=1,
    )
    net.conv(32, 3, activation="mish")
    ends = [_csp_stage(net, filters, blocks) for filters, blocks in _STAGES]
    net.bottleneck(512, 3)
    _pyramid_pooling(net)
    # Top-down path: coarse features are concatenated with finer ones of the backbone.
    trunks = [net.bottleneck(512, 3)]
    for narrow, end in ((256, ends[3]), (128, ends[2])):
        coarse = net.upsample(narrow, net.last)
        net.route(end)
        net.route(net.conv(narrow, 1), coarse)
        trunks.append(net.bottleneck(narrow, 5))
    # Bottom-up path: fine features are concatenated with coarse ones, with a head at each scale.
    loss: _Options = {**_V4_LOSS, "iou_thresh": 0.213, "max_delta": 5}
    net.conv(256, 3)
    net.head("0,1,2", _V4_ANCHORS, **loss, scale_x_y=1.2)
    trunk = trunks[2]
    for narrow, mask, end, options in (
        (256, "3,4,5", trunks[1], {"scale_x_y": 1.1}),
        (512, "6,7,8", trunks[0], {"scale_x_y": 1.05, "random": 1}),
    ):
        net.route(trunk)
        net.route(net.conv(narrow, 3, stride=2), end)
        trunk = net.bottleneck(narrow, 5)
        net.conv(2 * narrow, 3)
        net.head(mask, _V4_ANCHORS, **loss, **options)
    return net.text()


def _csp_stage(net: _CfgWriter, filters: int, blocks: int) -> int:
    """Halve the resolution; half of the channels pass through residual blocks, half bypass them."""
    down = net.conv(filters, 3, stride=2, activation="mish")
    # The first stage is too narrow to be split: both branches have its full width.
    width = filters if blocks == 1 else filters // 2
    bypass = net.conv(width, 1, activation="mish")
    net.route(down)
    net.conv(width, 1, activation="mish")
    for _ in range(blocks):
        net.residual(filters // 2, width, "mish")
    residual_branch = net.conv(width, 1, activation="mish")
    net.route(residual_branch, bypass)
    return net.conv(filters, 1, activation="mish")


def _pyramid_pooling(net: _CfgWriter) -> int:
    """Concatenate the features with their maxima in windows of 5, 9 and 13 cells."""
    features = net.last
    pools = [net.maxpool(5, 1)]
    for size in (9, 13):
        net.route(features)
        pools.append(net.maxpool(size, 1))
    return net.route(*reversed(pools), features)


def yolov4_tiny() -> str:
    """Return YOLOv4-tiny for COCO at 416x416."""
    net = _CfgWriter(
        side_px=416,
        subdivisions=1,
        learning_rate=0.00261,
        max_batches=2000200,
        steps="1600000,1800000",
    )
    net.conv(32, 3, stride=2)
    net.conv(64, 3, stride=2)
    fine = 0
    for filters in (64, 128, 256):
        # A CSP block without residuals: the second half of the channels passes through two
        # convolutions, whose outputs are concatenated with each other and then with the input.
        full = net.conv(filters, 3)
        net.route(full, groups=2, group_id=1)
        first = net.conv(filters // 2, 3)
        net.route(net.conv(filters // 2, 3), first)
        fine = net.conv(filters, 1)
        net.route(full, fine)
        net.maxpool(2, 2)
    loss: _Options = {**_V4_LOSS, "scale_x_y": 1.05, "random": 0, "resize": 1.5}
    net.conv(512, 3)
    _tiny_heads(net, fine, "1,2,3", loss)
    return net.text()


TEXTS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {"yolov3": yolov3, "yolov3-tiny": yolov3_tiny, "yolov4": yolov4, "yolov4-tiny": yolov4_tiny}
)
"""Functions that return the text of a network file, by name of the network."""
