"""Results: text for a person, HTML for a notebook, values for ``--json``."""

from __future__ import annotations

import pytest

from oiyolo.core.results import Plan, Result, format_table, format_value, pluralize


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


def test_html_of_a_result_is_its_escaped_text() -> None:
    page = Plan("x", ["<b>"])._repr_html_()
    assert page.startswith("<pre")
    assert page.endswith(">x would &lt;b&gt;</pre>")


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
