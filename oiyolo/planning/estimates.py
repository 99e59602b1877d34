"""What a run will fetch, fill and take, out of what is known before it: pure arithmetic.

Every constant says where it comes from. MB and GB are 10^6 and 10^9 bytes everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.darknet.forks import LINES
from oiyolo.net.buckets import is_bucket
from oiyolo.sources.mirror import MIRROR_MEAN_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oiyolo.networks.lint import DarknetLine

MIRROR: Final = "mirror"
ORIGINAL: Final = "original"
THUMBNAIL: Final = "thumbnail"

ORIGINAL_MISS_SHARE: Final = 0.08
"""Share of originals that their site no longer has: of 3.7 million, 3.4 came in 2022
(github.com/snucml/LargeLossMatters, issue 5). It was below 0.01 in 2016 and grows."""

THUMBNAIL_SHARE: Final = 0.4
"""Size of a thumbnail as a share of the mirror's copy: 300,000 pixels of 786,000 (1024x768)."""

_PREPARED_416_BYTES: Final = 57_000
_PREPARED_EXPONENT: Final = 0.87
_LETTERBOX_SHARE: Final = 0.79
_UNRESIZED_SHARE: Final = 0.64
"""Measured on 100 photographs of the mirror, written by ``imagery.upright`` at quality 90: means of
4,468 bytes at 96x96, 34,873 at 320x320, 56,960 at 416x416, 111,927 at 608x608, 190,417 at 832x832,
which a power of the pixels meets within 5 %; letterboxed 0.77 to 0.83 of that, because a photograph
leaves a quarter of the square grey; in its own size 0.64 of the file that came."""

_BLOCK_BYTES: Final = 4096
"""What the smallest file takes on the usual file systems; others waste half of it on average."""
_RECORD_BYTES: Final = 1000
"""An image's row and half a dozen events in the ledger."""
_LOG_HEAD_BYTES: Final = 250
_LOG_HEAD_BYTES_PER_REGION: Final = 240
"""An iteration in a log: its own line, and for each head and subdivision a region line and, in
AlexeyAB's line, a second one. Logs of one head have 220 (Debian) to 490 bytes (AlexeyAB)."""
_MARGIN: Final = 0.05


class Photo(NamedTuple):
    """An image to be fetched, as far as its size can be known.

    Attributes:
        image_id: The image.
        subset: Open Images' subset.
        original_bytes: Size of the original; ``None`` where it is not listed.
    """

    image_id: str
    subset: str
    original_bytes: int | None


@dataclass(frozen=True)
class Known:
    """What is known of the sources.

    Attributes:
        mirror_mean_bytes: Mean size of the mirror's copies, by subset.
        miss_share: Share of originals that are gone, 0 to 1.
        folders: Sizes of the files that a folder has, by folder and image.
    """

    mirror_mean_bytes: Mapping[str, float] = field(default_factory=lambda: MIRROR_MEAN_BYTES)
    miss_share: float = ORIGINAL_MISS_SHARE
    folders: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Amount:
    """So much, and from where.

    Attributes:
        images: Images that are expected to come.
        network_bytes: Over the network.
        disk_bytes: What they will take on the disk.
    """

    images: float = 0.0
    network_bytes: float = 0.0
    disk_bytes: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.images + other.images,
            self.network_bytes + other.network_bytes,
            self.disk_bytes + other.disk_bytes,
        )

    def times(self, share: float) -> Amount:
        """Give a share of it."""
        return Amount(self.images * share, self.network_bytes * share, self.disk_bytes * share)


def all_from(source: str, photos: Sequence[Photo], known: Known) -> Amount:
    """Give the amount if every image that a source could have came from it.

    Args:
        source: "mirror", "original", "thumbnail", a bucket, which is taken to hold the mirror's
            copies, or a folder.
        photos: The images.
        known: What is known of the sources.
    """
    if source in {MIRROR, THUMBNAIL} or is_bucket(source):
        share = THUMBNAIL_SHARE if source == THUMBNAIL else 1.0
        sizes = [share * known.mirror_mean_bytes[photo.subset] for photo in photos]
    elif source == ORIGINAL:
        sizes = _original_bytes(photos)
    else:
        held = known.folders.get(source, {})
        sizes = [held[photo.image_id] for photo in photos if photo.image_id in held]
        return Amount(len(sizes), 0.0, on_disk(sum(sizes), len(sizes)))
    total = float(sum(sizes))
    return Amount(len(sizes), total, on_disk(total, len(sizes)))


