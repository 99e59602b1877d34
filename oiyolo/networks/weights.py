"""Darknet weights files: validation, and download of pretrained ones.

A file is a header (three int32 of version, then the images seen, a uint64 since version 0.2)
followed by the parameters of all layers, without any structure (``save_weights_upto`` and
``load_weights_upto`` in src/parser.c). Darknet silently loads anything: an HTML page, half a
download or the file of another network. So files are validated first: size, header, and that all
parameters are finite and plausible. Against a network, the file must also end at the end of a
layer, and variances must not be negative.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
import struct
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from oiyolo.core.errors import InputFormError, UnavailableError, UsageError
from oiyolo.core.files import read_json, sha256_of, write_json
from oiyolo.net.ranges import FileVersion
from oiyolo.networks.layers import FLOAT_BYTES, HEADER_BYTES, layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.layers import Layer

SHORT_HEADER_BYTES = 16
"""Size before version 0.2, when the images seen were an int32."""

_SIDECAR_SUFFIX = ".json"
_UNFINISHED_SUFFIX = ".unfinished"
_VERSION_OF_LONG_HEADER = 2
_MAX_VERSION = 2000
_MAX_PLAUSIBLE = 1e8
"""Trained parameters are far below; two in five random bit patterns are above."""

_MIN_PLAUSIBLE = 1e-30
_BLOCK_FLOATS = 1 << 22
_HTML_PREFIXES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")
_SNIFF_BYTES = 512


@dataclass(frozen=True)
class Header:
    """The header of a weights file.

    Attributes:
        major: Major version, 0.
        minor: Minor version, 2 in current files.
        revision: Revision; AlexeyAB's darknet writes 5.
        seen: Number of images that the network was trained on.
        header_bytes: Size of the header: 20, or 16 in old files.
    """

    major: int
    minor: int
    revision: int
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
        size_bytes: Size of the file.
        filled_layers: Number of layers of the network that the file fills, from the first;
            ``None`` if it was not compared with a network.
        layer_count: Number of layers of the network; ``None`` without a network.
    """

    header: Header
    size_bytes: int
    filled_layers: int | None = None
    layer_count: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the file fills every layer of the network."""
        return self.filled_layers is not None and self.filled_layers == self.layer_count


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

# Their authors published no checksums; the sizes follow from the networks. The first parameters of
# darknet53.conv.74 are quoted in github.com/AlexeyAB/darknet/issues/5433.
PRETRAINED: Mapping[str, Pretrained] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Pretrained(
                "darknet53.conv.74",
                162_482_580,
                75,
                (
                    MirrorUrl(_PJREDDIE + "darknet53.conv.74"),
                    MirrorUrl(_PJREDDIE_OLD + "darknet53.conv.74"),
                    MirrorUrl(_HANK + "yolov3.weights", 248_007_048),
                    MirrorUrl(_PJREDDIE + "yolov3.weights", 248_007_048),
                ),
                (-4.1455936, -0.99273944, -2.060937, 1.2925771, -0.89972943),
            ),
            Pretrained(
                "yolov3-tiny.conv.15",
                30_973_396,
                15,
                (
                    MirrorUrl(_PJREDDIE + "yolov3-tiny.conv.15"),
                    MirrorUrl(_PJREDDIE_OLD + "yolov3-tiny.conv.15"),
                    MirrorUrl(_HANK + "yolov3-tiny.weights", 35_434_956),
                    MirrorUrl(_PJREDDIE + "yolov3-tiny.weights", 35_434_956),
                ),
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
    }
)


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
        raise _weights_error(
            path,
            "an HTML page",
            "The server sent a page instead of the file; download it from another site",
        )
    if len(start) < SHORT_HEADER_BYTES:
        raise _weights_error(
            path, f"{len(start)} bytes", "The file is truncated; download it again"
        )
    major, minor, revision = struct.unpack_from("<3i", start)
    if not all(0 <= part <= _MAX_VERSION for part in (major, minor, revision)):
        raise _weights_error(path, f"version {major}.{minor}.{revision} in the header")
    # Versions above 1000 mark old files with transposed weights, which have the short header in
    # pjreddie's fork (src/parser.c:1236).
    if major * 10 + minor >= _VERSION_OF_LONG_HEADER and max(major, minor) < _MAX_VERSION // 2:
        if len(start) < HEADER_BYTES:
            raise _weights_error(
                path, f"{len(start)} bytes", "The file is truncated; download it again"
            )
        (seen,) = struct.unpack_from("<Q", start, 12)
        return Header(major, minor, revision, seen, HEADER_BYTES)
    (seen,) = struct.unpack_from("<I", start, 12)
    return Header(major, minor, revision, seen, SHORT_HEADER_BYTES)


def filled_layers(path: Path, cfg: Cfg) -> int:
    """Return how many layers of a network a weights file fills, from the first.

    AlexeyAB's darknet prints the same number when it loads the file.

    Raises:
        UsageError: As for ``read_header``.
        InputFormError: As for ``read_header``.
        CfgError: As for ``layers.layers``.
    """
    header = read_header(path)
    return _filled_layer_count(
        layers(cfg), (path.stat().st_size - header.header_bytes) // FLOAT_BYTES
    )


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
        raise _weights_error(
            path,
            f"{size_bytes:,} bytes",
            "The file is truncated, or a different one; download it again",
            expected_bytes,
        )
    body_bytes = size_bytes - header.header_bytes
    if body_bytes <= 0 or body_bytes % FLOAT_BYTES:
        raise _weights_error(
            path,
            f"{body_bytes:,} bytes after the header",
            "The file is truncated; download it again",
        )
    numbers = np.memmap(path, "<f4", mode="r", offset=header.header_bytes)
    _check_numbers(path, numbers)
    if cfg is None:
        return WeightsReport(header, size_bytes)
    network_layers = layers(cfg)
    layer_count = _filled_layer_count(network_layers, len(numbers))
    _check_fit(path, network_layers, layer_count, numbers)
    return WeightsReport(header, size_bytes, layer_count, len(network_layers))


class Fetch(Protocol):
    """A function that downloads a file, and resumes if ``partial_version`` is given."""

    def __call__(
        self,
        url: str,
        part: Path,
        *,
        partial_version: FileVersion | None,
        expected_bytes: int,
        on_start: Callable[[FileVersion, int], None],
    ) -> None:
        """Download ``url`` to ``part``; see ``HttpClient.download``.

        Raises:
            UnavailableError: The download failed.
        """


def obtain(
    name: str,
    *,
    cache: Path,
    fetch: Fetch,
    pretrained: Mapping[str, Pretrained] = PRETRAINED,
) -> Path:
    """Return pretrained weights, downloading them unless they are in the cache.

    Cached files are verified by size and checksum; the checksum is computed again only if the file
    was modified. A file gets its final name after validation. Interrupted downloads are kept next
    to it, one per mirror, and resumed.

    Args:
        name: Name in ``pretrained``.
        cache: Folder of the cached files. Only one process may download into it at a time.
        fetch: Function that downloads a URL to a file.
        pretrained: The available weights, by name.

    Returns:
        Path of the file. ``origin`` returns where it came from.

    Raises:
        UnavailableError: No mirror has the file; the message gives the reason for each.
        KeyError: Unknown name.
    """
    entry = pretrained[name]
    path = cache / name
    if _is_cached(path, entry):
        return path
    cache.mkdir(parents=True, exist_ok=True)
    problems = []
    for mirror in entry.mirrors:
        problem = _try_mirror(entry, mirror, path, fetch)
        if not problem:
            for leftover in cache.glob(f"{name}.*{_UNFINISHED_SUFFIX}*"):
                leftover.unlink(missing_ok=True)
            return path
        problems.append(f"{mirror.url}: {problem}")
    raise UnavailableError(
        f"the pretrained weights {name} cannot be downloaded",
        expected=f"{entry.size_bytes:,} bytes from one of {len(entry.mirrors)} mirrors",
        found="; ".join(problems),
        remedy="Run the command again to resume the download; or download the file by other means "
        'and set [train] weights to its path; or set weights = "none" to train from scratch',
    )


def origin(path: Path) -> dict[str, Any]:
    """Return where weights in the cache came from.

    Returns:
        ``url``, ``sha256``, ``size_bytes`` and, for some mirrors, ``note``; empty for a file that
        ``obtain`` has not seen.
    """
    record = read_json(_sidecar(path))
    return record if isinstance(record, dict) else {}


class _PartialDownload:
    """An interrupted download from one mirror."""

    def __init__(self, path: Path, url: str) -> None:
        # Mirrors have different files, so a partial download is useless for another mirror.
        name = f"{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}{_UNFINISHED_SUFFIX}"
        self.path = path.with_name(name)
        self._record_path = path.with_name(name + _SIDECAR_SUFFIX)
        self._url = url

    def version(self) -> FileVersion | None:
        """Return the version of the partial file; ``None`` if there is nothing to resume."""
        record = read_json(self._record_path)
        if not isinstance(record, dict) or record.get("url") != self._url:
            return None
        return FileVersion.from_dict(record.get("version")) if self.path.is_file() else None

    def save_version(self, version: FileVersion) -> None:
        """Record the version of the file."""
        write_json(self._record_path, {"url": self._url, "version": version.as_dict()})

    def delete(self) -> None:
        """Delete the partial file and its record."""
        self._record_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _try_mirror(entry: Pretrained, mirror: MirrorUrl, path: Path, fetch: Fetch) -> str:
    """Download from a mirror; return the reason for a failure, or an empty string."""
    partial = _PartialDownload(path, mirror.url)
    partial_version = partial.version()
    try:
        try:
            _download_and_check(entry, mirror, partial, partial_version, fetch)
        except InputFormError:
            if partial_version is None:
                raise
            # The halves may belong to different versions, whatever the server reported.
            partial.delete()
            _download_and_check(entry, mirror, partial, None, fetch)
    except UnavailableError as error:
        return f"{error.what} ({error.found})" if error.found else error.what
    except InputFormError as error:  # its message names the temporary file
        partial.delete()
        return f"expected {error.expected}, found {error.found}"
    _store(entry, mirror, path, partial)
    return ""


def _download_and_check(
    entry: Pretrained,
    mirror: MirrorUrl,
    partial: _PartialDownload,
    partial_version: FileVersion | None,
    fetch: Fetch,
) -> None:
    """Download a mirror's file, extract the first layers if necessary, and validate the result."""
    path = partial.path
    expected_bytes = mirror.full_network_bytes or entry.size_bytes

    def on_start(version: FileVersion, done_bytes: int) -> None:
        if version.size_bytes not in {None, expected_bytes}:
            found = f"{version.size_bytes:,} bytes"
            raise _weights_error(path, found, "A different file, or an HTML page", expected_bytes)
        _check_disk_space(path, expected_bytes - done_bytes)
        if not done_bytes:
            partial.save_version(version)

    fetch(
        mirror.url,
        path,
        partial_version=partial_version,
        expected_bytes=expected_bytes,
        on_start=on_start,
    )
    if mirror.full_network_bytes:
        check_weights(path, expected_bytes=mirror.full_network_bytes)
        _truncate(path, entry.size_bytes)
    check_weights(path, expected_bytes=entry.size_bytes)
    if not mirror.full_network_bytes:
        _check_identity(path, entry)


