"""Lists of classes are read: a name in each line, and TensorFlow's label maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.interchange.class_lists import find_class_lists, parse_label_map, read_class_list
from oiyolo.interchange.source_files import find_files
from tests.support.labelled import write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "text",
    [
        "item {\n  id: 1\n  name: 'nut'\n}\nitem {\n  id: 2\n  name: 'big bolt'\n}\n",
        'item{name:"big bolt" id:2}item{name:"nut",id:1}  # item {',
        "item: { id: 2; name: 'big bolt' keypoints { id: 1 } } item { id: 1 name: 'nut' }",
        "item { name: '/m/1' id: 1 display_name: 'nut' } item { name: 'big bolt' id: 2 }",
    ],
)
def test_label_maps_in_the_forms_that_tools_write(text: str) -> None:
    assert parse_label_map(text, "map.pbtxt") == ["nut", "big bolt"]


@pytest.mark.parametrize(
    "text",
    ["", "nut\n", "item { id: 0 name: 'background' }", "item { name: 'nut' }", "item { id: 1 }",
     "item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "item { id: one name: 'a' }"],
)  # fmt: skip
def test_other_texts_are_not_label_maps(text: str) -> None:
    with pytest.raises(InputFormError) as caught:
        parse_label_map(text, "map.pbtxt")
    assert caught.value.where == "map.pbtxt"


def test_the_best_list_is_first(tmp_path: Path) -> None:
    for name in ("z/classes.txt", "data/obj.names", "map.pbtxt", "coco.names", "readme.txt"):
        write(tmp_path / name)
    assert find_class_lists(find_files(tmp_path)) == [
        *("z/classes.txt", "data/obj.names", "coco.names", "map.pbtxt")
    ]


def test_a_list_of_names(tmp_path: Path) -> None:
    path = write(tmp_path / "classes.txt", "\ufeffnut\r\nbig bolt \n\n")
    assert read_class_list(path) == ["nut", "big bolt"]


@pytest.mark.parametrize("content", [b"", b"nut\n\nbolt\n", b"nut\0"])
def test_an_invalid_list_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "classes.txt", content)
    with pytest.raises(InputFormError) as caught:
        read_class_list(path)
    assert caught.value.where.startswith(str(path))
