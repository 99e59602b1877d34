"""YOLO label files: one ``class_id cx cy w h`` a line, beside the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo import boxes as geometry
from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.boxes import Boxes

_DECIMALS: Final = 7
_FIELDS: Final = 5
_TOLERANCE: Final = 1e-6
SMALLEST_SIDE: Final = 1e-4
"""A thinner box (of 1,024 pixels, a tenth of one) has no area that darknet could learn."""


def render(class_ids: Sequence[int] | npt.NDArray[np.int64], xyxy: Boxes) -> str:
    """Write labels as text.

    Args:
        class_ids: One 0-based class a box.
        xyxy: Boxes as fractions of the written image, inside it, shape (n, 4).
    """
    rows = zip(class_ids, geometry.to_cxcywh(xyxy), strict=True)
    return "".join(
        f"{class_id} {cx:.{_DECIMALS}f} {cy:.{_DECIMALS}f} {w:.{_DECIMALS}f} {h:.{_DECIMALS}f}\n"
        for class_id, (cx, cy, w, h) in rows
    )


def render_checked(class_ids: npt.NDArray[np.int64], xyxy: Boxes) -> str:
    """Write labels as text and read them back.

    Raises:
        InputFormError: What is read is not what was meant: a box outside the image, or no number.
    """
    text = render(class_ids, xyxy)
    back_ids, back = parse(text, where="a label")
    if not (
        np.array_equal(back_ids, class_ids)
        and np.allclose(back, xyxy, rtol=0, atol=_TOLERANCE)
        and (back >= -_TOLERANCE).all()
        and (back <= 1 + _TOLERANCE).all()
    ):
        raise InputFormError(
            "boxes that do not survive being written as a label",
            expected=f"corners from 0 to 1, read back to {_TOLERANCE:g}",
            found=repr(xyxy.tolist()[:3]),
        )
    return text


def parse(text: str, *, where: str) -> tuple[npt.NDArray[np.int64], Boxes]:
    """Read labels from text: class ids, shape (n,), and boxes in xyxy order, shape (n, 4).

    Raises:
        InputFormError: A line is no label.
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
                "this is no YOLO label",
                where=f"{where}:{number}",
                expected="class_id cx cy w h",
                found=repr(line[:80]),
            ) from None
    cxcywh = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return np.array(class_ids, dtype=np.int64), geometry.to_xyxy(cxcywh)


def read(path: Path) -> tuple[npt.NDArray[np.int64], Boxes]:
    """Read a label file; see ``parse``."""
    return parse(path.read_text(encoding="utf-8"), where=str(path))