def _store(entry: Pretrained, mirror: MirrorUrl, path: Path, partial: _PartialDownload) -> None:
    """Move a valid file to its final name, and record where it came from."""
    sha256 = sha256_of(partial.path)
    with partial.path.open("rb") as file:
        os.fsync(file.fileno())
    partial.path.replace(path)
    record = {"url": mirror.url, "sha256": sha256, "size_bytes": entry.size_bytes}
    record |= {"mtime_ns": path.stat().st_mtime_ns}
    if mirror.note:
        record["note"] = mirror.note
    write_json(_sidecar(path), record)


def _check_disk_space(path: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(path.parent).free
    if needed_bytes > free_bytes:
        raise UnavailableError(
            "the pretrained weights do not fit on the disk",
            where=str(path.parent),
            expected=f"{needed_bytes:,} bytes",
            found=f"{free_bytes:,} bytes free",
            remedy="Free disk space, or set [openimages] cache to a folder on a larger disk",
        )


def _is_cached(path: Path, entry: Pretrained) -> bool:
    if not path.is_file() or path.stat().st_size != entry.size_bytes:
        return False
    record = origin(path)
    is_modified = record.get("mtime_ns") != path.stat().st_mtime_ns
    if not is_modified:
        return "sha256" in record
    if "sha256" in record:
        is_valid = bool(sha256_of(path) == record["sha256"])
    else:  # put there by hand, or the process was killed before it wrote the record
        try:
            check_weights(path, expected_bytes=entry.size_bytes)
            _check_identity(path, entry)
        except InputFormError:
            is_valid = False
        else:
            is_valid = True
            record = {"sha256": sha256_of(path), "size_bytes": entry.size_bytes}
    if is_valid:
        with contextlib.suppress(OSError):  # a read-only cache is usable too
            write_json(_sidecar(path), record | {"mtime_ns": path.stat().st_mtime_ns})
    return is_valid


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + _SIDECAR_SUFFIX)


