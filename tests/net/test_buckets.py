"""gs://bucket/prefix, read and refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import UsageError
from oiyolo.net.buckets import BucketPlace, bucket_place

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
def test_a_place_is_read(text: str, bucket: str, prefix: str) -> None:
    assert bucket_place(text) == BucketPlace(bucket, prefix)


@given(bucket=BUCKETS, prefix=PARTS)
def test_a_place_is_written_as_it_is_read(bucket: str, prefix: str) -> None:
    place = bucket_place(f"gs://{bucket}/{prefix}")
    assert bucket_place(str(place)) == place
    assert place.name("x.jpg") == f"{place.prefix}/x.jpg"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("photos", "does not begin with gs://"),
        ("s3://photos", "does not begin with gs://"),
        ("gs://", "names no bucket"),
        ("gs:///boats", "names no bucket"),
        ("gs://Photos", "small letters"),
        ("gs://my bucket", "small letters"),
        ("gs://-photos", "small letters"),
        ("gs://photos-", "small letters"),
        ("gs://a..b", "small letters"),
        ("gs://ab", "3 to 222 characters"),
        ("gs://" + "a" * 223, "3 to 222 characters"),
        ("gs://photos/../other", "dots alone"),
        ("gs://photos/a//b", "empty parts"),
        ("gs://photos/a\nb", "control characters"),
        ("gs://photos/\udcff", "control characters"),
        ("gs://photos/" + "ü" * 257, "more than 512 bytes"),
    ],
)
def test_what_is_no_place_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        bucket_place(text, where="--transfer")
    assert raised.value.where == "--transfer"


@given(st.text())
def test_whatever_somebody_writes_is_read_or_refused(text: str) -> None:
    try:
        place = bucket_place("gs://" + text)
    except UsageError:
        return
    assert ".." not in place.prefix.split("/")
    assert "/" not in place.bucket
