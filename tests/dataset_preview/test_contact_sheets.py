"""What is drawn on the contact sheets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from oiyolo.dataset_preview.contact_sheets import crop_region, legible_name, sheets
from oiyolo.dataset_preview.facts import Pair
from oiyolo.dataset_preview.sampling import choose
from oiyolo.drawing import marks
from oiyolo.imagery import labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.dataset_preview.facts import Facts

BOX = (0.25, 0.25, 0.75, 0.75)
fractions = st.floats(0, 1, allow_subnormal=False)


def drawn(facts: Facts) -> dict[str, Image.Image]:
    return {sheet.name: sheet.draw() for sheet in sheets(facts, choose(facts))}


def count_of(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == colour).all(axis=2).sum())


@given(st.tuples(fractions, fractions), st.tuples(fractions, fractions), st.floats(0.2, 5))
def test_a_crop_holds_its_box_and_is_square_where_the_picture_allows_it(
    xs: tuple[float, float], ys: tuple[float, float], aspect: float
) -> None:
    (x1, x2), (y1, y2) = sorted(xs), sorted(ys)
    left, top, right, bottom = crop_region((x1, y1, x2, y2), aspect)
    near = 1e-9
    assert -near <= left <= x1 + near
    assert x2 - near <= right <= 1 + near
    assert -near <= top <= y1 + near
    assert y2 - near <= bottom <= 1 + near
    width, height = (right - left) * aspect, bottom - top
    if width < aspect - near and height < 1 - near:
        assert width == pytest.approx(height)
    assert width > 0
    assert height > 0


def test_boxes_lie_where_they_are_and_in_their_class_s_colour(
    facts_of: Callable[..., Facts], tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    pixels = np.full((96, 128, 3), 60, dtype=np.uint8)
    pixels[24:72, 32:96] = 200
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)
    facts = facts_of(
        tmp_path,
        [("a", 1, BOX, True), ("a", 0, (0, 0, 0.1, 0.1), False)],
        {"a": "train"},
        original_sizes_wh={"a": (1024, 768)},
    )
    sheet = np.asarray(drawn(facts)["train"]).astype(int)
    # The first cell: its left edge, the header's height, and its sides.
    left, top, width, height = 12, 58, 285, 214
    middle_x, middle_y = left + width // 2, top + height // 2
    for x, inwards in ((left + width // 4, 8), (left + width * 3 // 4, -8)):
        assert (sheet[middle_y, x - 3 : x + 4] == marks.ORANGE).all(axis=1).any()
        assert abs(sheet[middle_y, x + inwards] - 200).max() < 12
        assert abs(sheet[middle_y, x - inwards] - 60).max() < 12
    y = top + height * 3 // 4
    assert (sheet[y - 3 : y + 4, middle_x] == marks.ORANGE).all(axis=1).any()
    assert abs(sheet[y - 8, middle_x] - 200).max() < 12
    assert abs(sheet[y + 8, middle_x] - 60).max() < 12
    assert (sheet == marks.GREY).all(axis=2).any()  # the box that is no label
    assert not (sheet == marks.SKY).all(axis=2).any()


def test_a_crop_frames_the_object(facts_of: Callable[..., Facts], tmp_path: Path) -> None:
    pixels = np.full((416, 416, 3), 60, dtype=np.uint8)
    pixels[100:108, 300:308] = 220
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    box = (300 / 416, 100 / 416, 308 / 416, 108 / 416)
    facts = facts_of(tmp_path, [("a", 0, box, True)], {"a": "train"})
    sheet = np.asarray(drawn(facts)["smallest"]).astype(int)
    rows, columns = np.nonzero((sheet == marks.SKY).all(axis=2))
    inside = sheet[rows.min() + 12 : rows.max() - 12, columns.min() + 12 : columns.max() - 12]
    assert inside.size
    assert (abs(inside - 220) < 25).mean() > 0.9


def test_negatives_are_marked(facts_of: Callable[..., Facts], tmp_path: Path) -> None:
    labelled = facts_of(tmp_path, [("a", 0, BOX, True)], {"a": "train"})
    negative = facts_of(tmp_path, [("a", 0, BOX, False)], {"a": "train"})
    assert count_of(drawn(labelled)["train"], marks.SKY) > 500
    assert count_of(drawn(negative)["train"], marks.SKY) == 0
    assert set(drawn(negative)) == {"train"}


def test_in_a_crowd_names_do_not_hide_what_they_name(
    facts_of: Callable[..., Facts], tmp_path: Path
) -> None:
    crowd = [("a", 0, (n / 50, 0.4, n / 50 + 0.015, 0.6), True) for n in range(50)]
    facts = facts_of(tmp_path, crowd, {"a": "train"})
    sheet = np.asarray(drawn(facts)["train"])
    blue = (sheet == marks.SKY).all(axis=2)
    assert 0 < blue.any(axis=1).sum() < 100  # in the boxes' rows, and one name


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\xff\xd8\xff\xe0 cut off"])
def test_what_cannot_be_read_is_a_grey_cell(
    facts_of: Callable[..., Facts], tmp_path: Path, content: bytes | None
) -> None:
    facts = facts_of(
        tmp_path,
        [("a", 0, BOX, True), ("b", 0, BOX, True)],
        {"a": "train", "b": "train"},
        duplicates=[Pair("a", "b", 0)],
        rotation_by_id={"a": 90},
    )
    if content is None:
        facts.image_path("a").unlink()
    else:
        facts.image_path("a").write_bytes(content)
    made = drawn(facts)
    assert set(made) == {"train", "rotated-1", "smallest", "largest", "duplicates"}
    assert all(count_of(sheet, (225, 228, 231)) > 5000 for sheet in made.values())


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 600), (600, 1), (3000, 40)])
def test_pictures_of_any_shape_are_shown(
    facts_of: Callable[..., Facts], tmp_path: Path, size_wh: tuple[int, int]
) -> None:
    Image.new("L", size_wh, 90).save(tmp_path / "a.jpg")
    facts = facts_of(tmp_path, [("a", 0, BOX, True)], {"a": "test"}, duplicates=[Pair("a", "a", 0)])
    assert {sheet.width for sheet in drawn(facts).values()} == {1200}


def test_real_photographs_are_shown_with_their_boxes(
    facts_of: Callable[..., Facts], real: Path
) -> None:
    folder = real / "alpaca"
    ids = sorted(path.stem for path in (folder / "images").glob("*.jpg"))
    rows = [
        (i, int(class_id), tuple(xyxy), True)
        for i in ids
        for class_id, xyxy in zip(*labels.read(folder / "labels" / f"{i}.txt"), strict=True)
    ]
    facts = facts_of(
        folder / "images",
        rows,
        dict.fromkeys(ids, "train"),
        duplicates=[Pair(ids[0], ids[1], 3)],
        rotation_by_id=dict.fromkeys(ids[:30], 90),
    )
    made = drawn(facts)
    names = {"train", "rotated-1", "rotated-2", "smallest", "largest", "duplicates"}
    assert set(made) == names
    for name in names - {"duplicates"}:
        assert count_of(made[name], marks.SKY) > 2000, name
    assert all(count_of(sheet, (225, 228, 231)) < 200 for sheet in made.values())


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Boat", "Boat"), ("Лодка", "Лодка"), ("\U0001bc99", "class 0"), ("a" * 300, "a" * 300)],
)
def test_a_name_in_letters_that_no_font_has_becomes_a_number(
    facts_of: Callable[..., Facts], tmp_path: Path, name: str, shown: str
) -> None:
    facts = facts_of(tmp_path, [("a", 0, BOX, True)], {"a": "train"}, class_names=[name])
    assert legible_name(facts, 0) == shown
    assert drawn(facts)["train"].width == 1200
