"""Measure the time and memory that the preview of a dataset takes.

``python benchmarks/dataset_preview.py`` creates synthetic datasets (whose files are links to a few
JPEGs of 416x416) and writes the preview of each twice. It prints the seconds of both, the peak
memory, and the ratio to the baseline: decoding every image once with Pillow, extrapolated from a
thousand images.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from PIL import Image

from oiyolo.dataset_preview.dataset import Pair, PreviewDataset
from oiyolo.dataset_preview.preview import write_preview
from oiyolo.openimages.selection import CORNERS

if TYPE_CHECKING:
    from collections.abc import Callable

_SIDE_PX: Final = 416
_DISTINCT_IMAGES: Final = 40
_BASELINE_IMAGES: Final = 1000


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 26_000])
    parser.add_argument(
        "--folder", type=Path, help="folder for temporary files; the system's by default"
    )
    options = parser.parse_args()
    print(f"{'images':>9} {'boxes':>9} {'first':>8} {'again':>8} {'decode all':>10} "
          f"{'ratio':>7} {'peak':>8}")  # fmt: skip
    for images in options.images:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            _print_row(Path(folder), images)


def _print_row(folder: Path, images: int) -> None:
    dataset = _synthetic_dataset(folder / "obj", images)
    first_s = _seconds(lambda: write_preview(dataset, folder / "look"))
    again_s = min(_seconds(lambda: write_preview(dataset, folder / "look")) for _ in range(3))
    sample = [dataset.image_path(i) for i in list(dataset.split_by_id)[:_BASELINE_IMAGES]]
    decode_s = min(_seconds(lambda: _decode(sample)) for _ in range(2)) * images / len(sample)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{images:>9,} {len(dataset.labels):>9,} {first_s:>6.1f} s {again_s:>6.2f} s "
          f"{decode_s:>8.1f} s {first_s / decode_s:>7.2f} {peak_mb:>5.0f} MB")  # fmt: skip


def _synthetic_dataset(folder: Path, images: int) -> PreviewDataset:
    random = np.random.default_rng(1)
    folder.mkdir(parents=True)
    ids = [f"{number:016x}" for number in range(images)]
    drawn_paths = [
        _draw(folder / f"drawn-{number}.jpg", random) for number in range(_DISTINCT_IMAGES)
    ]
    for number, image_id in enumerate(ids):
        os.link(drawn_paths[number % _DISTINCT_IMAGES], folder / f"{image_id}.jpg")
    per_image = random.geometric(0.35, images) - 1
    boxes = int(per_image.sum())
    side = np.exp(random.uniform(np.log(0.01), 0, (boxes, 2)))
    low = random.uniform(0, 1, (boxes, 2)) * (1 - side)
    table = pd.DataFrame(np.hstack((low, low + side)), columns=list(CORNERS))
    table["ImageID"] = np.repeat(np.array(ids), per_image)
    table["class_id"] = random.integers(0, 4, boxes)
    table["used"] = random.random(boxes) < 0.95  # noqa: PLR2004  (an arbitrary share)
    splits = random.choice(["train", "valid", "test"], images, p=[0.8, 0.1, 0.1])
    return PreviewDataset(
        boxes=table,
        split_by_id=dict(zip(ids, splits.tolist(), strict=True)),
        class_names=["Boat", "Canoe", "Gondola", "Barge"],
        images_folder=folder,
        size_wh=(_SIDE_PX, _SIDE_PX),
        rotation_by_id=dict.fromkeys(ids[:: max(images // 300, 1)], 90),
        duplicates=[Pair(ids[n], ids[n + 1], n % 9) for n in range(0, images - 1, 97)],
    )


def _draw(path: Path, random: np.random.Generator) -> Path:
    coarse = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC)
    image.save(path, quality=90)
    return path


def _decode(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            image.load()


def _seconds(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


if __name__ == "__main__":
    main()
