"""Measure the speed and accuracy of image preparation on real photographs.

``python benchmarks/prepare.py [--photographs FOLDER] [--rounds N] [--folder FOLDER]``

The baseline is Pillow alone in the same run: it decodes the whole file, resizes it with LANCZOS and
saves it with the same JPEG quality and subsampling. Photographs of 1024x768 come from the folder;
those of 4000x3000 are enlarged from them. Printed are

- CPU time on one core, the best of several interleaved rounds; and the PSNR against Pillow's pixels
  before encoding (for a letterbox, without its border);
- throughput and CPU time with one thread, two threads and one per core: CPU time per image that
  grows with the number of threads is spent on waiting, not on images;
- peak memory with 12-megapixel photographs and two threads;
- the time of ``oiyolo prepare`` with 26,000 images, first to prepare them, then with nothing to do.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from _measure import layout, run
from PIL import Image, ImageChops

import oiyolo
from oiyolo.imagery.decode import open_image
from oiyolo.imagery.placement import place_image
from oiyolo.imagery.resize import min_decode_size, resize
from oiyolo.imagery.threads import single_threaded_libraries
from oiyolo.imagery.upright import JPEG_QUALITY, make_upright
from oiyolo.project.ledger import FETCHED, Change
from oiyolo.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oiyolo.project.project import Project

PHOTOGRAPHS: Final = Path(__file__).parents[2] / "shared" / "real" / "alpaca" / "images"
SIZE_WH: Final = (416, 416)
COMMON_WH: Final = (1024, 768)
LARGE_WH: Final = (4000, 3000)
IMAGES: Final = 26_000
_BORDER: Final = (127, 127, 127)
_LARGE_COUNT: Final = 8


def prepare_with_pillow(path: Path, fit: str, target: Path) -> None:
    """Prepare an image with Pillow alone."""
    with Image.open(path) as image:
        frame = place_image(image.size, SIZE_WH, fit)
        prepared = image.resize(frame.wh, Image.Resampling.LANCZOS)
    if frame.wh != frame.size_wh:
        framed = Image.new("RGB", frame.size_wh, _BORDER)
        framed.paste(prepared, (frame.left, frame.top))
        prepared = framed
    prepared.save(target, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")


def prepare_with_oiyolo(path: Path, fit: str, target: Path) -> None:
    """Prepare an image as ``oiyolo prepare`` does."""
    target.write_bytes(make_upright(path, 0, SIZE_WH, fit).jpeg)


def psnr_db(path: Path, fit: str) -> float:
    """Return the PSNR of the resized pixels against those of Pillow, in dB."""
    encoded = open_image(path.read_bytes())
    wh = place_image(encoded.stored_wh, SIZE_WH, fit).wh
    actual = resize(encoded.decode(min_decode_size(wh)), wh)
    with Image.open(path) as image:
        expected = np.asarray(image.resize(wh, Image.Resampling.LANCZOS))
    mean_squared_error = np.mean((actual.astype(np.float64) - expected) ** 2)
    return float(10 * np.log10(255**2 / mean_squared_error))


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Restrict this process to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_ms(
    prepare: Callable[[Path, str, Path], None], paths: Sequence[Path], fit: str, folder: Path
) -> float:
    """Return CPU milliseconds per image."""
    start_s = time.process_time()
    for path in paths:
        prepare(path, fit, folder / "prepared.jpg")
    return (time.process_time() - start_s) / len(paths) * 1000


def best_cpu_ms(paths: Sequence[Path], fit: str, rounds: int, folder: Path) -> tuple[float, float]:
    """Return CPU milliseconds per image for Pillow and for oiyolo: the best of several rounds."""
    with one_core():
        durations_ms = [
            (
                cpu_ms(prepare_with_pillow, paths, fit, folder),
                cpu_ms(prepare_with_oiyolo, paths, fit, folder),
            )
            for _ in range(rounds)
        ]
    return min(pillow for pillow, _ in durations_ms), min(oiyolo for _, oiyolo in durations_ms)


def pool_s(paths: Sequence[Path], threads: int, folder: Path) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds in which threads prepare every image three times."""

    def prepare(numbered_path: tuple[int, Path]) -> None:
        prepare_with_oiyolo(numbered_path[1], "stretch", folder / f"{numbered_path[0]}.jpg")

    work = list(enumerate([*paths] * 3))
    with ThreadPoolExecutor(threads) as pool:
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        list(pool.map(prepare, work))
        return time.perf_counter() - start_s, time.process_time() - start_cpu_s


