"""Darknet weights files: validation, and the pretrained ones that can be downloaded.

A file is a header (three int32 of version, then the images seen, a uint64 since version 0.2)
followed by the parameters of all layers, without any structure (``save_weights_upto`` and
``load_weights_upto`` in src/parser.c). Darknet silently loads anything: an HTML page, half a
download or the file of another network. So files are validated first: size, header, that all
parameters are finite and plausible, and the published checksum of a well-known file. Against a
network, the file must also end at the end of a layer, and variances must not be negative.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.files import digest_of, open_binary
from oiyolo.networks.layers import FLOAT_BYTES, HEADER_BYTES, layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
_SHOWN_DIGITS = 16
_SHA512_DIGITS = 128
_SAME_NETWORK = "Use weights of the same network, or of its first layers"
_TRUNCATED = "The file is truncated or damaged; copy or download it again"


@dataclass(frozen=True)
class Checksum:
    """The published checksum of a well-known file.

    Attributes:
        digests: Hexadecimal digests, SHA-256 or SHA-512: more than one if the file was replaced by
            its authors.
        is_confirmed: Whether independent sources agree, so that a different file is refused and
            not only warned of.
    """

    digests: tuple[str, ...]
    is_confirmed: bool = True

    @property
    def algorithm(self) -> str:
        """Name of the hash function."""
        return "sha512" if len(self.digests[0]) == _SHA512_DIGITS else "sha256"


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
        warning: A doubt about the file, such as an unknown checksum; empty if there is none.
        is_published: Whether the file has the published checksum of its name.
    """

    header: Header
    filled_layers: int = 0
    layer_count: int = 0
    class_count: int = 0
    warning: str = ""
    is_published: bool = False

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

    @property
    def checksum(self) -> Checksum | None:
        """The published checksum of the file at this URL; ``None`` if there is none."""
        return CHECKSUMS.get(self.url.rpartition("/")[2])


@dataclass(frozen=True)
class Pretrained:
    """Pretrained weights, or a file that belongs to them.

    Attributes:
        name: Name of the file.
        size_bytes: Size of the file; of weights, it follows from their network.
        layers: Number of layers that the file fills; 0 if it is a network or a list of names.
        mirrors: URLs of the file, in the order in which they are tried.
        checksum: The published checksum; ``None`` if there is none.
    """

    name: str
    size_bytes: int
    layers: int
    mirrors: tuple[MirrorUrl, ...]
    checksum: Checksum | None = None


