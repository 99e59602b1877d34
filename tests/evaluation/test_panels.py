"""Contact sheets of detections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo.core.errors import InputFormError
from oiyolo.evaluation.panels import (
    choose_overview,
    choose_worst,
    draw_detections,
    evaluate_images,
    save_panels,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.evaluation.panels import ImageResult
    from oiyolo.evaluation.tables import Detections, GroundTruth

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]

    from pathlib import Path


BOX = (0.25, 0.25, 0.75, 0.75)
FAR = (0.8, 0.8, 0.95, 0.95)
SKY_BLUE, VERMILION, YELLOW = (86, 180, 233), (230, 97, 0), (240, 228, 66)


def results_of(tables: Tables) -> tuple[ImageResult, ...]:
    detections, truth = tables(
        [("a", 0, 0.9, BOX), ("b", 0, 0.8, FAR), ("c", 0, 0.1, FAR), ("d", 1, 0.9, BOX)],
        [("a", 0, BOX, False), ("b", 0, BOX, False), ("c", 0, BOX, True)],
        images="abcd",
    )
    return evaluate_images(detections, truth, ["Boat", "Oar"], [0.5, float("nan")])


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist()}


def test_boxes_are_sorted_into_true_and_false_positives_and_false_negatives(tables: Tables) -> None:
    correct, wrong, group, nothing = results_of(tables)
    assert (
        correct.image_id,
        correct.true_positives.labels,
        len(correct.matched),
        correct.error_count,
    ) == (
        "a",
        ("Boat 0.90",),
        1,
        0,
    )
    assert wrong.false_positives.labels == ("Boat 0.80",)
    assert (wrong.false_negatives.labels, wrong.error_count) == (("Boat",), 2)
    np.testing.assert_allclose(wrong.false_negatives.xyxy, [BOX])
    assert (len(group.regions), group.error_count) == (1, 0)  # 0.1 is below the threshold
    assert str(group) == "only a group-of region"
    assert str(nothing) == "no boxes, no detections"  # without a threshold, detections are dropped
    assert str(wrong) == "1 FN, 1 FP"


def test_each_kind_of_box_has_its_colour(tables: Tables) -> None:
    correct, wrong, *_ = results_of(tables)
    grey = Image.new("L", (96, 96), 90)
    drawn = draw_detections(grey, correct, (320, 320))
    assert drawn.size == (320, 320)
    assert SKY_BLUE in colours(drawn)
    assert not {VERMILION, YELLOW} & colours(drawn)
    assert drawn.getpixel((80, 160)) == SKY_BLUE  # a quarter of 320
    assert colours(draw_detections(grey, wrong, (320, 320))) >= {VERMILION, YELLOW}
    assert grey.size == (96, 96)
    assert draw_detections(grey, wrong, (50, 40)).size == (50, 40)


def test_boxes_at_the_edges_and_without_area_are_drawn(tables: Tables) -> None:
    detections, truth = tables(
        [("a", 0, 0.9, (1, 1, 1, 1)), ("a", 0, 0.8, (0, 0, 0, 1))], [("a", 0, (0, 0, 1, 1), False)]
    )
    (result, _) = evaluate_images(detections, truth, ["Boat"], [0.5])
    assert VERMILION in colours(draw_detections(Image.new("RGB", (64, 48)), result, (320, 240)))


@pytest.mark.parametrize("count", [1, 3, 4, 7, 12])
def test_a_sheet_restores_the_aspect_and_fills_its_rows(
    tables: Tables, tmp_path: Path, count: int
) -> None:
    wrong = results_of(tables)[1]
    path = tmp_path / "b.png"
    Image.new("RGB", (96, 96), (1, 2, 3)).save(path)
    written = save_panels(
        tmp_path / "panels",
        image_paths={"b": path},
        results=[wrong] * count,
        original_sizes_wh={"b": (400, 300)},
    )
    with Image.open(written["worst.png"]) as sheet:
        background = np.all(np.asarray(sheet) == (1, 2, 3), axis=2)
    columns, rows = (np.flatnonzero(background.any(axis=axis)) for axis in (0, 1))
    assert columns[0] < 20
    if count == 1:
        width, height = (int(i[-1] - i[0] + 1) for i in (columns, rows))
        assert width / height == pytest.approx(4 / 3, abs=0.01)
    if count >= 4:
        assert columns[-1] > 1330


def test_the_sample_is_reproducible_and_contains_each_class(random_tables: RandomTables) -> None:
    detections, truth = random_tables(0, images=60)
    results = evaluate_images(detections, truth, ["x", "y", "z"], [0.5] * 3)
    chosen = choose_overview(results)
    assert len({result.image_id for result in chosen}) == 12
    assert choose_overview(list(reversed(results))) == chosen
    assert {0, 1, 2} <= set().union(*(result.classes for result in chosen))
    assert sum(not result.classes for result in chosen) <= 2
    assert [result.error_count for result in choose_worst(results)] == sorted(
        (result.error_count for result in results), reverse=True
    )[:12]


def test_images_without_boxes_fill_the_rest_of_the_sample(tables: Tables) -> None:
    chosen = choose_overview(results_of(tables))
    assert [result.image_id for result in chosen][-1] == "d"
    assert len(chosen) == 4
    assert choose_overview([]) == []


def test_panels_are_written_and_a_stale_one_is_deleted(tables: Tables, tmp_path: Path) -> None:
    paths = {}
    for image_id in "abcd":
        paths[image_id] = tmp_path / f"{image_id}.jpg"
        Image.new("RGB", (96, 96), (90, 120, 60)).save(paths[image_id])
    results = results_of(tables)
    folder = tmp_path / "panels"
    written = save_panels(
        folder, image_paths=paths, results=results, original_sizes_wh={"a": (200, 100)}
    )
    assert sorted(written) == ["overview.png", "worst.png"]
    assert sorted(path.name for path in folder.iterdir()) == ["overview.png", "worst.png"]
    with Image.open(written["overview.png"]) as sheet:
        assert (sheet.format, sheet.width) == ("PNG", 1360)
    written = save_panels(folder, image_paths=paths, results=results[:1], original_sizes_wh={})
    assert sorted(written) == ["overview.png"]
    assert not (folder / "worst.png").exists()


def test_an_unreadable_image_is_an_error_with_its_path(tables: Tables, tmp_path: Path) -> None:
    broken = tmp_path / "a.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(InputFormError) as caught:
        save_panels(
            tmp_path,
            image_paths={"a": broken},
            results=results_of(tables)[:1],
            original_sizes_wh={},
        )
    assert caught.value.where == str(broken)
