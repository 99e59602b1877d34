"""COCO, VOC, YOLO, Open Images and FiftyOne: what is written, and what other programs read."""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from faster_coco_eval import COCO
from globox import AnnotationSet
from pycocotools import coco as pycocotools_coco

from oiyolo.imagery import labels
from oiyolo.interchange import (
    coco_writer,
    fiftyone_writer,
    openimages_writer,
    voc_writer,
    yolo_writer,
)
from tests.support.exported_images import (
    A_BOX,
    A_DIFFICULT_BOX,
    A_SMALL_BOX,
    CLASSES,
    dataset_of,
    exported_images,
)

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.interchange.exported import ExportedImage, Writer

IMAGES = exported_images()
VOC = "VOCdevkit/VOC2012"


def written(folder: Path, write: Writer) -> Path:
    write(iter(IMAGES), folder, dataset_of(IMAGES))
    for image in IMAGES:
        (path,) = folder.rglob(image.name)
        assert path.read_bytes() == image.content
    return folder


def globox_boxes(annotations: Any) -> dict[str, list[tuple[float, ...]]]:
    return {
        annotation.image_id: [(b.xmin, b.ymin, b.xmax, b.ymax) for b in annotation.boxes]
        for annotation in annotations
    }


def px(image: ExportedImage) -> list[tuple[float, ...]]:
    return [box.xyxy_px(image.size_wh) for box in image.boxes]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return written(tmp_path, coco_writer.write)


