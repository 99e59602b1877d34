"""Asking the web for an image: what the sources with an address have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oiyolo.http import HttpFailureError
from oiyolo.sources.image import IMAGE_DEADLINE_S, MAX_IMAGE_BYTES, NotFetchedError

if TYPE_CHECKING:
    from oiyolo.http import Body, Web


def ask(web: Web, url: str) -> Body:
    """Give an image's body; ``NotFetchedError`` instead of a failure of the web."""
    try:
        return web.get(url, limit_bytes=MAX_IMAGE_BYTES, deadline_s=IMAGE_DEADLINE_S)
    except HttpFailureError as failure:
        raise NotFetchedError(
            failure.reason,
            f"{url}: {failure.detail}",
            transient=failure.transient,
            reached=failure.reached,
            attempts=failure.attempts,
        ) from failure
