"""Near-duplicates: copies are near, other photographs are not, and the search misses nothing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from oiyolo.demo_data.scenes import Kind, draw_scene
from oiyolo.imagery import duplicates
from oiyolo.imagery.duplicates import (
    FLAT,
    NEAR_BITS,
    as_text,
    differing_bits,
    from_texts,
    near_pairs,
    perceptual_hash,
    widest_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Copied = Callable[[Image.Image], Image.Image]

RNG = np.random.default_rng(0)


def hash_of(picture: Image.Image) -> int:
    return perceptual_hash(np.asarray(picture.convert("L")))


def bits_between(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def resized(width: int, height: int) -> Copied:
    return lambda picture: picture.resize((width, height))


def recompressed(quality: int) -> Copied:
    def copied(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return copied


def trimmed(left: float, top: float, right: float, bottom: float) -> Copied:
    def copied(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
        return picture.crop(tuple(map(round, box)))  # type: ignore[arg-type]  # four of them

    return copied


def toned(change: float) -> Copied:
    return lambda picture: picture.point(lambda level: min(255, max(0, level + change)))


# Each with the most bits that any of the photographs may change, and how many of 100 must be near.
COPIES: dict[str, tuple[Copied, int, int]] = {
    "stretched to 416x416": (resized(416, 416), 1, 100),
    "a fifth as large": (resized(200, 150), 1, 100),
    "quality 95": (recompressed(95), 1, 100),
    "quality 60": (recompressed(60), 2, 100),
    "quality 30": (recompressed(30), 2, 100),
    "grey": (lambda picture: picture.convert("L"), 1, 100),
    "lighter by 30 levels": (toned(30), 9, 99),
    "darker by 30 levels": (toned(-30), 9, 99),
    "brighter by a quarter": (lambda p: ImageEnhance.Brightness(p).enhance(1.25), 14, 97),
    "darker by a quarter": (lambda p: ImageEnhance.Brightness(p).enhance(0.75), 1, 100),
    "less contrast": (lambda p: ImageEnhance.Contrast(p).enhance(0.7), 1, 100),
    "more contrast": (lambda p: ImageEnhance.Contrast(p).enhance(1.3), 9, 99),
    "trimmed by 1 % a side": (trimmed(0.01, 0.01, 0.01, 0.01), 6, 100),
    "trimmed by 2 % a side": (trimmed(0.02, 0.02, 0.02, 0.02), 12, 97),
    "trimmed by 3 % a side": (trimmed(0.03, 0.03, 0.03, 0.03), 13, 80),
    "trimmed by 3 % at the left": (trimmed(0.03, 0, 0, 0), 10, 97),
}


@pytest.fixture(scope="module")
def photographs(real: Path) -> list[Image.Image]:
    paths = sorted((real / "alpaca" / "images").glob("*.jpg"))
    assert len(paths) == 100
    # Their hashes are the same at this size, and tests are quicker.
    return [Image.open(path).convert("RGB").resize((320, 240)) for path in paths]


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_photograph_is_near_it(photographs: list[Image.Image], name: str) -> None:
    copied, most_bits, least_near = COPIES[name]
    bits = [bits_between(hash_of(p), hash_of(copied(p))) for p in photographs]
    assert max(bits) <= most_bits
    assert sum(number <= NEAR_BITS for number in bits) >= least_near


def test_no_two_photographs_are_near_each_other(photographs: list[Image.Image]) -> None:
    hashes = np.array([hash_of(p) for p in photographs], dtype=np.uint64)
    assert FLAT not in hashes
    first, second = np.triu_indices(len(hashes), 1)
    bits = differing_bits(hashes[first], hashes[second])
    assert bits.min() >= NEAR_BITS + 6
    assert 30 < bits.mean() < 34
    assert len(near_pairs(hashes)) == 0


def test_a_photograph_at_its_own_size_has_nearly_the_hash_of_a_small_copy(real: Path) -> None:
    for path in sorted((real / "alpaca" / "images").glob("*.jpg"))[:20]:
        with Image.open(path) as picture:
            small = picture.convert("L").resize((128, 128))
            assert bits_between(hash_of(picture), hash_of(small)) <= 2


def test_drawn_scenes_are_not_near_each_other_but_their_copies_are() -> None:
    scenes = [draw_scene(np.random.default_rng(seed), Kind.BOATS).image for seed in range(24)]
    hashes = np.array([hash_of(scene) for scene in scenes], dtype=np.uint64)
    assert len(near_pairs(hashes)) == 0
    for scene, known in zip(scenes, hashes.tolist(), strict=True):
        assert known == FLAT or bits_between(hash_of(recompressed(40)(scene)), known) <= NEAR_BITS


ROWS, COLUMNS = np.mgrid[:96, :128]
PLAIN = {
    "one grey": np.full((96, 128), 120.0),
    "black": np.zeros((96, 128)),
    "a sky that fades": 80 + ROWS / 2,
    "a sky that fades sideways, too": 60 + ROWS / 3 + COLUMNS / 2,
    "one pixel": np.full((1, 1), 9.0),
    "one row": np.full((1, 500), 200.0),
    "noise": np.clip(RNG.normal(120, 3, (768, 1024)), 0, 255),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("quality", [None, 90, 30])
def test_a_picture_without_contrast_is_near_to_nothing(name: str, quality: int | None) -> None:
    picture = Image.fromarray(PLAIN[name].astype(np.uint8))
    known = hash_of(picture if quality is None else recompressed(quality)(picture))
    assert known == FLAT
    assert len(near_pairs(np.array([known, known, 1], dtype=np.uint64))) == 0


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (3, 7), (1, 4000), (2000, 3)])
def test_a_picture_of_any_size_has_a_hash_of_64_bits(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert 0 <= perceptual_hash(grey) < 1 << 64


def test_a_mirrored_or_turned_photograph_is_another_picture(photographs: list[Image.Image]) -> None:
    for photograph in photographs[:20]:
        known = hash_of(photograph)
        for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180):
            assert bits_between(known, hash_of(photograph.transpose(turn))) > NEAR_BITS


@given(st.integers(0, (1 << 64) - 1))
def test_a_hash_is_written_and_read_back(value: int) -> None:
    text = as_text(value)
    assert len(text) == 16
    assert from_texts([text, ""]).tolist() == [value, FLAT]


WORDS = st.integers(0, (1 << 64) - 1)


@st.composite
def hash_lists(draw: st.DrawFn) -> list[int]:
    """Some hashes, and some that differ from one of them in a few bits, or in none."""
    hashes = draw(st.lists(WORDS, min_size=1, max_size=20))
    for _ in range(draw(st.integers(0, 30))):
        value = draw(st.sampled_from(hashes))
        for bit in draw(st.sets(st.integers(0, 63), max_size=12)):
            value ^= 1 << bit
        hashes.append(value)
    return draw(st.permutations(hashes))


def compared_each_with_each(hashes: list[int], bits: int) -> set[tuple[int, int]]:
    """Give what ``near_pairs`` promises, the slow way."""
    firsts = {value: hashes.index(value) for value in hashes if value != FLAT}
    pairs = {(firsts[v], at) for at, v in enumerate(hashes) if v in firsts and firsts[v] != at}
    ordered = sorted(firsts.values())
    return pairs | {
        (a, b) for a in ordered for b in ordered
        if a < b and bits_between(hashes[a], hashes[b]) <= bits
    }  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(hash_lists(), st.sampled_from([0, 1, 3, 6, 8, 10]))
def test_the_search_finds_what_comparing_each_with_each_finds(hashes: list[int], bits: int) -> None:
    found = near_pairs(np.array(hashes, dtype=np.uint64), bits).tolist()
    assert found == sorted(map(list, compared_each_with_each(hashes, bits)))


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_the_search_is_exact_however_many_bands_a_key_has(
    monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    rng = np.random.default_rng(kept)
    hashes = rng.integers(1, 1 << 64, 400, dtype=np.uint64, endpoint=False)
    planted = set()
    for copy in range(100):
        changed = rng.choice(64, rng.integers(1, NEAR_BITS + 1), replace=False).tolist()
        hashes[300 + copy] = int(hashes[copy]) ^ sum(1 << bit for bit in changed)
        planted.add((copy, 300 + copy))
    monkeypatch.setattr(duplicates, "_kept_bands", lambda *_: kept)
    assert set(map(tuple, near_pairs(hashes).tolist())) == planted


def test_no_hash_has_no_pairs_and_no_cluster() -> None:
    none = np.array([], dtype=np.uint64)
    assert near_pairs(none).shape == (0, 2)
    assert widest_cluster(none) == (0, 0)


@given(st.lists(WORDS, min_size=1, max_size=50))
def test_bits_are_counted_the_same_without_the_newer_numpy(values: list[int]) -> None:
    found = duplicates._count_bits_by_halves(np.array(values, dtype=np.uint64))
    assert found.tolist() == [value.bit_count() for value in values]


def test_the_widest_cluster_is_the_row_of_near_hashes_whose_ends_differ_most() -> None:
    start = 0xFFFF_0000_FFFF_0000
    row = [start ^ ((1 << (NEAR_BITS * n)) - 1) for n in range(4)]  # each near the next one only
    alone = [0x0123_4567_89AB_CDEF, 0x0123_4567_89AB_CDEE]
    mixed = [row[2], alone[0], row[0], row[3], row[3], alone[1], row[1], FLAT, FLAT]
    assert widest_cluster(np.array(mixed, dtype=np.uint64)) == (5, 3 * NEAR_BITS)
    assert widest_cluster(np.array(alone, dtype=np.uint64)) == (2, 1)
