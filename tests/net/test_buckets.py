"""Parsing of Cloud Storage URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import UsageError
from oiyolo.net.buckets import BucketFolder, parse_bucket_url

PARTS = st.text("abcXYZ019-_. é/", min_size=1, max_size=20).filter(
    lambda text: all(part not in {"", ".", ".."} for part in text.split("/"))
)
WORDS = st.text("abcxyz019", min_size=3, max_size=9)
BUCKETS = st.lists(WORDS, min_size=1, max_size=4).map("-".join)


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("gs://photos", "photos", ""),
        ("gs://photos/", "photos", ""),
        ("gs://photos/boats", "photos", "boats"),
        ("gs://photos/boats/2026/", "photos", "boats/2026"),
        ("gs://my.bucket-1_a/a b/ü", "my.bucket-1_a", "a b/ü"),
    ],
)
def test_a_url_is_parsed_into_bucket_and_prefix(text: str, bucket: str, prefix: str) -> None:
    assert parse_bucket_url(text) == BucketFolder(bucket, prefix)


@given(bucket=BUCKETS, prefix=PARTS)
def test_a_parsed_url_survives_a_round_trip(bucket: str, prefix: str) -> None:
    folder = parse_bucket_url(f"gs://{bucket}/{prefix}")
    assert parse_bucket_url(str(folder)) == folder
    assert folder.object_name("x.jpg") == f"{folder.prefix}/x.jpg"


@pytest.mark.parametrize(
    "text",
    [
        "photos",
        "s3://photos",
        "gs://",
        "gs:///boats",
        "gs://Photos",
        "gs://my bucket",
        "gs://-photos",
        "gs://photos-",
        "gs://a..b",
        "gs://ab",
        "gs://" + "a" * 223,
        "gs://photos/../other",
        "gs://photos/a//b",
        "gs://photos/a\nb",
        "gs://photos/\udcff",
        "gs://photos/" + "ü" * 257,
    ],
)
def test_an_invalid_url_is_rejected(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_bucket_url(text, where="--transfer")
    assert raised.value.where == "--transfer"
    assert repr(text) in raised.value.found


@given(st.text())
def test_any_text_is_either_parsed_or_rejected(text: str) -> None:
    try:
        folder = parse_bucket_url("gs://" + text)
    except UsageError:
        return
    assert ".." not in folder.prefix.split("/")
    assert "/" not in folder.bucket
