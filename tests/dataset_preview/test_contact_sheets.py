"""The images and boxes on the contact sheets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from oiyolo.dataset_preview import contact_sheets
from oiyolo.dataset_preview.contact_sheets import crop_region, legible_name
from oiyolo.dataset_preview.dataset import Pair
from oiyolo.dataset_preview.sampling import choose_sample
from oiyolo.drawing import marks
from oiyolo.imagery import labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.dataset_preview.dataset import PreviewDataset

BOX = (0.25, 0.25, 0.75, 0.75)
fractions = st.floats(0, 1, allow_subnormal=False)


def draw_sheets(dataset: PreviewDataset) -> dict[str, Image.Image]:
    return dict(contact_sheets.draw_sheets(dataset, choose_sample(dataset)))


def count_pixels(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == colour).all(axis=2).sum())


@given(st.tuples(fractions, fractions), st.tuples(fractions, fractions), st.floats(0.2, 5))
def test_a_crop_contains_its_box_and_is_square_if_the_image_is_large_enough(
    xs: tuple[float, float], ys: tuple[float, float], aspect: float
) -> None:
    (x1, x2), (y1, y2) = sorted(xs), sorted(ys)
    left, top, right, bottom = crop_region((x1, y1, x2, y2), aspect)
    tolerance = 1e-9
    assert -tolerance <= left <= x1 + tolerance
    assert x2 - tolerance <= right <= 1 + tolerance
    assert -tolerance <= top <= y1 + tolerance
    assert y2 - tolerance <= bottom <= 1 + tolerance
    width, height = (right - left) * aspect, bottom - top
    if width < aspect - tolerance and height < 1 - tolerance:
        assert width == pytest.approx(height)
    assert width > 0
    assert height > 0


def test_boxes_are_drawn_at_their_positions_in_the_colour_of_their_class(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    pixels = np.full((96, 128, 3), 60, dtype=np.uint8)
    pixels[24:72, 32:96] = 200
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)
    dataset = make_dataset(
        tmp_path,
        [("a", 1, BOX, True), ("a", 0, (0, 0, 0.1, 0.1), False)],
        {"a": "train"},
        original_sizes_wh={"a": (1024, 768)},
    )
    sheet = np.asarray(draw_sheets(dataset)["train"]).astype(int)
    # Position and size of the first cell.
    left, top, width, height = 12, 58, 285, 214
    middle_x, middle_y = left + width // 2, top + height // 2
    for x, inward in ((left + width // 4, 8), (left + width * 3 // 4, -8)):
        assert (sheet[middle_y, x - 3 : x + 4] == marks.ORANGE).all(axis=1).any()
        assert abs(sheet[middle_y, x + inward] - 200).max() < 12
        assert abs(sheet[middle_y, x - inward] - 60).max() < 12
    y = top + height * 3 // 4
    assert (sheet[y - 3 : y + 4, middle_x] == marks.ORANGE).all(axis=1).any()
    assert abs(sheet[y - 8, middle_x] - 200).max() < 12
    assert abs(sheet[y + 8, middle_x] - 60).max() < 12
    assert (sheet == marks.GREY).all(axis=2).any()  # the box that is not a label
    assert not (sheet == marks.SKY).all(axis=2).any()


def test_a_crop_shows_the_object_inside_its_box(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path
) -> None:
    pixels = np.full((416, 416, 3), 60, dtype=np.uint8)
    pixels[100:108, 300:308] = 220
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    box = (300 / 416, 100 / 416, 308 / 416, 108 / 416)
    dataset = make_dataset(tmp_path, [("a", 0, box, True)], {"a": "train"})
    sheet = np.asarray(draw_sheets(dataset)["smallest"]).astype(int)
    rows, columns = np.nonzero((sheet == marks.SKY).all(axis=2))
    inside = sheet[rows.min() + 12 : rows.max() - 12, columns.min() + 12 : columns.max() - 12]
    assert inside.size
    assert (abs(inside - 220) < 25).mean() > 0.9


def test_negatives_are_marked(make_dataset: Callable[..., PreviewDataset], tmp_path: Path) -> None:
    labelled = make_dataset(tmp_path, [("a", 0, BOX, True)], {"a": "train"})
    negative = make_dataset(tmp_path, [("a", 0, BOX, False)], {"a": "train"})
    assert count_pixels(draw_sheets(labelled)["train"], marks.SKY) > 500
    assert count_pixels(draw_sheets(negative)["train"], marks.SKY) == 0
    assert set(draw_sheets(negative)) == {"train"}


def test_class_names_do_not_hide_the_objects_of_a_crowded_image(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path
) -> None:
    crowd = [("a", 0, (n / 50, 0.4, n / 50 + 0.015, 0.6), True) for n in range(50)]
    dataset = make_dataset(tmp_path, crowd, {"a": "train"})
    sheet = np.asarray(draw_sheets(dataset)["train"])
    blue = (sheet == marks.SKY).all(axis=2)
    assert 0 < blue.any(axis=1).sum() < 100  # the rows of the boxes, and one name


@pytest.mark.parametrize("content", [None, b"", b"not an image", b"\xff\xd8\xff\xe0 cut off"])
def test_an_unreadable_image_is_shown_as_a_grey_cell(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path, content: bytes | None
) -> None:
    dataset = make_dataset(
        tmp_path,
        [("a", 0, BOX, True), ("b", 0, BOX, True)],
        {"a": "train", "b": "train"},
        duplicates=[Pair("a", "b", 0)],
        rotation_by_id={"a": 90},
    )
    if content is None:
        dataset.image_path("a").unlink()
    else:
        dataset.image_path("a").write_bytes(content)
    images = draw_sheets(dataset)
    assert set(images) == {"train", "rotated-1", "smallest", "largest", "duplicates"}
    assert all(count_pixels(sheet, (225, 228, 231)) > 5000 for sheet in images.values())


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 600), (600, 1), (3000, 40)])
def test_images_of_any_shape_are_shown(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path, size_wh: tuple[int, int]
) -> None:
    Image.new("L", size_wh, 90).save(tmp_path / "a.jpg")
    dataset = make_dataset(
        tmp_path, [("a", 0, BOX, True)], {"a": "test"}, duplicates=[Pair("a", "a", 0)]
    )
    assert {sheet.width for sheet in draw_sheets(dataset).values()} == {1200}


def test_real_photographs_are_shown_with_their_boxes(
    make_dataset: Callable[..., PreviewDataset], real: Path
) -> None:
    folder = real / "alpaca"
    ids = sorted(path.stem for path in (folder / "images").glob("*.jpg"))
    rows = [
        (i, int(class_id), tuple(xyxy), True)
        for i in ids
        for class_id, xyxy in zip(*labels.read(folder / "labels" / f"{i}.txt"), strict=True)
    ]
    dataset = make_dataset(
        folder / "images",
        rows,
        dict.fromkeys(ids, "train"),
        duplicates=[Pair(ids[0], ids[1], 3)],
        rotation_by_id=dict.fromkeys(ids[:30], 90),
    )
    images = draw_sheets(dataset)
    names = {"train", "rotated-1", "rotated-2", "smallest", "largest", "duplicates"}
    assert set(images) == names
    for name in names - {"duplicates"}:
        assert count_pixels(images[name], marks.SKY) > 2000, name
    assert all(count_pixels(sheet, (225, 228, 231)) < 200 for sheet in images.values())


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Boat", "Boat"), ("Лодка", "Лодка"), ("\U0001bc99", "class 0"), ("a" * 300, "a" * 300)],
)
def test_a_name_in_letters_that_no_font_has_becomes_a_number(
    make_dataset: Callable[..., PreviewDataset], tmp_path: Path, name: str, shown: str
) -> None:
    dataset = make_dataset(tmp_path, [("a", 0, BOX, True)], {"a": "train"}, class_names=[name])
    assert legible_name(dataset, 0) == shown
    assert draw_sheets(dataset)["train"].width == 1200
