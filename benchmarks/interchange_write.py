"""Measure the export of datasets to other formats, with 26,000 images of about 100 kB by default.

``python benchmarks/interchange_write.py [--images N] [--rounds N] [--formats NAME...]``

The baseline is ``cp -r`` of the same images in the same run; the caches are warm. Printed are

- the whole ``oiyolo export`` process for each format: time, CPU time, peak memory, and that with a
  tenth of the images, to show whether memory grows with their number;
- formatting alone, without the pixels: the functions of ``oiyolo.interchange`` with empty images of
  three boxes each, and writing the same files again from memory.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from _measure import run
from PIL import Image

import oiyolo
from oiyolo.core import staleness
from oiyolo.interchange import coco_writer, tfrecord_writer, voc_writer, yolo_writer
from oiyolo.interchange.exported import (
    ExportedBox,
    ExportedDataset,
    ExportedImage,
    SplitSize,
    write_file,
)
from oiyolo.project.ledger import FETCHED, PREPARED, SPLITS, Change
from oiyolo.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _measure import Measurement

    from oiyolo.interchange.exported import Writer

IMAGES: Final = 26_000
SIZE_WH: Final = (640, 480)
BOXES: Final = 3
FORMATS: Final = ("tfrecord", "coco", "voc", "yolo-yaml", "openimages", "fiftyone")
_VARIANTS: Final = 16


def photograph(seed: int) -> bytes:
    """Return a noisy JPEG of about 100 kB."""
    noise = np.random.default_rng(seed).normal(128, 12, (SIZE_WH[1], SIZE_WH[0], 3))
    file = io.BytesIO()
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
    return file.getvalue()


def split_project(folder: Path, count: int) -> Path:
    """Create a split project, without the prepared images, which are not read."""
    oiyolo.init(folder, classes=["Boat"])
    project = open_project(folder)
    ids = [f"{number:016x}" for number in range(count)]
    images = "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    images += "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation,negative,present,absent\n"
    images += "".join(f"{i},train,,,,,a{i},,,,,0.0,False,Boat,\n" for i in ids)
    boxes = "ImageID,Subset,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf,"
    boxes += "class,class_id,used,dropped_because\n"
    for i in ids:
        for number in range(BOXES):
            boxes += f"{i},train,0.{number}1,0.{number + 4}5,0.2,0.8,1,0,Boat,0,True,\n"
    tables = {}
    for path in (project.selection_folder, project.images_folder, project.dataset_folder):
        path.mkdir(parents=True)
    for name, text in (("images.csv", images), ("boxes.csv", boxes)):
        (project.selection_folder / name).write_text(text)
        tables[name] = {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    summary: dict[str, Any] = {"images": count, "boxes": count * BOXES, "tables": tables}
    summary |= {
        "fingerprint": "benchmark",
        "classes": {"Boat": {}},
        "labels": {"Boat": ["/m/019jd"]},
    }
    summary |= {"folded_in": {}, "excluded": {}}
    (project.selection_folder / "selection.json").write_text(json.dumps(summary))
    variants = [photograph(seed) for seed in range(_VARIANTS)]
    for number, image_id in enumerate(ids):
        (project.images_folder / f"{image_id}.jpg").write_bytes(variants[number % _VARIANTS])
    write_dataset(project.dataset_folder, boxes, ids)
    with project.ledger() as ledger:
        ledger.reselect(dict.fromkeys(ids, "train"))
        for state in (FETCHED, PREPARED):
            ledger.record("benchmark", [Change(image_id, state, "") for image_id in ids])
        ledger.record("split", [Change(i, s, "", facts={"split": s}) for i, s in splits(ids)])
    return folder


def splits(ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each image with its split: eight of ten are in train."""
    for number, image_id in enumerate(ids):
        yield image_id, SPLITS[max(0, number % 10 - 7)]


def write_dataset(folder: Path, boxes: str, ids: Sequence[str]) -> None:
    """Write the table of boxes and the lists, with their recipes."""
    (folder / "boxes.csv").write_text(boxes)
    options = {"size": [416, 416], "fit": "stretch"}
    recipe = {"selection": "benchmark", "options": options}
    staleness.write_recipe(folder / ".prepared-from.json", recipe, [folder / "boxes.csv"])
    lists = {name: [i for i, split in splits(ids) if split == name] for name in SPLITS}
    for name, own in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{i}.jpg\n" for i in own))
    (folder / "obj.names").write_text("Boat\n")
    staleness.write_recipe(
        folder / ".split-from.json", {}, [folder / f"{name}.txt" for name in SPLITS]
    )


