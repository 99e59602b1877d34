"""Near-duplicates: one photograph more than once, resized, recompressed, trimmed or toned.

A picture is told by the signs of its 64 lowest frequencies: a cosine transform of the whole
picture, whatever its size, so that a copy of other proportions has the same. Signs survive what is
done to copies, because a brighter, flatter or grey copy has larger or smaller waves, but the same.

Measured on 100 photographs of Open Images (``benchmarks/duplicates.py`` prints it): copies that
were resized, recompressed down to quality 10 or turned grey differ in 2 bits at most; those
lightened or darkened by 30 of 255 levels in 1 on average; those trimmed by 1 % a side in 2, by 2 %
in 4, by 3 % in 6. Two different photographs differ in 32 bits on average and in 15 at least, two
quarters of different photographs (79,200 pairs) in 13 at least. Within ``NEAR_BITS`` are all copies
trimmed by 1 %, 99 of 100 trimmed by 2 %, 84 of 100 trimmed by 3 %, and no two photographs.

The search is exact. Of ``b`` bands of bits, ``d`` differing bits can touch ``d`` at most, so two
hashes agree in all bits of some ``b - d`` bands: sorting by each choice of bands brings all pairs
together (Manku, Jain and Sarma, "Detecting Near-Duplicates for Web Crawling", WWW 2007, section 3).
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
"""Pictures whose hashes differ in so many bits, or fewer, are taken for one."""
FLAT: Final = 0
"""The hash of a picture that is too plain to be told from others; it is near to nothing."""

_BITS: Final = 64
_FLAT_LEVELS: Final = 0.05
"""Half of a picture's waves are lower than this (of 255 levels): the noise of a JPEG of a plain sky
makes waves of 0.02, photographs have 0.4 and more."""
_STRIDE: Final = 23
"""Neighbouring frequencies go to bits far apart, because they often change together."""

# What a key costs for each hash, and each candidate that it brings up, in ns (measured).
_KEY_NS: Final = 90.0
_CANDIDATE_NS: Final = 30.0
_MOST_KEPT_BANDS: Final = 6
_INDEX_BITS: Final = np.uint64(32)
_INDEX_MASK: Final = np.uint64(0xFFFF_FFFF)


def _frequencies() -> tuple[list[int], list[int]]:
    """Give the lowest frequencies but the mean: cycles down and across, in order of the bits."""
    grid = itertools.product(range(_BITS), repeat=2)
    lowest = sorted(grid, key=lambda waves: (waves[0] ** 2 + waves[1] ** 2, waves))[1 : _BITS + 1]
    spread = [lowest[bit * _STRIDE % _BITS] for bit in range(_BITS)]
    return [down for down, _ in spread], [across for _, across in spread]


_DOWN, _ACROSS = _frequencies()
_WAVES: Final = max(*_DOWN, *_ACROSS) + 1


def perceptual_hash(grey: npt.NDArray[np.uint8]) -> int:
    """Give a picture's hash.

    Args:
        grey: The upright picture before a letterbox's border or a mask, height x width, of any
            size and proportions; a reduced or stretched one serves as well, if 128 pixels a side
            are left.

    Returns:
        An unsigned number of 64 bits; ``FLAT`` for a picture that is too plain to have one.
    """
    waves = _waves(grey)
    if not grey.size or float(np.median(np.abs(waves))) < _FLAT_LEVELS:
        return FLAT
    return int.from_bytes(np.packbits(waves > 0).tobytes(), "big")


def _waves(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Give the heights of a picture's lowest waves, in levels of 255."""
    height, width = grey.shape
    across = grey.astype(np.float32) @ _cosines(width).T
    found: npt.NDArray[np.float32] = (_cosines(height) @ across)[_DOWN, _ACROSS]
    return found


@lru_cache(maxsize=64)
def _cosines(size: int) -> npt.NDArray[np.float32]:
    """Give the waves along a side of ``size`` pixels, a row each; a product with one is a mean."""
    at = (np.arange(size) + 0.5) / max(size, 1)
    waves = np.cos(np.pi * np.outer(np.arange(_WAVES), at)) / max(size, 1)
    return waves.astype(np.float32)


def as_text(value: int) -> str:
    """Write a hash as the ledger keeps it: 16 hexadecimal digits."""
    return f"{value:016x}"


def from_texts(texts: Iterable[str]) -> Hashes:
    """Read hashes as the ledger keeps them; an empty text is ``FLAT``."""
    return np.fromiter((int(text or "0", 16) for text in texts), dtype=np.uint64)


def differing_bits(first: Hashes, second: Hashes) -> npt.NDArray[np.uint8]:
    """Count the bits in which hashes differ, pair by pair."""
    return _count_bits(first ^ second)


def near_pairs(hashes: Hashes, bits: int = NEAR_BITS) -> Indices:
    """Find all pairs of hashes that differ in few bits, without comparing each with each.

    Args:
        hashes: In any order; ``FLAT`` is near to nothing.
        bits: The most bits that may differ.

    Returns:
        Pairs of indices, n x 2, in order. Of equal hashes the first one stands for all: it is
        paired with each of the others, and it alone with those that are near.
    """
    distinct, firsts, which = np.unique(hashes, return_index=True, return_inverse=True)
    equal = np.stack([firsts[which], np.arange(len(hashes))], axis=1)
    equal = equal[(equal[:, 0] != equal[:, 1]) & (hashes != FLAT)]
    firsts, distinct = firsts[distinct != FLAT], distinct[distinct != FLAT]
    found = firsts[_near_distinct(distinct, bits)]
    pairs = np.concatenate([np.sort(found, axis=1), equal]).astype(np.int64)
    ordered: Indices = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return ordered


