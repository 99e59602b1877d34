"""Which URLs are accepted, what of them may be shown or stored, and the site of a host; pure.

A URL may hold credentials: a user and a password, or a query with a signature or token. Requests
are sent to the URL itself. Everything else (messages, errors, the ledger, records, the names of
cache folders) gets ``display_url`` of it, or ``without_secrets`` of a text that contains it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from urllib.parse import SplitResult

FLICKR: Final = "flickr"
_FLICKR_DOMAINS: Final = ("staticflickr.com", "flickr.com")
_HTTP: Final = ("http", "https")
_GIT: Final = (*_HTTP, "ssh", "git", "file")
_HOST_AND_PATH: Final = re.compile(r"(?:\w[\w.+-]*@)?\w[\w.-]*:[^:\s]\S*")
"""git's short form of an ssh URL, ``user@host:path``. ``helper::address`` would start a program."""
_USER: Final = re.compile(r"(?<=://)(?:[^/\s]*@|[^/\s:]*:(?!\d+/)\S*@)")
"""The second alternative is a password with an unescaped slash, as in ``http://me:a/b@host``."""
_QUERY: Final = re.compile(r"(?<=\S)\?[^\s?]*=\S*")


def is_base_url(text: str) -> bool:
    """Return whether a text is an http(s) URL that paths can be appended to.

    It has a host, and neither a query nor a fragment nor ``..`` in its path, which would lead out
    of the cache folder of its host.
    """
    parts = _parts(text)
    if parts is None or parts.scheme not in _HTTP or not parts.hostname:
        return False
    return not (parts.query or parts.fragment or ".." in parts.path.split("/"))


def is_git_url(text: str) -> bool:
    """Return whether git can fetch from an address without starting a program that it names.

    These are http(s), ssh, git and file URLs, ``user@host:path``, and absolute paths.
    """
    if text.startswith("/"):
        return text.isprintable()
    if "://" not in text:
        return _HOST_AND_PATH.fullmatch(text) is not None
    parts = _parts(text)
    if parts is None or parts.scheme not in _GIT:
        return False
    if parts.scheme == "file":
        return parts.path.startswith("/")
    return bool(parts.hostname) and not str(parts.hostname).startswith("-")


def _parts(url: str) -> SplitResult | None:
    """Return the parts of a URL; ``None`` if it is not a URL."""
    if not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a number, as after an unescaped slash in a password
    except ValueError:
        return None
    return parts


def display_url(url: str) -> str:
    """Return what may be shown and stored of a URL: no user, password, query and fragment."""
    parts = _parts(url)
    if parts is None or "://" not in url:
        return without_secrets(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


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
