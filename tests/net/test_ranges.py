"""What an answer means for a file that is here in part."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from oiyolo.net.ranges import STATUSES, Step, Version, next_step, question, version_of

HELD = Version('"one"', "yesterday", 100)


@pytest.mark.parametrize(
    ("held", "done", "ranges", "asked"),
    [
        (HELD, 40, True, {"Range": "bytes=40-", "If-Range": '"one"'}),
        (HELD, 0, True, {}),
        (HELD, 40, False, {}),
        (None, 0, True, {}),
        (Version('W/"weak"', "yesterday", 100), 40, True,
         {"Range": "bytes=40-", "If-Range": "yesterday"}),
        (Version('W/"weak"', "", 100), 40, True, {}),
        (Version("", "", 100), 40, True, {}),
    ],
)  # fmt: skip
def test_a_part_is_gone_on_with_only_under_a_strong_validator(
    held: Version | None, done: int, asked: dict[str, str], *, ranges: bool
) -> None:
    assert question(held, done, ranges=ranges) == asked


@pytest.mark.parametrize(
    ("status", "headers", "step"),
    [
        (304, {}, Step.NOT_CHANGED),
        (206, {"Content-Range": "bytes 40-99/100"}, Step.GO_ON),
        (206, {"content-range": "bytes 40-99/100", "ETag": '"one"'}, Step.GO_ON),
        (206, {"Content-Range": "bytes 40-99/*"}, Step.GO_ON),
        (206, {"Content-Range": "bytes 40-79/100"}, Step.GO_ON),
        (206, {"Content-Range": "bytes 41-99/100"}, Step.ASK_FOR_ALL),
        (206, {"Content-Range": "bytes 0-99/100"}, Step.ASK_FOR_ALL),
        (206, {"Content-Range": "bytes 40-100/101"}, Step.ASK_FOR_ALL),
        (206, {"Content-Range": "bytes 40-99/100", "ETag": '"two"'}, Step.ASK_FOR_ALL),
        (206, {"Content-Range": "nonsense"}, Step.ASK_FOR_ALL),
        (206, {}, Step.ASK_FOR_ALL),
        (416, {"Content-Range": "bytes */40"}, Step.ASK_FOR_ALL),
        (416, {"Content-Range": "bytes */100"}, Step.ASK_FOR_ALL),
        (416, {}, Step.ASK_FOR_ALL),
        (200, {"ETag": '"one"'}, Step.SKIP),
        (200, {"ETag": '"one"', "Content-Length": "101"}, Step.START_OVER),
        (200, {"ETag": '"two"'}, Step.START_OVER),
        (200, {"ETag": '"two"', "Content-Length": "100"}, Step.START_OVER),
        (200, {"Last-Modified": "yesterday"}, Step.SKIP),
        (200, {"Last-Modified": "today"}, Step.START_OVER),
        (200, {"Content-Length": "100"}, Step.START_OVER),
    ],
)  # fmt: skip
def test_an_answer_leads_to_one_step(status: int, headers: dict[str, str], step: Step) -> None:
    told = CaseInsensitiveDict(headers)
    assert next_step(status, told, HELD, 40, must_go_on=False) is step


def test_where_nothing_is_missing_an_unsatisfiable_range_says_so() -> None:
    headers = {"Content-Range": "bytes */100"}
    assert next_step(416, headers, HELD, 100, must_go_on=False) is Step.COMPLETE


def test_what_cannot_be_taken_back_is_compared_where_the_server_says_nothing() -> None:
    assert next_step(200, {}, HELD, 40, must_go_on=True) is Step.SKIP
    assert next_step(200, {"ETag": '"two"'}, HELD, 40, must_go_on=True) is Step.START_OVER


@pytest.mark.parametrize(
    ("mine", "other", "same"),
    [
        (Version('"a"'), Version('"a"'), True),
        (Version('"a"'), Version('"b"'), False),
        (Version('W/"a"'), Version('W/"a"'), None),
        (Version('W/"a"'), Version('W/"b"'), False),
        (Version(), Version(), None),
        (Version("", "monday"), Version('"a"', "monday"), True),
        (Version("", "monday", 1), Version("", "monday", 2), False),
        (Version("", "", 1), Version("", "", 1), None),
        (Version('"a"', "", None, "m"), Version('"b"', "", None, "m"), True),
        (Version('"a"', "", None, "m"), Version('"a"', "", None, "n"), False),
    ],
)
def test_versions_are_the_same_others_or_it_cannot_be_told(
    mine: Version, other: Version, *, same: bool | None
) -> None:
    assert mine.same_as(other) is same
    assert other.same_as(mine) is same


@pytest.mark.parametrize(
    ("status", "headers", "version"),
    [
        (200, {"ETag": '"a"', "Last-Modified": "b", "Content-Length": "7"}, Version('"a"', "b", 7)),
        (206, {"Content-Length": "3", "Content-Range": "bytes 4-6/7"}, Version(size_bytes=7)),
        (416, {"Content-Length": "3", "Content-Range": "bytes */7"}, Version(size_bytes=7)),
        (200, {"Content-Length": "-7"}, Version()),
        (200, {"Content-Length": "7", "ETag": '"a"', "Content-Encoding": "gzip"}, Version()),
        (200, {"x-goog-hash": "crc32c=n03x6A==, md5=1B2M2Y8AsgTpgAmY7PhCfg=="},
         Version(md5="d41d8cd98f00b204e9800998ecf8427e")),
        (200, {"x-goog-hash": "md5=1B2M2"}, Version()),
        (200, {"x-goog-hash": "crc32c=n03x6A=="}, Version()),
    ],
)  # fmt: skip
def test_a_version_is_read_from_headers(
    status: int, headers: dict[str, str], version: Version
) -> None:
    assert version_of(status, headers) == version


@given(
    st.sampled_from(sorted(STATUSES)),
    st.dictionaries(
        st.sampled_from(
            ["ETag", "Last-Modified", "Content-Length", "Content-Range", "x-goog-hash"]
        ),
        st.text(max_size=20) | st.from_regex(r"bytes [0-9]{1,3}-[0-9]{1,3}/[0-9*]{1,3}"),
    ),
    st.integers(1, 200),
    st.booleans(),
)
def test_no_header_upsets_it_and_no_body_is_taken_from_another_place(
    status: int,
    headers: dict[str, str],
    done: int,
    must_go_on: bool,
) -> None:
    step = next_step(status, headers, HELD, done, must_go_on=must_go_on)
    if step is Step.GO_ON:
        assert headers["Content-Range"].startswith(f"bytes {done}-")
    version_of(status, headers)


@given(st.text(max_size=9), st.text(max_size=9), st.none() | st.integers(0), st.text(max_size=9))
def test_a_version_outlives_being_written_down(
    etag: str, last_modified: str, size_bytes: int | None, md5: str
) -> None:
    version = Version(etag, last_modified, size_bytes, md5)
    assert Version.of_dict(json.loads(json.dumps(version.as_dict()))) == version


@pytest.mark.parametrize(
    "kept",
    [None, [], "x", {}, {"etag": 1, "last_modified": "", "size_bytes": 1, "md5": ""},
     {"etag": "", "last_modified": "", "size_bytes": "1", "md5": ""},
     {"etag": "", "last_modified": "", "size_bytes": True, "md5": ""}],
)  # fmt: skip
def test_what_is_no_version_is_none(kept: object) -> None:
    assert Version.of_dict(kept) is None
