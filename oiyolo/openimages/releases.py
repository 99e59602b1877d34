"""Paths, sizes and MD5 checksums of Open Images' official files, by release.

A file whose size is 0 or whose checksum is empty exists, but that value is unknown. Releases share
most files. v5 added boxes in validation and test, verified more labels and renamed 17 classes, but
kept v4's train boxes and all image lists. v6 and v7 only moved the train boxes, and v7 added a
header to the class descriptions. The hierarchy has not changed since 2018.

- https://storage.googleapis.com/openimages/web/download_v7.html
- Sizes and MD5 of v5 and v6: https://github.com/datasets-mila/datasets--open_images (in the names
  of its annexed files)
- Sizes of v4: https://github.com/tensorflow/datasets, open_images_v4/checksums.tsv
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OFFICIAL_BASE_URL: Final = "https://storage.googleapis.com/openimages"
RELEASES: Final = ("v4", "v5", "v6", "v7")
SUBSETS: Final = ("train", "validation", "test")
TABLES: Final = ("boxes", "images", "labels")
SPLIT_OF_SUBSET: Final = {"train": "train", "validation": "valid", "test": "test"}
"""Split of each subset's images in a dataset that keeps the official subsets."""


def check_subsets(names: Iterable[str], *, where: str, remedy: str) -> None:
    """Raise InputFormError if a subset that was read from a file, for URLs, is not one of them."""
    if unknown := [name for name in names if name not in SUBSETS]:
        raise InputFormError(
            "invalid Subset",
            where=where,
            expected=", ".join(SUBSETS),
            found=ascii(unknown[0])[:60],
            remedy=remedy,
        )


@dataclass(frozen=True)
class OfficialFile:
    """One file of a release.

    Attributes:
        path: Path relative to the base URL.
        size_bytes: Size in bytes; 0 if unknown.
        md5: MD5 in hexadecimal; empty if unknown.
    """

    path: str
    size_bytes: int = 0
    md5: str = ""


@dataclass(frozen=True)
class SubsetFiles:
    """The three tables of one subset."""

    boxes: OfficialFile
    images: OfficialFile
    labels: OfficialFile


@dataclass(frozen=True)
class Release:
    """The files of one release."""

    classes: OfficialFile
    hierarchy: OfficialFile
    subsets: Mapping[str, SubsetFiles]

    def files(self, subsets: Iterable[str] = SUBSETS) -> tuple[OfficialFile, ...]:
        """Return all files that a selection from these subsets needs, small files first."""
        tables = [getattr(self.subsets[subset], table) for subset in subsets for table in TABLES]
        return (self.classes, self.hierarchy, *tables)


_HIERARCHY: Final = OfficialFile("2018_04/bbox_labels_600_hierarchy.json")

_CLASSES_V4: Final = OfficialFile("2018_04/class-descriptions-boxable.csv")
_CLASSES_V5: Final = OfficialFile(
    "v5/class-descriptions-boxable.csv", 12_011, "9846fd22fd2e68b45e3f3810a4c2a32a"
)
_CLASSES_V7: Final = OfficialFile("v7/oidv7-class-descriptions-boxable.csv")

_IMAGES: Final = {
    "train": OfficialFile(
        "2018_04/train/train-images-boxable-with-rotation.csv",
        638_407_721,
        "a4ac0bcedb5c2df4d1b1230dc6b41b8f",
    ),
    "validation": OfficialFile(
        "2018_04/validation/validation-images-with-rotation.csv",
        15_245_485,
        "643a54e43b0bab8acce8817b4a569780",
    ),
    "test": OfficialFile(
        "2018_04/test/test-images-with-rotation.csv",
        45_227_339,
        "d832feb775b3cb78077bf8ae350adce5",
    ),
}
_LABELS_V4: Final = {
    subset: OfficialFile(f"2018_04/{subset}/{subset}-annotations-human-imagelabels-boxable.csv")
    for subset in SUBSETS
}
_LABELS_V5: Final = {
    "train": OfficialFile(
        "v5/train-annotations-human-imagelabels-boxable.csv",
        376_764_810,
        "f2709ae3f91391549c56d45a4a5ffec6",
    ),
    "validation": OfficialFile(
        "v5/validation-annotations-human-imagelabels-boxable.csv",
        10_649_275,
        "2e129f40a209e65dfe4342ed0e7bd5f2",
    ),
    "test": OfficialFile(
        "v5/test-annotations-human-imagelabels-boxable.csv",
        32_055_857,
        "207ed0ce2755ad5a689c8eb6eeb039bf",
    ),
}
_BOXES_V4: Final = {
    "train": OfficialFile("2018_04/train/train-annotations-bbox.csv", 1_194_033_454),
    "validation": OfficialFile("2018_04/validation/validation-annotations-bbox.csv", 17_074_036),
    "test": OfficialFile("2018_04/test/test-annotations-bbox.csv", 52_174_204),
}
_BOXES_V5: Final = {
    "train": _BOXES_V4["train"],
    "validation": OfficialFile(
        "v5/validation-annotations-bbox.csv", 25_105_048, "c5e8200df129ea6867e913e8b21fcab9"
    ),
    "test": OfficialFile(
        "v5/test-annotations-bbox.csv", 77_484_237, "1cc058a7003b4e73d47642276e9b123b"
    ),
}
_BOXES_V6: Final = {
    **_BOXES_V5,
    "train": OfficialFile(
        "v6/oidv6-train-annotations-bbox.csv",
        2_258_447_590,
        "3c3e70cfaba5757ea5c2604b19cac3b2",
    ),
}


def _release(
    classes: OfficialFile, boxes: Mapping[str, OfficialFile], labels: Mapping[str, OfficialFile]
) -> Release:
    subsets = {name: SubsetFiles(boxes[name], _IMAGES[name], labels[name]) for name in SUBSETS}
    return Release(classes, _HIERARCHY, subsets)


_BY_NAME: Final = {
    "v4": _release(_CLASSES_V4, _BOXES_V4, _LABELS_V4),
    "v5": _release(_CLASSES_V5, _BOXES_V5, _LABELS_V5),
    "v6": _release(_CLASSES_V5, _BOXES_V6, _LABELS_V5),
    "v7": _release(_CLASSES_V7, _BOXES_V6, _LABELS_V5),
}


def release(name: str) -> Release:
    """Return the files of a release.

    Raises:
        UsageError: The release does not exist.
    """
    if name not in _BY_NAME:
        raise UsageError(f"unknown release {name!r}", expected=", ".join(RELEASES))
    return _BY_NAME[name]