def coco_file(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"instances_{split}.json"


def test_coco_has_a_file_per_split_with_each_image_in_one_of_them(coco: Path) -> None:
    contents = [json.loads(coco_file(coco, s).read_text()) for s in ("train", "val", "test")]
    for key, count in (("images", 4), ("annotations", 5)):
        assert sorted(row["id"] for c in contents for row in c[key]) == list(range(1, count + 1))
    assert [[c["name"] for c in content["categories"]] for content in contents] == [[*CLASSES]] * 3
    image = contents[0]["images"][0]
    assert image == {"id": 1, "file_name": IMAGES[0].name, "width": 91, "height": 60}


def test_coco_marks_groups_and_difficult_boxes(coco: Path) -> None:
    difficult, group = json.loads(coco_file(coco, "val").read_text())["annotations"]
    assert (difficult["iscrowd"], difficult["attributes"]) == (0, {"difficult": True})
    assert (group["iscrowd"], group["attributes"]) == (1, {})
    known = json.loads(coco_file(coco, "train").read_text())["annotations"][0]["attributes"]
    assert known == {"occluded": True, "truncated": False}


@pytest.mark.parametrize("reader", [COCO, pycocotools_coco.COCO])
def test_the_evaluators_of_coco_load_it(coco: Path, reader: Any) -> None:
    loaded = reader(str(coco_file(coco, "train")))
    (image_id, negative_id) = sorted(loaded.getImgIds())
    boxes = loaded.loadAnns(loaded.getAnnIds(imgIds=[image_id]))
    xywh = np.array([box["bbox"] for box in boxes])
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    np.testing.assert_allclose(xyxy, px(IMAGES[0]), atol=1e-5)
    assert loaded.getAnnIds(imgIds=[negative_id]) == []
    assert [box["category_id"] for box in boxes] == [1, 2]


def test_globox_reads_the_same_boxes_from_coco(coco: Path) -> None:
    found = globox_boxes(AnnotationSet.from_coco(coco_file(coco, "val")))
    np.testing.assert_allclose(found[IMAGES[2].name], px(IMAGES[2]), atol=1e-5)


def test_a_dataset_without_boxes_is_valid_coco(tmp_path: Path) -> None:
    images = [IMAGES[1]]
    coco_writer.write(iter(images), tmp_path, dataset_of(images))
    content = json.loads(coco_file(tmp_path, "train").read_text())
    assert (len(content["images"]), content["annotations"]) == (1, [])


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return written(tmp_path, voc_writer.write) / VOC


def test_voc_counts_pixels_from_1_and_includes_the_last(voc: Path) -> None:
    text = (voc / "Annotations" / f"{IMAGES[2].image_id}.xml").read_text()
    values = {
        name: re.findall(f"<{name}>(.*)</{name}>", text)
        for name in ("filename", "width", "height", "name", "difficult", "truncated")
    }
    assert values == {
        "filename": [IMAGES[2].name],
        "width": ["93"],
        "height": ["60"],
        "name": ['Cat &amp; "dog"'],  # the group was dropped, and VOC cannot say that it is one
        "difficult": ["1"],
        "truncated": ["0"],
    }
    assert re.findall(r"<[xy]m(?:in|ax)>(\d+)<", text) == ["1", "1", "93", "60"]


def test_globox_reads_the_boxes_of_voc_to_within_a_pixel(voc: Path) -> None:
    found = globox_boxes(AnnotationSet.from_pascal_voc(voc / "Annotations"))
    difference = np.array(found[IMAGES[0].name]) - px(IMAGES[0])
    # It takes the numbers for edges: so the first pixels are 1 too large, and all are rounded.
    assert (abs(difference - [1, 1, 0, 0]) <= 0.5 + 1e-9)[0].all()
    assert abs(difference - [1, 1, 0, 0]).max() <= 1.5


@pytest.mark.parametrize(
    ("low", "high", "size", "pixels"),
    [
        (0.0, 10.0, 10, (1, 10)),
        (2.4, 7.6, 10, (3, 8)),
        (3.3, 3.4, 10, (3, 4)),
        (0.0, 0.2, 10, (1, 2)),
        (9.9, 10.0, 10, (9, 10)),
        (0.0, 1.0, 1, (1, 1)),
    ],
)
def test_a_box_of_voc_is_inside_and_at_least_two_pixels_wide(
    low: float, high: float, size: int, pixels: tuple[int, int]
) -> None:
    assert voc_writer._inclusive(low, high, size) == pixels


def test_the_image_sets_of_voc_say_which_images_have_a_class(voc: Path) -> None:
    sets = voc / "ImageSets" / "Main"
    ids = [image.image_id for image in IMAGES]
    assert (sets / "train.txt").read_text().split() == ids[:2]
    assert (sets / "trainval.txt").read_text().split() == ids[:3]
    assert (sets / "test.txt").read_text().split() == ids[3:]
    assert (sets / "Boat_train.txt").read_text() == f"{ids[0]}  1\n{ids[1]} -1\n"
    assert (sets / f"{CLASSES[1]}_val.txt").read_text() == f"{ids[2]}  0\n"  # only difficult


def test_yolo_has_labels_only_and_an_empty_file_for_a_negative(tmp_path: Path) -> None:
    folder = written(tmp_path, yolo_writer.write)
    class_ids, xyxy = labels.read(folder / "labels" / "train" / f"{IMAGES[0].image_id}.txt")
    assert class_ids.tolist() == [0, 1]
    np.testing.assert_allclose(xyxy, [A_BOX.xyxy, A_SMALL_BOX.xyxy], atol=1e-6)
    assert (folder / "labels" / "train" / f"{IMAGES[1].image_id}.txt").read_bytes() == b""
    assert (folder / "labels" / "val" / f"{IMAGES[2].image_id}.txt").read_bytes() == b""
    assert (folder / "data.yaml").read_text() == (
        "train: images/train\nval: images/val\ntest: images/test\n"
        'names:\n  0: "Boat"\n  1: "Cat & \\"dog\\""\n'
    )


def test_globox_reads_the_same_boxes_from_yolo(tmp_path: Path) -> None:
    folder = written(tmp_path, yolo_writer.write)
    annotations = AnnotationSet.from_yolo_darknet(
        folder / "labels" / "train",
        image_folder=folder / "images" / "train",
        image_extension=".png",
    )
    np.testing.assert_allclose(globox_boxes(annotations)[IMAGES[0].name], px(IMAGES[0]), atol=1e-4)


def test_open_images_tables_have_the_official_columns(tmp_path: Path) -> None:
    folder = written(tmp_path, openimages_writer.write)
    lines = (folder / "train-annotations-bbox.csv").read_text().splitlines()
    assert lines[:2] == [
        ",".join(openimages_writer._BOX_COLUMNS),
        f"{IMAGES[0].image_id},xclick,/m/019jd,1,0.125,0.5,0.25,0.75,1,0,0,-1,-1",
    ]
    with (folder / "validation-annotations-bbox.csv").open(newline="") as file:
        (group,) = csv.DictReader(file)  # there is no column for difficult boxes
    assert group["IsGroupOf"] == "1"
    with (folder / "test-images-with-rotation.csv").open(newline="") as file:
        (listed,) = csv.DictReader(file)
    assert (listed["Subset"], listed["Author"], listed["Rotation"]) == ("test", 'Ann "A"', "0.0")
    verified = (folder / "train-annotations-human-imagelabels-boxable.csv").read_text()
    assert f"{IMAGES[1].image_id},verification,/m/01yrx,0\n" in verified


def test_fiftyone_gets_a_dataset_per_split_with_attributes(tmp_path: Path) -> None:
    folder = written(tmp_path, fiftyone_writer.write)
    train, validation = (
        json.loads((folder / name / "labels.json").read_text()) for name in ("train", "validation")
    )
    assert train["classes"] == [*CLASSES]
    box, _ = train["labels"][IMAGES[0].image_id]
    assert box["label"] == "Boat"
    assert box["bounding_box"] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert box["attributes"] == {"IsOccluded": True, "IsTruncated": False, "IsGroupOf": False}
    assert train["labels"][IMAGES[1].image_id] == []
    difficult = validation["labels"][IMAGES[2].image_id][0]
    assert difficult["attributes"] == {"IsDifficult": A_DIFFICULT_BOX.difficult == 1}