def _truncate(path: Path, size_bytes: int) -> None:
    """Truncate a file to its first layers, and reset the images seen to 0."""
    with path.open("r+b") as file:
        file.seek(12)
        file.write(struct.pack("<Q", 0))
        file.truncate(size_bytes)


def _check_identity(path: Path, entry: Pretrained) -> None:
    count = len(entry.first_floats)
    first = np.fromfile(path, "<f4", count=count, offset=HEADER_BYTES)
    if not np.allclose(first, entry.first_floats, rtol=1e-5):
        raise _weights_error(
            path, f"a different file: it starts with {', '.join(f'{x:.6g}' for x in first)}"
        )


def _filled_layer_count(network_layers: list[Layer], float_count: int) -> int:
    """Return how many layers ``float_count`` parameters fill, from the first."""
    remaining = float_count
    for layer in network_layers:
        remaining -= layer.parameter_count
        if remaining < 0:
            return layer.index
    return len(network_layers)


def _blocks(numbers: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(numbers), _BLOCK_FLOATS):
        yield numbers[start : start + _BLOCK_FLOATS]


def _check_numbers(path: Path, numbers: npt.NDArray[np.float32]) -> None:
    tiny = zero = 0
    for block in _blocks(numbers):
        with np.errstate(invalid="ignore"):
            magnitudes = np.abs(block)
            largest = float(magnitudes.max())
        if not math.isfinite(largest) or largest > _MAX_PLAUSIBLE:
            raise _weights_error(
                path,
                "parameters that are not finite"
                if not math.isfinite(largest)
                else f"{largest:.3g}",
                "The run that wrote it diverged, or it is not a weights file; use another file",
            )
        zero += int((magnitudes == 0).sum())
        tiny += int((magnitudes < _MIN_PLAUSIBLE).sum())
    if zero == len(numbers):
        raise _weights_error(path, "only zeros", "The file was allocated but never written")
    if (tiny - zero) * 2 > len(numbers):
        raise _weights_error(path, "parameters far too small for trained weights")


def _check_fit(
    path: Path, network_layers: list[Layer], layer_count: int, numbers: npt.NDArray[np.float32]
) -> None:
    remedy = "Use weights of the same network, or of its first layers"
    start = 0
    for layer in network_layers[:layer_count]:
        for segment in layer.segments:
            end = start + segment.count
            if segment.name == "variances" and bool((numbers[start:end] < 0).any()):
                raise _weights_error(
                    path,
                    f"negative variances in layer {layer.index}: the file of another network",
                    remedy,
                )
            start = end
    if start != len(numbers):
        where = (
            f"within layer {layer_count}"
            if layer_count < len(network_layers)
            else "after the last layer"
        )
        raise _weights_error(
            path,
            f"an end {where}: {len(numbers):,} parameters, but {start:,} fill {layer_count} layers",
            f"The file is truncated, or belongs to another network (other classes?). {remedy}",
        )


def _weights_error(
    path: Path, found: str, remedy: str = "", expected_bytes: int | None = None
) -> InputFormError:
    expected = f"{expected_bytes:,} bytes" if expected_bytes else "a darknet weights file"
    return InputFormError(
        "these weights cannot be used",
        where=str(path),
        expected=expected,
        found=found,
        remedy=remedy,
    )
