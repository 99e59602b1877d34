"""Darknet's image lists."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.darknet import lists
from oiyolo.darknet.lists import ImageCheck

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], []),
        (["a"], ["a", "a", "a", "a"]),
        (["a", "b", "c"], ["a", "b", "c", "c"]),
        (["a", "b", "c", "d"], ["a", "b", "c", "d"]),
        (list("abcde"), list("abcde")),
    ],
)
def test_a_list_has_at_least_four_images_or_is_empty(paths: list[str], expected: list[str]) -> None:
    assert lists.pad(paths) == expected


ID_A, ID_B = "0000000000000a0a", "0000000000000b0b"
JPEG = b"\xff\xd8 and so on \xff\xd9"


@pytest.mark.parametrize("place", ["/elsewhere/data/dataset/obj", "obj", "/cache/paths/0f0f", "."])
def test_a_lists_images_are_those_of_the_given_folder(tmp_path: Path, place: str) -> None:
    path = tmp_path / "train.txt"
    path.write_text(f"{place}/{ID_A}.jpg\n{place}/{ID_B}.jpg\n")
    folder = tmp_path / "obj"
    assert lists.read(path, folder) == [f"{folder}/{ID_A}.jpg", f"{folder}/{ID_B}.jpg"]


@pytest.mark.parametrize(
    "line", ["", "obj/photo.jpg", f"obj/{ID_A}.png", "../../../../victim", f"obj/{ID_A}.jpg.jpg"]
)
def test_a_damaged_list_is_refused_with_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.txt"
    path.write_text(f"obj/{ID_A}.jpg\n{line}\n")
    with pytest.raises(InputFormError) as caught:
        lists.read(path, tmp_path)
    assert caught.value.where == f"{path}:2"


def test_a_missing_list_or_bytes_in_its_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    with pytest.raises(InputFormError):
        lists.read_ids(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputFormError):
        lists.read_ids(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputFormError):
        lists.read_ids(path)


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.jpg" for name in (ID_A, ID_B)]
    for path in paths:
        path.write_bytes(JPEG)
        path.with_suffix(".txt").touch()
    return [str(path) for path in paths]


def test_complete_images_pass(images: list[str], tmp_path: Path) -> None:
    for sizes in ({}, {ID_A: len(JPEG)}):
        ImageCheck(1, image_bytes=sizes).require(images, tmp_path / "train.txt")


def replace(path: Path, by: str) -> None:
    path.unlink()
    if by == "a folder":
        path.mkdir()
    elif by == "a FIFO":
        os.mkfifo(path)
    elif by == "a dangling link":
        path.symlink_to(path.with_name("gone"))


@pytest.mark.parametrize("name", [f"{ID_B}.jpg", f"{ID_B}.txt"])
@pytest.mark.parametrize("by", ["nothing", "a folder", "a FIFO", "a dangling link"])
def test_an_image_or_label_that_is_no_file_is_named_with_its_line(
    images: list[str], tmp_path: Path, name: str, by: str
) -> None:
    replace(tmp_path / name, by)
    with pytest.raises(InputFormError) as caught:
        ImageCheck(1).require(images, tmp_path / "train.txt")
    assert caught.value.where == str(tmp_path / "train.txt")
    assert caught.value.found.startswith("train.txt:2: ")
    assert str(tmp_path / name) in caught.value.found
    assert "oiyolo split" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "recorded"),
    [
        (JPEG[:-1], None),
        (JPEG[:2], None),
        (JPEG[:5] + b"\xff\xd9", len(JPEG)),
        (JPEG + b"\0" * 100, None),
        (b"\0" * len(JPEG), len(JPEG)),
        (b"", len(JPEG)),
        (JPEG, len(JPEG) + 1),
    ],
)
def test_an_image_that_was_cut_off_or_replaced_is_found(
    images: list[str], tmp_path: Path, content: bytes, recorded: int | None
) -> None:
    (tmp_path / f"{ID_A}.jpg").write_bytes(content)
    sizes = {} if recorded is None else {ID_A: recorded}
    (block,) = ImageCheck(1, image_bytes=sizes).check(images, "a list")
    assert block.images == 2
    assert [problem.split(": ")[0] for problem in block.problems] == ["a list:1"]


def test_files_without_permission_are_named(
    images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    (block,) = ImageCheck(1).check(images, "a list")
    assert all("Permission denied" in problem for problem in block.problems)
    assert len(block.problems) == 2
