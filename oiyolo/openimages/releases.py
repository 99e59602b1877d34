"""The table of Open Images' official files: where each stands, how large it is, its MD5.

Sizes and checksums are those that could be established; an empty one is unknown, not absent.
Releases share most files: v6 and v7 only moved the boxes of train, and v7 gave the class
descriptions a header. The class hierarchy has not changed since 2018.
(https://storage.googleapis.com/openimages/web/download_v7.html)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oiyolo.errors import UsageError

OFFICIAL_BASE_URL: Final = "https://storage.googleapis.com/openimages"
RELEASES: Final = ("v5", "v6", "v7")
SUBSETS: Final = ("train", "validation", "test")


@dataclass(frozen=True)
class OfficialFile:
    """One file of a release.

    Attributes:
        path: Its place below the base URL.
        size_bytes: Its size; 0 where it is not known.
        md5: Its MD5 in hexadecimal; empty where it is not known.
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
    subsets: dict[str, SubsetFiles]


_TRAIN_V5: Final = OfficialFile("v5/train-annotations-bbox.csv")
_TRAIN_V6: Final = OfficialFile(
    "v6/oidv6-train-annotations-bbox.csv", 2_258_447_590, "3c3e70cfaba5757ea5c2604b19cac3b2"
)
_CLASSES_V5: Final = OfficialFile(
    "v5/class-descriptions-boxable.csv", 12_011, "9846fd22fd2e68b45e3f3810a4c2a32a"
)
_CLASSES_V7: Final = OfficialFile("v7/oidv7-class-descriptions-boxable.csv")
_HIERARCHY: Final = OfficialFile("2018_04/bbox_labels_600_hierarchy.json")


def _subsets(train_boxes: OfficialFile) -> dict[str, SubsetFiles]:
    return {
        "train": SubsetFiles(
            train_boxes,
            OfficialFile(
                "2018_04/train/train-images-boxable-with-rotation.csv",
                638_407_721,
                "a4ac0bcedb5c2df4d1b1230dc6b41b8f",
            ),
            OfficialFile(
                "v5/train-annotations-human-imagelabels-boxable.csv",
                376_764_810,
                "f2709ae3f91391549c56d45a4a5ffec6",
            ),
        ),
        "validation": SubsetFiles(
            OfficialFile(
                "v5/validation-annotations-bbox.csv",
                25_105_048,
                "c5e8200df129ea6867e913e8b21fcab9",
            ),
            OfficialFile(
                "2018_04/validation/validation-images-with-rotation.csv",
                15_245_485,
                "643a54e43b0bab8acce8817b4a569780",
            ),
            OfficialFile(
                "v5/validation-annotations-human-imagelabels-boxable.csv",
                10_649_275,
                "2e129f40a209e65dfe4342ed0e7bd5f2",
            ),
        ),
        "test": SubsetFiles(
            OfficialFile(
                "v5/test-annotations-bbox.csv", 77_484_237, "1cc058a7003b4e73d47642276e9b123b"
            ),
            OfficialFile(
                "2018_04/test/test-images-with-rotation.csv",
                45_227_339,
                "d832feb775b3cb78077bf8ae350adce5",
            ),
            OfficialFile(
                "v5/test-annotations-human-imagelabels-boxable.csv",
                32_055_857,
                "207ed0ce2755ad5a689c8eb6eeb039bf",
            ),
        ),
    }


_BY_NAME: Final = {
    "v5": Release(_CLASSES_V5, _HIERARCHY, _subsets(_TRAIN_V5)),
    "v6": Release(_CLASSES_V5, _HIERARCHY, _subsets(_TRAIN_V6)),
    "v7": Release(_CLASSES_V7, _HIERARCHY, _subsets(_TRAIN_V6)),
}


def release(name: str) -> Release:
    """Give a release's files.

    Raises:
        UsageError: There is no such release.
    """
    if name not in _BY_NAME:
        raise UsageError(f"unknown release {name!r}", expected=", ".join(RELEASES))
    return _BY_NAME[name]
