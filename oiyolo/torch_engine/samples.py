"""Training images and their labels, and the order in which they are drawn.

Darknet draws every image of a batch independently, with replacement (``get_random_paths`` in
src/data.c: ``rand() % m``), from a generator that is seeded by the clock. Here each random number
is a function of the seed, the position in the stream and its purpose, so that a stream can be
repeated, and continued from any position without the numbers before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo import boxes as geometry
from oiyolo.core import files
from oiyolo.core.errors import InputFormError
from oiyolo.imagery import labels
from oiyolo.imagery.darknet_labels import class_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Positions = npt.NDArray[np.int64]
    Fractions = npt.NDArray[np.float64]

_MAX_EXAMPLES: Final = 3
_REMEDY: Final = "Delete the images and labels named here that exist, then run `oiyolo split`"
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
_MANTISSA_SHIFT: Final = np.uint64(11)
_MANTISSA: Final = 2.0**-53


@dataclass(frozen=True)
class Samples:
    """The images of a list and their labels.

    Attributes:
        paths: Paths of the images, in the order of the list.
        boxes: Centre x, centre y, width, height as fractions, and class of every box, in the order
            of the images, shape (m, 5).
        starts: Rows of image ``i`` in ``boxes`` are ``starts[i]`` to ``starts[i + 1]``, shape
            (n + 1,).
    """

    paths: list[str]
    boxes: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]

    def rows_of(
        self, images: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the boxes of some images, one entry per box.

        Args:
            images: Indices of images, which may repeat, shape (s,).

        Returns:
            Row in ``boxes``, index into ``images``, and number of the box in its image, each of
            shape (k,).
        """
        counts = self.starts[images + 1] - self.starts[images]
        owners = np.repeat(np.arange(len(images)), counts)
        numbers = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.starts[images][owners] + numbers, owners, numbers


def read(list_path: Path, class_count: int, limit: int | None = None) -> Samples:
    """Read a list of images and the label next to each.

    Args:
        list_path: One path per line, relative to the working directory, as darknet reads it.
        class_count: Number of classes of the network.
        limit: Largest number of images, which are spread evenly over the list; ``None`` for all.

    Raises:
        InputFormError: The list is missing or has no image; a label is missing, cannot be parsed,
            has a class that the network does not have, or a box outside its image.
    """
    paths = list(_paths(list_path))
    if limit is not None and limit < len(paths):
        paths = [paths[number * len(paths) // limit] for number in range(limit)]
    found = [_try_label(path, class_count) for path in paths]
    problems = [problem for problem in found if isinstance(problem, str)]
    if problems:
        raise damaged_error(str(list_path), problems)
    boxes = [rows for rows in found if not isinstance(rows, str)]
    return Samples(paths, np.concatenate(boxes), np.cumsum([0, *map(len, boxes)]))


def has_images(list_path: Path) -> bool:
    """Return whether a list exists and has an image."""
    try:
        return bool(files.read_text(list_path).strip())
    except (OSError, UnicodeDecodeError):
        return False


def damaged_error(list_path: str, problems: list[str]) -> InputFormError:
    """Return the error for images or labels that cannot be used.

    Args:
        list_path: The list that contains them.
        problems: What is wrong with each.
    """
    more = len(problems) - _MAX_EXAMPLES
    return InputFormError(
        "prepared images or labels are missing or damaged",
        where=list_path,
        found="; ".join(problems[:_MAX_EXAMPLES]) + (f"; and {more:,} more" * (more > 0)),
        remedy=_REMEDY,
    )


def uniform(seed: int, positions: Positions, slots: npt.NDArray[np.int64] | int) -> Fractions:
    """Return random numbers from 0 to 1 (exclusive) that depend on nothing but the arguments.

    Three rounds of SplitMix64's finalizer (Steele, Lea and Flood, 2014) mix seed, position and
    slot; each combination is a number of its own.

    Args:
        seed: Seed of the stream.
        positions: Positions in the stream.
        slots: Purpose of each number; broadcast with ``positions``.
    """
    with np.errstate(over="ignore"):
        state = _mix(np.uint64(seed & 0xFFFF_FFFF_FFFF_FFFF) + _GOLDEN)
        state = _mix(state ^ (np.asarray(positions).astype(np.uint64) * _GOLDEN))
        state = _mix(state ^ (np.asarray(slots).astype(np.uint64) * _GOLDEN + _GOLDEN))
    return (state >> _MANTISSA_SHIFT).astype(np.float64) * _MANTISSA


def _mix(state: npt.NDArray[np.uint64] | np.uint64) -> npt.NDArray[np.uint64]:
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        state = (state ^ (state >> shift)) * multiplier
    return np.asarray(state ^ (state >> _SHIFTS[-1]))


def _paths(list_path: Path) -> Iterator[str]:
    try:
        lines = files.read_text(list_path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "text that is not UTF-8"
        raise InputFormError(
            "cannot read a list of images", where=str(list_path), found=str(found), remedy=_REMEDY
        ) from None
    paths = [line for line in lines if line.strip()]
    if not paths:
        raise InputFormError(
            "a list without images",
            where=str(list_path),
            expected="one path per line",
            remedy="Run `oiyolo split`, which writes the list again",
        )
    yield from paths


def _try_label(path: str, class_count: int) -> npt.NDArray[np.float32] | str:
    """Return the boxes in the label of an image, or what is wrong with it."""
    try:
        return _read_label(f"{path.rpartition('.')[0]}.txt", class_count)
    except InputFormError as error:
        return str(error).rstrip(".")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        return f"{path!r} has no readable label ({why})"


def _read_label(path: str, class_count: int) -> npt.NDArray[np.float32]:
    """Return the boxes of a label as centre, size and class, shape (n, 5).

    Raises:
        InputFormError: A line is not a label, or its class or box is out of range.
        OSError: The file cannot be read.
    """
    class_ids, xyxy = labels.read(Path(path))
    boxes = np.empty((len(class_ids), 5), np.float32)
    boxes[:, :4] = geometry.to_cxcywh(xyxy)
    boxes[:, 4] = class_ids
    has_class = (class_ids >= 0) & (class_ids < class_count)
    centre, sides = boxes[:, :2], boxes[:, 2:4]
    is_inside = ((centre >= 0) & (centre <= 1) & (sides > 0) & (sides <= 1)).all(axis=1)
    for row in np.flatnonzero(~(has_class & is_inside))[:1]:
        what = (
            "a box outside its image"
            if has_class[row]
            else class_error(class_ids[row], class_count)
        )
        raise InputFormError(what, where=path, found=f"box {row + 1}: {boxes[row, :4].tolist()}")
    return boxes
