"""Darknet weights files: validation, and the pretrained ones that can be downloaded.

A file is a header (three int32 of version, then the images seen, a uint64 since version 0.2)
followed by the parameters of all layers, without any structure (``save_weights_upto`` and
``load_weights_upto`` in src/parser.c). Darknet silently loads anything: an HTML page, half a
download or the file of another network. So files are validated first: size, header, and that all
parameters are finite and plausible. Against a network, the file must also end at the end of a
layer, and variances must not be negative.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.networks.layers import FLOAT_BYTES, HEADER_BYTES, layers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.layers import Layer

SHORT_HEADER_BYTES = 16
"""Size before version 0.2, when the images seen were an int32."""

_VERSION_OF_LONG_HEADER = 2
_MAX_VERSION = 2000
_MAX_PLAUSIBLE = 1e8
"""Trained parameters are far below; two in five random bit patterns are above."""

_MIN_PLAUSIBLE = 1e-30
_BLOCK_FLOATS = 1 << 22
_HTML_PREFIXES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")
_SNIFF_BYTES = 512
_TRUNCATED = "The file is truncated; download it again"


@dataclass(frozen=True)
class Header:
    """The header of a weights file.

    Attributes:
        seen: Number of images that the network was trained on.
        header_bytes: Size of the header: 20, or 16 in old files.
    """

    seen: int
    header_bytes: int

    def iteration(self, batch: int) -> int:
        """Return the iteration at which training resumes.

        Args:
            batch: ``batch`` in [net], the images per iteration (get_current_batch in src/network.c
                divides by batch times subdivisions, but its batch is one part of ours).
        """
        return self.seen // batch


@dataclass(frozen=True)
class WeightsReport:
    """The properties of a valid weights file.

    Attributes:
        header: Header of the file.
        filled_layers: Number of layers of the network that the file fills, from the first.
        layer_count: Number of layers of the network; 0 if the file was not compared with one.
        class_count: Number of classes that the file was trained for, if it differs from the
            network's (``partial.find_transferable_layers``); else 0.
    """

    header: Header
    filled_layers: int = 0
    layer_count: int = 0
    class_count: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether the file fills every layer of the network."""
        return 0 < self.layer_count == self.filled_layers


@dataclass(frozen=True)
class MirrorUrl:
    """A URL of pretrained weights.

    Attributes:
        url: The URL.
        full_network_bytes: Size of the file if it contains the full trained network, from which
            the first layers are extracted; 0 if it contains only the first layers.
    """

    url: str
    full_network_bytes: int = 0

    @property
    def note(self) -> str:
        """A note to the user about the weights at this URL; usually empty."""
        if not self.full_network_bytes:
            return ""
        return "first layers of a detector trained on COCO, instead of the usual ImageNet weights"


@dataclass(frozen=True)
class Pretrained:
    """Pretrained weights from which training can start.

    Attributes:
        name: Name of the file, which ends in the number of layers it fills.
        size_bytes: Size of the file, computed from its network.
        layers: Number of layers that the file fills.
        mirrors: URLs of the file, in the order in which they are tried.
        first_floats: First parameters in the file, for identification; empty if unknown.
    """

    name: str
    size_bytes: int
    layers: int
    mirrors: tuple[MirrorUrl, ...]
    first_floats: tuple[float, ...] = field(default=())


_PJREDDIE = "https://data.pjreddie.com/files/"
_PJREDDIE_OLD = "https://pjreddie.com/media/files/"
_ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download/"
_HANK = "https://github.com/hank-ai/darknet/releases/download/v2.0/"


def _pjreddie_mirrors(name: str, detector: str, detector_bytes: int) -> tuple[MirrorUrl, ...]:
    """Return two URLs of a file, then two of the detector whose first layers can replace it."""
    return (
        MirrorUrl(_PJREDDIE + name),
        MirrorUrl(_PJREDDIE_OLD + name),
        MirrorUrl(_HANK + detector, detector_bytes),
        MirrorUrl(_PJREDDIE + detector, detector_bytes),
    )


