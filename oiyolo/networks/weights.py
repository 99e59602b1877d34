"""Darknet's weights files: measured and judged before they are used, fetched where they are not.

A file is a header (three int32 of version, then the images seen, a uint64 since version 0.2) and
after it the numbers of one layer after the other, with nothing to say which (``save_weights_upto``
and ``load_weights_upto`` in src/parser.c). Darknet reads whatever it is given: a page of HTML, half
a download or another network's file become weights without a word. So a file is looked at here
first: its size, its header, that every number is finite and of a sensible size, and, against a
network, that it ends where a layer ends and that what should be variances are not negative.
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
from oiyolo.net.ranges import Version
from oiyolo.networks.layers import FLOAT_BYTES, HEADER_BYTES, layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.layers import Layer

SHORT_HEADER_BYTES = 16
"""Before version 0.2 the images seen were an int32."""

_SIDECAR_SUFFIX = ".json"
_UNFINISHED_SUFFIX = ".unfinished"
_VERSION_OF_LONG_HEADER = 2
_MAX_VERSION = 2000
_MAX_SENSIBLE = 1e8
"""Trained numbers are far below; of random bytes read as floats, two in five are above."""

_MIN_SENSIBLE = 1e-30
_BLOCK_FLOATS = 1 << 22
_HTML_STARTS = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")
_SNIFFED_BYTES = 512


@dataclass(frozen=True)
class Header:
    """What stands before the first number.

    Attributes:
        major: Version, 0.
        minor: Version, 2 in current files.
        revision: Version; AlexeyAB's writes 5.
        seen: Images the network was trained on.
        header_bytes: 20, in old files 16.
    """

    major: int
    minor: int
    revision: int
    seen: int
    header_bytes: int

    def iteration(self, batch: int) -> int:
        """Give the iteration at which a training goes on from here.

        Args:
            batch: ``batch`` in [net], the images of one iteration (get_current_batch in
                src/network.c divides by batch times subdivisions after having divided).
        """
        return self.seen // batch


@dataclass(frozen=True)
class WeightsReport:
    """What a good weights file is.

    Attributes:
        header: Its header.
        size_bytes: Its size.
        filled_layers: How many layers of the network it fills, from the first on; ``None``
            without a network to compare with.
        layer_count: How many layers the network has; ``None`` without one.
    """

    header: Header
    size_bytes: int
    filled_layers: int | None = None
    layer_count: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it fills every layer of the network it was compared with."""
        return self.filled_layers is not None and self.filled_layers == self.layer_count


@dataclass(frozen=True)
class Place:
    """An address of pretrained weights.

    Attributes:
        url: The address.
        whole_bytes: Where it has the whole trained network instead of its first layers, the size
            of that; 0 otherwise. The first layers are then cut from it.
    """

    url: str
    whole_bytes: int = 0

    @property
    def note(self) -> str:
        """What a user should know of weights from here; empty in most cases."""
        if not self.whole_bytes:
            return ""
        return "cut from a detector trained on COCO: not the usual start from ImageNet"


@dataclass(frozen=True)
class Pretrained:
    """Weights to start a training from.

    Attributes:
        name: The file's name, which says how many layers it fills.
        size_bytes: Its size, computed from the network it belongs to.
        layers: How many layers it fills.
        places: Where it is, the likeliest first.
        first_floats: The first numbers after the header where they are known, to recognise it.
    """

    name: str
    size_bytes: int
    layers: int
    places: tuple[Place, ...]
    first_floats: tuple[float, ...] = field(default=())


_PJREDDIE = "https://data.pjreddie.com/files/"
_PJREDDIE_OLD = "https://pjreddie.com/media/files/"
_ALEXEYAB = "https://github.com/AlexeyAB/darknet/releases/download/"
_HANK = "https://github.com/hank-ai/darknet/releases/download/v2.0/"

# No checksum of any of them was published by those who made them; sizes follow from the networks.
# The first numbers of darknet53.conv.74 are told in github.com/AlexeyAB/darknet/issues/5433.
PRETRAINED: Mapping[str, Pretrained] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Pretrained(
                "darknet53.conv.74",
                162_482_580,
                75,
                (
                    Place(_PJREDDIE + "darknet53.conv.74"),
                    Place(_PJREDDIE_OLD + "darknet53.conv.74"),
                    Place(_HANK + "yolov3.weights", 248_007_048),
                    Place(_PJREDDIE + "yolov3.weights", 248_007_048),
                ),
                (-4.1455936, -0.99273944, -2.060937, 1.2925771, -0.89972943),
            ),
            Pretrained(
                "yolov3-tiny.conv.15",
                30_973_396,
                15,
                (
                    Place(_PJREDDIE + "yolov3-tiny.conv.15"),
                    Place(_PJREDDIE_OLD + "yolov3-tiny.conv.15"),
                    Place(_HANK + "yolov3-tiny.weights", 35_434_956),
                    Place(_PJREDDIE + "yolov3-tiny.weights", 35_434_956),
                ),
            ),
            Pretrained(
                "yolov4.conv.137",
                170_038_676,
                137,
                (
                    Place(_ALEXEYAB + "darknet_yolo_v3_optimal/yolov4.conv.137"),
                    Place(_HANK + "yolov4.weights", 257_717_640),
                ),
            ),
            Pretrained(
                "yolov4-tiny.conv.29",
                19_789_716,
                29,
                (
                    Place(_ALEXEYAB + "darknet_yolo_v4_pre/yolov4-tiny.conv.29"),
                    Place(_HANK + "yolov4-tiny.weights", 24_251_276),
                ),
            ),
        )
    }
)


