"""Results: text for a person, HTML for a notebook, values for ``--json``."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo.core.errors import UsageError
from oiyolo.core.results import (
    Picture,
    Plan,
    Result,
    find_picture,
    format_table,
    format_value,
    pluralize,
    table_html,
    text_html,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2000, "image", "2,000 images"),
        (1, "box", "1 box"),
        (3, "box", "3 boxes"),
        (2, "class", "2 classes"),
        (1234567, "iteration", "1,234,567 iterations"),
    ],
)
def test_a_noun_agrees_with_its_number(number: int, noun: str, text: str) -> None:
    assert pluralize(number, noun) == text


def test_a_table_aligns_the_first_column_left_and_the_others_right() -> None:
    rows = [("class", "boxes"), ("Boat", 12), ("Tennis racket", 1234)]
    assert format_table(rows).splitlines() == [
        "class          boxes",
        "Boat              12",
        "Tennis racket   1234",
    ]
    assert format_table(rows, right=False).splitlines()[1] == "Boat           12"


def test_a_plan_lists_one_action_a_line() -> None:
    plan = Plan("fetch", ["select first", "fetch 3 images"], {"pending": 3})
    assert str(plan) == "fetch would select first\nfetch would fetch 3 images"
    assert plan.as_dict() == {
        "command": "fetch",
        "would": ["select first", "fetch 3 images"],
        "pending": 3,
    }


def test_a_plan_without_actions_has_nothing_to_do() -> None:
    assert str(Plan("fetch", [])) == "fetch: nothing to do"
    assert Plan("fetch", []).as_dict() == {"command": "fetch", "would": []}


@dataclass(frozen=True)
class Named(Result):
    """A result with a text."""

    text: str

    def as_dict(self) -> dict[str, object]:
        return {"text": self.text}

    def __str__(self) -> str:
        return self.text


def test_html_of_a_result_is_its_escaped_text() -> None:
    assert Named("<b>")._repr_html_() == "<p>&lt;b&gt;</p>"
    assert Named("<b>\n  x")._repr_html_().startswith("<pre")
    assert Named("<b>\n  x")._repr_html_().endswith(">&lt;b&gt;\n  x</pre>")


def test_html_of_a_plan_is_a_list_of_its_actions() -> None:
    page = Plan("x", ["<b>", "change:\n-<i>"])._repr_html_()
    assert "<li>&lt;b&gt;</li><li>change:<pre" in page
    assert ">-&lt;i&gt;</pre></li>" in page
    assert Plan("x", [])._repr_html_() == "<p>x: nothing to do</p>"
    with_table = Plan("x", ["change:\n-<i>"], {}, [("key",), ("<b>",)])._repr_html_()
    assert "<li>change:</li>" in with_table
    assert ">&lt;b&gt;</td>" in with_table


def test_a_table_in_html_is_escaped_and_empty_without_rows() -> None:
    page = table_html([("<a>", "n"), ("<b>", 1)])
    assert "&lt;a&gt;" in page
    assert "&lt;b&gt;" in page
    assert "<a>" not in page
    assert "<b>" not in page
    assert table_html([("a", "n")]) == ""
    assert text_html("<a>", "", "b") == "<p>&lt;a&gt;<br>b</p>"
    assert text_html("", "") == ""


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (np.full((900, 1600, 3), 255, np.uint8), "image/png"),
        (np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8), "image/jpeg"),
    ],
    ids=["chart", "photograph"],
)
def test_a_picture_is_small_in_a_notebook(pixels: npt.NDArray[np.uint8], kind: str) -> None:
    picture = Picture(Image.fromarray(pixels), "<a>")
    bundle = picture._repr_mimebundle_()
    assert set(bundle) == {"text/plain", kind}
    with Image.open(io.BytesIO(base64.b64decode(bundle[kind]))) as shown:
        assert shown.width == min(900, pixels.shape[1])
    assert 'alt="&lt;a&gt;"' in picture.html
    assert bundle[kind] in picture.html


def test_a_picture_of_a_result_is_found_by_its_name(tmp_path: Path) -> None:
    paths = [tmp_path / "loss.png", tmp_path / "loss.svg"]
    Image.new("RGB", (4, 3)).save(paths[0])
    paths[1].touch()
    assert find_picture(paths, "loss").image.size == (4, 3)
    with pytest.raises(UsageError) as raised:
        find_picture(paths, "iou")
    assert (raised.value.expected, raised.value.found) == ("one of loss", "iou")


def test_a_result_class_must_define_its_text_and_its_values() -> None:
    assert Result.__abstractmethods__ == {"__str__", "as_dict"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((416, 416), "416, 416"),
        (["duplicate", "author"], "duplicate, author"),
        ({"size": [96, 96], "fit": "none"}, "size 96, 96, fit none"),
        ((), "an empty list"),
        (None, "nothing"),
        ("", "nothing"),
        (True, "true"),
        (0.5, "0.5"),
        ("auto", "auto"),
    ],
)
def test_an_options_value_is_shown_as_users_write_it(value: object, text: str) -> None:
    assert format_value(value) == text


def test_a_table_is_cut_to_a_width_at_its_names() -> None:
    rows = [("name", "a" * 20), ("n" * 90, "1"), ("b", "2")]
    lines = format_table(rows, max_width=40).splitlines()
    assert [len(line) for line in lines] == [40, 40, 40]
    assert lines[1].startswith("n" * 17 + "…")
    assert format_table(rows[::2], max_width=40) == format_table(rows[::2])
