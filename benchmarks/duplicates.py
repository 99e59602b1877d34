"""Measure the hash distances of near-duplicates, and the time of the search for them.

``python benchmarks/duplicates.py [--photographs FOLDER] [--counts 10000 100000 1000000]``

The first table requires a folder of photographs. It shows how many of the 64 bits differ between
the hashes of a photograph and its modified copies, and between those of different photographs.

The second table shows the time of a search among random hashes, one process for each count. One
hash in a hundred has a copy that differs in 1 to 8 bits; all these pairs must be found. The
baseline compares all pairs; it is measured at the smallest count and extrapolated to the others.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from _measure import layout, run
from PIL import Image, ImageEnhance

from oiyolo.imagery.duplicates import NEAR_BITS, differing_bits, near_pairs, perceptual_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oiyolo.imagery.duplicates import Hashes

_COUNTS: Final = (10_000, 100_000, 1_000_000)
_HASHES_PER_COPY: Final = 100


def main() -> None:
    """Print both tables or, with ``--search``, the seconds of a single search."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=list(_COUNTS))
    parser.add_argument("--search", type=int, help="number of hashes of a single search")
    arguments = parser.parse_args()
    if arguments.search:
        print(_search_s(arguments.search))
        return
    if arguments.photographs:
        print(_distance_table(sorted(arguments.photographs.glob("*.jpg"))), "\n")
    print(_search_table(arguments.counts))


def _crop(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    margin_x, margin_y = round(width * share), round(height * share)
    return image.crop((margin_x, margin_y, width - margin_x, height - margin_y))


def _recompress(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


_COPIES: Final[dict[str, Callable[[Image.Image], Image.Image]]] = {
    "stretched to 416x416": lambda p: p.resize((416, 416)),
    "half the size": lambda p: p.resize((p.width // 2, p.height // 2)),
    "grey": lambda p: p.convert("L"),
    "quality 95": lambda p: _recompress(p, 95),
    "quality 30": lambda p: _recompress(p, 30),
    "half the size, quality 30": lambda p: _recompress(p.resize((p.width // 2, p.height // 2)), 30),
    "30 % darker": lambda p: ImageEnhance.Brightness(p).enhance(0.7),
    "30 % brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "30 levels lighter": lambda p: p.point(lambda level: min(255, level + 30)),
    "30 % less contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.7),
    "30 % more contrast": lambda p: ImageEnhance.Contrast(p).enhance(1.3),
    "cropped by 1 % on each side": lambda p: _crop(p, 0.01),
    "cropped by 2 % on each side": lambda p: _crop(p, 0.02),
    "cropped by 3 % on each side": lambda p: _crop(p, 0.03),
    "cropped by 5 % on each side": lambda p: _crop(p, 0.05),
}


def _hashes(images: Sequence[Image.Image]) -> Hashes:
    hashes = [perceptual_hash(np.asarray(image.convert("L"))) for image in images]
    return np.array(hashes, dtype=np.uint64)


def _distance_table(paths: Sequence[Path]) -> str:
    images = [Image.open(path).convert("RGB") for path in paths]
    originals = _hashes(images)
    lines = [("differing bits", "mean", "min", "max", f"within {NEAR_BITS}")]
    rows = {name: (originals, _hashes([copy(p) for p in images])) for name, copy in _COPIES.items()}
    first, second = np.triu_indices(len(originals), 1)
    rows["different photographs"] = (originals[first], originals[second])
    for name, (left, right) in rows.items():
        bits = differing_bits(left, right)
        near = (bits <= NEAR_BITS).mean()
        lines.append((name, f"{bits.mean():.2f}", str(bits.min()), str(bits.max()), f"{near:.1%}"))
    return layout(lines)


def _hashes_with_copies(count: int) -> tuple[Hashes, set[tuple[int, int]]]:
    """Return random hashes, whose last ones are near-copies of the first ones, and the pairs."""
    rng = np.random.default_rng(count)
    hashes = rng.integers(1, 2**64 - 1, count, dtype=np.uint64)
    copies = count // _HASHES_PER_COPY
    for number in range(copies):
        bits = rng.choice(64, rng.integers(1, NEAR_BITS + 1), replace=False).tolist()
        hashes[count - copies + number] = int(hashes[number]) ^ sum(1 << bit for bit in bits)
    return hashes, {(number, count - copies + number) for number in range(copies)}


def _search_s(count: int) -> float:
    hashes, expected = _hashes_with_copies(count)
    start_s = time.perf_counter()
    pairs = near_pairs(hashes)
    duration_s = time.perf_counter() - start_s
    if missing := expected - set(map(tuple, pairs.tolist())):
        raise AssertionError(f"{len(missing)} pairs were not found, such as {sorted(missing)[:3]}")
    return duration_s


def _all_pairs_s(count: int) -> float:
    hashes, _ = _hashes_with_copies(count)
    start_s = time.perf_counter()
    for index in range(count - 1):
        np.flatnonzero(differing_bits(hashes[index + 1 :], hashes[index]) <= NEAR_BITS)
    return time.perf_counter() - start_s


def _search_table(counts: Sequence[int]) -> str:
    smallest = min(counts)
    baseline_s = _all_pairs_s(smallest)
    lines = [("hashes", "search s", "all pairs s", "speed-up", "peak MB")]
    for count in counts:
        command = [sys.executable, __file__, "--search", str(count)]
        best = min((run(command) for _ in range(2)), key=lambda m: float(m.output))
        search_s, all_pairs_s = float(best.output), baseline_s * (count / smallest) ** 2
        lines.append(
            (
                f"{count:,}",
                f"{search_s:.2f}",
                f"{all_pairs_s:,.1f}",
                f"{all_pairs_s / search_s:,.0f}",
                f"{best.peak_mb:.0f}",
            )
        )
    return layout(lines)


if __name__ == "__main__":
    main()
