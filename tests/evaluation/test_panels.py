"""Contact sheets of detections."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo.evaluation import panel_files
from oiyolo.evaluation.panels import (
    Panel,
    choose_best,
    choose_overview,
    choose_panels,
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
    panel = Panel("worst", "worst", [results_of(tables)[1]] * count)
    picture = Image.new("RGB", (400, 300), (1, 2, 3))
    written = save_panels(tmp_path / "panels", [panel], lambda _: picture)
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


def grey(_: str) -> Image.Image:
    return Image.new("RGB", (800, 600), (90, 120, 60))


def test_panels_are_written_and_stale_ones_are_deleted(tables: Tables, tmp_path: Path) -> None:
    results, folder = results_of(tables), tmp_path / "panels"
    panels = choose_panels(results, ["Boat", "Oar"])
    names = ["attribute-group_of.jpg", "best.jpg", "class-00.jpg", "overview.png", "worst.png"]
    written = save_panels(folder, panels, grey)
    assert sorted(written) == sorted(path.name for path in folder.iterdir()) == names
    with Image.open(written["overview.png"]) as sheet:
        assert (sheet.format, sheet.width) == ("PNG", 1360)
    (folder / "confusion.png").touch()
    written = save_panels(folder, choose_panels(results[:1], ["Boat"]), grey)
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["best.jpg", "confusion.png", "overview.png"]


def test_the_best_images_have_no_errors_and_the_most_true_positives(tables: Tables) -> None:
    results = results_of(tables)
    assert [result.image_id for result in choose_best(results)] == ["a"]
    assert choose_best(results[1:]) == []


def test_pages_get_every_box_and_the_facts_to_filter_by(tables: Tables, tmp_path: Path) -> None:
    results = results_of(tables)
    panels = choose_panels(results, ["Boat", "Oar"])

    def save() -> None:
        panel_files.save(
            tmp_path, panels, results, split="test", class_names=["Boat", "Oar"], pictures=grey
        )

    save()
    content = panel_files.find(tmp_path)
    assert content is not None
    assert set(content["images"]) == set("abcd")
    image = content["images"]["b"]
    assert (image["size_wh"], image["split"], image["classes"]) == ([640, 480], "test", ["Boat"])
    assert [box["kind"] for box in image["boxes"]] == ["fp", "fn"]
    assert image["boxes"][0]["label"] == "Boat 0.80"
    assert content["images"]["c"]["attributes"] == ["group_of"]
    with Image.open(tmp_path / image["file"]) as picture:
        assert picture.size == (640, 480)
    shown = {panel["name"]: panel["images"] for panel in content["panels"]}
    assert shown["worst"] == ["b"]
    (tmp_path / image["file"]).unlink()
    assert panel_files.find(tmp_path) is None
    save()
    (tmp_path / panel_files.NAME).write_text("[]")
    assert panel_files.find(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../secret.jpg"},
        {"file": "/etc/passwd"},
        {"size_wh": [0, -1]},
        {"size_wh": ["a", 2]},
        {"boxes": [{"kind": "script", "label": "", "xyxy": [0, 0, 1, 1]}]},
        {"boxes": [{"kind": "tp", "label": 1, "xyxy": [0, 0, 1, 1]}]},
        {"boxes": [{"kind": "tp", "label": "", "xyxy": [0, 0, 1]}]},
        {"boxes": [[]]},
        {"size_wh": [0, 0]},
        {"boxes": [{"kind": [], "label": "", "xyxy": [0, 0, 1, 1]}]},
        {"boxes": [{"kind": "tp", "label": "", "xyxy": [0, 0, 1, 1.5]}]},
        {"boxes": [{"kind": "tp", "label": "", "xyxy": [False, 0, 1, 1]}]},
    ],
)
def test_a_strangers_panels_name_no_other_file(
    tables: Tables, tmp_path: Path, change: dict[str, object]
) -> None:
    results = results_of(tables)
    panels = choose_panels(results, ["Boat"])
    panel_files.save(
        tmp_path, panels, results, split="test", class_names=["Boat", "Oar"], pictures=grey
    )
    path = tmp_path / panel_files.NAME
    content = json.loads(path.read_text())
    content["images"]["a"].update(change)
    path.write_text(json.dumps(content))
    assert panel_files.find(tmp_path) is None


@pytest.mark.parametrize(
    "panel",
    [
        {"name": "worst", "title": "Most errors", "images": [{}]},
        {"name": "worst", "title": "Most errors", "images": ["unknown"]},
        {"name": "worst", "images": ["a"]},
        {"name": ["worst"], "title": "Most errors", "images": ["a"]},
    ],
)
def test_damaged_panels_count_as_absent(
    tables: Tables, tmp_path: Path, panel: dict[str, object]
) -> None:
    results = results_of(tables)
    panel_files.save(
        tmp_path, choose_panels(results, ["Boat"]), results,
        split="test", class_names=["Boat", "Oar"], pictures=grey,
    )  # fmt: skip
    path = tmp_path / panel_files.NAME
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "panels": [*content["panels"], panel]}))
    assert panel_files.find(tmp_path) is None


def test_pages_get_no_more_images_than_there_is_room_for(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = results_of(tables)
    monkeypatch.setattr(panel_files, "_MAX_IMAGES", 2)
    panels = choose_panels(results, ["Boat", "Oar"])
    panel_files.save(
        tmp_path, panels, results, split="test", class_names=["Boat", "Oar"], pictures=grey
    )
    content = panel_files.find(tmp_path)
    assert content is not None
    assert len(content["images"]) == 2
    assert all(set(panel["images"]) <= set(content["images"]) for panel in content["panels"])
