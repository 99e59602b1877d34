"""Web addresses as they may be shown, and whose they are; pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

FLICKR: Final = "flickr"
_FLICKR_DOMAINS: Final = ("staticflickr.com", "flickr.com")
_USER: Final = re.compile(r"(?<=://)[^/\s@]*@")
_QUERY: Final = re.compile(r"(?<=\S)\?[^\s?]*=\S*")


def shown(url: str) -> str:
    """Give an address for logs and the ledger: without user, password, query and fragment.

    A signature or token stands in the query.
    """
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return without_secrets(url)


def without_secrets(text: str) -> str:
    """Give a text with the addresses in it as ``shown`` gives them."""
    return _QUERY.sub("", _USER.sub("", text))


def site_of(host: str, port: int | None) -> str:
    """Give the name of those who have to bear the load of a host.

    All of Flickr's hosts (``c7.staticflickr.com``, ``farm2.staticflickr.com``, ...) are one.
    """
    host = host.lower().rstrip(".")
    if any(host == domain or host.endswith(f".{domain}") for domain in _FLICKR_DOMAINS):
        return FLICKR
    return f"{host}:{port}" if port else host
