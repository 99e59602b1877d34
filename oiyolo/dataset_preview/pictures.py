"""A sample of a dataset's images for the gallery of its page, with their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.boxes import corners
from oiyolo.core.results import pluralize
from oiyolo.dataset_preview.contact_sheets import shown_size_wh
from oiyolo.dataset_preview.sampling import random_ids
from oiyolo.dataset_preview.statistics import SIZES
from oiyolo.pages.gallery import Item, Overlay, drawn_size_wh

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.dataset_preview.dataset import PreviewDataset
    from oiyolo.dataset_preview.sampling import Sample

_PER_SPLIT: Final = 80


def gallery_items(dataset: PreviewDataset, sample: Sample, images_url: str) -> list[Item]:
    """Return a random sample of each split, and all images of the contact sheets.

    Args:
        dataset: The dataset.
        sample: What is on the contact sheets.
        images_url: URL of the folder of the prepared images, relative to the page.
    """
    chosen = dict.fromkeys(
        image_id
        for split in dataset.splits
        for image_id in random_ids(dataset.ids_by_split[split], _PER_SPLIT)
    )
    ids = [*chosen, *sorted(sample.image_ids(dataset) - chosen.keys())]
    duplicates = {i for pair in sample.duplicates for i in (pair.first, pair.second)}
    rows_by_id = {i: rows.tolist() for i, rows in dataset.rows_by_id(ids).items()}
    return [
        _item(dataset, i, rows_by_id.get(i, ()), images_url, is_duplicate=i in duplicates)
        for i in ids
        if i in dataset.split_by_id
    ]


def _item(
    dataset: PreviewDataset,
    image_id: str,
    rows: Sequence[int],
    images_url: str,
    *,
    is_duplicate: bool,
) -> Item:
    used = [row for row in rows if dataset.used[row]]
    class_ids = dataset.boxes["class_id"].to_numpy()
    names = [dataset.class_name(int(class_ids[row])) for row in used]
    overlays = [
        Overlay("label", name if dataset.class_count > 1 else "", corners(dataset.xyxy[row]))
        for row, name in zip(used, names, strict=True)
    ]
    notes = {
        "suspected duplicate": is_duplicate,
        "rotated": bool(dataset.rotation_by_id.get(image_id)),
        "without labels": not used,
    }
    tags = {
        "split": [dataset.split_by_id[image_id]],
        "class": list(dict.fromkeys(names)),
        "size": _sizes(dataset, used),
        "note": [note for note, applies in notes.items() if applies],
    }
    counted = f"{pluralize(len(used), 'label')}, {dataset.split_by_id[image_id]}"
    return Item(
        image_id,
        f"{images_url}/{image_id}.jpg",
        drawn_size_wh(shown_size_wh(dataset, image_id)),
        counted,
        overlays,
        tags,
    )


def _sizes(dataset: PreviewDataset, rows: Sequence[int]) -> list[str]:
    """Return the sizes of some labels in the network's input, the smallest first."""
    width, height = dataset.size_wh
    found = set()
    for row in rows:
        x1, y1, x2, y2 = corners(dataset.xyxy[row])
        side_px = ((x2 - x1) * width * (y2 - y1) * height) ** 0.5
        found.add(next(name for limit, name in reversed(SIZES) if side_px >= limit))
    return [name for _, name in SIZES if name in found]
