"""Pictures of a gallery, which pages show small, open at a larger size, filter and search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS: Final = {
    "tp": "true positive",
    "fp": "false positive",
    "fn": "false negative",
    "truth": "ground truth",
    "region": "region",
    "label": "label",
    "old": "box in question",
    "new": "suggested box",
}
"""Names of the kinds of boxes, each of which has a colour and a line style in ``page.css``."""


_DRAWN_PX: Final = 640
"""Longer side of a picture in a drawing of its boxes, which scales with the page."""


@dataclass(frozen=True)
class Overlay:
    """A box that is drawn over a picture.

    Attributes:
        kind: One of ``KINDS``.
        label: Its text, such as "Boat 0.91"; may be empty.
        xyxy: Left, top, right and bottom, as fractions of the picture.
    """

    kind: str
    label: str
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageCredit:
    """Whom a picture is from.

    Attributes:
        author: Name of the author; may be empty.
        licence: Name of the licence; may be empty.
        licence_url: Its URL; may be empty.
        page_url: URL of the page that shows the original; may be empty.
    """

    author: str = ""
    licence: str = ""
    licence_url: str = ""
    page_url: str = ""


@dataclass(frozen=True)
class Item:
    """A picture of a gallery.

    Attributes:
        image_id: Its id.
        url: Its URL: ``data:``, or relative to the page.
        size_wh: Width and height in which it is drawn; its file may have another aspect.
        caption: What is to be seen, in a few words.
        overlays: Boxes that are drawn over it.
        tags: What it can be filtered by: values by the name of a filter.
        credit: Whom it is from.
        history: What happened to it, line by line.
    """

    image_id: str
    url: str
    size_wh: tuple[int, int]
    caption: str
    overlays: Sequence[Overlay] = ()
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    credit: ImageCredit = ImageCredit()
    history: Sequence[str] = ()

    @property
    def tag_list(self) -> list[str]:
        """Its tags as the page's script compares them."""
        return [f"{name}:{value}" for name, values in self.tags.items() for value in values]

    @property
    def alt(self) -> str:
        """What the picture shows, for people who do not see it."""
        labels = [f"{KINDS[o.kind]} {o.label}".strip() for o in self.overlays if o.kind != "truth"]
        return f"{self.image_id}: {self.caption}" + (f" ({', '.join(labels)})" if labels else "")


def drawn_size_wh(size_wh: tuple[int, int]) -> tuple[int, int]:
    """Return a width and height in which to draw a picture of this aspect."""
    width, height = (max(1, round(side * _DRAWN_PX / max(size_wh))) for side in size_wh)
    return width, height


def filters_of(items: Sequence[Item]) -> dict[str, list[str]]:
    """Return the values of each filter in order of appearance, without filters of one value."""
    values: dict[str, dict[str, None]] = {}
    for item in items:
        for name, own in item.tags.items():
            values.setdefault(name, {}).update(dict.fromkeys(own))
    return {name: list(own) for name, own in values.items() if len(own) > 1}


def kinds_of(items: Sequence[Item]) -> dict[str, str]:
    """Return the kinds of boxes that any of the items has, with their names."""
    used = {overlay.kind for item in items for overlay in item.overlays}
    return {kind: name for kind, name in KINDS.items() if kind in used}
