"""One page that shows every picture of a dataset, with a sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.core.results import count
from oiyolo.dataset_preview.statistics import class_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oiyolo.dataset_preview.facts import Facts

_TEMPLATE: Final = "index.html.j2"

_BOXES_TOLD: Final = (
    "Do the boxes lie on the objects, closely, and does every object have one? "
    "A negative must not show any."
)
_TOLD: Final = {
    "train": ("Images to train on", _BOXES_TOLD),
    "valid": ("Images to choose weights by", _BOXES_TOLD),
    "test": ("Images that training never sees", _BOXES_TOLD),
    "rotated": (
        "Turned upright",
        (
            "Is up really up, and did the boxes turn with the picture? "
            "Open Images' Rotation is wrong here and there."
        ),
    ),
    "smallest": (
        "The smallest boxes",
        (
            "Could you name the object from these few pixels? What you cannot see, no network "
            "learns: raise images.size, or dataset.min_box_area."
        ),
    ),
    "largest": (
        "The largest boxes",
        (
            "Is it the object, or the whole picture, or a crowd in one box? "
            "dataset.max_box_area, inside and group_of leave such boxes out."
        ),
    ),
    "duplicates": (
        "Suspected duplicates",
        (
            "They are kept in one split. Two different photographs side by side mean that images "
            "are bound together without need; two splits under one pair mean a leak."
        ),
    ),
    "box_sizes": (
        "Box sizes",
        (
            "Boxes below 16 px are hard for any of the networks; a cloud far from the anchors "
            "asks for other anchors or another size."
        ),
    ),
    "aspect_ratios": ("Aspect ratios", "The splits' lines should look alike."),
    "positions": (
        "Positions",
        "Photographers put things into the middle; a spot elsewhere may be one series of pictures.",
    ),
    "boxes_per_image": (
        "Boxes in an image",
        "The splits should look alike. Many images with 50 boxes and more hint at crowds.",
    ),
    "classes": (
        "Classes in the splits",
        (
            "Each class should be cut where the dashed lines are. A class that is missing in a "
            "split is not trained or not measured there."
        ),
    ),
}


class Section(NamedTuple):
    """A heading, a sentence, and pictures under it: name, and whether it comes as SVG as well."""

    name: str
    title: str
    told: str
    pictures: Sequence[str]
    has_svg: bool


def sections(pictures: Iterable[str]) -> list[Section]:
    """Bring pictures into sections.

    Args:
        pictures: Names of files, such as "train.jpg", "rotated-2.jpg" and "classes.png".
    """
    found: dict[str, list[str]] = {}
    for picture in pictures:
        found.setdefault(picture.split(".")[0].split("-")[0], []).append(picture)
    return [
        Section(
            name,
            *told,
            pictures=[picture for picture in found[name] if not picture.endswith(".svg")],
            has_svg=f"{name}.svg" in found[name],
        )
        for name, told in _TOLD.items()
        if name in found
    ]


def render(facts: Facts, pictures: Iterable[str], rotated_more: int) -> str:
    """Write the page.

    Args:
        facts: The dataset.
        pictures: Names of the files beside the page.
        rotated_more: How many rotated images are on no sheet.

    Returns:
        HTML without scripts; the pictures are named by relative addresses.
    """
    import jinja2  # noqa: PLC0415  (slow to import)

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("oiyolo", "dataset_preview"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images, objects = class_numbers(facts)
    return environment.get_template(_TEMPLATE).render(
        sections=sections(pictures),
        splits=facts.splits,
        totals=[len(facts.ids_of[name]) for name in facts.splits],
        classes=[
            (i, facts.class_name(i), images[i].tolist(), objects[i].tolist())
            for i in range(facts.class_count)
        ],
        title=_title(facts.class_names),
        told=f"{count(len(facts.split_by_id), 'image')}, {count(len(facts.labels), 'box')}",
        size_wh=facts.size_wh,
        rotated_more=rotated_more,
    )


def _title(class_names: Sequence[str], most: int = 5) -> str:
    named = ", ".join(class_names[:most])
    more = len(class_names) - most
    return f"{named} and {more:,} more" if more > 0 else named
