"""Folders of Pascal VOC annotations are read, with the mistakes that tools make in them."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.interchange import kinds
from oiyolo.interchange.imported import ReadOptions
from oiyolo.interchange.readers import READERS
from oiyolo.interchange.voc_xml import XmlError, parse_voc
from tests.support.labelled import draw, kinds_of, read, voc_folder, voc_object, voc_xml, write

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.interchange.imported import Exif, PixelOrigin

BOX = (0.25, 0.25, 0.75, 0.75)
"""Pixels 11 to 30 of 40 and 6 to 15 of 20, both inclusive."""


def test_a_folder_of_labelimg(tmp_path: Path) -> None:
    write(voc_folder(tmp_path) / "classes.txt", "nut\nbolt\n")
    images, problems = read("voc", tmp_path)
    assert not problems
    image = images["images/a.jpg"]
    assert (image.path, image.size_wh) == (tmp_path / "images" / "a.jpg", (40, 20))
    assert (image.rotation, image.split, image.image_id) == (0, "", "")
    (box,) = image.boxes
    assert (box.class_name, box.xyxy, box.line) == ("nut", BOX, 4)
    assert (box.difficult, box.truncated, box.occluded) == (0, -1, -1)
    assert READERS["voc"](tmp_path, ReadOptions()).class_order() == ["nut", "bolt"]


@pytest.mark.parametrize(("origin", "left"), [(1, 0.25), (0, 0.275)])
def test_pixels_count_from_the_origin(tmp_path: Path, origin: PixelOrigin, left: float) -> None:
    images, _ = read("voc", voc_folder(tmp_path), ReadOptions(pixel_origin=origin))
    assert images["images/a.jpg"].boxes[0].xyxy == (left, *(
        (0.25, 0.75, 0.75) if origin else (0.3, 0.75, 0.75)
    ))  # fmt: skip


def test_the_tree_of_voc2012_has_splits_and_names_in_any_case(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2008_1", "2008_2", "2008_3"):
        draw(root / "JPEGImages" / f"{name}.JPG")
        write(root / "Annotations" / f"{name}.XML", voc_xml(voc_object(), f"{name}.jpg"))
    sets = root / "ImageSets" / "Main"
    write(sets / "train.txt", "2008_1\n")
    write(sets / "val.txt", "2008_2\n")
    write(sets / "trainval.txt", "2008_1\n2008_2\n2008_3\n")
    write(sets / "nut_train.txt", "2008_1  1\n2008_3 -1\n")
    images, problems = read("voc", tmp_path)
    assert not problems
    assert [image.split for image in images.values()] == ["train", "valid", "train"]


def test_splits_are_the_names_of_folders_without_image_sets(tmp_path: Path) -> None:
    for folder in ("train", "valid"):
        draw(tmp_path / folder / "a.jpg")
        write(tmp_path / folder / "a.xml", voc_xml(voc_object()))
    images, problems = read("voc", tmp_path)
    assert not problems
    assert {name: image.split for name, image in images.items()} == {
        "train/a.jpg": "train",
        "valid/a.jpg": "valid",
    }


@pytest.mark.parametrize(
    ("xml_name", "file_name", "path"),
    [
        ("photo", "other.jpg", ""),  # the stem decides, not an out-of-date name in the file
        ("1", "photo.jpg", ""),
        ("1", "photo", ""),  # as old versions of labelImg write it
        ("1", "PHOTO.JPG", ""),
        ("1", r"C:\me\photo.jpg", ""),
        ("1", "missing.jpg", "/home/me/photo.jpg"),
        ("1", "../../photo.jpg", ""),  # never more than the last part
    ],
)
def test_the_image_of_an_annotation(
    tmp_path: Path, xml_name: str, file_name: str, path: str
) -> None:
    draw(tmp_path / "images" / "photo.jpg")
    write(tmp_path / f"{xml_name}.xml", voc_xml(voc_object(), file_name, path=path))
    images, problems = read("voc", tmp_path)
    assert (list(images), problems) == (["images/photo.jpg"], [])


def test_the_nearest_of_several_images_is_meant(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        draw(tmp_path / "images" / folder / "a.jpg")
        write(tmp_path / "xml" / folder / "a.xml", voc_xml(voc_object()))
    draw(tmp_path / "images" / "two" / "a.png")
    write(tmp_path / "xml" / "a.xml", voc_xml(voc_object()))
    images, problems = read("voc", tmp_path)
    assert list(images) == ["images/one/a.jpg"]
    assert sorted(kinds_of(problems)) == [
        *[kinds.NO_LABEL] * 2,
        *[kinds.AMBIGUOUS] * 2,
    ]


@pytest.mark.parametrize("stated", [None, (0, 0), (40, 20), (999, 777)])
def test_the_size_is_that_of_the_image(tmp_path: Path, stated: tuple[int, int] | None) -> None:
    draw(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", voc_xml(voc_object(), size_wh=stated))
    images, problems = read("voc", tmp_path)
    assert images["a.jpg"].boxes[0].xyxy == BOX
    is_wrong = stated not in {None, (40, 20)}
    assert [(p.kind, p.skipped) for p in problems] == [(kinds.WRONG_SIZE, "")] * is_wrong


AS_STORED = (11, 11, 20, 15), (0.25, 0.5, 0.5, 0.75)
AS_UPRIGHT = (6, 21, 15, 30), (0.5, 0.25, 0.75, 0.75)
"""A box of a photograph that is stored 40x20 and shown 20x40: as written, and as stored."""


@pytest.mark.parametrize(
    ("stated", "exif", "expected", "is_assumed"),
    [
        ((40, 20), "upright", AS_STORED, False),
        ((20, 40), "stored", AS_UPRIGHT, False),
        (None, "stored", AS_STORED, True),
        (None, "upright", AS_UPRIGHT, True),
    ],
)
def test_the_size_decides_whether_boxes_of_a_turned_photograph_are_upright(
    tmp_path: Path,
    stated: tuple[int, int] | None,
    exif: Exif,
    expected: tuple[tuple[int, ...], tuple[float, ...]],
    is_assumed: bool,
) -> None:
    corners, box = expected
    draw(tmp_path / "a.jpg", orientation=6)
    write(tmp_path / "a.xml", voc_xml(voc_object(box=corners), size_wh=stated))
    images, problems = read("voc", tmp_path, ReadOptions(exif=exif))
    assert images["a.jpg"].boxes[0].xyxy == pytest.approx(box)
    assert (images["a.jpg"].size_wh, images["a.jpg"].rotation) == ((40, 20), 270)
    assert [(p.kind, p.skipped) for p in problems] == [(kinds.EXIF_ASSUMED, "")] * is_assumed


@pytest.mark.parametrize(
    ("more", "value"),
    [
        ("<Difficult>1</Difficult>", 1),
        ("<difficult>1</difficult>", 1),
        ("<difficult/>", -1),
        ("<difficult>Unspecified</difficult>", -1),
        ("", -1),
        ("<difficult> 0 </difficult>", 0),
        ("<part><name>head</name><difficult>1</difficult></part>", -1),
    ],
)
def test_difficult_in_the_forms_that_tools_write(tmp_path: Path, more: str, value: int) -> None:
    draw(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", voc_xml(voc_object(more=more)))
    images, _ = read("voc", tmp_path)
    assert images["a.jpg"].boxes[0].difficult == value


@pytest.mark.parametrize(
    ("corners", "kind"),
    [
        ((11, 6, 11, 15), kinds.NO_AREA),
        ((30, 6, 11, 15), kinds.NO_AREA),
        ((11, 6, 60, 15), kinds.OUTSIDE),
        ((11, 6, "", 15), kinds.MALFORMED),
        ((11, 6, "nan", 15), kinds.MALFORMED),
        ((11, 6, "1_9", 15), kinds.MALFORMED),
        ((11, 6, "1e999", 15), kinds.MALFORMED),
    ],
)
def test_an_invalid_box_is_skipped_with_its_line(
    tmp_path: Path, corners: tuple[object, ...], kind: str
) -> None:
    draw(tmp_path / "a.jpg")
    path = write(tmp_path / "a.xml", voc_xml(voc_object(box=corners) + voc_object("bolt")))
    images, (problem,) = read("voc", tmp_path)
    assert [box.class_name for box in images["a.jpg"].boxes] == ["bolt"]
    assert (problem.kind, problem.path, problem.line, problem.skipped) == (kind, path, 4, "box")


def test_a_box_slightly_outside_is_clipped_and_floats_are_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", voc_xml(voc_object(box=("0", "0.5", "41.5", "10.0"))))
    images, problems = read("voc", tmp_path)
    assert not problems
    assert images["a.jpg"].boxes[0].xyxy == (0.0, 0.0, 1.0, 0.5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"<annotation><object>",
        b"<html></html>",
        b'<!DOCTYPE annotation [<!ENTITY a "aaaa">]><annotation><filename>&a;</filename>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
        b"<annotation>&other;</annotation>",
        b'<?xml version="1.0" encoding="zip"?><annotation/>',
        b'<?xml version="1.0" encoding="utf-16"?><annotation/>',
        b"<annotation>\xff</annotation>",
    ],
)
def test_a_broken_or_hostile_file_is_skipped(tmp_path: Path, content: bytes) -> None:
    path = write(voc_folder(tmp_path) / "annotations" / "a.xml", content)
    images, problems = read("voc", tmp_path)
    assert list(images) == ["images/b.jpg"]
    assert [(p.kind, p.path, p.skipped) for p in problems] == [
        (kinds.BROKEN, path, "file"),
        (kinds.NO_LABEL, tmp_path / "images" / "a.jpg", "image"),
    ]


def test_entities_in_another_encoding_are_refused() -> None:
    text = '<?xml version="1.0" encoding="{}"?><!DOCTYPE a [<!ENTITY b "c">]><annotation/>'
    for encoding in ("utf-16", "cp037", "utf-7"):
        declared = text.format(encoding)
        head, _, rest = declared.partition("?>")
        content = declared.encode("utf-16") if encoding == "utf-16" else (
            (head + "?>").encode() + rest.encode(encoding)
        )  # fmt: skip
        with pytest.raises(XmlError):
            parse_voc(content)


def test_an_annotation_in_a_chinese_encoding() -> None:
    text = '<?xml version="1.0" encoding="GBK"?>' + voc_xml(voc_object("\u87ba\u6bcd"))
    assert parse_voc(text.encode("gbk")).objects[0].name == "\u87ba\u6bcd"


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_an_annotation_or_an_error(content: bytes, is_wrapped: bool) -> None:
    if is_wrapped:
        content = b"<annotation><object>" + content + b"</object></annotation>"
    with contextlib.suppress(XmlError):
        assert all(item.line >= 0 for item in parse_voc(content).objects)


def test_what_has_no_partner_is_listed(tmp_path: Path) -> None:
    voc_folder(tmp_path)
    draw(tmp_path / "images" / "alone.jpg")
    write(tmp_path / "annotations" / "alone2.xml", voc_xml(voc_object(), "gone.jpg"))
    write(tmp_path / "z" / "b.xml", voc_xml(voc_object()))
    write(tmp_path / "images" / "damaged.jpg", b"not an image")
    write(tmp_path / "annotations" / "damaged.xml", voc_xml(voc_object()))
    images, problems = read("voc", tmp_path)
    assert list(images) == ["images/a.jpg", "images/b.jpg"]
    assert sorted((p.kind, p.path.name, p.skipped) for p in problems) == sorted(
        [
            (kinds.NO_IMAGE, "alone2.xml", "file"),
            (kinds.BAD_IMAGE, "damaged.jpg", "image"),
            (kinds.NO_LABEL, "alone.jpg", "image"),
            (kinds.TWICE, "b.xml", "file"),
        ]
    )


def test_an_annotation_without_objects_is_an_image_without_boxes(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", voc_xml())
    images, problems = read("voc", tmp_path)
    assert images["a.jpg"].boxes == ()
    assert not problems


def test_loops_of_links_hidden_files_and_strange_names(tmp_path: Path) -> None:
    voc_folder(tmp_path)
    (tmp_path / "images" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    write(tmp_path / "__MACOSX" / "images" / "._a.xml", b"\0")
    write(tmp_path / "annotations" / "._b.xml", b"\0")
    os.mkfifo(tmp_path / "images" / "c.jpg")
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    images, problems = read("voc", tmp_path)
    assert list(images) == ["images/a.jpg", "images/b.jpg"]
    assert kinds_of(problems) == [kinds.BAD_NAME]


def test_a_folder_without_annotations_is_an_error(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    for name, error in (("", InputFormError), ("gone", UsageError), ("a.jpg", UsageError)):
        with pytest.raises(error) as caught:
            READERS["voc"](tmp_path / name, ReadOptions())
        assert caught.value.where == str(tmp_path / name)
