"""How quick prepare is, and how near to the plain way: real photographs, one core, then two.

``python benchmarks/prepare.py [--photographs FOLDER] [--rounds N] [--folder FOLDER]``

Measured against the plain way in the same run: Pillow decodes the whole file, resizes by LANCZOS
and saves, with the same JPEG quality and subsampling. Photographs of 1024x768 are those of the
folder; those of 4000x3000 are made from them. CPU time, pinned to one core, the best of several
rounds that take turns; then wall time of one and two threads. PSNR is against the plain way's
pixels before they are encoded (a letterbox without its border). Then what 12-megapixel photographs
take of memory with two threads, and how long ``oiyolo prepare`` takes with 26,000 prepared images
and nothing to do.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageChops

import oiyolo
from oiyolo.imagery.decode import open_picture
from oiyolo.imagery.placement import inner_frame
from oiyolo.imagery.resize import enough_for, one_thread_each, resize
from oiyolo.imagery.upright import JPEG_QUALITY, make_upright
from oiyolo.project.ledger import FETCHED, Change
from oiyolo.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oiyolo.project.project import Project

PHOTOGRAPHS: Final = Path(__file__).parents[2] / "shared" / "real" / "alpaca" / "images"
SIZE_WH: Final = (416, 416)
USUAL_WH: Final = (1024, 768)
LARGE_WH: Final = (4000, 3000)
IMAGES: Final = 26_000
_BORDER: Final = (127, 127, 127)
_LARGE_COUNT: Final = 8
_BYTES_PER_RSS: Final = 1024


def plain(path: Path, fit: str, target: Path) -> None:
    """Prepare an image as one would with Pillow alone."""
    with Image.open(path) as image:
        frame = inner_frame(image.size, SIZE_WH, fit)
        made = image.resize(frame.wh, Image.Resampling.LANCZOS)
    if frame.wh != frame.size_wh:
        framed = Image.new("RGB", frame.size_wh, _BORDER)
        framed.paste(made, (frame.left, frame.top))
        made = framed
    made.save(target, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")


def ours(path: Path, fit: str, target: Path) -> None:
    """Prepare an image as the stage does."""
    target.write_bytes(make_upright(path, 0, SIZE_WH, fit).jpeg)


def psnr_db(path: Path, fit: str) -> float:
    """Compare our resized pixels with the plain way's."""
    picture = open_picture(path.read_bytes())
    wh = inner_frame(picture.stored_wh, SIZE_WH, fit).wh
    found = resize(picture.pixels(enough_for(wh)), wh)
    with Image.open(path) as image:
        wanted = np.asarray(image.resize(wh, Image.Resampling.LANCZOS))
    error = np.mean((found.astype(np.float64) - wanted) ** 2)
    return float(10 * np.log10(255**2 / error))


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Stay on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_ms(
    way: Callable[[Path, str, Path], None], paths: Sequence[Path], fit: str, to: Path
) -> float:
    """Give CPU milliseconds an image."""
    began_s = time.process_time()
    for path in paths:
        way(path, fit, to / "made.jpg")
    return (time.process_time() - began_s) / len(paths) * 1000


def per_core(paths: Sequence[Path], fit: str, rounds: int, to: Path) -> tuple[float, float]:
    """Give CPU milliseconds an image for the plain way and ours: the best of several rounds."""
    with one_core():
        found = [
            (cpu_ms(plain, paths, fit, to), cpu_ms(ours, paths, fit, to)) for _ in range(rounds)
        ]
    return min(a for a, _ in found), min(b for _, b in found)


def wall_s(paths: Sequence[Path], threads: int, to: Path) -> float:
    """Give the seconds that some threads need for all images, three times over."""

    def make(numbered: tuple[int, Path]) -> None:
        ours(numbered[1], "stretch", to / f"{numbered[0]}.jpg")

    work = list(enumerate([*paths] * 3))
    with ThreadPoolExecutor(threads) as pool:
        began_s = time.perf_counter()
        list(pool.map(make, work))
        return time.perf_counter() - began_s


def photographs(folder: Path) -> list[Path]:
    """Give the folder's colour photographs of the mirror's most usual size."""
    found = []
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as image:
            if image.size == USUAL_WH and image.mode == "RGB":
                found.append(path)
    return found


def enlarged(paths: Sequence[Path], to: Path) -> list[Path]:
    """Make photographs of 12 megapixels, with a sensor's noise, which costs time to decode."""
    made = []
    rng = np.random.default_rng(0)
    for path in paths[:_LARGE_COUNT]:
        with Image.open(path) as image:
            large = image.resize(LARGE_WH, Image.Resampling.BICUBIC)
        noise = rng.integers(0, 7, (LARGE_WH[1], LARGE_WH[0], 3), dtype=np.uint8)
        target = to / f"large-{path.name}"
        ImageChops.add(large, Image.fromarray(noise)).save(target, "JPEG", quality=90)
        made.append(target)
    return made