def read_header(path: Path) -> Header:
    """Read a weights file's header.

    Raises:
        UsageError: There is no such file.
        InputFormError: A page of HTML, too short for a header, or a version that never was.
    """
    if not path.is_file():
        raise UsageError(
            "there is no such weights file",
            where=str(path),
            remedy='Give [train] weights the path of a file, "auto" or "none"',
        )
    with path.open("rb") as file:
        start = file.read(_SNIFFED_BYTES)
    if start.lstrip().lower().startswith(_HTML_STARTS):
        raise _not_weights(path, "a page of HTML", "The site answered with a page instead")
    if len(start) < SHORT_HEADER_BYTES:
        raise _not_weights(path, f"{len(start)} bytes", "The file was cut off")
    major, minor, revision = struct.unpack_from("<3i", start)
    if not all(0 <= part <= _MAX_VERSION for part in (major, minor, revision)):
        raise _not_weights(path, f"version {major}.{minor}.{revision} in the header")
    # Files with a version above 1000 are transposed ones of old, with the short form in
    # pjreddie's line (src/parser.c:1236).
    if major * 10 + minor >= _VERSION_OF_LONG_HEADER and max(major, minor) < _MAX_VERSION // 2:
        if len(start) < HEADER_BYTES:
            raise _not_weights(path, f"{len(start)} bytes", "The file was cut off")
        (seen,) = struct.unpack_from("<Q", start, 12)
        return Header(major, minor, revision, seen, HEADER_BYTES)
    (seen,) = struct.unpack_from("<I", start, 12)
    return Header(major, minor, revision, seen, SHORT_HEADER_BYTES)


