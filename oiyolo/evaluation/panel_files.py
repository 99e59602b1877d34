"""The images of panels for pages: ``panels.json``, and each image without its boxes.

A page draws the boxes itself, so that they stay sharp and can be hidden, and needs only the folder.
"""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo.boxes import are_corners
from oiyolo.core import files, records
from oiyolo.evaluation.panels import choose_overview

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from PIL import Image

    from oiyolo.evaluation.panels import ImageResult, LabelledBoxes, Panel, Pictures

NAME: Final = "panels.json"
FOLDER: Final = "images"
_MAX_IMAGES: Final = 150
_MAX_BYTES: Final = 4_500_000
"""In all, so that a report with all of them stays below 10 MB."""
_MAX_SIDE_PX: Final = 640
_QUALITY: Final = 80
_DECIMALS: Final = 5
_KINDS: Final = {
    "matched": "truth",
    "regions": "region",
    "true_positives": "tp",
    "false_positives": "fp",
    "false_negatives": "fn",
}
"""The kinds of boxes by the attribute of an ``ImageResult`` that holds them."""


class PanelBox(TypedDict):
    """A box of an image in ``panels.json``.

    Attributes:
        kind: "truth", "region", "tp", "fp" or "fn".
        label: Its label; "" for none.
        xyxy: Its corners, fractions of the image.
    """

    kind: str
    label: str
    xyxy: list[float]


class PanelImage(TypedDict):
    """An image in ``panels.json``.

    Attributes:
        file: Its path, relative to the folder of the panels.
        size_wh: Width and height in pixels.
        split: Its split.
        caption: Its true and false positives and false negatives, in words.
        classes: Names of the classes of its true boxes.
        sizes: The sizes of its true boxes.
        attributes: The attributes of its true boxes.
        boxes: Its boxes.
    """

    file: str
    size_wh: list[int]
    split: str
    caption: str
    classes: list[str]
    sizes: list[str]
    attributes: list[str]
    boxes: list[PanelBox]


class PanelEntry(TypedDict):
    """A panel in ``panels.json``.

    Attributes:
        name: Its name.
        title: What its images have in common.
        images: Their ids.
    """

    name: str
    title: str
    images: list[str]


class PanelsContent(TypedDict):
    """The content of ``panels.json``.

    Attributes:
        images: The images by id, those with the most errors first.
        panels: The panels.
    """

    images: dict[str, PanelImage]
    panels: list[PanelEntry]


def find(folder: Path) -> PanelsContent | None:
    """Return the content of ``panels.json``; ``None`` if it is missing or damaged."""
    content: Any = records.find_intact(folder / NAME, PanelsContent)
    if content is None or not all(
        _is_valid(folder, image_id, image) for image_id, image in content["images"].items()
    ):
        return None
    if any(set(panel["images"]) - content["images"].keys() for panel in content["panels"]):
        return None
    found: PanelsContent = content
    return found


def _is_valid(folder: Path, image_id: str, image: PanelImage) -> bool:
    """Return whether an image is as ``save`` wrote it; a stranger could name any file."""
    if image["file"] != f"{FOLDER}/{image_id}.jpg":
        return False
    kinds, path = set(_KINDS.values()), folder / image["file"]
    is_file = "/" not in image_id and path.is_file() and not path.is_symlink()
    return (
        is_file
        and all(box["kind"] in kinds and are_corners(box["xyxy"]) for box in image["boxes"])
        and [side_px > 0 for side_px in image["size_wh"]] == [True, True]
    )


def save(
    folder: Path,
    panels: Sequence[Panel],
    results: Sequence[ImageResult],
    *,
    split: str,
    class_names: Sequence[str],
    pictures: Pictures,
) -> None:
    """Write ``panels.json`` and its images in place of earlier ones.

    These are the images of all panels and, as far as there is room, others.

    Args:
        folder: Folder of the panels.
        panels: The panels.
        results: Results of all images of the split.
        split: Name of the split.
        class_names: Names of the classes.
        pictures: As for ``panels.save_panels``.

    Raises:
        InputFormError: An image cannot be read.
    """
    (folder / NAME).unlink(missing_ok=True)
    target = folder / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    total_bytes = 0
    images: dict[str, PanelImage] = {}
    for result in _in_order(panels, results):
        size_wh, content = _encode(pictures(result.image_id))
        total_bytes += len(content)
        if total_bytes > _MAX_BYTES or len(images) == _MAX_IMAGES:
            break
        name = f"{FOLDER}/{result.image_id}.jpg"
        files.write_bytes(folder / name, content)
        images[result.image_id] = PanelImage(
            file=name,
            size_wh=list(size_wh),
            split=split,
            caption=str(result),
            classes=[class_names[class_id] for class_id in sorted(result.classes)],
            sizes=sorted(result.sizes),
            attributes=sorted(result.attributes),
            boxes=list(_boxes(result)),
        )
    files.write_json(
        folder / NAME,
        {
            "images": images,
            "panels": [
                {
                    "name": panel.name,
                    "title": panel.title,
                    "images": [r.image_id for r in panel.results if r.image_id in images],
                }
                for panel in panels
            ],
        },
    )


def _in_order(panels: Sequence[Panel], results: Sequence[ImageResult]) -> Iterable[ImageResult]:
    """Return the images of all panels, the first ones of each first, then all others."""
    longest = max((len(panel.results) for panel in panels), default=0)
    of_panels = [
        panel.results[rank]
        for rank in range(longest)
        for panel in panels
        if rank < len(panel.results)
    ]
    others = choose_overview(results, len(results))
    return {result.image_id: result for result in [*of_panels, *others]}.values()


def _encode(image: Image.Image) -> tuple[tuple[int, int], bytes]:
    """Return an image as JPEG of at most ``_MAX_SIDE_PX``, and its width and height."""
    image = image.copy()
    image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return image.size, file.getvalue()


def _boxes(result: ImageResult) -> Iterator[PanelBox]:
    for attribute, kind in _KINDS.items():
        labelled: LabelledBoxes = getattr(result, attribute)
        for xyxy, label in zip(labelled.xyxy.tolist(), labelled.labels, strict=True):
            corners = [round(min(max(value, 0.0), 1.0), _DECIMALS) for value in xyxy]
            yield PanelBox(kind=kind, label=label, xyxy=corners)
