"""Which URLs are accepted, and what of them may be shown."""

from __future__ import annotations

import pytest

from oiyolo.net.urls import display_url, is_base_url, is_git_url, without_secrets


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://storage.googleapis.com/openimages", True),
        ("http://me:secret@127.0.0.1:8080/a/", True),
        ("ftp://h.org/a", False),
        ("https:///a", False),
        ("h.org/a", False),
        ("https://me:a/b@h.org/x", False),
        ("https://h.org:99999/a", False),
        ("https://h.org/a?sig=x", False),
        ("https://h.org/../../a", False),
        ("https://h.org/a b", False),
        ("https://h.org/a\0b", False),
    ],
)
def test_a_base_url_is_an_http_url_of_a_host(url: str, expected: bool) -> None:
    assert is_base_url(url) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://github.com/AlexeyAB/darknet.git", True),
        ("ssh://git@github.com/AlexeyAB/darknet.git", True),
        ("git@github.com:AlexeyAB/darknet.git", True),
        ("file:///srv/darknet.git", True),
        ("/srv/dark net.git", True),
        ("--upload-pack=touch /tmp/x", False),
        ("-oProxyCommand=x:y", False),
        ("ext::sh -c x", False),
        ("ext::sh", False),
        ("other://h.org/x", False),
        ("ssh://-oProxyCommand=x/y", False),
        ("github.com/AlexeyAB/darknet.git", False),
        ("../darknet.git", False),
        ("/srv/darknet\n.git", False),
    ],
)
def test_git_is_given_addresses_only_and_neither_options_nor_programs(
    address: str, expected: bool
) -> None:
    assert is_git_url(address) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@h.org/x",
        "https://secret@h.org/x",
        "https://me:se@secret@h.org/x",
        "https://me:secret/secret@h.org/x",
        "https://h.org/x?token=secret",
    ],
)
def test_no_part_of_a_credential_is_shown(url: str) -> None:
    assert display_url(url) == "https://h.org/x"
    assert without_secrets(f"see {url} there") == "see https://h.org/x there"


@pytest.mark.parametrize("url", ["https://h.org:8/people/1@N00", "/a b/c", "git@h.org:a/b.git"])
def test_a_url_without_credentials_is_shown_unchanged(url: str) -> None:
    assert (display_url(url), without_secrets(url)) == (url, url)
