"""Pictures of detections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo.core.errors import InputFormError
from oiyolo.evaluation.panels import (
    Picture,
    choose_overview,
    choose_worst,
    contact_sheet,
    draw_detections,
    judge_images,
    save_panels,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.evaluation.panels import Verdict
    from oiyolo.evaluation.tables import Detections, GroundTruth

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]
    Tables = Callable[..., tuple[Detections, GroundTruth]]

    from pathlib import Path


BOX = (0.25, 0.25, 0.75, 0.75)
FAR = (0.8, 0.8, 0.95, 0.95)
SKY_BLUE, VERMILLION, YELLOW = (86, 180, 233), (230, 97, 0), (240, 228, 66)


def verdicts_of(tables: Tables) -> tuple[Verdict, ...]:
    detections, truth = tables(
        [("a", 0, 0.9, BOX), ("b", 0, 0.8, FAR), ("c", 0, 0.1, FAR), ("d", 1, 0.9, BOX)],
        [("a", 0, BOX, False), ("b", 0, BOX, False), ("c", 0, BOX, True)],
        images="abcd",
    )
    return judge_images(detections, truth, ["Boat", "Oar"], [0.5, float("nan")])


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist()}


def test_boxes_are_sorted_into_their_kinds(tables: Tables) -> None:
    found, wrong, group, nothing = verdicts_of(tables)
    assert (found.image_id, found.hits.labels, len(found.true), found.errors) == (
        "a",
        ("Boat 0.90",),
        1,
        0,
    )
    assert wrong.false_alarms.labels == ("Boat 0.80",)
    assert (wrong.misses.labels, wrong.errors) == (("Boat",), 2)
    np.testing.assert_allclose(wrong.misses.xyxy, [BOX])
    assert (len(group.regions), group.errors) == (1, 0)  # 0.1 is below the threshold
    assert str(group) == "group-of region only"
    assert str(nothing) == "nothing there, nothing found"  # no threshold: nothing is shown
    assert str(wrong) == "1 missed, 1 false alarm"


def test_each_kind_has_its_colour(tables: Tables) -> None:
    found, wrong, *_ = verdicts_of(tables)
    grey = Image.new("L", (96, 96), 90)
    drawn = draw_detections(grey, found)
    assert drawn.size == (320, 320)
    assert SKY_BLUE in colours(drawn)
    assert not {VERMILLION, YELLOW} & colours(drawn)
    assert drawn.getpixel((80, 160)) == SKY_BLUE  # a quarter of 320
    assert colours(draw_detections(grey, wrong)) >= {VERMILLION, YELLOW}
    assert grey.size == (96, 96)
    assert draw_detections(grey, wrong, size_wh=(50, 40)).size == (50, 40)


def test_boxes_at_the_edges_and_without_area_are_drawn(tables: Tables) -> None:
    detections, truth = tables(
        [("a", 0, 0.9, (1, 1, 1, 1)), ("a", 0, 0.8, (0, 0, 0, 1))], [("a", 0, (0, 0, 1, 1), False)]
    )
    (verdict, _) = judge_images(detections, truth, ["Boat"], [0.5])
    assert VERMILLION in colours(draw_detections(Image.new("RGB", (64, 48)), verdict))


@pytest.mark.parametrize("count", [1, 3, 4, 7, 12])
def test_a_sheet_restores_the_aspect_and_fills_its_rows(tables: Tables, count: int) -> None:
    verdict = verdicts_of(tables)[1]
    picture = Picture(Image.new("RGB", (96, 96), (1, 2, 3)), verdict, aspect=4 / 3)
    assert picture.shown_aspect == pytest.approx(4 / 3)
    sheet = contact_sheet([picture] * count, title="A title " * 40, width_px=1000)
    assert sheet.width == 1000
    ground = np.all(np.asarray(sheet) == (1, 2, 3), axis=2)
    columns = np.flatnonzero(ground.any(axis=0))
    assert columns[0] < 20
    if count >= 4:
        assert columns[-1] > 980


def test_the_lot_is_the_same_every_time_and_takes_each_class(random_tables: RandomTables) -> None:
    detections, truth = random_tables(0, images=60)
    verdicts = judge_images(detections, truth, ["x", "y", "z"], [0.5] * 3)
    chosen = choose_overview(verdicts)
    assert len({verdict.image_id for verdict in chosen}) == 12
    assert choose_overview(list(reversed(verdicts))) == chosen
    assert {0, 1, 2} <= set().union(*(verdict.classes for verdict in chosen))
    assert sum(not verdict.classes for verdict in chosen) <= 2
    worst = choose_worst(verdicts, 5)
    assert [verdict.errors for verdict in worst] == sorted(
        (verdict.errors for verdict in verdicts), reverse=True
    )[:5]


def test_images_without_boxes_fill_up_what_is_left(tables: Tables) -> None:
    chosen = choose_overview(verdicts_of(tables))
    assert [verdict.image_id for verdict in chosen][-1] == "d"
    assert len(chosen) == 4
    assert choose_overview([]) == ()


def test_panels_are_written_and_a_stale_one_is_removed(tables: Tables, tmp_path: Path) -> None:
    paths = {}
    for image_id in "abcd":
        paths[image_id] = tmp_path / f"{image_id}.jpg"
        Image.new("RGB", (96, 96), (90, 120, 60)).save(paths[image_id])
    verdicts = verdicts_of(tables)
    folder = tmp_path / "panels"
    written = save_panels(
        folder, image_paths=paths, verdicts=verdicts, original_sizes_wh={"a": (200, 100)}
    )
    assert sorted(written) == ["overview.png", "worst.png"]
    assert sorted(path.name for path in folder.iterdir()) == ["overview.png", "worst.png"]
    with Image.open(written["overview.png"]) as sheet:
        assert (sheet.format, sheet.width) == ("PNG", 1360)
    written = save_panels(folder, image_paths=paths, verdicts=verdicts[:1])
    assert sorted(written) == ["overview.png"]
    assert not (folder / "worst.png").exists()


def test_an_image_that_cannot_be_read_is_named(tables: Tables, tmp_path: Path) -> None:
    broken = tmp_path / "a.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(InputFormError, match=r"a\.jpg"):
        save_panels(tmp_path, image_paths={"a": broken}, verdicts=verdicts_of(tables)[:1])
