"""The photograph as its author uploaded it, from the address in the image list."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage, NotFetchedError
from oiyolo.sources.web import ask

if TYPE_CHECKING:
    from oiyolo.http import Web
    from oiyolo.sources.image import WantedImage


class Original:
    """``OriginalURL``; only a file of the listed size and MD5 counts.

    What a photo site serves for a removed picture (a redirect to a placeholder, an HTML page) has
    another size and MD5 and is therefore never stored.
    """

    name = "original"

    def __init__(self, web: Web) -> None:
        self._web = web

    def get(self, wanted: WantedImage) -> FetchedImage:
        """See ``Source``: verified by OriginalSize, OriginalMD5 and the JPEG's markers."""
        url = wanted.original_url
        if not url:
            raise NotFetchedError("no address", "the image list has no OriginalURL")
        body = ask(self._web, url)
        wrong = _what_is_wrong(wanted, body.content)
        if wrong:
            if "unavailable" in urlsplit(body.final_url).path:
                wrong = "removed by its author"
            raise NotFetchedError(wrong, f"{url}: {wrong}", attempts=body.attempts)
        return FetchedImage(body.content, body.attempts)


def _what_is_wrong(wanted: WantedImage, content: bytes) -> str | None:
    if wanted.original_size_bytes not in {None, len(content)}:
        return "another size than listed"
    fetched = FetchedImage(content)
    listed = wanted.original_md5
    if listed and base64.b64encode(bytes.fromhex(fetched.md5)).decode() != listed:
        return "another MD5 than listed"
    return jpeg.what_is_wrong(content)
