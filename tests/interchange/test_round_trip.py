"""What is exported and imported again: the same boxes, attributes, splits and bytes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.interchange import coco_writer, openimages_writer, voc_writer, yolo_writer
from oiyolo.interchange.imported import ImportedImage, ReadOptions
from oiyolo.interchange.readers import READERS
from tests.support.exported_images import CLASSES, dataset_of, exported_images

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.interchange.exported import ExportedImage, Writer

HALF_A_PIXEL = 0.5 / 60


@dataclass(frozen=True)
class Form:
    """What a format keeps.

    Attributes:
        name: Its name as one to import from.
        write: The function that writes it.
        flags: Attributes that it has a place for.
        ignored: Attributes with which it marks boxes that are not labels.
        tolerance: Largest difference of an edge, as a fraction.
    """

    name: str
    write: Writer
    flags: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    tolerance: float = 1e-6


FORMS = (
    Form(
        "coco",
        coco_writer.write,
        ("occluded", "truncated", "group_of", "difficult", "depiction", "inside"),
        ("group_of", "difficult"),
    ),
    Form(
        "voc",
        voc_writer.write,
        ("occluded", "truncated", "difficult"),
        ("difficult",),
        2 * HALF_A_PIXEL,  # one box is thinner than two pixels
    ),
    Form("yolo", yolo_writer.write),
    Form(
        "openimages",
        openimages_writer.write,
        ("occluded", "truncated", "group_of", "depiction", "inside"),
        ("group_of",),
    ),
)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_an_exported_dataset_is_imported_without_loss(tmp_path: Path, form: Form) -> None:
    images = exported_images()
    if form.name == "openimages":
        images = [
            dataclasses.replace(image, suffix=".jpg", rotation=90)
            for image in images
            if image.boxes  # its tables of boxes do not list negatives
        ]
    form.write(iter(images), tmp_path, dataset_of(images))
    items = list(READERS[form.name](tmp_path, ReadOptions()).read())
    found = {item.path.stem: item for item in items if isinstance(item, ImportedImage)}
    assert len(found) == len(items) == len(images)  # no problems
    for image in images:
        check_image(image, found[image.image_id], form)


def check_image(image: ExportedImage, found: ImportedImage, form: Form) -> None:
    assert found.path.read_bytes() == image.content
    assert (found.size_wh, found.rotation) == (image.size_wh, image.rotation)
    assert found.split == image.split
    boxes = [
        box
        for box in image.boxes
        if box.is_label or any(getattr(box, name) == 1 for name in form.ignored)
    ]
    expected = np.array([box.xyxy for box in boxes]).reshape(-1, 4)
    xyxy = np.array([box.xyxy for box in found.boxes]).reshape(-1, 4)
    np.testing.assert_allclose(xyxy, expected, rtol=0, atol=form.tolerance)
    for box, again in zip(boxes, found.boxes, strict=True):
        assert again.class_name == CLASSES[box.class_id]
        for name in form.flags:
            before, after = getattr(box, name), getattr(again, name)
            # VOC and COCO have no "unknown" for what they always state.
            assert after == before or (before, after) == (-1, 0), name