def memory_mb(folder: Path) -> float:
    """Give the peak of a process that prepares a folder's large photographs with two threads."""
    words = [sys.executable, __file__, "--memory-of", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(done.stdout)


def prepare_large(folder: Path) -> None:
    """Be the process whose memory is measured."""
    paths = sorted(folder.glob("large-*.jpg")) * 2
    with ThreadPoolExecutor(2) as pool, one_thread_each():
        list(pool.map(lambda path: make_upright(path, 0, SIZE_WH, "stretch"), paths))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES_PER_RSS / 1e6)


def big_project(folder: Path) -> Project:
    """Make a project of 26,000 small images with three boxes each, as select and fetch leave it."""
    oiyolo.init(folder, classes=["Boat"], size=(32, 32), jobs=os.cpu_count() or 1)
    project = open_project(folder)
    ids = [f"{number:016x}" for number in range(IMAGES)]
    images = "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    images += "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation,negative,present,absent\n"
    images += "".join(f"{i},train,,,,,a{i},,,,,0.0,False,Boat,\n" for i in ids)
    boxes = "ImageID,XMin,XMax,YMin,YMax,IsGroupOf,class,class_id,used,dropped_because\n"
    for number in range(3):
        corners = f"0.{number}1,0.{number + 4}5,0.2,0.8"
        boxes += "".join(f"{i},{corners},0,Boat,0,True,\n" for i in ids)
    tables = {}
    project.selection_folder.mkdir(parents=True)
    for name, text in (("images.csv", images), ("boxes.csv", boxes)):
        (project.selection_folder / name).write_text(text)
        tables[name] = {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    summary: dict[str, Any] = {
        "fingerprint": "benchmark",
        "classes": {"Boat": {}},
        "tables": tables,
    }
    (project.selection_folder / "selection.json").write_text(json.dumps(summary))
    file = io.BytesIO()
    Image.effect_noise((64, 48), 40).convert("RGB").save(file, "JPEG")
    project.images_folder.mkdir(parents=True)
    for image_id in ids:
        (project.images_folder / f"{image_id}.jpg").write_bytes(file.getvalue())
    with project.ledger() as ledger:
        ledger.reselect(dict.fromkeys(ids, "train"))
        ledger.record("fetch", [Change(image_id, FETCHED, "made up") for image_id in ids])
    return project


def nothing_to_do_s(folder: Path, rounds: int) -> tuple[float, float]:
    """Give the seconds of a first ``oiyolo prepare`` of small images, and of the next one."""
    words = [
        sys.executable,
        "-m",
        "oiyolo",
        "prepare",
        "--project",
        str(big_project(folder).folder),
    ]
    seconds = []
    for _ in range(rounds + 1):
        began_s = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - began_s)
    if "nothing to do" not in done.stdout:
        raise SystemExit(f"there was something to do: {done.stdout}")
    return seconds[0], min(seconds[1:])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="for files; default: a temporary one")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        prepare_large(given.memory_of)
        return
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        measure(given.photographs, given.rounds, Path(name))


def measure(source: Path, rounds: int, folder: Path) -> None:
    """Measure all and print it as it comes."""
    usual = photographs(source)
    if not usual:
        raise SystemExit(f"no photographs of {USUAL_WH[0]}x{USUAL_WH[1]} in {source}")
    large = enlarged(usual, folder)
    print(
        f"{len(usual)} photographs of 1024x768, {len(large)} of 4000x3000, to 416x416, quality 90"
    )
    print(f"{'':24}{'plain ms':>10}{'ours ms':>10}{'times':>8}{'PSNR dB':>9}")
    with one_thread_each():
        for told, paths, fit in (
            ("1024x768, stretch", usual, "stretch"),
            ("1024x768, letterbox", usual, "letterbox"),
            ("4000x3000, stretch", large, "stretch"),
        ):
            before, now = per_core(paths, fit, rounds, folder)
            db = statistics.mean(psnr_db(path, fit) for path in paths)
            print(f"{told:24}{before:10.1f}{now:10.1f}{before / now:8.2f}{db:9.1f}")
        # In turns, so that a busy minute of the machine is not one side's alone.
        seconds = [[wall_s(usual, n, folder) for n in (1, 2)] for _ in range(2 * rounds)]
        one, two = (min(column) for column in zip(*seconds, strict=True))
    images = 3 * len(usual)
    print(f"one thread {images / one:.0f} images/s, two {images / two:.0f}: {one / two:.2f} times")
    print(f"memory at 12 megapixels, two threads: {memory_mb(folder):.0f} MB")
    first, again = nothing_to_do_s(folder / "project", rounds)
    print(f"{IMAGES:,} images: first {first:.1f} s, nothing to do {again:.2f} s")


if __name__ == "__main__":
    main()
