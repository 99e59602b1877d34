"""Estimate the downloads and disk space of a run by pure arithmetic.

Every constant states its source. MB and GB are 10^6 and 10^9 bytes everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.darknet.forks import FORKS
from oiyolo.net.buckets import is_bucket
from oiyolo.project.keys import PUBLIC_SOURCES
from oiyolo.sources.web import MIRROR_MEAN_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oiyolo.networks.lint import ForkName

MIRROR: Final = "mirror"
ORIGINAL: Final = "original"
THUMBNAIL: Final = "thumbnail"

ORIGINAL_MISSING_SHARE: Final = 0.08
"""Share of originals that their site no longer has: 3.4 of 3.7 million were available in 2022
(github.com/snucml/LargeLossMatters, issue 5). It was below 0.01 in 2016 and grows."""

THUMBNAIL_SHARE: Final = 0.4
"""Size of a thumbnail as a share of the mirror's copy: 300,000 pixels of 786,000 (1024x768)."""

_PREPARED_416_BYTES: Final = 57_000
_PREPARED_EXPONENT: Final = 0.87
_LETTERBOX_SHARE: Final = 0.79
_UNRESIZED_SHARE: Final = 0.64
"""Measured on 100 photographs of the mirror, written by ``imagery.upright`` at quality 90: means of
4,468 bytes at 96x96, 34,873 at 320x320, 56,960 at 416x416, 111,927 at 608x608, 190,417 at 832x832,
which a power of the number of pixels fits within 5 %. Letterboxed 0.77 to 0.83 of that, because a
photograph leaves a quarter of the square grey; without resizing 0.64 of the downloaded file."""

_BLOCK_BYTES: Final = 4096
"""Block size of common file systems; a file wastes half a block on average."""
_RECORD_BYTES: Final = 1000
"""Size of an image's row and half a dozen events in the ledger."""
_LOG_HEAD_BYTES: Final = 250
_LOG_HEAD_BYTES_PER_REGION: Final = 240
"""Size of an iteration in a log: a line of its own, and for each head and subdivision a region line
and, in AlexeyAB's fork, a second one. With one head, logs have 220 (Debian) to 490 bytes (AlexeyAB)
per iteration."""
_MARGIN: Final = 0.05


class Photo(NamedTuple):
    """A selected image with what determines its size.

    Attributes:
        image_id: The image's id.
        subset: Open Images' subset.
        original_bytes: Size of the original; ``None`` if it is not listed.
        import_name: Name of the import that it is copied from; empty if it is fetched.
    """

    image_id: str
    subset: str
    original_bytes: int | None
    import_name: str = ""


@dataclass(frozen=True)
class SourceInfo:
    """What the estimates assume about the sources.

    Attributes:
        mirror_mean_bytes: Mean size of the mirror's copies, by subset.
        missing_share: Share of originals that no longer exist, 0 to 1.
        folders: File sizes by folder and image id.
    """

    mirror_mean_bytes: Mapping[str, float] = field(default_factory=lambda: MIRROR_MEAN_BYTES)
    missing_share: float = ORIGINAL_MISSING_SHARE
    folders: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Amount:
    """An estimated number of images with the resources that they need.

    Attributes:
        images: Expected number of images.
        network_bytes: Bytes to download over the network.
        disk_bytes: Disk usage of the images.
    """

    images: float = 0.0
    network_bytes: float = 0.0
    disk_bytes: float = 0.0

    def plus(self, other: Amount, share: float = 1.0) -> Amount:
        """Return the sum of this amount and a share of another one."""
        return Amount(
            self.images + share * other.images,
            self.network_bytes + share * other.network_bytes,
            self.disk_bytes + share * other.disk_bytes,
        )


def is_folder(source: str) -> bool:
    """Return whether a source is a folder on this machine."""
    return source not in PUBLIC_SOURCES and not is_bucket(source)


def amount_from(source: str, photos: Sequence[Photo], info: SourceInfo) -> Amount:
    """Return the amount if every image that a source may have is fetched from it.

    Args:
        source: "mirror", "original", "thumbnail", a bucket (assumed to hold the mirror's copies) or
            a folder.
        photos: The images.
        info: Assumptions about the sources.
    """
    if is_folder(source):
        size_of = info.folders.get(source, {})
        sizes = [size_of[photo.image_id] for photo in photos if photo.image_id in size_of]
        return Amount(len(sizes), 0.0, on_disk(sum(sizes), len(sizes)))
    if source == ORIGINAL:
        listed = [photo.original_bytes for photo in photos if photo.original_bytes is not None]
        # An image whose size is not listed is as large as the others are on average.
        total = sum(listed) / len(listed) * len(photos) if listed else 0.0
    else:
        total = sum(info.mirror_mean_bytes[photo.subset] for photo in photos)
        total *= THUMBNAIL_SHARE if source == THUMBNAIL else 1.0
    return Amount(len(photos), total, on_disk(total, len(photos)))


