"""A small dataset whose titles and authors were written by somebody with bad intentions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from oiyolo.project.config import as_dict
from oiyolo.project.keys import DatasetOptions, SplitOptions
from oiyolo.provenance.dataset import Dataset

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CC_BY = "https://creativecommons.org/licenses/by/2.0/"
OFFICIAL = "https://storage.googleapis.com/openimages/v6/oidv6-train-annotations-bbox.csv"
IDS = [f"{number:016x}" for number in range(0xA0, 0xA4)]
TITLES = ["Harbour, &quot;early&quot; | morning", '=cmd|" /C calc"!A0\n<script>', "[x](evil)", ""]
AUTHORS = ["O&#x27;Neil", "1. @mallory\u202e & **co**", "1. @mallory\u202e & **co**", "-1+2"]
PROFILES = ["https://www.flickr.com/people/a/", "javascript:alert(1)", "javascript:alert(1)", ""]
PAGES = [
    *("https://www.flickr.com/photos/a/1", "https://www.flickr.com/photos/b/2 3)(", "", "data:,x"),
]
SOURCES = ["mirror", "gs://secret/x", "/home/me", ""]
SPLITS = ["train", "train", "valid", "test"]


def write_lists(folder: Path) -> None:
    """Write the files of ``data/dataset`` whose checksums the metadata has."""
    names = "".join(f"{image_id},{split}\n" for image_id, split in zip(IDS, SPLITS, strict=True))
    (folder / "split.csv").write_text(f"ImageID,split\n{names}", encoding="utf-8")
    boxes().to_csv(folder / "boxes.csv", index=False)
    (folder / "obj.names").write_text("Boat\n", encoding="utf-8")


def boxes() -> pd.DataFrame:
    """Return three labels, and a group that is not one."""
    rows = [(IDS[0], True, "", 0), (IDS[0], False, "masked", 1), (IDS[1], True, "", 0)]
    rows.append((IDS[2], True, "", 0))
    table = pd.DataFrame(rows, columns=["ImageID", "used", "dropped_because", "IsGroupOf"])
    corners = {"XMin": 0.1, "YMin": 0.2, "XMax": 0.3, "YMax": 0.4}
    return pd.DataFrame({**table, **corners, "class": "Boat", "class_id": 0})


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Return a function that makes the dataset, with some of its attributes replaced."""
    write_lists(tmp_path)
    images = pd.DataFrame(
        {
            "ImageID": IDS,
            "Title": TITLES,
            "Author": AUTHORS,
            "AuthorProfileURL": PROFILES,
            "OriginalLandingURL": PAGES,
            "OriginalURL": "",
            "License": [*[CC_BY] * 3, ""],
            "Rotation": [0.0, 90.0, None, 0.0],
            "present": ["Boat", "Boat", "", ""],
            "absent": ["", "", "", "Boat"],
        }
    )

    def make(**changes: Any) -> Dataset:
        values: dict[str, Any] = {
            "folder": tmp_path,
            "selected": images,
            "split_by_id": dict(zip(IDS, SPLITS, strict=True)),
            "boxes": boxes(),
            "summary": {
                "classes": {"Boat": {"images": 3, "boxes": 3}},
                "labels": {"Boat": ["/m/019jd", "/m/0ph39"]},
                "folded_in": {"Boat": {"Canoe": 1}},
                "excluded": {"beyond the limit": 7},
            },
            "options": {**as_dict(DatasetOptions()), "group_of": "mask", "limit": 4},
            "release": "v7",
            "tables": {OFFICIAL: "0" * 32},
            "size_wh": (64, 48),
            "fit": "letterbox",
            "fetched_from": dict(zip(IDS, SOURCES, strict=True)),
            "fetched_size_wh": dict.fromkeys(IDS, (640, 480)),
            "size_bytes": 12_000,
            "split_options": SplitOptions(),
            "group_by_id": dict(zip(IDS, [IDS[0], *IDS[:1], *IDS[2:]], strict=True)),
            "not_used": {"withdrawn": 2},
            "selected_at": ("2026-11-01", "2026-11-02"),
            "fetched_at": ("2026-11-02", "2026-11-02"),
            "version": "0.0",
        }
        return Dataset(**{**values, **changes})

    return make
