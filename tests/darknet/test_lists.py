"""Lists of images as darknet reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.darknet import lists
from oiyolo.core.errors import InputFormError

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
def test_a_list_has_four_images_at_least_or_none(paths: list[str], expected: list[str]) -> None:
    assert lists.padded(paths) == expected


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.jpg" for name in "ab"]
    for path in paths:
        path.touch()
        path.with_suffix(".txt").touch()
    return [str(path) for path in paths]


def test_a_whole_list_passes(images: list[str], tmp_path: Path) -> None:
    lists.check(images, tmp_path / "train.txt")


@pytest.mark.parametrize("gone", ["b.jpg", "b.txt"])
def test_a_lost_image_or_label_is_named_with_its_line(
    images: list[str], tmp_path: Path, gone: str
) -> None:
    (tmp_path / gone).unlink()
    with pytest.raises(InputFormError) as caught:
        lists.check(images, tmp_path / "train.txt")
    assert caught.value.where == f"{tmp_path / 'train.txt'}:2"
    assert caught.value.expected == str(tmp_path / gone)