def imported_amount(photos: Sequence[Photo]) -> Amount:
    """Return the amount of imported images, which are copied on this machine."""
    return Amount(
        len(photos), 0.0, on_disk(sum(photo.original_bytes or 0 for photo in photos), len(photos))
    )


def amount_from_first(sources: Sequence[str], photos: Sequence[Photo], info: SourceInfo) -> Amount:
    """Return the amount if each image is fetched from the first source that has it.

    A folder has the images whose files are in it, and the mirror and a bucket have all images. A
    share (``info.missing_share``) of the originals, and of the thumbnails on the same site, is
    missing and falls through to the next source.
    """
    total, share, remaining = Amount(), 1.0, list(photos)
    for source in sources:
        amount = amount_from(source, remaining, info)
        if is_folder(source):
            total = total.plus(amount, share)
            size_of = info.folders.get(source, {})
            remaining = [photo for photo in remaining if photo.image_id not in size_of]
        else:
            missing = info.missing_share if source in {ORIGINAL, THUMBNAIL} else 0.0
            total = total.plus(amount, share * (1.0 - missing))
            share *= missing
    return total


def on_disk(size_bytes: float, file_count: float) -> float:
    """Return the disk usage of files, including their partly filled last blocks."""
    return size_bytes + file_count * _BLOCK_BYTES / 2


def prepared_bytes(size_wh: tuple[int, int], fit: str, fetched_mean_bytes: float) -> float:
    """Return the expected size of a prepared image.

    Args:
        size_wh: Width and height in pixels; not used if ``fit`` is "none".
        fit: Value of ``[images] fit``.
        fetched_mean_bytes: Mean size of the downloaded files.
    """
    if fit == "none":
        return _UNRESIZED_SHARE * fetched_mean_bytes
    pixels = size_wh[0] * size_wh[1] / 416**2
    share = _LETTERBOX_SHARE if fit == "letterbox" else 1.0
    return share * _PREPARED_416_BYTES * float(pixels**_PREPARED_EXPONENT)


def dataset_bytes(
    image_count: float, prepared_mean_bytes: float, tables_bytes: float
) -> dict[str, float]:
    """Return a dataset's disk usage, without the originals, by kind of file."""
    return {
        "prepared images": on_disk(image_count * prepared_mean_bytes, image_count),
        "labels": image_count * _BLOCK_BYTES,
        "tables": tables_bytes + image_count * _RECORD_BYTES,
    }


def weights_file_count(fork: ForkName, max_batches: int) -> int:
    """Return how many full-size weights files a training by a fork of darknet may leave behind.

    These are the numbered checkpoints, the last one, the best one and the final one.
    """
    table = FORKS[fork]
    last = int(max_batches >= table.last_weights_interval)
    return len(table.checkpoint_iterations(max_batches)) + last + 2


def log_bytes(max_batches: int, head_count: int, subdivisions: int) -> float:
    """Return the expected size of a training log."""
    per_iteration = _LOG_HEAD_BYTES + _LOG_HEAD_BYTES_PER_REGION * head_count * subdivisions
    return float(max_batches * per_iteration)


def peak_bytes(images: float, dataset: float, training: float, *, keep_originals: bool) -> float:
    """Return the peak disk usage of the project, given that of its three parts.

    All originals are downloaded before the first one is prepared. Without ``keep_originals``, each
    original is deleted once its prepared image exists.
    """
    if keep_originals:
        return images + dataset + training
    return max(images, dataset + training)


def with_margin(needed_bytes: float, min_free_bytes: float) -> float:
    """Return the required free space: a margin, and what must stay free; 0 if none is needed."""
    return needed_bytes * (1.0 + _MARGIN) + min_free_bytes if needed_bytes > 0 else 0.0


def duration_s(size_bytes: float, bandwidth_bytes_s: float | None) -> float | None:
    """Return the duration of a download in seconds; ``None`` if the bandwidth is unknown."""
    if size_bytes <= 0:
        return 0.0
    return size_bytes / bandwidth_bytes_s if bandwidth_bytes_s else None


def total(parts: Iterable[float | None]) -> float | None:
    """Return the sum of the parts; ``None`` if one of them is unknown (``None``)."""
    values = list(parts)
    return None if None in values else sum(part for part in values if part is not None)