def empty_images(count: int) -> tuple[ExportedDataset, Iterator[ExportedImage]]:
    """Return images without content, with three boxes each."""
    boxes = tuple(
        ExportedBox(0, (number / 10, 0.2, number / 10 + 0.4, 0.8)) for number in range(BOXES)
    )
    images = (
        ExportedImage(f"{number:016x}", ".jpg", b"", SIZE_WH, "train", boxes)
        for number in range(count)
    )
    size = SplitSize(count, count)
    return ExportedDataset(("Boat",), ("/m/019jd",), {"train": size}, BOXES), images


def formatting_s(write: Writer, count: int, folder: Path) -> tuple[float, float, int]:
    """Return the seconds that a format takes for empty images, and its files alone, and these.

    Returns:
        Seconds of the writer, seconds to write the same files again from memory, number of files.
    """
    target = folder / "formatting"
    target.mkdir()
    dataset, images = empty_images(count)
    start_s = time.perf_counter()
    write(images, target, dataset)
    writer_s = time.perf_counter() - start_s
    contents = [path.read_bytes() for path in target.rglob("*") if path.is_file()]
    shutil.rmtree(target)
    target.mkdir()
    start_s = time.perf_counter()
    for number, content in enumerate(contents):
        write_file(f"{target}/{number}", content)
    files_s = time.perf_counter() - start_s
    shutil.rmtree(target)
    return writer_s, files_s, len(contents)


def copy(source: Path, folder: Path) -> Measurement:
    """Copy the images of a project with ``cp``."""
    target = folder / "copy"
    measurement = run(["cp", "-r", str(source / "data" / "images"), str(target)])
    shutil.rmtree(target)
    return measurement


def measure(names: Sequence[str], count: int, rounds: int, folder: Path) -> None:
    """Measure everything, and print each result immediately."""
    large = split_project(folder / "large", count)
    small = split_project(folder / "small", count // 10)
    print(
        f"{'':14}{'s':>7}{'cp':>7}{'ratio':>7}{'CPU s':>8}{'cp':>7}{'ratio':>7}"
        f"{'MB':>6}{'MB, a tenth':>13}"
    )
    for name in names:
        out = folder / "out"
        command = [sys.executable, "-m", "oiyolo", "export", name, "--out", str(out), "-q"]
        found = []
        for _ in range(rounds):
            # The baseline is measured each time, because other programs may be running.
            found.append((copy(large, folder), run([*command, "--project", str(large)])))
            shutil.rmtree(out)
        cp, best = min(found, key=lambda pair: pair[1].wall_s / pair[0].wall_s)
        tenth = run([*command, "--project", str(small)])
        shutil.rmtree(out)
        print(
            f"{name:14}{best.wall_s:7.1f}{cp.wall_s:7.1f}{best.wall_s / cp.wall_s:7.2f}"
            f"{best.cpu_s:8.1f}{cp.cpu_s:7.1f}{best.cpu_s / cp.cpu_s:7.2f}"
            f"{best.peak_mb:6.0f}{tenth.peak_mb:13.0f}",
            flush=True,
        )
    print(f"\nformatting alone, {count:,} images with {BOXES} boxes each")
    print(f"{'':14}{'s':>7}{'files alone, s':>16}{'files':>8}")
    writers = {"coco": coco_writer, "voc": voc_writer, "yolo-yaml": yolo_writer}
    for name, module in {**writers, "tfrecord": tfrecord_writer}.items():
        best_of = min(formatting_s(module.write, count, folder) for _ in range(rounds))
        print(f"{name:14}{best_of[0]:7.2f}{best_of[1]:16.2f}{best_of[2]:8,}", flush=True)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--folder", type=Path, help="folder for temporary files")
    arguments = parser.parse_args()
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        measure(arguments.formats, arguments.images, arguments.rounds, Path(name))


if __name__ == "__main__":
    main()