def widest_cluster(hashes: Hashes) -> tuple[int, int]:
    """Find the cluster whose members differ most: near ones bind those that are not near.

    Args:
        hashes: In any order.

    Returns:
        How many hashes the cluster has, equal ones counted, and how many bits two of them differ
        in at most; (0, 0) if no two hashes are near.
    """
    distinct, counts = np.unique(hashes, return_counts=True)
    cluster_of = np.arange(len(distinct))
    pairs = near_pairs(distinct)
    while len(pairs):  # the smallest index spreads over a cluster
        lowest = np.minimum(cluster_of[pairs[:, 0]], cluster_of[pairs[:, 1]])
        spread = cluster_of.copy()
        np.minimum.at(spread, pairs.ravel(), np.repeat(lowest, 2))
        spread = spread[spread]
        if (spread == cluster_of).all():
            break
        cluster_of = spread
    ordered = np.argsort(cluster_of, kind="stable")
    edges = np.flatnonzero(np.diff(cluster_of[ordered])) + 1
    widest = (0, 0)
    for cluster in np.split(ordered, edges):
        members = distinct[cluster]
        if len(members) > 1:
            bits = max(int(differing_bits(members, one).max()) for one in members)
            widest = max(widest, (int(counts[cluster].sum()), bits), key=lambda found: found[1])
    return widest


def _near_distinct(hashes: Hashes, bits: int) -> Indices:
    """Give the pairs of indices of near hashes; no two of ``hashes`` are equal."""
    if len(hashes) > int(_INDEX_MASK):
        raise ValueError(f"too many hashes for this search: {len(hashes)}")
    found: list[Hashes] = []
    count = 0
    if len(hashes) > 1 and bits:
        for key in _keys(hashes, bits):
            found += _agreeing(hashes, key, bits)
            if sum(map(len, found)) > 2 * count + len(hashes):  # the same pair shows in many keys
                found = [np.unique(np.concatenate(found))]
                count = len(found[0])
    codes = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *found]))
    return np.stack([codes >> _INDEX_BITS, codes & _INDEX_MASK], axis=1).astype(np.int64)


def _keys(hashes: Hashes, bits: int) -> Iterator[Hashes]:
    """Give keys of 32 bits at most, of which near hashes have at least one in common."""
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
    """Choose how many bands a key has: few are many candidates, many are many sortings."""

    def cost(kept: int) -> float:
        key_bits = _BITS * kept / (bits + kept)
        candidates: float = count * count / 2.0 ** (key_bits + 1)
        return math.comb(bits + kept, kept) * (_KEY_NS * count + _CANDIDATE_NS * candidates)

    fitting = [
        kept
        for kept in range(1, _MOST_KEPT_BANDS + 1)
        if bits + kept <= _BITS and -(-_BITS // (bits + kept)) * kept <= int(_INDEX_BITS)
    ]
    return min(fitting, key=cost)


def _agreeing(hashes: Hashes, key: Hashes, bits: int) -> list[Hashes]:
    """Give the near pairs among hashes of equal key, as codes: an index above the other."""
    # One number holds key and index, because sorting numbers is far quicker than sorting by them.
    ordered = np.sort((key << _INDEX_BITS) | np.arange(len(hashes), dtype=np.uint64))
    key, index = ordered >> _INDEX_BITS, ordered & _INDEX_MASK
    beside = hashes[index]
    found: list[Hashes] = []
    step, at = 1, np.flatnonzero(key[1:] == key[:-1])
    while len(at):
        near = at[differing_bits(beside[at], beside[at + step]) <= bits]
        if len(near):
            # Within a key the indices rise, so the smaller one is above.
            found.append((index[near] << _INDEX_BITS) | index[near + step])
        step += 1
        at = at[: np.searchsorted(at, len(key) - step)]
        at = at[key[at] == key[at + step]]
    return found


def _count_bits(values: Hashes) -> npt.NDArray[np.uint8]:
    """Count the bits that are set, two, four and eight at a time."""
    counted = getattr(np, "bitwise_count", _count_bits_by_halves)  # numpy has it since 2.0
    found: npt.NDArray[np.uint8] = counted(values)
    return found


def _count_bits_by_halves(values: Hashes) -> npt.NDArray[np.uint8]:
    twos = values - ((values >> np.uint64(1)) & np.uint64(0x5555_5555_5555_5555))
    mask = np.uint64(0x3333_3333_3333_3333)
    fours = (twos & mask) + ((twos >> np.uint64(2)) & mask)
    eights = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F_0F0F_0F0F_0F0F)
    summed = (eights * np.uint64(0x0101_0101_0101_0101)) >> np.uint64(56)
    found: npt.NDArray[np.uint8] = summed.astype(np.uint8)
    return found
