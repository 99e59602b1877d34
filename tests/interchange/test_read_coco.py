"""COCO's instances files are read, with the mistakes that tools make in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.interchange import kinds
from oiyolo.interchange.imported import ReadOptions
from oiyolo.interchange.readers import READERS
from tests.support.labelled import coco_content, coco_folder, draw, kinds_of, read, write

if TYPE_CHECKING:
    from pathlib import Path

BOX = (0.25, 0.25, 0.75, 0.75)
FILE = "annotations/instances_train2017.json"


def change(folder: Path, key: str, number: int = 0, **fields: Any) -> Path:
    """Change fields of an item in the file of a folder."""
    content = json.loads((folder / FILE).read_text())
    content[key][number].update(fields)
    return write(folder / FILE, json.dumps(content))


def test_cocos_own_layout(tmp_path: Path) -> None:
    for path in (coco_folder(tmp_path), tmp_path / FILE):
        images, problems = read("coco", path)
        assert not problems
        image = images["train2017/a.jpg"]
        assert (image.split, image.size_wh, image.rotation) == ("train", (40, 20), 0)
        (box,) = image.boxes
        assert (box.class_name, box.xyxy, box.group_of, box.difficult) == ("nut", BOX, 0, -1)
        assert READERS["coco"](path, ReadOptions()).class_order() == ["nut", "bolt"]


def test_a_file_that_is_named_does_not_concern_other_images(tmp_path: Path) -> None:
    draw(coco_folder(tmp_path) / "val2017" / "c.jpg")
    write(tmp_path / "annotations" / "instances_val2017.json", json.dumps(coco_content(["c"])))
    images, problems = read("coco", tmp_path / "annotations" / "instances_val2017.json")
    assert (list(images), problems) == (["val2017/c.jpg"], [])
    assert images["val2017/c.jpg"].split == "valid"


def test_roboflows_export_has_a_file_per_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        draw(tmp_path / split / "a.jpg")
        write(tmp_path / split / "_annotations.coco.json", json.dumps(coco_content(["a"])))
    write(tmp_path / "other.json", "[]")
    images, problems = read("coco", tmp_path)
    assert not problems
    assert {name: image.split for name, image in images.items()} == {
        "train/a.jpg": "train",
        "valid/a.jpg": "valid",
    }


def test_attributes_groups_and_segmentations(tmp_path: Path) -> None:
    change(
        coco_folder(tmp_path),
        "annotations",
        iscrowd=1,
        segmentation={"size": [20, 40], "counts": "abc"},
        attributes={"occluded": True, "difficult": False, "truncated": None, "colour": "red"},
        image_id="1",
    )
    images, problems = read("coco", tmp_path)
    assert not problems
    (box,) = images["train2017/a.jpg"].boxes
    assert (box.group_of, box.occluded, box.difficult, box.truncated) == (1, 1, 0, -1)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"category_id": 9}, kinds.UNKNOWN_CLASS),
        ({"category_id": [7]}, kinds.UNKNOWN_CLASS),
        ({"bbox": [1, 2, 3]}, kinds.MALFORMED),
        ({"bbox": ["1", 2, 3, 4]}, kinds.MALFORMED),
        ({"bbox": None}, kinds.MALFORMED),
        ({"bbox": [10, 5, 0, 10]}, kinds.NO_AREA),
        ({"bbox": [10, 5, 90, 10]}, kinds.OUTSIDE),
    ],
)
def test_an_invalid_annotation_is_skipped(tmp_path: Path, fields: Any, kind: str) -> None:
    path = change(coco_folder(tmp_path), "annotations", **fields)
    images, problems = read("coco", tmp_path)
    assert list(images) == ["train2017/b.jpg"]
    assert [(p.kind, p.path, p.skipped) for p in problems] == [
        (kind, path, "box"),
        (kinds.ALL_SKIPPED, tmp_path / "train2017" / "a.jpg", "image"),
    ]


@pytest.mark.parametrize(
    ("file_name", "kind"),
    [
        ("../../a.jpg", None),  # never more than its last parts
        ("../../etc/x.jpg", kinds.LEADS_OUT),
        ("/etc/x.jpg", kinds.NO_IMAGE),
        ("b.jpg", kinds.TWICE),
    ],
)
def test_names_of_files(tmp_path: Path, file_name: str, kind: str | None) -> None:
    change(coco_folder(tmp_path), "images", file_name=file_name)
    images, problems = read("coco", tmp_path)
    expected = [] if kind is None else [kind, kinds.NO_LABEL]
    assert kinds_of(problems) == expected
    assert len(images) == 2 - bool(kind)


def test_an_annotation_of_an_image_that_is_not_listed(tmp_path: Path) -> None:
    change(coco_folder(tmp_path), "annotations", image_id=99)
    images, problems = read("coco", tmp_path)
    assert kinds_of(problems) == [kinds.NO_IMAGE]
    assert images["train2017/a.jpg"].boxes == ()


def test_the_size_decides_for_turned_photographs(tmp_path: Path) -> None:
    draw(coco_folder(tmp_path) / "train2017" / "a.jpg", orientation=6)
    change(tmp_path, "images", width=20, height=40)
    change(tmp_path, "annotations", bbox=[5, 20, 10, 10])
    images, problems = read("coco", tmp_path)
    assert not problems
    assert images["train2017/a.jpg"].boxes[0].xyxy == pytest.approx((0.5, 0.25, 0.75, 0.75))
    assert images["train2017/a.jpg"].rotation == 270
    change(tmp_path, "images", width=100, height=100)
    assert kinds_of(read("coco", tmp_path)[1]) == [
        *(kinds.WRONG_SIZE, kinds.OUTSIDE, kinds.ALL_SKIPPED)
    ]


@pytest.mark.parametrize(
    "content", ["{", '{"images": [], "annotations": {}}', '{"images": [' * 9999]
)
def test_a_broken_file_is_skipped(tmp_path: Path, content: str) -> None:
    path = write(coco_folder(tmp_path) / "annotations" / "x.json", '{"categories":' + content)
    images, problems = read("coco", tmp_path)
    assert len(images) == 2
    assert [(p.kind, p.path, p.skipped) for p in problems] == [(kinds.BROKEN, path, "file")]


def test_a_folder_without_a_file_is_an_error(tmp_path: Path) -> None:
    write(draw(tmp_path / "a.jpg").with_suffix(".json"), '{"other": 1}')
    with pytest.raises(InputFormError) as caught:
        READERS["coco"](tmp_path, ReadOptions())
    assert caught.value.where == str(tmp_path)
