"""A copy of about 300,000 pixels, made by the photo site when it is asked for: the last resort."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage, NotFetchedError
from oiyolo.sources.web import ask, refused, wrong_type

if TYPE_CHECKING:
    from oiyolo.net.client_pool import Body, ManyWeb
    from oiyolo.sources.image import Check, WantedImage


class Thumbnail:
    """``Thumbnail300KURL``, of images whose Rotation is 0.

    The site may have turned the others upright already, and then their boxes would lie wrong. No
    list vouches for a thumbnail: they are "generated on the fly and their contents and even
    resolution might be different every day" (Open Images' README of version 3).
    """

    name = "thumbnail"
    told = " (a small copy that no list vouches for)"

    def __init__(self, web: ManyWeb) -> None:
        self._web = web

    async def get(self, wanted: WantedImage) -> Check:
        """See ``Source``: verified by length and the JPEG's markers."""
        url = wanted.thumbnail_url
        if not url:
            told = "the image list has no Thumbnail300KURL"
            raise NotFetchedError("no address", told, reached=False, attempts=0)
        if wanted.rotation != 0.0:
            is_known = wanted.rotation is not None
            told = f"its Rotation is {wanted.rotation:g}" if is_known else "its Rotation is unknown"
            reason = "rotated" if is_known else "rotation unknown"
            raise NotFetchedError(reason, told, reached=False, attempts=0)
        return functools.partial(_check, url, await ask(self._web, url))


def _check(url: str, body: Body) -> FetchedImage:
    if wrong := wrong_type(body) or jpeg.what_is_wrong(body.content):
        raise refused(url, wrong, body)
    return FetchedImage(body.content, body.attempts)
