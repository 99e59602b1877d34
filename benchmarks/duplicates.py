"""Near-duplicates: how far copies are from their photographs, and how the search grows.

``python benchmarks/duplicates.py [--photographs FOLDER] [--counts 10000 100000 1000000]``

With a folder of photographs it prints in how many of 64 bits the hash of a copy differs, and those
of different photographs. Then random hashes with a copy of each hundredth planted among them, 1 to
8 bits apart, are searched, each count in a process of its own; all planted pairs must be found. The
baseline is to compare each with each, measured at the smallest count and computed for the others.
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
_PLANTED_EVERY: Final = 100


def main() -> None:
    """Print both tables; or, with ``--search``, search one count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=list(_COUNTS))
    parser.add_argument("--search", type=int, help="only search so many hashes, print seconds")
    given = parser.parse_args()
    if given.search:
        print(_searched_s(given.search))
        return
    if given.photographs:
        print(_distances(sorted(given.photographs.glob("*.jpg"))), "\n")
    print(_growth(given.counts))


def _trimmed(picture: Image.Image, share: float) -> Image.Image:
    width, height = picture.size
    across, down = round(width * share), round(height * share)
    return picture.crop((across, down, width - across, height - down))


def _recompressed(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


_COPIES: Final[dict[str, Callable[[Image.Image], Image.Image]]] = {
    "stretched to 416x416": lambda p: p.resize((416, 416)),
    "half as large": lambda p: p.resize((p.width // 2, p.height // 2)),
    "grey": lambda p: p.convert("L"),
    "quality 95": lambda p: _recompressed(p, 95),
    "quality 30": lambda p: _recompressed(p, 30),
    "half as large, quality 30": lambda p: _recompressed(
        p.resize((p.width // 2, p.height // 2)), 30
    ),
    "darker by 30 %": lambda p: ImageEnhance.Brightness(p).enhance(0.7),
    "brighter by 30 %": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "lighter by 30 levels": lambda p: p.point(lambda level: min(255, level + 30)),
    "less contrast by 30 %": lambda p: ImageEnhance.Contrast(p).enhance(0.7),
    "more contrast by 30 %": lambda p: ImageEnhance.Contrast(p).enhance(1.3),
    "trimmed by 1 % a side": lambda p: _trimmed(p, 0.01),
    "trimmed by 2 % a side": lambda p: _trimmed(p, 0.02),
    "trimmed by 3 % a side": lambda p: _trimmed(p, 0.03),
    "trimmed by 5 % a side": lambda p: _trimmed(p, 0.05),
}


def _hashes(pictures: Sequence[Image.Image]) -> Hashes:
    texts = [perceptual_hash(np.asarray(picture.convert("L"))) for picture in pictures]
    return np.array(texts, dtype=np.uint64)


def _distances(paths: Sequence[Path]) -> str:
    pictures = [Image.open(path).convert("RGB") for path in paths]
    known = _hashes(pictures)
    lines = [("bits that differ", "mean", "least", "most", f"within {NEAR_BITS}")]
    rows = {name: (known, _hashes([copy(p) for p in pictures])) for name, copy in _COPIES.items()}
    first, second = np.triu_indices(len(known), 1)
    rows["different photographs"] = (known[first], known[second])
    for name, (some, others) in rows.items():
        bits = differing_bits(some, others)
        near = (bits <= NEAR_BITS).mean()
        lines.append((name, f"{bits.mean():.2f}", str(bits.min()), str(bits.max()), f"{near:.1%}"))
    return layout(lines)


def _planted(count: int) -> tuple[Hashes, set[tuple[int, int]]]:
    """Give random hashes, the last of them copies of the first, and the pairs."""
    rng = np.random.default_rng(count)
    hashes = rng.integers(1, 2**64 - 1, count, dtype=np.uint64)
    copies = count // _PLANTED_EVERY
    for number in range(copies):
        bits = rng.choice(64, rng.integers(1, NEAR_BITS + 1), replace=False).tolist()
        hashes[count - copies + number] = int(hashes[number]) ^ sum(1 << bit for bit in bits)
    return hashes, {(number, count - copies + number) for number in range(copies)}


def _searched_s(count: int) -> float:
    hashes, planted = _planted(count)
    began_s = time.perf_counter()
    found = near_pairs(hashes)
    took_s = time.perf_counter() - began_s
    if missed := planted - set(map(tuple, found.tolist())):
        raise AssertionError(f"missed {len(missed)} pairs, as {sorted(missed)[:3]}")
    return took_s


def _compared_each_with_each_s(count: int) -> float:
    hashes, _ = _planted(count)
    began_s = time.perf_counter()
    for at in range(count - 1):
        np.flatnonzero(differing_bits(hashes[at + 1 :], hashes[at]) <= NEAR_BITS)
    return time.perf_counter() - began_s


def _growth(counts: Sequence[int]) -> str:
    smallest = min(counts)
    slow_s = _compared_each_with_each_s(smallest)
    lines = [("hashes", "search s", "each with each s", "times as quick", "peak MB")]
    for count in counts:
        command = [sys.executable, __file__, "--search", str(count)]
        quickest = min((run(command) for _ in range(2)), key=lambda m: float(m.output))
        took_s, compared_s = float(quickest.output), slow_s * (count / smallest) ** 2
        lines.append(
            (
                f"{count:,}",
                f"{took_s:.2f}",
                f"{compared_s:,.1f}",
                f"{compared_s / took_s:,.0f}",
                f"{quickest.peak_mb:.0f}",
            )
        )
    return layout(lines)


if __name__ == "__main__":
    main()
