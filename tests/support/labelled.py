"""Draws small folders of labelled images in the formats of other tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from PIL import ExifTags, Image

from oiyolo.interchange.imported import ImportedImage, Problem, ReadOptions
from oiyolo.interchange.readers import READERS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Xyxy = tuple[float, float, float, float]
SIZE_WH = (40, 20)


def draw(path: Path, size_wh: tuple[int, int] = SIZE_WH, orientation: int = 1) -> Path:
    """Write a picture whose EXIF data state an orientation unless it is 1; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    Image.linear_gradient("L").convert("RGB").resize(size_wh).save(path, exif=exif)
    return path


def write(path: Path, content: str | bytes = "") -> Path:
    """Write a file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def voc_object(
    name: str = "nut",
    box: Sequence[object] = (11, 6, 30, 15),
    more: str = "<difficult>0</difficult>",
) -> str:
    """Return an object as labelImg writes it; its box is xmin, ymin, xmax, ymax."""
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    bounds = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
    return f"\t<object>\n\t\t<name>{name}</name>{more}<bndbox>{bounds}</bndbox>\n\t</object>\n"


def voc_xml(
    objects: str = "",
    file_name: str = "",
    size_wh: tuple[int, int] | None = SIZE_WH,
    path: str = "",
) -> str:
    """Return an annotation as labelImg writes it; the first object is on line 4."""
    size = "<size><width>{}</width><height>{}</height></size>".format(*size_wh) if size_wh else ""
    named = f"<filename>{file_name}</filename>" if file_name else ""
    named += f"<path>{path}</path>" if path else ""
    return f"<annotation>\n\t{named}\n\t{size}\n{objects}</annotation>\n"


def voc_folder(folder: Path, names: Sequence[str] = ("a", "b")) -> Path:
    """Write labelImg's folders: images, and annotations of one nut each; return the folder."""
    for name in names:
        draw(folder / "images" / f"{name}.jpg")
        write(folder / "annotations" / f"{name}.xml", voc_xml(voc_object(), f"{name}.jpg"))
    return folder


def yolo_folder(folder: Path, names: Sequence[str] = ("a", "b")) -> Path:
    """Write images with labels of one bolt each next to them, and ``classes.txt``."""
    for name in names:
        draw(folder / f"{name}.jpg")
        write(folder / f"{name}.txt", "1 0.5 0.5 0.5 0.5\n")
    write(folder / "classes.txt", "nut\nbolt\n")
    return folder


def coco_folder(folder: Path, names: Sequence[str] = ("a", "b")) -> Path:
    """Write ``train2017/`` and ``annotations/instances_train2017.json`` with a nut each."""
    for name in names:
        draw(folder / "train2017" / f"{name}.jpg")
    write(folder / "annotations" / "instances_train2017.json", json.dumps(coco_content(names)))
    return folder


def coco_content(names: Sequence[str] = ("a", "b")) -> dict[str, list[dict[str, object]]]:
    """Return the content of a COCO file: images of ``SIZE_WH`` with a nut each."""
    width, height = SIZE_WH
    numbered = list(enumerate(names, start=1))
    return {
        "images": [
            {"id": n, "file_name": f"{name}.jpg", "width": width, "height": height}
            for n, name in numbered
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 7, "bbox": [10, 5, 20, 10], "iscrowd": 0}
            for n, _ in numbered
        ],
        "categories": [{"id": 7, "name": "nut"}, {"id": 3, "name": "bolt"}],
    }


def read(
    format_name: str, folder: Path, options: ReadOptions | None = None
) -> tuple[dict[str, ImportedImage], list[Problem]]:
    """Return the images that a reader yields by name, and the problems."""
    items = list(READERS[format_name](folder, options or ReadOptions()).read())
    images = [item for item in items if isinstance(item, ImportedImage)]
    assert len({image.name for image in images}) == len(images)
    return {i.name: i for i in images}, [item for item in items if isinstance(item, Problem)]


def kinds_of(problems: Sequence[Problem]) -> list[str]:
    """Return the kinds of problems."""
    return [problem.kind for problem in problems]