def filled_layers(path: Path, cfg: Cfg) -> int:
    """Tell how many layers of a network a weights file fills, from the first on.

    It is the number that AlexeyAB's darknet prints for the same file.

    Raises:
        UsageError: As ``read_header``.
        InputFormError: As ``read_header``.
        CfgError: As ``shapes.layers``.
    """
    header = read_header(path)
    return _filled(layers(cfg), (path.stat().st_size - header.header_bytes) // FLOAT_BYTES)


def check_weights(
    path: Path, cfg: Cfg | None = None, *, expected_bytes: int | None = None
) -> WeightsReport:
    """Read a weights file through and refuse what cannot be one.

    Args:
        path: The file.
        cfg: The network it is for. Without it only header and numbers are looked at.
        expected_bytes: The size it must have, where that is known.

    Returns:
        What it is.

    Raises:
        UsageError: There is no such file.
        InputFormError: Another size than expected, no header, numbers that are not finite or far
            from any that training yields; against a network: an end within a layer, numbers left
            over, or negative variances, each a sign that it belongs to another network.
        CfgError: As ``shapes.layers``.
    """
    header = read_header(path)
    size_bytes = path.stat().st_size
    if expected_bytes is not None and size_bytes != expected_bytes:
        raise _not_weights(
            path, f"{size_bytes:,} bytes", "The file was cut off, or is another one", expected_bytes
        )
    body_bytes = size_bytes - header.header_bytes
    if body_bytes <= 0 or body_bytes % FLOAT_BYTES:
        raise _not_weights(
            path,
            f"{body_bytes:,} bytes after the header",
            "The file was cut off: fetch it again",
        )
    numbers = np.memmap(path, "<f4", mode="r", offset=header.header_bytes)
    _check_numbers(path, numbers)
    if cfg is None:
        return WeightsReport(header, size_bytes)
    made = layers(cfg)
    filled = _filled(made, len(numbers))
    _check_fit(path, made, filled, numbers)
    return WeightsReport(header, size_bytes, filled, len(made))


class Fetch(Protocol):
    """Brings an address into a file, going on where ``held`` says that a part of it is there."""

    def __call__(
        self,
        url: str,
        part: Path,
        *,
        held: Version | None,
        expected_bytes: int,
        begin: Callable[[Version, int], None],
    ) -> None:
        """As ``http.Web.download``.

        Raises:
            UnavailableError: It cannot be had from there, or broke off for good.
        """


def obtain(
    name: str,
    *,
    cache: Path,
    fetch: Fetch,
    known: Mapping[str, Pretrained] = PRETRAINED,
) -> Path:
    """Give pretrained weights, from the cache or else from the first place that has them.

    What is in the cache is recognised by size and checksum; the checksum is computed again only
    when the file was touched since. A file is given its name only after it was found good; what
    came of one that broke off waits beside it, for each place apart, and is gone on with.

    Args:
        name: A name in ``known``.
        cache: The folder to keep them in. One process at a time may fetch into it.
        fetch: Fetches an address into a file.
        known: The weights there are.

    Returns:
        The file's path. ``origin`` tells where it came from.

    Raises:
        UnavailableError: No place has it, with each place's reason.
        KeyError: There are no weights of that name.
    """
    wanted = known[name]
    path = cache / name
    if _is_cached(path, wanted):
        return path
    cache.mkdir(parents=True, exist_ok=True)
    reasons = []
    for place in wanted.places:
        reason = _failure(wanted, place, path, fetch)
        if not reason:
            for left in cache.glob(f"{name}.*{_UNFINISHED_SUFFIX}*"):
                left.unlink(missing_ok=True)
            return path
        reasons.append(f"{place.url}: {reason}")
    raise UnavailableError(
        f"the pretrained weights {name} cannot be fetched",
        expected=f"{wanted.size_bytes:,} bytes from one of {len(wanted.places)} places",
        found="; ".join(reasons),
        remedy="Give the same command again, which goes on with what came; or fetch the file by "
        'other means and set [train] weights to its path; or set weights = "none" to train '
        "from scratch",
    )


def origin(path: Path) -> dict[str, Any]:
    """Tell where obtained weights came from.

    Returns:
        ``url``, ``sha256``, ``size_bytes``, and ``note`` where there is something to know; empty
        for a file that ``obtain`` did not bring.
    """
    record = read_json(_sidecar(path))
    return record if isinstance(record, dict) else {}


class _Unfinished:
    """What came of a file from one place before the connection, or the process, ended."""

    def __init__(self, path: Path, url: str) -> None:
        # Places have different files, so that what came from one is of no use for another.
        name = f"{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}{_UNFINISHED_SUFFIX}"
        self.path = path.with_name(name)
        self._facts_path = path.with_name(name + _SIDECAR_SUFFIX)
        self._url = url

    def held(self) -> Version | None:
        """Give the version that a part is of; ``None`` where there is nothing to go on with."""
        facts = read_json(self._facts_path)
        if not isinstance(facts, dict) or facts.get("url") != self._url:
            return None
        return Version.of_dict(facts.get("version")) if self.path.is_file() else None

    def begin(self, version: Version) -> None:
        """Note of which version the file is."""
        write_json(self._facts_path, {"url": self._url, "version": version.as_dict()})

    def drop(self) -> None:
        """Remove it."""
        self._facts_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _failure(wanted: Pretrained, place: Place, path: Path, fetch: Fetch) -> str:
    """Fetch from a place; give the reason why that failed, or nothing where it did not."""
    unfinished = _Unfinished(path, place.url)
    held = unfinished.held()
    try:
        try:
            _fetch(wanted, place, unfinished, held, fetch)
        except InputFormError:
            if held is None:
                raise
            # The second half may be another version's than the first, whatever was said.
            unfinished.drop()
            _fetch(wanted, place, unfinished, None, fetch)
    except UnavailableError as error:
        return f"{error.what} ({error.found})" if error.found else error.what
    except InputFormError as error:  # without the name of the temporary file
        unfinished.drop()
        return f"expected {error.expected}, found {error.found}"
    _finish(wanted, place, path, unfinished)
    return ""


def _fetch(
    wanted: Pretrained,
    place: Place,
    unfinished: _Unfinished,
    held: Version | None,
    fetch: Fetch,
) -> None:
    """Bring a place's file and make it the one that is wanted, or refuse it."""
    part = unfinished.path
    expected_bytes = place.whole_bytes or wanted.size_bytes

    def begin(version: Version, done: int) -> None:
        if version.size_bytes not in {None, expected_bytes}:
            found = f"{version.size_bytes:,} bytes"
            raise _not_weights(part, found, "Another file, or a page", expected_bytes)
        _check_room(part, expected_bytes - done)
        if not done:
            unfinished.begin(version)

    fetch(place.url, part, held=held, expected_bytes=expected_bytes, begin=begin)
    if place.whole_bytes:
        check_weights(part, expected_bytes=place.whole_bytes)
        _cut(part, wanted.size_bytes)
    check_weights(part, expected_bytes=wanted.size_bytes)
    if not place.whole_bytes:
        _check_identity(part, wanted)


def _finish(wanted: Pretrained, place: Place, path: Path, unfinished: _Unfinished) -> None:
    """Give a good file its name, and remember it."""
    sha256 = sha256_of(unfinished.path)
    with unfinished.path.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.path.replace(path)
    record = {"url": place.url, "sha256": sha256, "size_bytes": wanted.size_bytes}
    record |= {"mtime_ns": path.stat().st_mtime_ns}
    if place.note:
        record["note"] = place.note
    write_json(_sidecar(path), record)


def _check_room(part: Path, left_bytes: int) -> None:
    free_bytes = shutil.disk_usage(part.parent).free
    if left_bytes > free_bytes:
        raise UnavailableError(
            "the pretrained weights do not fit on the disk",
            where=str(part.parent),
            expected=f"{left_bytes:,} bytes",
            found=f"{free_bytes:,} bytes free",
            remedy="Make room, or give [openimages] cache a larger disk",
        )


def _is_cached(path: Path, wanted: Pretrained) -> bool:
    if not path.is_file() or path.stat().st_size != wanted.size_bytes:
        return False
    record = origin(path)
    touched = record.get("mtime_ns") != path.stat().st_mtime_ns
    if not touched:
        return "sha256" in record
    if "sha256" in record:
        good = bool(sha256_of(path) == record["sha256"])
    else:  # put there by hand, or the process ended between the file and its record
        try:
            check_weights(path, expected_bytes=wanted.size_bytes)
            _check_identity(path, wanted)
        except InputFormError:
            good = False
        else:
            good = True
            record = {"sha256": sha256_of(path), "size_bytes": wanted.size_bytes}
    if good:
        with contextlib.suppress(OSError):  # a cache that is read only is a cache all the same
            write_json(_sidecar(path), record | {"mtime_ns": path.stat().st_mtime_ns})
    return good


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + _SIDECAR_SUFFIX)


