"""The formats of labelled images that can be imported, and the reader of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.interchange.read_coco import CocoReader
from oiyolo.interchange.read_openimages import OpenImagesReader
from oiyolo.interchange.read_voc import VocReader
from oiyolo.interchange.read_yolo import YoloReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oiyolo.interchange.imported import Reader, ReadOptions

READERS: Final[Mapping[str, Callable[[Path, ReadOptions], Reader]]] = {
    "voc": VocReader,
    "yolo": YoloReader,
    "coco": CocoReader,
    "openimages": OpenImagesReader,
}
"""Functions that return the reader of a folder; they raise UsageError if it is not one, and
InputFormError if it has nothing of the format."""
