"""Resuming a partial download: request headers, and the meaning of responses."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from oiyolo.net.ranges import (
    ACCEPTED_STATUSES,
    FileVersion,
    ResponseAction,
    choose_action,
    range_headers,
    version_of,
)

PARTIAL = FileVersion('"one"', "yesterday", 100)


@pytest.mark.parametrize(
    ("partial_version", "done_bytes", "use_ranges", "expected"),
    [
        (PARTIAL, 40, True, {"Range": "bytes=40-", "If-Range": '"one"'}),
        (PARTIAL, 0, True, {}),
        (PARTIAL, 40, False, {}),
        (None, 0, True, {}),
        (FileVersion('W/"weak"', "yesterday", 100), 40, True,
         {"Range": "bytes=40-", "If-Range": "yesterday"}),
        (FileVersion('W/"weak"', "", 100), 40, True, {}),
        (FileVersion("", "", 100), 40, True, {}),
    ],
)  # fmt: skip
def test_a_range_is_requested_only_with_a_usable_validator(
    partial_version: FileVersion | None, done_bytes: int, expected: dict[str, str], *,
    use_ranges: bool,
) -> None:  # fmt: skip
    assert range_headers(partial_version, done_bytes, use_ranges=use_ranges) == expected


@pytest.mark.parametrize(
    ("status", "headers", "action"),
    [
        (304, {}, ResponseAction.NOT_MODIFIED),
        (206, {"Content-Range": "bytes 40-99/100"}, ResponseAction.APPEND),
        (206, {"content-range": "bytes 40-99/100", "ETag": '"one"'}, ResponseAction.APPEND),
        (206, {"Content-Range": "bytes 40-99/*"}, ResponseAction.APPEND),
        (206, {"Content-Range": "bytes 40-79/100"}, ResponseAction.APPEND),
        (206, {"Content-Range": "bytes 41-99/100"}, ResponseAction.REQUEST_WHOLE),
        (206, {"Content-Range": "bytes 0-99/100"}, ResponseAction.REQUEST_WHOLE),
        (206, {"Content-Range": "bytes 40-100/101"}, ResponseAction.REQUEST_WHOLE),
        (206, {"Content-Range": "bytes 40-99/100", "ETag": '"two"'}, ResponseAction.REQUEST_WHOLE),
        (206, {"Content-Range": "nonsense"}, ResponseAction.REQUEST_WHOLE),
        (206, {}, ResponseAction.REQUEST_WHOLE),
        (416, {"Content-Range": "bytes */40"}, ResponseAction.REQUEST_WHOLE),
        (416, {"Content-Range": "bytes */100"}, ResponseAction.REQUEST_WHOLE),
        (416, {}, ResponseAction.REQUEST_WHOLE),
        (200, {"ETag": '"one"'}, ResponseAction.SKIP_PREFIX),
        (200, {"ETag": '"one"', "Content-Length": "101"}, ResponseAction.RESTART),
        (200, {"ETag": '"two"'}, ResponseAction.RESTART),
        (200, {"ETag": '"two"', "Content-Length": "100"}, ResponseAction.RESTART),
        (200, {"Last-Modified": "yesterday"}, ResponseAction.SKIP_PREFIX),
        (200, {"Last-Modified": "today"}, ResponseAction.RESTART),
        (200, {"Content-Length": "100"}, ResponseAction.RESTART),
    ],
)  # fmt: skip
def test_each_response_leads_to_one_step(
    status: int, headers: dict[str, str], action: ResponseAction
) -> None:
    response_headers = CaseInsensitiveDict(headers)
    assert choose_action(status, response_headers, PARTIAL, 40, append_only=False) is action


def test_an_unsatisfiable_range_at_the_end_means_that_the_file_is_complete() -> None:
    headers = {"Content-Range": "bytes */100"}
    assert choose_action(416, headers, PARTIAL, 100, append_only=False) is ResponseAction.COMPLETE


def test_an_append_only_download_compares_the_beginning_of_an_unknown_version() -> None:
    assert choose_action(200, {}, PARTIAL, 40, append_only=True) is ResponseAction.SKIP_PREFIX
    assert (
        choose_action(200, {"ETag": '"two"'}, PARTIAL, 40, append_only=True)
        is ResponseAction.RESTART
    )


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (FileVersion('"a"'), FileVersion('"a"'), True),
        (FileVersion('"a"'), FileVersion('"b"'), False),
        (FileVersion('W/"a"'), FileVersion('W/"a"'), None),
        (FileVersion('W/"a"'), FileVersion('W/"b"'), False),
        (FileVersion(), FileVersion(), None),
        (FileVersion("", "monday"), FileVersion('"a"', "monday"), True),
        (FileVersion("", "monday", 1), FileVersion("", "monday", 2), False),
        (FileVersion("", "", 1), FileVersion("", "", 1), None),
        (FileVersion('"a"', "", None, "m"), FileVersion('"b"', "", None, "m"), True),
        (FileVersion('"a"', "", None, "m"), FileVersion('"a"', "", None, "n"), False),
    ],
)
def test_versions_are_the_same_or_different_or_that_is_unknown(
    first: FileVersion, second: FileVersion, *, is_same: bool | None
) -> None:
    assert first.same_as(second) is is_same
    assert second.same_as(first) is is_same


@pytest.mark.parametrize(
    ("status", "headers", "version"),
    [
        (200, {"ETag": '"a"', "Last-Modified": "b", "Content-Length": "7"},
         FileVersion('"a"', "b", 7)),
        (206, {"Content-Length": "3", "Content-Range": "bytes 4-6/7"}, FileVersion(size_bytes=7)),
        (416, {"Content-Length": "3", "Content-Range": "bytes */7"}, FileVersion(size_bytes=7)),
        (200, {"Content-Length": "-7"}, FileVersion()),
        (200, {"Content-Length": "7", "ETag": '"a"', "Content-Encoding": "gzip"}, FileVersion()),
        (200, {"x-goog-hash": "crc32c=n03x6A==, md5=1B2M2Y8AsgTpgAmY7PhCfg=="},
         FileVersion(md5="d41d8cd98f00b204e9800998ecf8427e")),
        (200, {"x-goog-hash": "md5=1B2M2"}, FileVersion()),
        (200, {"x-goog-hash": "crc32c=n03x6A=="}, FileVersion()),
    ],
)  # fmt: skip
def test_a_version_is_read_from_headers(
    status: int, headers: dict[str, str], version: FileVersion
) -> None:
    assert version_of(status, headers) == version


@given(
    st.sampled_from(sorted(ACCEPTED_STATUSES)),
    st.dictionaries(
        st.sampled_from(
            ["ETag", "Last-Modified", "Content-Length", "Content-Range", "x-goog-hash"]
        ),
        st.text(max_size=20) | st.from_regex(r"bytes [0-9]{1,3}-[0-9]{1,3}/[0-9*]{1,3}"),
    ),
    st.integers(1, 200),
    st.booleans(),
)
def test_no_header_causes_an_exception_and_no_body_is_appended_at_a_wrong_offset(
    status: int,
    headers: dict[str, str],
    done_bytes: int,
    append_only: bool,
) -> None:
    action = choose_action(status, headers, PARTIAL, done_bytes, append_only=append_only)
    if action is ResponseAction.APPEND:
        assert headers["Content-Range"].startswith(f"bytes {done_bytes}-")
    version_of(status, headers)


@given(st.text(max_size=9), st.text(max_size=9), st.none() | st.integers(0), st.text(max_size=9))
def test_a_version_survives_a_round_trip_through_json(
    etag: str, last_modified: str, size_bytes: int | None, md5: str
) -> None:
    version = FileVersion(etag, last_modified, size_bytes, md5)
    assert FileVersion.from_dict(json.loads(json.dumps(asdict(version)))) == version


@pytest.mark.parametrize(
    "data",
    [None, [], "x", {}, {"etag": 1, "last_modified": "", "size_bytes": 1, "md5": ""},
     {"etag": "", "last_modified": "", "size_bytes": "1", "md5": ""},
     {"etag": "", "last_modified": "", "size_bytes": True, "md5": ""}],
)  # fmt: skip
def test_invalid_data_is_not_a_version(data: object) -> None:
    assert FileVersion.from_dict(data) is None