def _cut(path: Path, size_bytes: int) -> None:
    """Keep the first layers of a trained network, and let it have seen no image yet."""
    with path.open("r+b") as file:
        file.seek(12)
        file.write(struct.pack("<Q", 0))
        file.truncate(size_bytes)


def _check_identity(path: Path, wanted: Pretrained) -> None:
    count = len(wanted.first_floats)
    first = np.fromfile(path, "<f4", count=count, offset=HEADER_BYTES)
    if not np.allclose(first, wanted.first_floats, rtol=1e-5):
        raise _not_weights(
            path, f"another file: its numbers begin with {', '.join(f'{x:.6g}' for x in first)}"
        )


def _filled(made: list[Layer], float_count: int) -> int:
    """Count the layers before the first that needs more numbers than are left."""
    left = float_count
    for layer in made:
        left -= layer.parameter_count
        if left < 0:
            return layer.index
    return len(made)


def _blocks(numbers: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(numbers), _BLOCK_FLOATS):
        yield numbers[start : start + _BLOCK_FLOATS]


def _check_numbers(path: Path, numbers: npt.NDArray[np.float32]) -> None:
    tiny = zero = 0
    for block in _blocks(numbers):
        with np.errstate(invalid="ignore"):
            sizes = np.abs(block)
            largest = float(sizes.max())
        if not math.isfinite(largest) or largest > _MAX_SENSIBLE:
            raise _not_weights(
                path,
                "numbers that are not finite" if not math.isfinite(largest) else f"{largest:.3g}",
                "The training that wrote it diverged, or it is no weights file",
            )
        zero += int((sizes == 0).sum())
        tiny += int((sizes < _MIN_SENSIBLE).sum())
    if zero == len(numbers):
        raise _not_weights(path, "nothing but zeros", "The file was never filled")
    if (tiny - zero) * 2 > len(numbers):
        raise _not_weights(path, "numbers far too small to be trained ones")


def _check_fit(
    path: Path, made: list[Layer], filled: int, numbers: npt.NDArray[np.float32]
) -> None:
    remedy = "Take weights of the same network, or of its first layers"
    start = 0
    for layer in made[:filled]:
        for segment in layer.segments:
            end = start + segment.count
            if segment.name == "variances" and bool((numbers[start:end] < 0).any()):
                raise _not_weights(
                    path,
                    f"negative variances in layer {layer.index}: another network's file",
                    remedy,
                )
            start = end
    if start != len(numbers):
        where = f"within layer {filled}" if filled < len(made) else "behind the last layer"
        raise _not_weights(
            path,
            f"an end {where}: {len(numbers):,} numbers where {start:,} fill {filled} layers",
            f"It was cut off, or belongs to another network (other classes?). {remedy}",
        )


def _not_weights(
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
