"""A few drawn images with boxes, as the writers of other formats receive them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from oiyolo.interchange.exported import ExportedBox, ExportedDataset, ExportedImage, SplitSize

CLASSES = ("Boat", 'Cat & "dog"')
MIDS = ("/m/019jd", "/m/01yrx")
A_BOX = ExportedBox(
    0, (0.125, 0.25, 0.5, 0.75), occluded=1, truncated=0, group_of=0, source="xclick"
)
A_SMALL_BOX = ExportedBox(1, (0.3333333, 0.1, 0.3444444, 0.9))
A_DIFFICULT_BOX = ExportedBox(1, (0.0, 0.0, 1.0, 1.0), is_label=False, difficult=1)
A_GROUP = ExportedBox(0, (0.6, 0.6, 0.9, 0.9), is_label=False, group_of=1)


def png(size_wh: tuple[int, int], seed: int = 0) -> bytes:
    """Return a PNG with random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size_wh[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def exported_images() -> list[ExportedImage]:
    """Return two images to train on, of which one is a negative, and one for each other split."""

    def image(number: int, split: str, *boxes: ExportedBox) -> ExportedImage:
        size_wh = (90 + number, 60)
        return ExportedImage(
            image_id=f"{number:016x}",
            suffix=".png",
            content=png(size_wh, number),
            size_wh=size_wh,
            split=split,
            boxes=boxes,
            present=(0,),
            absent=(1,),
            facts={"Author": 'Ann "A"', "License": "https://example.org/by"},
        )

    return [
        image(1, "train", A_BOX, A_SMALL_BOX),
        image(2, "train"),
        image(3, "valid", A_DIFFICULT_BOX, A_GROUP),
        image(4, "test", A_BOX),
    ]


def dataset_of(images: list[ExportedImage]) -> ExportedDataset:
    """Return what is known about the images before they are read."""
    of_split = {
        split: [image for image in images if image.split == split]
        for split in ("train", "valid", "test")
    }
    return ExportedDataset(
        class_names=CLASSES,
        label_names=MIDS,
        splits={
            split: SplitSize(len(own), sum(len(image.content) for image in own))
            for split, own in of_split.items()
            if own
        },
        max_boxes=2,
    )