def scaling_table(paths: Sequence[Path], rounds: int, folder: Path) -> str:
    """Return a table of the throughput and CPU time of pools of threads, the best of the rounds."""
    thread_counts = sorted({1, 2, len(os.sched_getaffinity(0))})
    # Interleaved, so that other load on the machine affects all numbers of threads.
    seconds = [[pool_s(paths, n, folder) for n in thread_counts] for _ in range(rounds)]
    images = 3 * len(paths)
    lines: list[Sequence[str]] = [("threads", "images/s", "ratio", "wall ms", "CPU ms")]
    one_s = min(row[0][0] for row in seconds)
    for column, threads in enumerate(thread_counts):
        wall_s, cpu_s = (min(row[column][kind] for row in seconds) for kind in (0, 1))
        times_ms = (f"{each_s / images * 1000:.1f}" for each_s in (wall_s, cpu_s))
        rate, ratio = f"{images / wall_s:.0f}", f"{one_s / wall_s:.2f}"
        lines.append((str(threads), rate, ratio, *times_ms))
    return layout(lines)


def photographs(folder: Path) -> list[Path]:
    """Return the folder's colour photographs of the mirror's most common size."""
    paths = []
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as image:
            if image.size == COMMON_WH and image.mode == "RGB":
                paths.append(path)
    return paths


def enlarge(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Write photographs of 12 megapixels with sensor noise, which makes decoding realistic."""
    targets = []
    rng = np.random.default_rng(0)
    for path in paths[:_LARGE_COUNT]:
        with Image.open(path) as image:
            large = image.resize(LARGE_WH, Image.Resampling.BICUBIC)
        noise = rng.integers(0, 7, (LARGE_WH[1], LARGE_WH[0], 3), dtype=np.uint8)
        target = folder / f"large-{path.name}"
        ImageChops.add(large, Image.fromarray(noise)).save(target, "JPEG", quality=90)
        targets.append(target)
    return targets


def prepare_large(folder: Path) -> None:
    """Prepare the large photographs of a folder with two threads."""
    paths = sorted(folder.glob("large-*.jpg")) * 2
    with ThreadPoolExecutor(2) as pool, single_threaded_libraries():
        list(pool.map(lambda path: make_upright(path, 0, SIZE_WH, "stretch"), paths))


def big_project(folder: Path) -> Project:
    """Create a project of 26,000 small, fetched images with three boxes each."""
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
        ledger.record("fetch", [Change(image_id, FETCHED, "synthetic") for image_id in ids])
    return project


def prepare_command_s(folder: Path, rounds: int) -> tuple[float, float]:
    """Return the seconds of a first ``oiyolo prepare`` of small images, and of a repeated one."""
    argv = [sys.executable, "-m", "oiyolo", "prepare", "--project", str(big_project(folder).folder)]
    measurements = [run(argv) for _ in range(rounds + 1)]
    if "nothing to do" not in measurements[-1].output:
        raise SystemExit(f"prepare found something to do again: {measurements[-1].output}")
    return measurements[0].wall_s, min(repeated.wall_s for repeated in measurements[1:])


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="folder for temporary files; the system's by default"
    )
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        prepare_large(arguments.memory_of)
        return
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        measure(arguments.photographs, arguments.rounds, Path(name))


def measure(source: Path, rounds: int, folder: Path) -> None:
    """Measure everything, and print each result immediately."""
    photos = photographs(source)
    if not photos:
        raise SystemExit(f"no photographs of {COMMON_WH[0]}x{COMMON_WH[1]} in {source}")
    large = enlarge(photos, folder)
    print(
        f"{len(photos)} photographs of 1024x768, {len(large)} of 4000x3000, to 416x416, quality 90"
    )
    print(f"{'':24}{'Pillow ms':>10}{'oiyolo ms':>10}{'ratio':>8}{'PSNR dB':>9}")
    with single_threaded_libraries():
        for name, paths, fit in (
            ("1024x768, stretch", photos, "stretch"),
            ("1024x768, letterbox", photos, "letterbox"),
            ("4000x3000, stretch", large, "stretch"),
        ):
            pillow_ms, oiyolo_ms = best_cpu_ms(paths, fit, rounds, folder)
            db = statistics.mean(psnr_db(path, fit) for path in paths)
            print(
                f"{name:24}{pillow_ms:10.1f}{oiyolo_ms:10.1f}{pillow_ms / oiyolo_ms:8.2f}{db:9.1f}"
            )
        print(scaling_table(photos, 2 * rounds, folder))
    large_mb = run([sys.executable, __file__, "--memory-of", str(folder)]).peak_mb
    print(f"peak memory at 12 megapixels, two threads: {large_mb:.0f} MB")
    first_s, repeated_s = prepare_command_s(folder / "project", rounds)
    print(f"{IMAGES:,} images: first {first_s:.1f} s, nothing to do {repeated_s:.2f} s")


if __name__ == "__main__":
    main()
