"""Shared by the sources on the web: requests, and the ways in which a response is unusable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.net.download import HttpFailureError
from oiyolo.net.urls import display_url
from oiyolo.sources.image import MAX_IMAGE_BYTES, NotFetchedError

if TYPE_CHECKING:
    from oiyolo.net.client_pool import Body, HttpClientPool

_REMOVED: Final = "removed by its author"
_PLACEHOLDER_DOMAIN: Final = "yimg.com"
_PLACEHOLDER_NAME: Final = "photo_unavailable"
_GENERIC_TYPES: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})


async def fetch_body(web: HttpClientPool, url: str) -> Body:
    """Return the body of an image's URL.

    Raises:
        NotFetchedError: The request failed.
    """
    try:
        return await web.get(url, limit_bytes=MAX_IMAGE_BYTES, reject_redirect=removal_reason)
    except HttpFailureError as failure:
        raise NotFetchedError(
            failure.reason,
            f"{display_url(url)}: {failure.detail}",
            transient=failure.transient,
            reached=failure.reached,
            attempts=failure.attempts,
        ) from failure


def removal_reason(url: str) -> str | None:
    """Return what a redirect to Flickr's "photo unavailable" picture means; else ``None``.

    The picture is on s.yimg.com, and its name begins with "photo_unavailable"
    (github.com/openimages/dataset, issue 9).
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    is_placeholder_host = host == _PLACEHOLDER_DOMAIN or host.endswith(f".{_PLACEHOLDER_DOMAIN}")
    return _REMOVED if is_placeholder_host or _PLACEHOLDER_NAME in parts.path else None


def content_type_problem(body: Body) -> str | None:
    """Return what a response's Content-Type says it is instead of an image; else ``None``."""
    media_type = body.content_type.partition(";")[0].strip().lower()
    if media_type in _GENERIC_TYPES or media_type.startswith("image/"):
        return None
    return "HTML instead of an image" if media_type == "text/html" else "not an image"


def unusable_error(
    url: str, problem: str, body: Body, *, transient: bool = False
) -> NotFetchedError:
    """Return the error for a response that is not a usable image."""
    return NotFetchedError(
        problem, f"{display_url(url)}: {problem}", transient=transient, attempts=body.attempts
    )
