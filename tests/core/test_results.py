"""What stages return, for a person, a notebook and a program."""

from __future__ import annotations

import pytest

from oiyolo.core.results import Plan, Result, columns, count


@pytest.mark.parametrize(
    ("number", "noun", "told"),
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
def test_a_number_of_things_is_told_as_a_person_would(number: int, noun: str, told: str) -> None:
    assert count(number, noun) == told


def test_columns_are_aligned_the_first_to_the_left_the_others_to_the_right() -> None:
    rows = [("class", "boxes"), ("Boat", 12), ("Tennis racket", 1234)]
    assert columns(rows).splitlines() == [
        "class          boxes",
        "Boat              12",
        "Tennis racket   1234",
    ]
    assert columns(rows, right=False).splitlines()[1] == "Boat           12"


def test_a_plan_tells_its_actions_one_a_line() -> None:
    plan = Plan("fetch", ["select first", "fetch 3 images"], {"pending": 3})
    assert str(plan) == "fetch would select first\nfetch would fetch 3 images"
    assert plan.as_dict() == {
        "command": "fetch",
        "would": ["select first", "fetch 3 images"],
        "pending": 3,
    }


def test_a_plan_without_actions_says_so() -> None:
    assert str(Plan("fetch", [])) == "fetch: nothing to do"
    assert Plan("fetch", []).as_dict() == {"command": "fetch", "would": []}


def test_a_notebook_shows_the_text_and_takes_no_tag_for_one() -> None:
    shown = Plan("x", ["<b>"])._repr_html_()
    assert shown.startswith("<pre")
    assert shown.endswith(">x would &lt;b&gt;</pre>")


def test_a_result_needs_a_text_and_a_dict_of_its_own() -> None:
    assert Result.__abstractmethods__ == {"__str__", "as_dict"}
