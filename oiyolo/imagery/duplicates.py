"""Find near-duplicates: resized, recompressed, cropped or recoloured copies of a photograph.

The perceptual hash of an image is the signs of its 64 lowest frequencies: a cosine transform of the
whole image, whatever its size, so that a copy with another aspect ratio has the same hash. The
signs are robust, because a brighter, flatter or grey copy has larger or smaller amplitudes with the
same signs.

Measured on 100 photographs of Open Images (``benchmarks/duplicates.py`` prints it): copies that
were resized, recompressed down to quality 10 or turned grey differ in 2 bits at most; those
lightened or darkened by 30 of 255 levels differ in 1 on average; those cropped by 1 % per side in
2, by 2 % in 4, by 3 % in 6. Two different photographs differ in 32 bits on average and in at least
15; two quarters of different photographs (79,200 pairs) in at least 13. Within ``NEAR_BITS`` are
all copies cropped by 1 %, 99 of 100 cropped by 2 %, 84 of 100 cropped by 3 %, and no two different
photographs.

The search is exact. Divide the hash into ``b`` bands of bits: ``d`` differing bits touch at most
``d`` bands, so two hashes agree in all bits of some ``b - d`` bands. Sorting by every choice of
``b - d`` bands therefore brings all pairs together (Manku, Jain and Sarma, "Detecting
Near-Duplicates for Web Crawling", WWW 2007, section 3).
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    Hashes = npt.NDArray[np.uint64]
    Indices = npt.NDArray[np.int64]

NEAR_BITS: Final = 8
"""Maximum number of differing bits for which two images count as near-duplicates."""
FLAT: Final = 0
"""Hash of an image that has too little contrast to be compared; it is in no pair."""

_BITS: Final = 64
_FLAT_LEVELS: Final = 0.05
"""An image whose median amplitude is below this (of 255 levels) is flat: the JPEG noise of a plain
sky has amplitudes of 0.02, photographs have 0.4 and more."""
_STRIDE: Final = 23
"""Distance between the bits of neighbouring frequencies, which often change together."""

# Measured time in ns per key and hash, and per candidate pair.
_KEY_NS: Final = 90.0
_CANDIDATE_NS: Final = 30.0
_MAX_KEPT_BANDS: Final = 6
_INDEX_BITS: Final = np.uint64(32)
_INDEX_MASK: Final = np.uint64(0xFFFF_FFFF)


def _frequencies() -> tuple[list[int], list[int]]:
    """Return the lowest frequencies except the mean: half cycles down and across, in bit order."""
    grid = itertools.product(range(_BITS), repeat=2)
    lowest = sorted(grid, key=lambda waves: (waves[0] ** 2 + waves[1] ** 2, waves))[1 : _BITS + 1]
    spread = [lowest[bit * _STRIDE % _BITS] for bit in range(_BITS)]
    return [down for down, _ in spread], [across for _, across in spread]


_DOWN, _ACROSS = _frequencies()
_WAVES: Final = max(*_DOWN, *_ACROSS) + 1


def perceptual_hash(grey: npt.NDArray[np.uint8]) -> int:
    """Compute the perceptual hash of an image.

    Args:
        grey: The upright image without border or masked regions, shape (height, width). It may be
            reduced or stretched, to at least 128 pixels per side.

    Returns:
        An unsigned 64-bit number; ``FLAT`` for an image with too little contrast.
    """
    height, width = grey.shape
    across = grey.astype(np.float32) @ _cosines(width).T
    waves = (_cosines(height) @ across)[_DOWN, _ACROSS]  # in levels of 255
    if not grey.size or float(np.median(np.abs(waves))) < _FLAT_LEVELS:
        return FLAT
    return int.from_bytes(np.packbits(waves > 0).tobytes(), "big")


@lru_cache(maxsize=64)
def _cosines(size: int) -> npt.NDArray[np.float32]:
    """Return the cosines along a side of ``size`` pixels, one per row, divided by ``size``."""
    at = (np.arange(size) + 0.5) / max(size, 1)
    waves = np.cos(np.pi * np.outer(np.arange(_WAVES), at)) / max(size, 1)
    return waves.astype(np.float32)


def hash_to_text(value: int) -> str:
    """Format a hash as it is stored in the ledger: 16 hexadecimal digits."""
    return f"{value:016x}"


def hashes_from_texts(texts: Iterable[str]) -> Hashes:
    """Parse hashes as they are stored in the ledger; an empty text is ``FLAT``."""
    return np.fromiter((int(text or "0", 16) for text in texts), dtype=np.uint64)


def differing_bits(first: Hashes, second: Hashes) -> npt.NDArray[np.uint8]:
    """Return the number of bits in which hashes differ, pair by pair."""
    counts: npt.NDArray[np.uint8] = np.bitwise_count(first ^ second)
    return counts


def near_pairs(hashes: Hashes, bits: int = NEAR_BITS) -> Indices:
    """Return all pairs of hashes that differ in few bits, without comparing every two.

    Args:
        hashes: Hashes in any order; ``FLAT`` is in no pair.
        bits: Maximum number of differing bits.

    Returns:
        Pairs of indices, shape (n, 2), sorted. The first of several equal hashes represents them:
        it is paired with each of the others, and only it is paired with near hashes.
    """
    distinct, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    equal = np.stack([firsts[inverse], np.arange(len(hashes))], axis=1)
    equal = equal[(equal[:, 0] != equal[:, 1]) & (hashes != FLAT)]
    firsts, distinct = firsts[distinct != FLAT], distinct[distinct != FLAT]
    near = firsts[_near_distinct(distinct, bits)]
    pairs = np.concatenate([np.sort(near, axis=1), equal]).astype(np.int64)
    ordered: Indices = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return ordered


def widest_cluster(hashes: Hashes) -> tuple[int, int]:
    """Find the cluster of linked near-duplicates whose members differ most.

    A cluster contains hashes that are not near each other, if a chain of near pairs links them.

    Args:
        hashes: Hashes in any order.

    Returns:
        Number of hashes in the cluster, including equal ones, and the maximum number of bits in
        which two of them differ; (0, 0) if no two hashes are near.
    """
    distinct, counts = np.unique(hashes, return_counts=True)
    cluster_of = np.arange(len(distinct))
    pairs = near_pairs(distinct)
    while len(pairs):  # propagates the smallest index through each cluster
        lowest = np.minimum(cluster_of[pairs[:, 0]], cluster_of[pairs[:, 1]])
        spread = cluster_of.copy()
        np.minimum.at(spread, pairs.ravel(), np.repeat(lowest, 2))
        spread = spread[spread]
        if (spread == cluster_of).all():
            break
        cluster_of = spread
    linked = np.unique(pairs)
    ordered = linked[np.argsort(cluster_of[linked], kind="stable")]
    edges = np.flatnonzero(np.diff(cluster_of[ordered])) + 1
    widest = (0, 0)
    for cluster in np.split(ordered, edges):
        members = distinct[cluster]
        bits = max((int(differing_bits(members, one).max()) for one in members), default=0)
        if bits > widest[1]:
            widest = (int(counts[cluster].sum()), bits)
    return widest


def _near_distinct(hashes: Hashes, bits: int) -> Indices:
    """Return the pairs of indices of near hashes; no two of ``hashes`` are equal."""
    if len(hashes) > int(_INDEX_MASK):
        raise ValueError(f"too many hashes for this search: {len(hashes)}")
    pair_codes: list[Hashes] = []
    distinct_count = 0
    if len(hashes) > 1 and bits:
        for key in _keys(hashes, bits):
            pair_codes += _near_with_equal_key(hashes, key, bits)
            # Many keys yield the same pair, so repetitions are removed now and then.
            if sum(map(len, pair_codes)) > 2 * distinct_count + len(hashes):
                pair_codes = [np.unique(np.concatenate(pair_codes))]
                distinct_count = len(pair_codes[0])
    codes = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *pair_codes]))
    return np.stack([codes >> _INDEX_BITS, codes & _INDEX_MASK], axis=1).astype(np.int64)


def _keys(hashes: Hashes, bits: int) -> Iterator[Hashes]:
    """Yield keys of at most 32 bits; any two near hashes have at least one key in common."""
    kept = _kept_bands(len(hashes), bits)
    edges = [_BITS * band // (bits + kept) for band in range(bits + kept + 1)]
    bands = [(low, high - low) for low, high in itertools.pairwise(edges)]
    for chosen in itertools.combinations(bands, kept):
        key = np.zeros_like(hashes)
        for low, width in chosen:
            band = (hashes >> np.uint64(low)) & np.uint64((1 << width) - 1)
            key = (key << np.uint64(width)) | band
        yield key


def _kept_bands(count: int, bits: int) -> int:
    """Return the best number of bands per key: fewer give more candidates, more give more keys."""

    def cost(kept: int) -> float:
        key_bits = _BITS * kept / (bits + kept)
        candidates: float = count * count / 2.0 ** (key_bits + 1)
        return math.comb(bits + kept, kept) * (_KEY_NS * count + _CANDIDATE_NS * candidates)

    fitting = [
        kept
        for kept in range(1, _MAX_KEPT_BANDS + 1)
        if bits + kept <= _BITS and -(-_BITS // (bits + kept)) * kept <= int(_INDEX_BITS)
    ]
    return min(fitting, key=cost)


def _near_with_equal_key(hashes: Hashes, key: Hashes, bits: int) -> list[Hashes]:
    """Return the near pairs among hashes with equal keys, as two 32-bit indices in one number."""
    # Key and index share one number, because sorting numbers is much faster than argsort.
    ordered = np.sort((key << _INDEX_BITS) | np.arange(len(hashes), dtype=np.uint64))
    key, index = ordered >> _INDEX_BITS, ordered & _INDEX_MASK
    sorted_hashes = hashes[index]
    pair_codes: list[Hashes] = []
    step, at = 1, np.flatnonzero(key[1:] == key[:-1])
    while len(at):
        near = at[differing_bits(sorted_hashes[at], sorted_hashes[at + step]) <= bits]
        if len(near):
            # Indices ascend within a key, so the smaller one is in the upper half.
            pair_codes.append((index[near] << _INDEX_BITS) | index[near + step])
        step += 1
        at = at[: np.searchsorted(at, len(key) - step)]
        at = at[key[at] == key[at + step]]
    return pair_codes
