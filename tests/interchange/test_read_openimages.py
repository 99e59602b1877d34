"""Earlier downloads of Open Images are read: OIDv4's, OIDv6's, FiftyOne's, and official tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.interchange import kinds
from oiyolo.interchange.imported import ReadOptions
from oiyolo.interchange.readers import READERS
from tests.support.labelled import draw, kinds_of, read, write

if TYPE_CHECKING:
    from pathlib import Path

ID, OTHER = "00000000000000aa", "00000000000000bb"
BOX = (0.25, 0.25, 0.75, 0.75)
HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)


def test_oidv4_has_a_folder_per_class(tmp_path: Path) -> None:
    folder = tmp_path / "OID" / "Dataset" / "train"
    for name, image_id in (("Apple", ID), ("Traffic light", ID), ("Apple", OTHER)):
        draw(folder / name / f"{image_id}.jpg")
        write(folder / name / "Label" / f"{image_id}.txt", f"{name} 10.0 5.0 30.0 15.0\n")
    images, problems = read("openimages", tmp_path)
    assert not problems
    assert [(image.image_id, image.split) for image in images.values()] == [
        (ID, "train"),
        (OTHER, "train"),
    ]
    boxes = images[f"OID/Dataset/train/Apple/{ID}.jpg"].boxes
    assert [(b.class_name, b.xyxy) for b in boxes] == [("Apple", BOX), ("Traffic light", BOX)]


def test_oidv6_has_a_folder_for_several_classes(tmp_path: Path) -> None:
    folder = tmp_path / "multidata" / "validation"
    draw(folder / f"{ID}.jpg")
    path = write(folder / "labels" / f"{ID}.txt", "cat 10 5 30 15\ncat 10 5 30\n1 2 3 4\n")
    images, problems = read("openimages", tmp_path)
    (image,) = images.values()
    assert (image.split, len(image.boxes)) == ("valid", 1)
    assert [(p.kind, p.path, p.line) for p in problems] == [
        (kinds.MALFORMED, path, 2),
        (kinds.MALFORMED, path, 3),
    ]


def test_a_photograph_that_opencv_turns_was_measured_as_turned(tmp_path: Path) -> None:
    draw(tmp_path / f"{ID}.jpg", orientation=6)  # stored 40x20; OIDv4 took it for 20x40
    write(tmp_path / "Label" / f"{ID}.txt", "Apple 5 10 15 30\n")
    (image,) = read("openimages", tmp_path)[0].values()
    assert image.boxes[0].xyxy == BOX
    assert image.rotation == 270


def fiftyone(folder: Path) -> Path:
    draw(folder / "train" / "data" / f"{ID}.jpg")
    rows = (
        f"{ID},xclick,/m/014j1m,1,0.25,0.75,0.25,0.75,0,1,0,-1,0\n"
        "00000000000000cc,xclick,/m/014j1m,1,0.25,0.75,0.25,0.75,0,0,0,0,0\n"
        f"{ID},xclick,/m/other,1,0.5,0.5,0.25,0.75,0,0,1,0,0\n"
    )
    write(folder / "train" / "labels" / "detections.csv", HEADER + rows)
    write(folder / "train" / "metadata" / "classes.csv", "/m/014j1m,Apple\n/m/other,Other\n")
    write(folder / "train" / "metadata" / "image_ids.csv",
          f"ImageID,Subset,Rotation\n{OTHER},train,180.0\n{ID},train,90.0\n")  # fmt: skip
    return folder


def test_fiftyones_download_has_the_official_tables(tmp_path: Path) -> None:
    images, problems = read("openimages", fiftyone(tmp_path))
    (image,) = images.values()
    assert (image.image_id, image.split, image.rotation) == (ID, "train", 90)
    (box,) = image.boxes
    assert (box.class_name, box.xyxy) == ("Apple", BOX)
    flags = (box.occluded, box.truncated, box.group_of, box.depiction, box.inside, box.difficult)
    assert flags == (0, 1, 0, -1, 0, -1)
    assert kinds_of(problems) == [kinds.NO_AREA]


@pytest.mark.parametrize(("confidences", "is_negative"), [((0, 0), True), ((0, 1), False)])
def test_an_image_without_boxes_counts_if_all_verified_classes_are_absent(
    tmp_path: Path, confidences: tuple[int, ...], is_negative: bool
) -> None:
    folder = fiftyone(tmp_path) / "train"
    draw(folder / "data" / f"{OTHER}.jpg")
    rows = "".join(f"{OTHER},verification,/m/{n},{c}\n" for n, c in enumerate(confidences))
    write(folder / "labels" / "classifications.csv", f"ImageID,Source,LabelName,Confidence\n{rows}")
    images, problems = read("openimages", tmp_path)
    assert [image.boxes for image in images.values()][1:] == [()] * is_negative
    assert (kinds.NO_LABEL in kinds_of(problems)) == (not is_negative)


def test_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    folder = fiftyone(tmp_path) / "train"
    draw(folder / "data" / f"{OTHER}.jpg")
    write(folder / "data" / "labels" / "00000000000000dd.txt", "Apple 1 2 3 4\n")
    path = write(folder / "more.csv", HEADER + f"{ID},x\n")
    _, problems = read("openimages", tmp_path)
    assert [(p.kind, p.path.name) for p in problems if p.kind != kinds.NO_AREA] == [
        (kinds.BROKEN, path.name),
        (kinds.NO_LABEL, f"{OTHER}.jpg"),
        (kinds.NO_IMAGE, "00000000000000dd.txt"),
    ]


def test_other_images_are_an_error(tmp_path: Path) -> None:
    draw(tmp_path / "photo.jpg")
    write(tmp_path / "labels" / "photo.txt", "Apple 1 2 3 4\n")
    with pytest.raises(InputFormError) as caught:
        READERS["openimages"](tmp_path, ReadOptions())
    assert caught.value.where == str(tmp_path)
