"""Asking the web for an image: what the sources with an address have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.net.download import HttpFailureError
from oiyolo.net.urls import shown
from oiyolo.sources.image import MAX_IMAGE_BYTES, NotFetchedError

if TYPE_CHECKING:
    from oiyolo.net.client_pool import Body, ManyWeb

_REMOVED: Final = "removed by its author"
_PLACEHOLDER_DOMAIN: Final = "yimg.com"
_PLACEHOLDER_NAME: Final = "photo_unavailable"
_UNTELLING_TYPES: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})


async def ask(web: ManyWeb, url: str) -> Body:
    """Give an image's body; ``NotFetchedError`` instead of a failure of the web."""
    try:
        return await web.get(url, limit_bytes=MAX_IMAGE_BYTES, dead_end=placeholder)
    except HttpFailureError as failure:
        raise NotFetchedError(
            failure.reason,
            f"{shown(url)}: {failure.detail}",
            transient=failure.transient,
            reached=failure.reached,
            attempts=failure.attempts,
        ) from failure


def placeholder(url: str) -> str | None:
    """Tell what a redirect to Flickr's "photo unavailable" picture means.

    It is on s.yimg.com, and its name begins with "photo_unavailable"
    (github.com/openimages/dataset, issue 9).
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    on_its_host = host == _PLACEHOLDER_DOMAIN or host.endswith(f".{_PLACEHOLDER_DOMAIN}")
    return _REMOVED if on_its_host or _PLACEHOLDER_NAME in parts.path else None


def wrong_type(body: Body) -> str | None:
    """Tell whether an answer says itself that it is no image."""
    said = body.content_type.partition(";")[0].strip().lower()
    if said in _UNTELLING_TYPES or said.startswith("image/"):
        return None
    return "a page instead of an image" if said == "text/html" else "not an image"


def refused(url: str, wrong: str, body: Body, *, transient: bool = False) -> NotFetchedError:
    """Give the error for an answer that is of no use."""
    return NotFetchedError(
        wrong, f"{shown(url)}: {wrong}", transient=transient, attempts=body.attempts
    )
