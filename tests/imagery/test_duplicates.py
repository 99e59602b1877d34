"""Copies of a photograph are near-duplicates, other photographs are not, and all are found."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from oiyolo.demo_data.scenes import SceneKind, draw_scene
from oiyolo.imagery import duplicates
from oiyolo.imagery.duplicates import (
    FLAT,
    NEAR_BITS,
    differing_bits,
    hash_to_text,
    hashes_from_texts,
    near_pairs,
    perceptual_hash,
    widest_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    CopyFunction = Callable[[Image.Image], Image.Image]

RNG = np.random.default_rng(0)


def hash_of(image: Image.Image) -> int:
    return perceptual_hash(np.asarray(image.convert("L")))


def bits_between(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def resized(width: int, height: int) -> CopyFunction:
    return lambda image: image.resize((width, height))


def recompressed(quality: int) -> CopyFunction:
    def make_copy(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return make_copy


def cropped(left: float, top: float, right: float, bottom: float) -> CopyFunction:
    def make_copy(image: Image.Image) -> Image.Image:
        width, height = image.size
        box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
        return image.crop(tuple(map(round, box)))  # type: ignore[arg-type]  # four of them

    return make_copy


def toned(change: float) -> CopyFunction:
    return lambda image: image.point(lambda level: min(255, max(0, level + change)))


# Each with the maximum number of differing bits, and how many of 100 copies must be near.
COPIES: dict[str, tuple[CopyFunction, int, int]] = {
    "stretched to 416x416": (resized(416, 416), 1, 100),
    "a fifth as large": (resized(200, 150), 1, 100),
    "quality 95": (recompressed(95), 1, 100),
    "quality 60": (recompressed(60), 2, 100),
    "quality 30": (recompressed(30), 2, 100),
    "grey": (lambda image: image.convert("L"), 1, 100),
    "lighter by 30 levels": (toned(30), 9, 99),
    "darker by 30 levels": (toned(-30), 9, 99),
    "brighter by a quarter": (lambda p: ImageEnhance.Brightness(p).enhance(1.25), 14, 97),
    "darker by a quarter": (lambda p: ImageEnhance.Brightness(p).enhance(0.75), 1, 100),
    "less contrast": (lambda p: ImageEnhance.Contrast(p).enhance(0.7), 1, 100),
    "more contrast": (lambda p: ImageEnhance.Contrast(p).enhance(1.3), 9, 99),
    "trimmed by 1 % a side": (cropped(0.01, 0.01, 0.01, 0.01), 6, 100),
    "trimmed by 2 % a side": (cropped(0.02, 0.02, 0.02, 0.02), 12, 97),
    "trimmed by 3 % a side": (cropped(0.03, 0.03, 0.03, 0.03), 13, 80),
    "trimmed by 3 % at the left": (cropped(0.03, 0, 0, 0), 10, 97),
}


@pytest.fixture(scope="module")
def photographs(real: Path) -> list[Image.Image]:
    paths = sorted((real / "alpaca" / "images").glob("*.jpg"))
    assert len(paths) == 100
    # The hashes at this size are the same, and the tests are faster.
    return [Image.open(path).convert("RGB").resize((320, 240)) for path in paths]


@pytest.fixture(scope="module")
def hashes(photographs: list[Image.Image]) -> list[int]:
    return [hash_of(p) for p in photographs]


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_photograph_is_a_near_duplicate(
    photographs: list[Image.Image], hashes: list[int], name: str
) -> None:
    make_copy, most_bits, least_near = COPIES[name]
    copies = map(make_copy, photographs)
    bits = [bits_between(h, hash_of(copy)) for h, copy in zip(hashes, copies, strict=True)]
    assert max(bits) <= most_bits
    assert sum(number <= NEAR_BITS for number in bits) >= least_near


def test_no_two_different_photographs_are_near_duplicates(hashes: list[int]) -> None:
    all_hashes = np.array(hashes, dtype=np.uint64)
    assert FLAT not in all_hashes
    first, second = np.triu_indices(len(all_hashes), 1)
    bits = differing_bits(all_hashes[first], all_hashes[second])
    assert bits.min() >= NEAR_BITS + 6
    assert 30 < bits.mean() < 34
    assert len(near_pairs(all_hashes)) == 0


def test_the_hash_hardly_depends_on_the_size_of_the_image(real: Path) -> None:
    for path in sorted((real / "alpaca" / "images").glob("*.jpg"))[:20]:
        with Image.open(path) as image:
            small = image.convert("L").resize((128, 128))
            assert bits_between(hash_of(image), hash_of(small)) <= 2


def test_drawn_scenes_are_near_only_to_their_own_copies() -> None:
    scenes = [draw_scene(np.random.default_rng(seed), SceneKind.BOATS).image for seed in range(24)]
    hashes = np.array([hash_of(scene) for scene in scenes], dtype=np.uint64)
    assert len(near_pairs(hashes)) == 0
    for scene, original_hash in zip(scenes, hashes.tolist(), strict=True):
        assert (
            original_hash == FLAT
            or bits_between(hash_of(recompressed(40)(scene)), original_hash) <= NEAR_BITS
        )


ROWS, COLUMNS = np.mgrid[:96, :128]
FLAT_IMAGES = {
    "one grey": np.full((96, 128), 120.0),
    "black": np.zeros((96, 128)),
    "a sky that fades": 80 + ROWS / 2,
    "a sky that fades sideways, too": 60 + ROWS / 3 + COLUMNS / 2,
    "one pixel": np.full((1, 1), 9.0),
    "one row": np.full((1, 500), 200.0),
    "noise": np.clip(RNG.normal(120, 3, (768, 1024)), 0, 255),
}


@pytest.mark.parametrize("name", FLAT_IMAGES)
@pytest.mark.parametrize("quality", [None, 90, 30])
def test_an_image_without_contrast_is_near_to_no_other(name: str, quality: int | None) -> None:
    image = Image.fromarray(FLAT_IMAGES[name].astype(np.uint8))
    original_hash = hash_of(image if quality is None else recompressed(quality)(image))
    assert original_hash == FLAT
    assert len(near_pairs(np.array([original_hash, original_hash, 1], dtype=np.uint64))) == 0


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (1, 1), (3, 7), (1, 4000), (2000, 3)])
def test_an_image_of_any_size_has_a_64_bit_hash(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert 0 <= perceptual_hash(grey) < 1 << 64


def test_a_mirrored_or_rotated_photograph_is_no_near_duplicate(
    photographs: list[Image.Image],
) -> None:
    for photograph in photographs[:20]:
        original_hash = hash_of(photograph)
        for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180):
            assert bits_between(original_hash, hash_of(photograph.transpose(turn))) > NEAR_BITS


@given(st.integers(0, (1 << 64) - 1))
def test_a_hash_is_formatted_and_parsed_back(value: int) -> None:
    text = hash_to_text(value)
    assert len(text) == 16
    assert hashes_from_texts([text, ""]).tolist() == [value, FLAT]


WORDS = st.integers(0, (1 << 64) - 1)


@st.composite
def hash_lists(draw: st.DrawFn) -> list[int]:
    """Draw hashes, of which some differ from another in a few bits, or not at all."""
    hashes = draw(st.lists(WORDS, min_size=1, max_size=20))
    for _ in range(draw(st.integers(0, 30))):
        value = draw(st.sampled_from(hashes))
        for bit in draw(st.sets(st.integers(0, 63), max_size=12)):
            value ^= 1 << bit
        hashes.append(value)
    return draw(st.permutations(hashes))


def compare_all_pairs(hashes: list[int], bits: int) -> set[tuple[int, int]]:
    """Return what ``near_pairs`` must return, by comparing every two hashes."""
    firsts = {value: hashes.index(value) for value in hashes if value != FLAT}
    pairs = {(firsts[v], at) for at, v in enumerate(hashes) if v in firsts and firsts[v] != at}
    ordered = sorted(firsts.values())
    return pairs | {
        (a, b) for a in ordered for b in ordered
        if a < b and bits_between(hashes[a], hashes[b]) <= bits
    }  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(hash_lists(), st.sampled_from([0, 1, 3, 6, 8, 10]))
def test_the_search_finds_the_same_pairs_as_comparing_all_pairs(
    hashes: list[int], bits: int
) -> None:
    found = near_pairs(np.array(hashes, dtype=np.uint64), bits).tolist()
    assert found == sorted(map(list, compare_all_pairs(hashes, bits)))


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


def test_without_hashes_there_are_no_pairs_and_no_cluster() -> None:
    none = np.array([], dtype=np.uint64)
    assert near_pairs(none).shape == (0, 2)
    assert widest_cluster(none) == (0, 0)


def test_the_widest_cluster_is_the_chain_whose_ends_differ_most() -> None:
    start = 0xFFFF_0000_FFFF_0000
    row = [start ^ ((1 << (NEAR_BITS * n)) - 1) for n in range(4)]  # each is near only to the next
    alone = [0x0123_4567_89AB_CDEF, 0x0123_4567_89AB_CDEE]
    mixed = [row[2], alone[0], row[0], row[3], row[3], alone[1], row[1], FLAT, FLAT]
    assert widest_cluster(np.array(mixed, dtype=np.uint64)) == (5, 3 * NEAR_BITS)
    assert widest_cluster(np.array(alone, dtype=np.uint64)) == (2, 1)
