"""Read the detections that ``darknet detector valid`` writes.

One file per class, ``<folder>/<prefix><class>.txt``, one detection per line::

    <image> <score> <left> <top> <right> <bottom>

in pixels of the image that darknet read. All three forks of darknet use this format:
``print_detector_detections``, examples/detector.c:191 in pjreddie/darknet (f6afaabc),
src/detector.c:499 in AlexeyAB/darknet (59596d78).
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.core.errors import DarknetError, InputFormError
from oiyolo.evaluation.tables import Detections

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.boxes import Boxes
    from oiyolo.evaluation.tables import Flags, Floats

_LINE_FORMAT = "image, score, left, top, right, bottom"
_NUMBERS_PER_LINE = 5
_WINDOWS_NAN = "nan(ind)"


def read_detections(
    folder: Path,
    *,
    class_count: int,
    prefix: str,
    image_sizes_wh: Mapping[str, tuple[int, int]],
) -> Detections:
    """Read the detection files of all classes.

    Darknet names the files after the classes, and a class name may contain a slash: run it with a
    names file whose lines are 0, 1, 2 ... It cuts an image's name at the first full stop; the ids
    of ``image_sizes_wh`` are matched accordingly.

    Args:
        folder: The ``results`` folder of the ``.data`` file.
        class_count: Number of classes, and of files.
        prefix: The value of ``-out``; the files are ``<prefix>0.txt``, ``<prefix>1.txt`` ...
        image_sizes_wh: Width and height in pixels of every image in darknet's list, by id: the
            file name without folder and extension.

    Returns:
        The detections as fractions of the image, for all images of ``image_sizes_wh``. Repeated
        detections are kept once (a list shorter than darknet's four loading threads is padded by
        repeating an image), and detections with a NaN or an infinity are dropped.

    Raises:
        DarknetError: The file of a class is missing.
        InputFormError: A line does not have this format, or names an image that was not in the
            list.
    """
    import pandas as pd  # noqa: PLC0415  (slow to import)

    image_ids = tuple(image_sizes_wh)
    index_by_name = _index_by_printed_name(image_ids)
    numbers = array("d")
    for class_id in range(class_count):
        for image, values in _read_class(folder / f"{prefix}{class_id}.txt", index_by_name):
            numbers.extend((class_id, image, *values))
    table = np.array(numbers).reshape(-1, 2 + _NUMBERS_PER_LINE)
    table = table[np.isfinite(table).all(axis=1)]
    table = table[~pd.DataFrame(table).duplicated().to_numpy(dtype=bool)]
    image = table[:, 1].astype(np.int64)
    sizes_wh = np.array([*image_sizes_wh.values()], dtype=np.float64).reshape(-1, 2)[image]
    return Detections(
        image_ids=image_ids,
        image=image,
        class_id=table[:, 0].astype(np.int64),
        score=table[:, 2],
        xyxy=to_fractions(table[:, 3:], sizes_wh),
    )


def to_fractions(printed_xyxy: Floats, sizes_wh: Floats) -> Boxes:
    """Convert printed boxes to fractions of the image.

    Before it prints a box, darknet adds 1 to all four sides, as PASCAL VOC counts pixels from 1,
    then clips left and top to at least 1, and right and bottom to the image's width and height. A
    printed right side that equals the width can therefore stand for any value from ``width - 1``
    on. It is read as the image's edge, where boxes that exceed the image are clipped.

    Args:
        printed_xyxy: Boxes as printed, shape (n, 4), pixels counted from 1.
        sizes_wh: Width and height of each box's image in pixels, shape (n, 2).

    Returns:
        Boxes, shape (n, 4), fractions of the image. A box outside the image has no area.
    """
    low = np.clip((printed_xyxy[:, :2] - 1) / sizes_wh, 0.0, 1.0)
    at_the_edge: Flags = printed_xyxy[:, 2:] >= sizes_wh
    high = np.where(at_the_edge, 1.0, np.clip((printed_xyxy[:, 2:] - 1) / sizes_wh, 0.0, 1.0))
    return np.concatenate((low, np.maximum(low, high)), axis=1)


def _index_by_printed_name(image_ids: Iterable[str]) -> dict[str, int]:
    """Map the names that darknet prints (``basecfg``, src/utils.c) to positions in ``image_ids``.

    Raises:
        InputFormError: Two images have the same name up to the first full stop.
    """
    id_by_name: dict[str, str] = {}
    for image_id in image_ids:
        other_id = id_by_name.setdefault(image_id.split(".", 1)[0], image_id)
        if other_id != image_id:
            raise InputFormError(
                f"darknet prints the same name for the images {other_id!r} and {image_id!r}",
                expected="names that differ before the first full stop",
                remedy="Rename one of them",
            )
    return {name: index for index, name in enumerate(id_by_name)}


def _read_class(
    path: Path, index_by_name: Mapping[str, int]
) -> Iterator[tuple[int, Sequence[float]]]:
    """Yield position of the image, and score, left, top, right and bottom, of each line.

    Raises:
        DarknetError: The file is missing.
        InputFormError: A line does not have the expected format, or its image is not in the list.
    """
    try:
        # Separated by "\n" alone: names may contain other characters that end a line.
        file = path.open(encoding="utf-8", errors="surrogateescape", newline="\n")
    except FileNotFoundError:
        raise DarknetError(
            "darknet detector valid wrote no file for a class",
            where=str(path),
            remedy="Check darknet's output: it may have failed although it returned 0",
        ) from None
    with file:
        for number, line in enumerate(file, start=1):
            name, *words = line.rsplit(" ", _NUMBERS_PER_LINE)
            if _WINDOWS_NAN in line:
                words = [word.replace(_WINDOWS_NAN, "nan") for word in words]
            try:
                values = [float(word) for word in words]
            except ValueError:
                values = []
            if len(values) != _NUMBERS_PER_LINE or line[-1] != "\n":
                raise _malformed(line, f"{path}:{number}")
            if name not in index_by_name:
                raise InputFormError(
                    "a detection on an image that is not in darknet's list",
                    where=f"{path}:{number}",
                    expected=f"one of {len(index_by_name)} images",
                    found=repr(name),
                    remedy="Run darknet with an empty results folder",
                )
            yield index_by_name[name], values


def _malformed(line: str, where: str) -> InputFormError:
    text = line.rstrip("\r\n")
    if line.endswith("\n"):
        message, remedy = "a malformed line in darknet's detections", "Run"
    else:
        message = "darknet's detections end in the middle of a line"
        remedy = "Darknet was interrupted, or the disk is full; run"
    return InputFormError(
        message,
        where=where,
        expected=_LINE_FORMAT,
        found=repr(text[:80]),
        remedy=f"{remedy} `oiyolo evaluate` again",
    )
