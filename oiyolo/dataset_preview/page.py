"""A page with all contact sheets and charts of a dataset, each with advice on what to look for."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from oiyolo.core.results import pluralize
from oiyolo.dataset_preview.statistics import class_counts
from oiyolo.pages import template
from oiyolo.pages.gallery import filters_of, kinds_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oiyolo.dataset_preview.dataset import PreviewDataset
    from oiyolo.pages.gallery import Item

_TEMPLATE: Final = "index.html.j2"

_CHECK_BOXES: Final = (
    "Does every object have a box, and do the boxes fit tightly? "
    "A negative must not show any object of a class."
)
# Heading and what to look for, by the name of the section's files.
_SECTIONS: Final = {
    "train": ("Training images", _CHECK_BOXES),
    "valid": ("Validation images", _CHECK_BOXES),
    "test": ("Test images", _CHECK_BOXES),
    "rotated": (
        "Rotated images",
        (
            "Are the images upright, and were the boxes rotated with them? "
            "The Rotation column of Open Images is sometimes wrong, and so are EXIF data."
        ),
    ),
    "smallest": (
        "Smallest boxes",
        (
            "Can you recognise the object from so few pixels? If you cannot, a network cannot "
            "learn it either: raise images.size or dataset.min_box_area."
        ),
    ),
    "largest": (
        "Largest boxes",
        (
            "Is it one object, or the whole image, or a group in one box? "
            "dataset.max_box_area, inside and group_of exclude such boxes."
        ),
    ),
    "duplicates": (
        "Suspected duplicates",
        (
            "Duplicates are kept in one split. A pair of different photographs means that images "
            "are grouped unnecessarily; a pair in two splits is a leak."
        ),
    ),
    "box_sizes": (
        "Box sizes",
        (
            "Boxes below 16 px are difficult for all of the networks. If most boxes are far from "
            "the anchors, choose other anchors or another input size."
        ),
    ),
    "aspect_ratios": ("Aspect ratios", "The distributions of all splits should be similar."),
    "positions": (
        "Positions",
        "Most objects are near the centre; a cluster elsewhere may be one series of photographs.",
    ),
    "boxes_per_image": (
        "Boxes per image",
        (
            "The distributions of all splits should be similar. Many images with 50 or more boxes "
            "suggest crowds."
        ),
    ),
    "classes": (
        "Classes by split",
        (
            "Each class should be divided at the dashed lines. A class that is missing from a "
            "split is not trained or not evaluated there."
        ),
    ),
}


def render(
    dataset: PreviewDataset,
    image_files: Iterable[str],
    items: Sequence[Item],
    hidden_rotated: int,
) -> str:
    """Return the page as HTML, with relative URLs of the images.

    Args:
        dataset: The dataset.
        image_files: Names of the files next to the page.
        items: The pictures of its gallery.
        hidden_rotated: Number of rotated images that are on no sheet.
    """
    files_by_section: dict[str, list[str]] = defaultdict(list)
    for file_name in image_files:  # such as "train.jpg", "rotated-2.jpg" and "classes.png"
        files_by_section[file_name.split(".")[0].split("-")[0]].append(file_name)
    images, objects = class_counts(dataset)
    return template.render(
        "oiyolo.dataset_preview",
        _TEMPLATE,
        local_images=True,
        items=items,
        filters=filters_of(items),
        kinds=kinds_of(items),
        sections={name: texts for name, texts in _SECTIONS.items() if name in files_by_section},
        files=files_by_section,
        splits=dataset.splits,
        totals=[len(dataset.ids_by_split[name]) for name in dataset.splits],
        classes=[
            (dataset.class_name(i), i, *_counts(images[i].tolist(), objects[i].tolist()))
            for i in range(dataset.class_count)
        ],
        title=_title(dataset.class_names),
        summary=f"{pluralize(len(dataset.split_by_id), 'image')}, "
        f"{pluralize(len(dataset.labels), 'box')}",
        size_wh=dataset.size_wh,
        hidden_rotated=hidden_rotated,
    )


def _counts(images: Sequence[int], objects: Sequence[int]) -> list[str]:
    """Return the numbers of images and objects of each split, side by side."""
    pairs = zip(images, objects, strict=True)
    return [f"{number:,}" for pair in pairs for number in pair]


def _title(class_names: Sequence[str], limit: int = 5) -> str:
    names = ", ".join(class_names[:limit])
    more = len(class_names) - limit
    return f"{names} and {more:,} more" if more > 0 else names
