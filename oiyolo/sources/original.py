"""The photograph as its author uploaded it, from the address in the image list."""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING

from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage, NotFetchedError
from oiyolo.sources.web import ask, refused, wrong_type

if TYPE_CHECKING:
    from oiyolo.net.client_pool import Body, ManyWeb
    from oiyolo.sources.image import Check, WantedImage


class Original:
    """``OriginalURL``; only a file of the listed size and MD5 counts.

    What a photo site serves for a removed picture (a redirect to a placeholder, an HTML page) has
    another size and MD5 and is therefore never stored. A file that has them is the one that was
    annotated, also where it is a PNG whose name ends in ``.jpg``.
    """

    name = "original"
    told = ""

    def __init__(self, web: ManyWeb) -> None:
        self._web = web

    async def get(self, wanted: WantedImage) -> Check:
        """See ``Source``: verified by OriginalSize and OriginalMD5, or else the JPEG's markers."""
        url = wanted.original_url
        if not url:
            told = "the image list has no OriginalURL"
            raise NotFetchedError("no address", told, reached=False, attempts=0)
        return functools.partial(_check, wanted, await ask(self._web, url))


def _check(wanted: WantedImage, body: Body) -> FetchedImage:
    fetched = FetchedImage(body.content, body.attempts)
    wrong = wrong_type(body) or what_is_wrong(wanted, fetched)
    if wrong:
        raise refused(wanted.original_url, wrong, body)
    return fetched


def what_is_wrong(wanted: WantedImage, fetched: FetchedImage) -> str | None:
    """Tell what is wrong with a copy of an original, in a few words; ``None`` if nothing is."""
    if not fetched.content:
        return "empty"
    if wanted.original_size_bytes not in {None, len(fetched.content)}:
        return "another size than listed"
    if not wanted.original_md5:
        return jpeg.what_is_wrong(fetched.content)
    came = base64.b64encode(bytes.fromhex(fetched.md5)).decode()
    return None if came == wanted.original_md5 else "another MD5 than listed"
