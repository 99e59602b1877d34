"""The public mirror of copies with at most about 1024 pixels a side, over plain HTTPS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage, NotFetchedError
from oiyolo.sources.web import ask

if TYPE_CHECKING:
    from oiyolo.http import Web
    from oiyolo.sources.image import WantedImage

# An S3 ETag is the MD5 of what was uploaded in one part; with more parts it holds a dash.
_MD5_ETAG: Final = re.compile(r'^"([0-9a-f]{32})"$')


class Mirror:
    """``{mirror_url}/{subset}/{ImageID}.jpg``."""

    name = "mirror"

    def __init__(self, web: Web, mirror_url: str) -> None:
        self._web = web
        self._mirror_url = mirror_url.rstrip("/")

    def get(self, wanted: WantedImage) -> FetchedImage:
        """See ``Source``: verified by length, ETag where it is an MD5, and the JPEG's markers."""
        url = f"{self._mirror_url}/{wanted.subset}/{wanted.image_id}.jpg"
        body = ask(self._web, url)
        fetched = FetchedImage(body.content, body.attempts)
        etag = _MD5_ETAG.match(body.etag)
        if etag and etag[1] != fetched.md5:
            raise NotFetchedError(
                "wrong MD5",
                f"{url}: not the MD5 of its ETag",
                transient=True,
                attempts=body.attempts,
            )
        if wrong := jpeg.what_is_wrong(body.content):
            raise NotFetchedError(wrong, f"{url}: {wrong}", attempts=body.attempts)
        return fetched
