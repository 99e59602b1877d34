"""Measure importing labelled images, and reading them alone: 26,000 VOC files by default.

It reads XML files with three objects each and the headers of their photographs, which carry EXIF
data as those of phones do. The baseline parses the same XML files with ElementTree, without looking
for their images and without any check.

    python benchmarks/interchange_read.py [--images 26000] [--boxes 800000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
from PIL import ExifTags, Image

import oiyolo
from oiyolo.interchange.imported import ImportedImage, ReadOptions
from oiyolo.interchange.readers import READERS

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 2
SIZE_WH = (640, 480)
OBJECT = (
    "\t<object>\n\t\t<name>nut</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
    "\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{}</xmin>\n\t\t\t<ymin>{}</ymin>\n"
    "\t\t\t<xmax>{}</xmax>\n\t\t\t<ymax>{}</ymax>\n\t\t</bndbox>\n\t</object>\n"
)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=26_000)
    parser.add_argument("--boxes", type=int, default=800_000, help="boxes of the COCO file")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        voc = write_voc(folder / "voc", arguments.images)
        coco = write_coco(folder / "coco", voc, arguments.images, arguments.boxes)
        print("| step | CPU s | us/image | ratio | peak MB |")
        print("|---|---|---|---|---|")
        show(
            arguments.images,
            ("`import voc`: XML files and image headers", lambda: read_all("voc", voc)),
            ("ElementTree alone", lambda: parse_all(voc)),
        )
        measure_import(voc, folder / "project", arguments.images)
        show(
            arguments.images,
            ("`import coco`: JSON and image headers", lambda: read_all("coco", coco.parents[1])),
            ("`json.loads` alone", lambda: len(json.loads(coco.read_bytes()))),
        )


def measure_import(voc: Path, project: Path, count: int) -> None:
    """Import a folder into a new project, which copies its images, and again; print both rows."""
    for name in ("`import voc` into a new project", "`import voc` again"):
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        oiyolo.import_images("voc", voc, project)
        wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        per_image = cpu_s / count * 1e6
        print(f"| {name}: {wall_s:.1f} s | {cpu_s:.2f} | {per_image:.0f} | | {peak_mb:.0f} |")


def show(count: int, *steps: tuple[str, Callable[[], object]]) -> None:
    """Measure steps, the last of which is the baseline, and print a row for each.

    The peak of the memory is that of all steps so far, so the baseline comes last.
    """
    measured = []
    for name, work in steps:
        seconds = best_of(work)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        measured.append((name, seconds, peak_mb))
    for name, seconds, peak_mb in measured:
        ratio = seconds / measured[-1][1]
        us_per_image = seconds / count * 1e6
        print(f"| {name} | {seconds:.2f} | {us_per_image:.0f} | {ratio:.2f} | {peak_mb:.0f} |")


def best_of(work: Callable[[], object]) -> float:
    """Return the CPU seconds of the fastest round."""
    cpu_s = []
    for _ in range(ROUNDS):
        start_s = time.process_time()
        work()
        cpu_s.append(time.process_time() - start_s)
    return min(cpu_s)


def read_all(format_name: str, folder: Path) -> int:
    """Read a folder; return the number of boxes."""
    boxes = 0
    for item in READERS[format_name](folder, ReadOptions()).read():
        if not isinstance(item, ImportedImage):
            raise TypeError(item)
        boxes += len(item.boxes)
    return boxes


def parse_all(folder: Path) -> int:
    """Parse each XML file; return the number of objects."""
    return sum(
        len(ET.parse(entry.path).findall("object"))  # noqa: S314  (files of this script)
        for entry in os.scandir(folder / "annotations")
    )


def write_voc(folder: Path, count: int) -> Path:
    """Write annotations and photographs; return their folder."""
    images, annotations = folder / "images", folder / "annotations"
    if images.is_dir():
        return folder
    for path in (images, annotations):
        path.mkdir(parents=True)
    rng = np.random.default_rng(1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    exif[ExifTags.Base.Make] = "phone" * 20
    first = images / "0.jpg"
    Image.linear_gradient("L").resize(SIZE_WH).save(first, exif=exif)
    for number, corners in enumerate(rng.integers(1, 240, (count, 3, 4)).tolist()):
        if number:
            shutil.copyfile(first, images / f"{number}.jpg")
        objects = "".join(OBJECT.format(x, y, x + w, y + h) for x, y, w, h in corners)
        (annotations / f"{number}.xml").write_text(
            f"<annotation>\n\t<folder>images</folder>\n\t<filename>{number}.jpg</filename>\n"
            f"\t<path>/home/me/images/{number}.jpg</path>\n\t<source>\n\t\t<database>Unknown"
            "</database>\n\t</source>\n\t<size>\n\t\t<width>640</width>\n\t\t<height>480</height>\n"
            f"\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{objects}</annotation>\n"
        )
    return folder


def write_coco(folder: Path, voc: Path, images: int, boxes: int) -> Path:
    """Write a COCO file with a polygon per box for the same photographs; return its path."""
    path = folder / "annotations" / "instances_train.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / "train").exists():
        (folder / "train").symlink_to((voc / "images").resolve())
    rng = np.random.default_rng(1)
    size = dict(zip(("width", "height"), SIZE_WH, strict=True))
    polygon = rng.uniform(0, 240, 40).round(2).tolist()
    listed = ",".join(json.dumps({"id": n, "file_name": f"{n}.jpg", **size}) for n in range(images))
    with path.open("w") as file:
        file.write(f'{{"categories": [{{"id": 1, "name": "nut"}}], "images": [{listed}]')
        separator = ', "annotations": ['
        for number in range(boxes):
            box: dict[str, object] = {"id": number, "image_id": number % images}
            box |= {"category_id": 1, "iscrowd": 0, "segmentation": [polygon]}
            box |= {"bbox": rng.uniform(1, 200, 4).round(2).tolist()}
            file.write(separator + json.dumps(box))
            separator = ","
        file.write("]}")
    return path


if __name__ == "__main__":
    main()
