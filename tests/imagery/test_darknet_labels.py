"""Labels as darknet reads them: each line, and many at once."""

from __future__ import annotations

import pytest

from oiyolo.imagery.darknet_labels import count_boxes, label_errors

VALID = (
    *("0 0.5 0.5 0.2 0.2", "1 .5 .5 .2 .2", "+1 5e-1 0.5 2E-1 0.2", "00 1.0 1 1. 1", "0 0 0 .1 .1"),
    *("\t0\t.5  .5 .2 .2 \r", "0 -0.0 +.5 0.2 0.2"),
)
INVALID = (
    *("0.0 .5 .5 .2 .2", "1e0 .5 .5 .2 .2", "0x1 .5 .5 .2 .2", "2 .5 .5 .2 .2", "-1 .5 .5 .2 .2"),
    *("0 .5 .5 .2", "0 .5 .5 .2 .2 0.9", "0 .5.5.2.2", "0 .5,.5 .5 .2 .2", "0 0,5 0,5 0,2 0,2"),
    *("0 .5 .5 .2 .2 # a boat", "\ufeff0 .5 .5 .2 .2", "0 .5 .5 .2 1_0", "0 .5 .5 .2 .2\0"),
    *("0 .5 .5 nan .2", "0 .5 .5 inf .2", "0 .5 .5 0.0 .2", "0 .5 .5 1e-50 .2", "0 1.5 .5 .2 .2"),
    *("0 .5 .5 .2 1.1", "0 .5 .5 -.2 .2", "0 .5 -.5 .2 .2", "0 .5 .5 .2 .2e", "0 \u0661 .5 .2 .2"),
    *("0\u00a0.5 .5 .2 .2", "4294967296 .5 .5 .2 .2", "0 . .5 .2 .2"),
)


@pytest.mark.parametrize("line", VALID)
def test_lines_that_darknet_reads_as_they_are_written(line: str) -> None:
    content = f"\n{line}\n \n".encode()
    assert list(label_errors(content, 2)) == []
    assert count_boxes([b"0 .5 .5 .2 .2", content], 2) in {2, None}


@pytest.mark.parametrize("line", INVALID)
def test_lines_that_darknet_reads_otherwise_or_not_at_all(line: str) -> None:
    good = b"0 .5 .5 .2 .2"
    content = b"\n".join([good, line.encode()])
    (error,) = label_errors(content, 2)
    assert error.startswith(":2: ")
    assert count_boxes([good, content, good], 2) is None


def test_what_prepare_writes_needs_no_closer_look() -> None:
    contents = [b"", b"0 0.5000000 1.0000000 0.2000000 0.0001000\n" * 3, b"\n", b"11 0.5 0.5 1 1"]
    assert count_boxes(contents, 12) == 4
    assert count_boxes(contents, 11) is None
    assert count_boxes([], 1) == 0


def test_a_field_too_few_in_one_label_is_not_made_up_for_by_another_label() -> None:
    contents = [b"0 .5 .5 .2", b"1 0 .5 .5 .2 .2"]
    assert count_boxes(contents, 2) is None
    assert [len(list(label_errors(content, 2))) for content in contents] == [1, 1]


@pytest.mark.parametrize(
    ("class_count", "ids"), [(3, "ids are 0 to 2"), (1, "the only id is 0"), (0, "no classes")]
)
def test_an_error_names_the_classes_that_exist(class_count: int, ids: str) -> None:
    (error,) = label_errors(b"7 .5 .5 .1 .1\n", class_count)
    assert error.startswith(":1: class 7 does not exist: ")
    assert ids in error
