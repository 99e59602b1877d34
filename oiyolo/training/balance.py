"""Repeat the images of rare classes in the list that a run is trained on.

This is repeat factor sampling (Gupta, Dollár and Girshick, "LVIS: A Dataset for Large Vocabulary
Instance Segmentation", 2019, section 4.3.2): a class that is in a share f of the images, below a
threshold t, is repeated sqrt(t / f) times, and an image as often as the rarest of its classes.
darknet and the torch engine draw images from the list with replacement, so that an image with two
lines is seen twice as often.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_HASH_BITS: Final = 64


@dataclass(frozen=True)
class ClassBalance:
    """How a class is repeated.

    Attributes:
        factor: How often its images are repeated on average; 1 if it is not rare.
        images: Number of images with the class.
        lines: Number of lines of the list with the class.
    """

    factor: float
    images: int
    lines: int


@dataclass(frozen=True)
class Balance:
    """A balanced list of images.

    Attributes:
        threshold: Share of the images below which a class is rare.
        counts: Number of lines of each image, by id; at least 1.
        classes: The classes by name.
    """

    threshold: float
    counts: Mapping[str, int]
    classes: Mapping[str, ClassBalance]

    @property
    def line_count(self) -> int:
        """Number of lines of the list."""
        return sum(self.counts.values())

    @property
    def repeat_count(self) -> int:
        """Number of lines beyond one for each image."""
        return self.line_count - len(self.counts)

    def repeated(self, ids: Iterable[str]) -> list[str]:
        """Return the ids to add to a list that has each once, in its order."""
        return [image_id for image_id in ids for _ in range(self.counts.get(image_id, 1) - 1)]

    def as_dict(self) -> dict[str, Any]:
        """Return what ``run.json`` holds: lines and shares by class, before and after."""
        return {
            "threshold": self.threshold,
            "images": len(self.counts),
            "lines": self.line_count,
            "classes": {
                name: {
                    "factor": round(row.factor, 4),
                    "images": row.images,
                    "lines": row.lines,
                    "share_before": round(row.images / len(self.counts), 4),
                    "share_after": round(row.lines / self.line_count, 4),
                }
                for name, row in self.classes.items()
            },
        }

    def __str__(self) -> str:
        rare = {name: row for name, row in self.classes.items() if row.factor > 1}
        if not rare:
            return f"repeat no images: every class is in {self.threshold:.1%} of them or more"
        shares = ", ".join(
            f"{name} {row.images / len(self.counts):.1%} to {row.lines / self.line_count:.1%}"
            for name, row in rare.items()
        )
        return (
            f"repeat images of rare classes: {len(self.counts):,} images in {self.line_count:,} "
            f"lines (share of {shares})"
        )


def balance_images(
    image_ids: Sequence[str], classes: Mapping[str, Collection[str]], threshold: float
) -> Balance:
    """Return how often each image is listed.

    The part of a number after the point is rounded up for that part of the images, chosen by a
    hash of their ids: the same image is always rounded the same way.

    Args:
        image_ids: Ids of the images, without repetitions.
        classes: Names of the classes in each image by id; images without boxes may be left out.
        threshold: Share of the images below which a class is rare, from 0 to 1.
    """
    of_image = {image_id: frozenset(classes.get(image_id, ())) for image_id in image_ids}
    images = Counter(name for names in of_image.values() for name in names)
    factors = {
        name: max(1.0, math.sqrt(threshold * len(of_image) / count))
        for name, count in sorted(images.items())
    }
    counts = {
        image_id: _rounded(max((factors[name] for name in names), default=1.0), image_id)
        for image_id, names in of_image.items()
    }
    lines: Counter[str] = Counter()
    for image_id, names in of_image.items():
        for name in names:
            lines[name] += counts[image_id]
    rows = {name: ClassBalance(factors[name], images[name], lines[name]) for name in factors}
    return Balance(threshold, counts, rows)


def _rounded(factor: float, image_id: str) -> int:
    digest = hashlib.sha256(image_id.encode()).digest()
    position = int.from_bytes(digest[: _HASH_BITS // 8], "big") / 2**_HASH_BITS
    return math.floor(factor) + int(position < factor % 1)
