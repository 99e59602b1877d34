"""Lists of images as darknet reads them: one path a line, each with its label beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SHORTEST: Final = 4
"""Darknet's valid loads its first four images without asking whether there are so many
(examples/detector.c, validate_detector)."""


def padded(paths: Sequence[str]) -> list[str]:
    """Repeat the last image until darknet can read the list without falling over its end."""
    missing = _SHORTEST - len(paths)
    return [*paths, *[paths[-1]] * missing] if paths and missing > 0 else list(paths)


def check(paths: Sequence[str], list_path: Path) -> None:
    """Refuse a list that darknet would die of, or train on nothing by.

    Args:
        paths: The images.
        list_path: The list that they stand in, for the message.

    Raises:
        InputFormError: An image or its label is gone; the message has the line.
    """
    for number, path in enumerate(paths, start=1):
        for needed in (path, path.removesuffix(".jpg") + ".txt"):
            if not os.path.isfile(needed):  # noqa: PTH113  (called twice for each image)
                raise InputFormError(
                    "a prepared image or label is gone",
                    where=f"{list_path}:{number}",
                    expected=needed,
                    found="no such file",
                    remedy="Run `oiyolo prepare` and `oiyolo split`",
                )