def in_order(sources: Sequence[str], photos: Sequence[Photo], known: Known) -> Amount:
    """Give the amount if each image comes from the first source that has it.

    A folder has the images that lie in it; the mirror and a bucket have all; of originals, and
    thumbnails on the same site, the known share is gone, and goes on to the next source.
    """
    total, share, left = Amount(), 1.0, list(photos)
    for source in sources:
        whole = all_from(source, left, known)
        if source == MIRROR or is_bucket(source):
            return total + whole.times(share)
        if source in {ORIGINAL, THUMBNAIL}:
            total += whole.times(share * (1.0 - known.miss_share))
            share *= known.miss_share
        else:
            total += whole.times(share)
            held = known.folders.get(source, {})
            left = [photo for photo in left if photo.image_id not in held]
    return total


def _original_bytes(photos: Sequence[Photo]) -> list[float]:
    """Give listed sizes, and their mean where none is listed."""
    listed = [photo.original_bytes for photo in photos if photo.original_bytes is not None]
    mean = sum(listed) / len(listed) if listed else 0.0
    return [mean if p.original_bytes is None else float(p.original_bytes) for p in photos]


def on_disk(size_bytes: float, file_count: float) -> float:
    """Give what files take on a disk, which counts in blocks."""
    return size_bytes + file_count * _BLOCK_BYTES / 2


def prepared_bytes(size_wh: tuple[int, int], fit: str, fetched_mean_bytes: float) -> float:
    """Give the expected size of a prepared image.

    Args:
        size_wh: Its width and height in pixels, unless ``fit`` is "none".
        fit: As in ``[images] fit``.
        fetched_mean_bytes: Mean size of the files as they came.
    """
    if fit == "none":
        return _UNRESIZED_SHARE * fetched_mean_bytes
    pixels = size_wh[0] * size_wh[1] / 416**2
    share = _LETTERBOX_SHARE if fit == "letterbox" else 1.0
    return share * _PREPARED_416_BYTES * float(pixels**_PREPARED_EXPONENT)


def dataset_bytes(
    image_count: float, prepared_mean_bytes: float, tables_bytes: float
) -> dict[str, float]:
    """Give what a dataset takes on the disk beside its originals.

    Args:
        image_count: Images in it.
        prepared_mean_bytes: Mean size of a prepared image.
        tables_bytes: Size of the table of boxes.
    """
    return {
        "prepared images": on_disk(image_count * prepared_mean_bytes, image_count),
        "labels": image_count * _BLOCK_BYTES,
        "tables": tables_bytes + image_count * _RECORD_BYTES,
    }


def weights_files(line: DarknetLine, max_batches: int) -> int:
    """Give how many whole weights files a line of darknet may leave.

    The numbered ones, the last one, the best one where the line keeps it, the final one.
    """
    table = LINES[line]
    last = int(max_batches >= table.last_every)
    return len(table.numbered(max_batches)) + last + bool(table.best_weights) + 1


def log_bytes(max_batches: int, head_count: int, subdivisions: int) -> float:
    """Give the expected size of a training's log."""
    per_iteration = _LOG_HEAD_BYTES + _LOG_HEAD_BYTES_PER_REGION * head_count * subdivisions
    return float(max_batches * per_iteration)


def peak_bytes(images: float, dataset: float, training: float, *, keep_originals: bool) -> float:
    """Give the most that the project's disk will hold at once.

    All originals come before the first is prepared; without ``keep_originals`` each of them goes
    when its prepared image is there.
    """
    if keep_originals:
        return images + dataset + training
    return max(images, dataset + training)


def with_margin(needed_bytes: float, spare_bytes: float) -> float:
    """Add to what is needed what must stay free; nothing needs nothing."""
    return needed_bytes * (1.0 + _MARGIN) + spare_bytes if needed_bytes > 0 else 0.0


def duration_s(size_bytes: float, bandwidth_bytes_s: float | None) -> float | None:
    """Give how long something comes; ``None`` if nobody knows how fast."""
    if size_bytes <= 0:
        return 0.0
    return size_bytes / bandwidth_bytes_s if bandwidth_bytes_s else None


def total(parts: Iterable[float | None]) -> float | None:
    """Give a sum; ``None`` if a part of it is not known."""
    known = list(parts)
    return None if None in known else sum(part for part in known if part is not None)
