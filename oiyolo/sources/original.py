"""The photograph as its author uploaded it, from the URL in the image list."""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING

from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage, NotFetchedError
from oiyolo.sources.web import content_type_problem, fetch_body, unusable_error

if TYPE_CHECKING:
    from oiyolo.net.client_pool import Body, HttpClientPool
    from oiyolo.sources.image import ImageRequest, Verifier


class Original:
    """``OriginalURL``; only a file of the listed size and MD5 is accepted.

    What a photo site serves for a removed picture (a redirect to a placeholder, an HTML page) has
    another size and MD5 and is therefore never stored. A file that has the listed ones is the one
    that was annotated, even if it is a PNG whose name ends in ``.jpg``.
    """

    name = "original"
    note = ""

    def __init__(self, web: HttpClientPool) -> None:
        self._web = web

    async def get(self, request: ImageRequest) -> Verifier:
        """Download the file, verified by OriginalSize and OriginalMD5, or else by its markers."""
        url = request.original_url
        if not url:
            detail = "the image list has no OriginalURL"
            raise NotFetchedError("no URL", detail, reached=False, attempts=0)
        return functools.partial(_verify, request, await fetch_body(self._web, url))


def _verify(request: ImageRequest, body: Body) -> FetchedImage:
    fetched = FetchedImage(body.content, body.attempts)
    problem = content_type_problem(body) or file_problem(request, fetched)
    if problem:
        raise unusable_error(request.original_url, problem, body)
    return fetched


def file_problem(request: ImageRequest, fetched: FetchedImage) -> str | None:
    """Return why a file is not the listed original, in a few words; ``None`` if it is."""
    if not fetched.content:
        return "empty"
    if request.original_size_bytes not in {None, len(fetched.content)}:
        return "OriginalSize mismatch"
    if not request.original_md5:
        return jpeg.find_defect(fetched.content)
    md5 = base64.b64encode(bytes.fromhex(fetched.md5)).decode()
    return None if md5 == request.original_md5 else "OriginalMD5 mismatch"
