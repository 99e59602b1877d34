"""Read and write YOLO label files: lines of ``class_id cx cy w h``, in fractions of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo import boxes as geometry
from oiyolo.core import files
from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.boxes import Boxes

_DECIMALS: Final = 7
_FIELDS: Final = 5
_TOLERANCE: Final = 1e-6
MIN_SIDE: Final = 1e-4
"""A thinner box (a tenth of a pixel in an image of 1,024) has no area that darknet could learn."""


def render(class_ids: Sequence[int] | npt.NDArray[np.int64], xyxy: Boxes) -> str:
    """Return labels as text, after verifying that parsing it yields the same labels.

    Args:
        class_ids: 0-based class of each box.
        xyxy: Boxes inside the image, as fractions of it, shape (n, 4).

    Raises:
        InputFormError: The parsed labels differ: a box is outside the image, or not a number.
    """
    text = "".join(
        f"{class_id} {cx:.{_DECIMALS}f} {cy:.{_DECIMALS}f} {w:.{_DECIMALS}f} {h:.{_DECIMALS}f}\n"
        for class_id, (cx, cy, w, h) in zip(class_ids, geometry.to_cxcywh(xyxy), strict=True)
    )
    parsed_ids, parsed_xyxy = parse(text, where="a label")
    if not (
        np.array_equal(parsed_ids, class_ids)
        and np.allclose(parsed_xyxy, xyxy, rtol=0, atol=_TOLERANCE)
        and (parsed_xyxy >= -_TOLERANCE).all()
        and (parsed_xyxy <= 1 + _TOLERANCE).all()
    ):
        raise InputFormError(
            "boxes cannot be written as labels",
            expected=f"corners from 0 to 1, the same to within {_TOLERANCE:g} when parsed again",
            found=repr(xyxy.tolist()[:3]),
        )
    return text


def parse(text: str, *, where: str) -> tuple[npt.NDArray[np.int64], Boxes]:
    """Parse labels.

    Args:
        text: Content of a label file.
        where: Path of the file, for messages.

    Returns:
        Class ids, shape (n,), and boxes in xyxy order as fractions, shape (n, 4).

    Raises:
        InputFormError: A line is not a label.
    """
    class_ids, rows = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split()
        try:
            if len(fields) != _FIELDS:
                raise ValueError(line)  # noqa: TRY301
            class_ids.append(int(fields[0]))
            rows.append([float(field) for field in fields[1:]])
        except ValueError:
            raise InputFormError(
                "not a YOLO label",
                where=f"{where}:{number}",
                expected="class_id cx cy w h",
                found=repr(line[:80]),
            ) from None
    cxcywh = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return np.array(class_ids, dtype=np.int64), geometry.to_xyxy(cxcywh)


def read(path: Path) -> tuple[npt.NDArray[np.int64], Boxes]:
    """Read a label file, as ``parse`` does."""
    return parse(files.read_text(path), where=str(path))