# darknet53.conv.74, yolov4.conv.137 and yolov4-tiny.conv.29: microsoft/vcpkg, portfile.cmake of
# darknet; the last in one version only. The detectors on COCO: several packages each, for
# yolov4.weights one of two files. yolov3-openimages.weights: one source. YOLO-Fastest: the file in
# github.com/dog-qiuqiu/Yolo-Fastest at 96a2900d.
CHECKSUMS: Mapping[str, Checksum] = MappingProxyType(
    {
        name: Checksum(tuple(digests), is_confirmed)
        for name, is_confirmed, *digests in (
            (
                "darknet53.conv.74",
                True,
                (
                    "8983e1c129e2d6e8e3da0cc0781ecb7a07813830ef5a87c24b53100df6a5f23d"
                    "b6c6e6a402aec78025a93fe060b75d1958f1b8f7439a04b54a3f19c81e2ae99b"
                ),
            ),
            (
                "yolov4.conv.137",
                True,
                (
                    "d146a61762bf6ef91deb6c627ede475f63b3975fbeeb1ff5e0949470b29be8fc"
                    "28ee81280041937e7ded49679276fbabacdb92d02fa246cc622853633fd3d992"
                ),
            ),
            (
                "yolov4-tiny.conv.29",
                False,
                (
                    "318e47f4bdf43b7f4eff8f3669bc9ba66cd7bd8ffb31df5bc1978682c85fec8e"
                    "63a8349958022fd933cc676cbf5241953f2181bf4d1789f7cf9d371e012e3e49"
                ),
            ),
            (
                "yolov3-tiny.weights",
                True,
                "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
            ),
            (
                "yolov3.weights",
                True,
                "523e4e69e1d015393a1b0a441cef1d9c7659e3eb2d7e15f793f060a21b32f297",
            ),
            (
                "yolov4-tiny.weights",
                True,
                "cf9fbfd0f6d4869b35762f56100f50ed05268084078805f0e7989efe5bb8ca87",
            ),
            (
                "yolov4.weights",
                False,
                "8463fde6ee7130a947a73104ce73c6fa88618a9d9ecd4a65d0b38f07e17ec4e4",
                "e8a4f6c62188738d86dc6898d82724ec0964d0eb9d2ae0f0a9d53d65d108d562",
            ),
            (
                "yolov3-openimages.weights",
                False,
                "be129d792d8c7cc19b17bcb9d40ced71cdf079bfd246cbd1cfca40568ac74ee1",
            ),
            (
                "yolo-fastest-1.1.weights",
                False,
                "1c445c42bbd6df63edea2cc69f99667b5650d663ca11e34b116240740cd42890",
            ),
            (
                "yolo-fastest-1.1-xl.weights",
                False,
                "fac5fb41786c1f38f04972a658443b189f48720d7d117f9a044100e98a35b0c5",
            ),
        )
    }
)
"""Published checksums of well-known files, by name."""

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