# Their authors published no checksums; the sizes follow from the networks. The first parameters of
# darknet53.conv.74 are quoted in github.com/AlexeyAB/darknet/issues/5433.
_ENTRIES = (
    Pretrained(
        "darknet53.conv.74",
        162_482_580,
        75,
        _pjreddie_mirrors("darknet53.conv.74", "yolov3.weights", 248_007_048),
        (-4.1455936, -0.99273944, -2.060937, 1.2925771, -0.89972943),
    ),
    Pretrained(
        "yolov3-tiny.conv.15",
        30_973_396,
        15,
        _pjreddie_mirrors("yolov3-tiny.conv.15", "yolov3-tiny.weights", 35_434_956),
    ),
    Pretrained(
        "yolov4.conv.137",
        170_038_676,
        137,
        (
            MirrorUrl(_ALEXEYAB + "darknet_yolo_v3_optimal/yolov4.conv.137"),
            MirrorUrl(_HANK + "yolov4.weights", 257_717_640),
        ),
    ),
    Pretrained(
        "yolov4-tiny.conv.29",
        19_789_716,
        29,
        (
            MirrorUrl(_ALEXEYAB + "darknet_yolo_v4_pre/yolov4-tiny.conv.29"),
            MirrorUrl(_HANK + "yolov4-tiny.weights", 24_251_276),
        ),
    ),
)
PRETRAINED: Mapping[str, Pretrained] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def read_header(path: Path) -> Header:
    """Read the header of a weights file.

    Raises:
        UsageError: The file does not exist.
        InputFormError: The file is an HTML page, too short, or has an impossible version.
    """
    if not path.is_file():
        raise UsageError(
            "weights file not found",
            where=str(path),
            remedy='Set [train] weights to the path of a file, "auto" or "none"',
        )
    with path.open("rb") as file:
        start = file.read(_SNIFF_BYTES)
    if start.lstrip().lower().startswith(_HTML_PREFIXES):
        raise weights_error(
            path,
            "an HTML page",
            "The server sent a page instead of the file; download it from another site",
        )
    if len(start) < SHORT_HEADER_BYTES:
        raise weights_error(path, f"{len(start)} bytes", _TRUNCATED)
    major, minor, revision = struct.unpack_from("<3i", start)
    if not all(0 <= part <= _MAX_VERSION for part in (major, minor, revision)):
        raise weights_error(path, f"version {major}.{minor}.{revision} in the header")
    # Versions above 1000 mark old files with transposed weights, which have the short header in
    # pjreddie's fork (src/parser.c:1236).
    if major * 10 + minor >= _VERSION_OF_LONG_HEADER and max(major, minor) < _MAX_VERSION // 2:
        if len(start) < HEADER_BYTES:
            raise weights_error(path, f"{len(start)} bytes", _TRUNCATED)
        (seen,) = struct.unpack_from("<Q", start, 12)
        return Header(seen, HEADER_BYTES)
    (seen,) = struct.unpack_from("<I", start, 12)
    return Header(seen, SHORT_HEADER_BYTES)


def check_weights(
    path: Path, cfg: Cfg | None = None, *, expected_bytes: int | None = None
) -> WeightsReport:
    """Validate a weights file.

    Args:
        path: The file.
        cfg: Its network; ``None`` to check only the header and the parameters.
        expected_bytes: Size that the file must have; ``None`` for any.

    Returns:
        The properties of the file.

    Raises:
        UsageError: The file does not exist.
        InputFormError: The size differs, the header is invalid, or parameters are not finite or
            not plausible. Against a network: the file ends within a layer, has surplus
            parameters, or negative variances, all of which suggest another network.
        CfgError: As for ``layers.layers``.
    """
    header = read_header(path)
    size_bytes = path.stat().st_size
    if expected_bytes is not None and size_bytes != expected_bytes:
        raise weights_error(
            path,
            f"{size_bytes:,} bytes",
            "The file is truncated, or a different one; download it again",
            expected_bytes,
        )
    body_bytes = size_bytes - header.header_bytes
    if body_bytes <= 0 or body_bytes % FLOAT_BYTES:
        raise weights_error(path, f"{body_bytes:,} bytes after the header", _TRUNCATED)
    numbers = np.memmap(path, "<f4", mode="r", offset=header.header_bytes)
    _check_numbers(path, numbers)
    if cfg is None:
        return WeightsReport(header)
    network_layers = layers(cfg)
    layer_count = _check_fit(path, network_layers, numbers)
    return WeightsReport(header, layer_count, len(network_layers))


def _check_numbers(path: Path, numbers: npt.NDArray[np.float32]) -> None:
    tiny = zero = 0
    for start in range(0, len(numbers), _BLOCK_FLOATS):
        block = numbers[start : start + _BLOCK_FLOATS]
        with np.errstate(invalid="ignore"):
            magnitudes = np.abs(block)
            largest = float(magnitudes.max())
        if not math.isfinite(largest) or largest > _MAX_PLAUSIBLE:
            raise weights_error(
                path,
                f"{largest:.3g}" if math.isfinite(largest) else "parameters that are not finite",
                "The run that wrote it diverged, or it is not a weights file; use another file",
            )
        zero += int((magnitudes == 0).sum())
        tiny += int((magnitudes < _MIN_PLAUSIBLE).sum())
    if zero == len(numbers):
        raise weights_error(path, "only zeros", "The file was allocated but never written")
    if (tiny - zero) * 2 > len(numbers):
        raise weights_error(path, "parameters far too small for trained weights")


def _check_fit(path: Path, network_layers: list[Layer], numbers: npt.NDArray[np.float32]) -> int:
    """Return how many layers the parameters fill, from the first; raise if they do not fit them."""
    remedy = "Use weights of the same network, or of its first layers"
    start = 0
    where, layer_count = "after the last layer", len(network_layers)
    for layer in network_layers:
        if start + layer.parameter_count > len(numbers):
            where, layer_count = f"within layer {layer.index}", layer.index
            break
        for segment in layer.segments:
            end = start + segment.count
            if segment.name == "variances" and bool((numbers[start:end] < 0).any()):
                raise weights_error(
                    path,
                    f"negative variances in layer {layer.index}: the file of another network",
                    remedy,
                )
            start = end
    if start != len(numbers):
        raise weights_error(
            path,
            f"an end {where}: {len(numbers):,} parameters, but {start:,} fill {layer_count} layers",
            f"The file is truncated, or belongs to another network (other classes?). {remedy}",
        )
    return layer_count


def weights_error(
    path: Path, found: str, remedy: str = "", expected_bytes: int | None = None
) -> InputFormError:
    """Return the error for a file that is not a usable weights file."""
    expected = f"{expected_bytes:,} bytes" if expected_bytes else "a darknet weights file"
    return InputFormError(
        "these weights cannot be used",
        where=str(path),
        expected=expected,
        found=found,
        remedy=remedy,
    )
