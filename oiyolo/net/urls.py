"""URLs without their secrets, and the site that a host belongs to; pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

FLICKR: Final = "flickr"
_FLICKR_DOMAINS: Final = ("staticflickr.com", "flickr.com")
_USER: Final = re.compile(r"(?<=://)[^/\s@]*@")
_QUERY: Final = re.compile(r"(?<=\S)\?[^\s?]*=\S*")


def display_url(url: str) -> str:
    """Return a URL for logs and the ledger: without user, password, query and fragment.

    The query may hold a signature or a token.
    """
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return without_secrets(url)


def without_secrets(text: str) -> str:
    """Return a text with the user, password and query removed from every URL."""
    return _QUERY.sub("", _USER.sub("", text))


def site_of(host: str, port: int | None) -> str:
    """Return the name of the site that a host belongs to; rate limits apply per site.

    All hosts of Flickr (``c7.staticflickr.com``, ``farm2.staticflickr.com``, ...) are one site.
    """
    host = host.lower().rstrip(".")
    if any(host == domain or host.endswith(f".{domain}") for domain in _FLICKR_DOMAINS):
        return FLICKR
    return f"{host}:{port}" if port else host
