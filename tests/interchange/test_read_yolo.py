"""YOLO folders of darknet, Yolo_mark, labelImg, Roboflow and ultralytics are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError
from oiyolo.inference.earlier import write_record
from oiyolo.interchange import kinds
from oiyolo.interchange.imported import ImportedBox, ReadOptions
from oiyolo.interchange.readers import READERS
from oiyolo.interchange.yolo_labels import LabelForm, parse_label
from tests.support.labelled import draw, kinds_of, read, write, yolo_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.interchange.imported import Problem

LINE = "1 0.5 0.5 0.5 0.5\n"
BOX = (0.25, 0.25, 0.75, 0.75)


def order(folder: Path) -> Sequence[str]:
    return READERS["yolo"](folder, ReadOptions()).class_order()


def splits(folder: Path) -> dict[str, str]:
    images, problems = read("yolo", folder)
    assert not problems
    return {name: image.split for name, image in images.items()}


def test_labels_next_to_the_images(tmp_path: Path) -> None:
    draw(yolo_folder(tmp_path) / "empty.JPG")
    write(tmp_path / "empty.TXT")
    images, problems = read("yolo", tmp_path)
    assert not problems
    assert list(images) == ["a.jpg", "b.jpg", "empty.JPG"]
    (box,) = images["a.jpg"].boxes
    assert (box.class_name, box.xyxy, box.line, box.is_predicted) == ("bolt", BOX, 1, False)
    assert images["empty.JPG"].boxes == ()
    assert order(tmp_path) == ["nut", "bolt"]


def test_yolo_mark_and_darknets_lists(tmp_path: Path) -> None:
    data = tmp_path / "data"
    yolo_folder(data / "obj", ["a", "b", "c"])
    (data / "obj" / "classes.txt").unlink()
    write(data / "obj.names", "nut\nbolt\n")
    write(data / "obj.data", "classes = 2\ntrain = data/train.txt\nvalid=data/other.txt\n"
                             "names = data/obj.names\nbackup = backup/\n")  # fmt: skip
    write(data / "train.txt", "data/obj/a.jpg\r\n\nC:\\x64\\data\\obj\\b.jpg\n")
    write(data / "other.txt", "/home/me/data/obj/c.jpg\n")
    assert splits(tmp_path) == {
        "data/obj/a.jpg": "train",
        "data/obj/b.jpg": "train",
        "data/obj/c.jpg": "valid",
    }
    assert order(tmp_path) == ["nut", "bolt"]


def test_lists_that_do_not_fit_the_folder(tmp_path: Path) -> None:
    yolo_folder(tmp_path / "obj")
    path = write(tmp_path / "train.txt", "obj/a.jpg\n../../etc/x.jpg\nobj/gone.jpg\n")
    write(tmp_path / "valid.txt", "obj/a.jpg\n")
    images, problems = read("yolo", tmp_path)
    assert {name: image.split for name, image in images.items()} == {"obj/a.jpg": "train"}
    assert [(p.kind, p.path, p.line) for p in problems] == [
        (kinds.LEADS_OUT, path, 2),
        (kinds.NOT_FOUND, path, 3),
        (kinds.IN_TWO_SPLITS, tmp_path / "valid.txt", 1),
        (kinds.NOT_LISTED, tmp_path, 0),
    ]


def test_roboflows_darknet_export(tmp_path: Path) -> None:
    for split, names in (("train", "nut\nbolt\n"), ("valid", "bolt\nnut\n"), ("test", "nut\nbolt")):
        draw(tmp_path / split / f"{split}_jpg.rf.1.jpg")
        write(tmp_path / split / f"{split}_jpg.rf.1.txt", LINE)
        write(tmp_path / split / "_darknet.labels", names)
    write(tmp_path / "README.roboflow.txt", "1 dataset\n")
    images, problems = read("yolo", tmp_path)
    assert not problems
    found = {image.split: image.boxes[0].class_name for image in images.values()}
    assert found == {"train": "bolt", "valid": "nut", "test": "bolt"}


NAMES = ("names: [nut, 'bolt']", "names:\n  1: bolt\n  0: nut", "names:\n- nut\n- bolt")


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("as_file", [False, True])
def test_the_yaml_of_ultralytics(tmp_path: Path, names: str, as_file: bool) -> None:
    folder = tmp_path / "coco8"
    for name in ("train/a", "val/b", "more/c", "unused/d"):
        draw(folder / "images" / f"{name}.jpg")
        write(folder / "labels" / f"{name}.txt", LINE)
    write(folder / "more.txt", "./images/more/c.jpg\n")
    yaml = f"path: {'coco8' if as_file else '../datasets/coco8'}\nnc: 2\n{names}\n"
    yaml += "train:  # two parts\n  - images/train\n  - more.txt\nval: images/val\n"
    yaml += "test:\ndownload: |\n  echo names\n"
    path = write((tmp_path if as_file else folder) / "data.yaml", yaml)
    reader_path = path if as_file else folder
    images, problems = read("yolo", reader_path)
    assert kinds_of(problems) == [kinds.NOT_LISTED]
    assert {name: image.split for name, image in images.items()} == {
        "images/more/c.jpg": "train",
        "images/train/a.jpg": "train",
        "images/val/b.jpg": "valid",
    }
    assert READERS["yolo"](reader_path, ReadOptions()).folder == folder
    assert order(reader_path) == ["nut", "bolt"]


def test_roboflows_yaml_names_folders_above_itself(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        draw(tmp_path / split / "images" / "a.jpg")
        write(tmp_path / split / "labels" / "a.txt", LINE)
    write(
        tmp_path / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../../elsewhere\nnames: [nut, bolt]\n",
    )
    images, problems = read("yolo", tmp_path)
    assert {i.split for i in images.values()} == {"train", "valid"}
    assert kinds_of(problems) == [kinds.LEADS_OUT]


def test_a_pattern_in_the_yaml_is_named_as_such(tmp_path: Path) -> None:
    write(yolo_folder(tmp_path) / "data.yaml", "names: [nut, bolt]\ntrain: images/*.jpg\nval: .\n")
    _, problems = read("yolo", tmp_path)
    assert any("patterns are not expanded" in problem.message for problem in problems)


@pytest.mark.parametrize(
    "yaml",
    [
        "names: nut",
        "names: {0: nut, 2: bolt}",
        "names: [",
        "names: [[a], b]",
        "names: [nut]\ntrain: [images, 3]",
        "names: [nut]\nval: {images: 1}",
        "names: []",
        "[" * 9999,
    ],
)
def test_a_damaged_yaml_file_is_an_error(tmp_path: Path, yaml: str) -> None:
    path = write(yolo_folder(tmp_path) / "data.yaml", yaml)
    with pytest.raises(InputFormError) as caught:
        READERS["yolo"](tmp_path, ReadOptions())
    assert caught.value.where.startswith(str(path))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("0.0 0.5 0.5 0.2 0.2", [1]),
        (f"{LINE}0 0.5 0.5 0.2\n{LINE}", [2]),
        (f"0 .5 .5 .2 .2 .9\n{LINE}", [1]),
        ("2 .5 .5 .2 .2", [1]),
        ("nut .5 .5 .2 .2", [1]),
        ("\ufeff0 .5 .5 .2 .2", [1]),
        ("0 0,5 0,5 0,2 0,2", [1]),
        ("0 nan .5 .2 .2", [1]),
        ("0 .5 .5 .2 0", [1]),
        ("0 1.5 .5 .2 .2\n0 .5 .5 .2 -.2", [1, 2]),
    ],
)
def test_what_darknet_would_misread_is_skipped_with_its_line(
    tmp_path: Path, content: str, lines: list[int]
) -> None:
    path = write(yolo_folder(tmp_path) / "a.txt", content)
    images, problems = read("yolo", tmp_path)
    assert [(p.path, p.line, p.kind) for p in problems if p.skipped == "box"] == [
        (path, line, kinds.MISREAD) for line in lines
    ]
    assert all(box.xyxy == BOX for image in images.values() for box in image.boxes)
    # An image that loses all its boxes must not become one without objects.
    assert ("a.jpg" in images) == (LINE in content)
    assert (kinds.ALL_SKIPPED in kinds_of(problems)) == (LINE not in content)


def test_a_box_beyond_the_edge_is_clipped_as_darknet_does(tmp_path: Path) -> None:
    write(yolo_folder(tmp_path) / "a.txt", "0 0.1 0.5 0.4 0.5\n")
    images, problems = read("yolo", tmp_path)
    assert not problems
    assert images["a.jpg"].boxes[0].xyxy == pytest.approx((0, 0.25, 0.3, 0.75))


def test_confidences_mark_predictions(tmp_path: Path) -> None:
    write(yolo_folder(tmp_path) / "a.txt", "0 .5 .5 .2 .2 .75\n1 .5 .5 .2 .2 1\n")
    images, problems = read("yolo", tmp_path)
    assert not problems
    assert [(box.confidence, box.is_predicted) for box in images["a.jpg"].boxes] == [
        (0.75, True),
        (1, True),
    ]


def test_labels_of_predict_are_predicted_until_they_are_corrected(tmp_path: Path) -> None:
    for name in ("a", "b", "sub/c"):
        draw(tmp_path / f"{name}.jpg")
        write(tmp_path / "labels" / f"{name}.txt", LINE)
    write(tmp_path / "labels" / "classes.txt", "nut\nbolt\n")
    write_record(tmp_path, ["labels/a.txt", "labels/b.txt", "labels/sub/c.txt"])
    write(tmp_path / "labels" / "b.txt", "0 0.5 0.5 0.5 0.5\n")
    images, problems = read("yolo", tmp_path)
    assert not problems
    assert {name: image.boxes[0].is_predicted for name, image in images.items()} == {
        "a.jpg": True,
        "b.jpg": False,
        "sub/c.jpg": True,
    }


def test_polygons_are_read_as_their_bounding_boxes(tmp_path: Path) -> None:
    path = write(yolo_folder(tmp_path) / "a.txt", "1 .25 .5 .5 .25 .75 .5 .5 .75\n" * 2)
    images, problems = read("yolo", tmp_path)
    assert [(p.kind, p.path, p.skipped) for p in problems] == [(kinds.POLYGON, path, "")]
    assert [box.xyxy for box in images["a.jpg"].boxes] == [BOX] * 2


def test_keypoints_are_ignored(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.5 0.5 .1 .1 2 .9 .9 0\n")
    write(tmp_path / "data.yaml", "names: [nut]\nkpt_shape: [2, 3]\n")
    images, problems = read("yolo", tmp_path)
    assert not problems
    assert images["a.jpg"].boxes[0].xyxy == BOX


def test_what_has_no_partner_is_listed(tmp_path: Path) -> None:
    draw(yolo_folder(tmp_path) / "alone.jpg")
    write(tmp_path / "alone2.txt", LINE)
    write(tmp_path / "notes.txt", "to do\n")
    write(tmp_path / "b.jpg", b"")
    images, problems = read("yolo", tmp_path)
    assert list(images) == ["a.jpg"]
    assert [(p.kind, p.path.name, p.skipped) for p in problems] == [
        (kinds.NO_LABEL, "alone.jpg", "image"),
        (kinds.BAD_IMAGE, "b.jpg", "image"),
        (kinds.NO_IMAGE, "alone2.txt", "file"),
    ]


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    (yolo_folder(tmp_path) / "classes.txt").unlink()
    images, problems = read("yolo", tmp_path)
    assert kinds_of(problems) == [kinds.NO_NAMES]
    assert images["a.jpg"].boxes[0].class_name == "1"
    assert order(tmp_path) == []


def test_boxes_of_a_turned_photograph(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg", orientation=6)
    write(tmp_path / "a.txt", "0 0.25 0.5 0.5 0.5\n")  # upright: the left half of the middle
    expected = {"stored": (0, 0.25, 0.5, 0.75), "upright": (0.25, 0.5, 0.75, 1.0)}
    for exif in ("stored", "upright"):
        images, problems = read("yolo", tmp_path, ReadOptions(exif=exif))
        assert images["a.jpg"].boxes[0].xyxy == pytest.approx(expected[exif])
        assert kinds.EXIF_ASSUMED in kinds_of(problems)


def test_a_folder_without_labels_is_an_error(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    with pytest.raises(InputFormError) as caught:
        READERS["yolo"](tmp_path, ReadOptions())
    assert caught.value.where == str(tmp_path)


def parse(text: bytes, path: Path) -> list[ImportedBox | Problem]:
    form = LabelForm(("nut", "bolt"))
    return list(parse_label(text, path, form, orientation=1, is_predicted=False))


FIELDS = st.one_of(st.floats(-1, 2).map(repr), st.sampled_from(["0", "1", "nan", "1e400", "x", ""]))


@given(st.lists(st.lists(FIELDS, max_size=8).map(" ".join), max_size=4).map("\n".join))
def test_any_text_is_boxes_inside_the_image_or_problems(text: str) -> None:
    for item in parse(text.encode(), Path("a.txt")):
        if isinstance(item, ImportedBox):
            x1, y1, x2, y2 = item.xyxy
            assert 0 <= x1 < x2 <= 1
            assert 0 <= y1 < y2 <= 1
        else:
            assert item.line > 0