# The sizes follow from the networks. No checksum of yolov3-tiny.conv.15 is published.
_ENTRIES = (
    Pretrained(
        "darknet53.conv.74",
        162_482_580,
        75,
        _pjreddie_mirrors("darknet53.conv.74", "yolov3.weights", 248_007_048),
        CHECKSUMS["darknet53.conv.74"],
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
        CHECKSUMS["yolov4.conv.137"],
    ),
    Pretrained(
        "yolov4-tiny.conv.29",
        19_789_716,
        29,
        (
            MirrorUrl(_ALEXEYAB + "darknet_yolo_v4_pre/yolov4-tiny.conv.29"),
            MirrorUrl(_HANK + "yolov4-tiny.weights", 24_251_276),
        ),
        CHECKSUMS["yolov4-tiny.conv.29"],
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
    with open_binary(path) as file:
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
    path: Path,
    cfg: Cfg | None = None,
    *,
    expected_bytes: int | None = None,
    complete: bool = False,
    checksum: Checksum | Literal["by name"] | None = "by name",
) -> WeightsReport:
    """Validate a weights file.

    Args:
        path: The file.
        cfg: Its network; ``None`` to check only the header and the parameters.
        expected_bytes: Size that the file must have; ``None`` for any.
        complete: Whether the file must fill all layers of the network; this sets the size, too.
        checksum: Published checksum of the file; by default that of the well-known file with this
            name, and ``None`` to compare none.

    Returns:
        The properties of the file.

    Raises:
        UsageError: The file does not exist.
        InputFormError: The size differs, the header is invalid, parameters are not finite or not
            plausible, or a confirmed checksum differs. Against a network: the file ends within a
            layer or before the last, has surplus parameters, or negative variances, all of which
            suggest another network.
        CfgError: As for ``layers.layers``.
    """
    header = read_header(path)
    size_bytes = path.stat().st_size
    network_layers = [] if cfg is None else layers(cfg)
    if complete:
        parameter_count = sum(layer.parameter_count for layer in network_layers)
        expected_bytes = header.header_bytes + FLOAT_BYTES * parameter_count
    if expected_bytes is not None and size_bytes != expected_bytes:
        raise weights_error(
            path,
            f"{size_bytes:,} bytes",
            "The file is truncated, or belongs to another network (other classes?)",
            expected=f"{expected_bytes:,} bytes",
        )
    body_bytes = size_bytes - header.header_bytes
    if body_bytes <= 0 or body_bytes % FLOAT_BYTES:
        why = f", not a multiple of {FLOAT_BYTES}" if body_bytes > 0 else ""
        raise weights_error(path, f"{body_bytes:,} bytes after the header{why}", _TRUNCATED)
    numbers = np.memmap(path, "<f4", mode="r", offset=header.header_bytes)
    _check_numbers(path, numbers)
    report = WeightsReport(header)
    if cfg is not None:
        layer_count = _check_fit(path, network_layers, numbers)
        report = WeightsReport(header, layer_count, len(network_layers))
    known = CHECKSUMS.get(path.name) if checksum == "by name" else checksum
    return report if known is None else _with_checksum(path, report, known)


def _with_checksum(path: Path, report: WeightsReport, checksum: Checksum) -> WeightsReport:
    """Return the report with the outcome of comparing checksums; raise if a confirmed one differs.

    A file without a confirmed checksum may be a newer version, so that is only a warning.
    """
    digest = digest_of(path, checksum.algorithm)
    if digest in checksum.digests:
        return replace(report, is_published=True)
    found = f"{checksum.algorithm} {digest[:_SHOWN_DIGITS]}..."
    if not checksum.is_confirmed:
        warning = f"{path} differs from the known file of this name: {found}"
        return replace(report, warning=warning)
    raise weights_error(
        path,
        f"a different file of this name: {found}",
        "Download it again; if it is another file on purpose, rename it",
        expected=f"{checksum.algorithm} {checksum.digests[0][:_SHOWN_DIGITS]}...",
    )


def _check_numbers(path: Path, numbers: npt.NDArray[np.float32]) -> None:
    tiny = zero = 0
    for start in range(0, len(numbers), _BLOCK_FLOATS):
        block = numbers[start : start + _BLOCK_FLOATS]
        with np.errstate(invalid="ignore"):
            magnitudes = np.abs(block)
            largest = float(magnitudes.max())
        if not largest <= _MAX_PLAUSIBLE:  # also if it is NaN
            found = f"a parameter of {largest:.3g}"
            if not math.isfinite(largest):
                count = len(numbers) - int(np.isfinite(numbers).sum())
                found = f"{count:,} of {len(numbers):,} parameters that are not finite (NaN)"
            raise weights_error(
                path,
                found,
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
    layer_count = check_parameter_count(path, network_layers, len(numbers))
    start = 0
    for layer in network_layers[:layer_count]:
        for segment in layer.segments:
            end = start + segment.count
            if segment.name == "variances" and bool((numbers[start:end] < 0).any()):
                raise weights_error(
                    path,
                    f"negative variances in layer {layer.index}: the file of another network",
                    _SAME_NETWORK,
                )
            start = end
    return layer_count


def check_parameter_count(path: Path, network_layers: Sequence[Layer], count: int) -> int:
    """Return how many layers ``count`` parameters fill, from the first.

    Raises:
        InputFormError: They end within a layer or after the last; the error names ``path``.
    """
    start = 0
    where, layer_count = "after the last layer", len(network_layers)
    for layer in network_layers:
        if start + layer.parameter_count > count:
            where, layer_count = f"within layer {layer.index}", layer.index
            break
        start += layer.parameter_count
    if start != count:
        raise weights_error(
            path,
            f"an end {where}: {count:,} parameters, but {start:,} fill {layer_count} layers",
            "The file is truncated, or belongs to another network (other classes?). "
            f"{_SAME_NETWORK}",
        )
    return layer_count


def weights_error(
    path: Path, found: str, remedy: str = "", *, expected: str = "a darknet weights file"
) -> InputFormError:
    """Return the error for a file that is not a usable weights file."""
    return InputFormError(
        "these weights cannot be used",
        where=str(path),
        expected=expected,
        found=found,
        remedy=remedy,
    )
