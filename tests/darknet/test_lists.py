"""Darknet's image lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.darknet import lists

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


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.jpg" for name in "ab"]
    for path in paths:
        path.touch()
        path.with_suffix(".txt").touch()
    return [str(path) for path in paths]


def test_a_complete_list_passes(images: list[str], tmp_path: Path) -> None:
    lists.check(images, tmp_path / "train.txt")


@pytest.mark.parametrize("missing", ["b.jpg", "b.txt"])
def test_a_missing_image_or_label_is_named_with_its_line(
    images: list[str], tmp_path: Path, missing: str
) -> None:
    (tmp_path / missing).unlink()
    with pytest.raises(InputFormError) as caught:
        lists.check(images, tmp_path / "train.txt")
    assert caught.value.where == f"{tmp_path / 'train.txt'}:2"
    assert caught.value.expected == str(tmp_path / missing)
