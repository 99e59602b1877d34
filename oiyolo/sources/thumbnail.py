"""A copy of about 300,000 pixels, which the photo site generates on demand: the last resort."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage, NotFetchedError
from oiyolo.sources.web import content_type_problem, fetch_body, unusable_error

if TYPE_CHECKING:
    from oiyolo.net.client_pool import Body, HttpClientPool
    from oiyolo.sources.image import ImageRequest, Verifier


class Thumbnail:
    """``Thumbnail300KURL``, of images whose Rotation is 0.

    The site may have turned the others upright already, which would misplace their boxes. No list
    has the size or MD5 of a thumbnail: they are "generated on the fly and their contents and even
    resolution might be different every day" (Open Images' README of version 3).
    """

    name = "thumbnail"
    note = " (a small copy, for which Open Images lists no checksum)"

    def __init__(self, web: HttpClientPool) -> None:
        self._web = web

    async def get(self, request: ImageRequest) -> Verifier:
        """Download the copy, verified by its length and the JPEG's markers."""
        url = request.thumbnail_url
        if not url:
            detail = "the image list has no Thumbnail300KURL"
            raise NotFetchedError("no URL", detail, reached=False, attempts=0)
        if request.rotation != 0.0:
            is_known = request.rotation is not None
            detail = (
                f"its Rotation is {request.rotation:g}" if is_known else "its Rotation is unknown"
            )
            reason = "rotated" if is_known else "rotation unknown"
            raise NotFetchedError(reason, detail, reached=False, attempts=0)
        return functools.partial(_verify, url, await fetch_body(self._web, url))


def _verify(url: str, body: Body) -> FetchedImage:
    if problem := content_type_problem(body) or jpeg.find_defect(body.content):
        raise unusable_error(url, problem, body)
    return FetchedImage(body.content, body.attempts)
