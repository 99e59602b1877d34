"""Darknet's image lists: one path per line, each with its label file next to the image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIN_IMAGES: Final = 4
"""``darknet detector valid`` loads four images at once without checking that the list has four
(examples/detector.c, validate_detector)."""


def pad(paths: Sequence[str]) -> list[str]:
    """Return the list with its last image repeated until darknet can read it without crashing."""
    missing = MIN_IMAGES - len(paths)
    return [*paths, *[paths[-1]] * missing] if paths and missing > 0 else list(paths)


def check(paths: Sequence[str], list_path: Path) -> None:
    """Check that every image of a list and its label exist.

    Args:
        paths: The images.
        list_path: The list file that contains them, for the message.

    Raises:
        InputFormError: An image or its label is missing; the message names the line.
    """
    for number, path in enumerate(paths, start=1):
        for required_path in (path, path.removesuffix(".jpg") + ".txt"):
            if not os.path.isfile(required_path):  # noqa: PTH113  (called twice for each image)
                raise InputFormError(
                    "a prepared image or label is missing",
                    where=f"{list_path}:{number}",
                    expected=required_path,
                    found="no such file",
                    remedy="Run `oiyolo prepare` and `oiyolo split`",
                )
