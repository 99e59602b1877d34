"""What the latest search for label errors covered and found first: ``data/review/summary.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo.boxes import are_corners
from oiyolo.core import files, records
from oiyolo.core.escaping import one_line
from oiyolo.core.image_ids import is_image_id
from oiyolo.core.results import pluralize
from oiyolo.pages.gallery import KINDS, Item, Overlay

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME: Final = "summary.json"


@dataclass(frozen=True)
class Searched:
    """Some images of a split, and the run whose detector was asked about them.

    Attributes:
        split: The split.
        run: Name of the run.
        images: Number of images.
    """

    split: str
    run: str
    images: int


@dataclass(frozen=True)
class SearchSummary:
    """The content of the file.

    Attributes:
        searched: The images that were searched.
        first: Pictures of the most certain errors; the URLs are names of files.
    """

    searched: Sequence[Searched] = ()
    first: Sequence[Item] = ()


class _Part(TypedDict):
    split: str
    run: str
    images: int


class _Box(TypedDict):
    kind: str
    label: str
    xyxy: list[float]


class _Picture(TypedDict):
    image_id: str
    size_wh: list[int]
    caption: str
    boxes: list[_Box]


class _Content(TypedDict):
    searched: list[_Part]
    first: list[_Picture]


def write(path: Path, summary: SearchSummary) -> None:
    """Write the file."""
    content: _Content = {
        "searched": [
            _Part(split=part.split, run=part.run, images=part.images) for part in summary.searched
        ],
        "first": [
            _Picture(
                image_id=item.image_id,
                size_wh=list(item.size_wh),
                caption=item.caption,
                boxes=[_Box(kind=o.kind, label=o.label, xyxy=list(o.xyxy)) for o in item.overlays],
            )
            for item in summary.first
        ],
    }
    files.write_json(path, content)


def read(path: Path) -> SearchSummary:
    """Return the content of the file; an empty summary if it is missing or damaged."""
    content: Any = records.find_intact(path, _Content)
    if content is None or not all(map(_is_valid, content["first"])):
        return SearchSummary()
    parts = [Searched(part["split"], part["run"], part["images"]) for part in content["searched"]]
    return SearchSummary(parts, [_item(picture) for picture in content["first"]])


def _item(picture: _Picture) -> Item:
    width, height = picture["size_wh"]
    overlays = [
        Overlay(box["kind"], one_line(box["label"]), (x1, y1, x2, y2))
        for box in picture["boxes"]
        for x1, y1, x2, y2 in [box["xyxy"]]
    ]
    name = f"{picture['image_id']}.jpg"
    return Item(picture["image_id"], name, (width, height), one_line(picture["caption"]), overlays)


def _is_valid(picture: _Picture) -> bool:
    """Return whether a picture is as ``write`` wrote it; a stranger could name any file."""
    return (
        is_image_id(picture["image_id"])
        and [side_px > 0 for side_px in picture["size_wh"]] == [True, True]
        and all(box["kind"] in KINDS and are_corners(box["xyxy"]) for box in picture["boxes"])
    )


def describe(parts: Sequence[Searched]) -> list[str]:
    """Return in words which images were searched and who judged them.

    Two detectors judge train, because each judges the half that it was not trained on.
    """
    runs_of: dict[str, list[str]] = {}
    for part in parts:
        runs_of.setdefault(part.split, []).append(part.run)
    splits_of: dict[tuple[str, ...], list[str]] = {}
    for split, names in runs_of.items():
        splits_of.setdefault(tuple(dict.fromkeys(names)), []).append(split)
    sentences = []
    for runs, splits in splits_of.items():
        total = sum(part.images for part in parts if part.split in splits)
        sentences.append(
            f"{pluralize(total, 'image')} of {' and '.join(splits)}, judged by "
            f"{' and '.join(runs)}" + (", each on the half that it has not seen" * (len(runs) > 1))
        )
    return sentences
