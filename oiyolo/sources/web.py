"""Sources on the web: the public mirror, the author's own file, and a thumbnail of it."""

from __future__ import annotations

import base64
import functools
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.imagery import jpeg
from oiyolo.net.retry import HttpFailureError
from oiyolo.net.urls import display_url
from oiyolo.sources.image import MAX_IMAGE_BYTES, FetchedImage, NotFetchedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.net.client_pool import Body, HttpClientPool
    from oiyolo.sources.image import ImageRequest, Verifier

_REMOVED: Final = "removed by its author"
_WRONG_MD5: Final = "wrong MD5"
_PLACEHOLDER_DOMAIN: Final = "yimg.com"
_PLACEHOLDER_NAME: Final = "photo_unavailable"
_GENERIC_TYPES: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})
# S3's ETag of an object that was uploaded in one part is its MD5; otherwise it has a dash.
_MD5_ETAG: Final = re.compile(r'^"([0-9a-f]{32})"$')

MIRROR_MEAN_BYTES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "train": 513 * 2**30 / 1_743_042,
        "validation": 12_844_530_798 / 41_620,
        "test": 38_750_827_781 / 125_436,
    }
)
"""Mean size of the mirror's copies, by subset: bytes of the archives divided by their images.

The archives of validation and test are listed to the byte (tensorflow/datasets, checksums of
open_images_v4). That of train is listed only as "513 GB"
(github.com/cvdfoundation/open-images-dataset); the same page lists the other two as 12 and 36, so
it means GiB. A sample of 100 copies averages 328,568 bytes.
"""


class _WebSource:
    """A source whose images have URLs."""

    note = ""

    def __init__(self, web: HttpClientPool) -> None:
        self._web = web

    async def get(self, request: ImageRequest) -> Verifier:
        """Download an image; return the function that verifies it.

        Raises:
            NotFetchedError: The image has no URL, or the request failed.
        """
        url = self._url(request)
        try:
            body = await self._web.get(
                url, limit_bytes=MAX_IMAGE_BYTES, reject_redirect=removal_reason
            )
        except HttpFailureError as failure:
            raise NotFetchedError.from_http(failure, display_url(url)) from failure
        return functools.partial(self._verify, request, url, body)

    def _verify(self, request: ImageRequest, url: str, body: Body) -> FetchedImage:
        fetched = FetchedImage(body.content, body.attempts)
        if problem := self._problem(request, body, fetched):
            raise NotFetchedError(
                problem,
                f"{display_url(url)}: {problem}",
                transient=problem == _WRONG_MD5,
                attempts=body.attempts,
            )
        return fetched

    def _url(self, request: ImageRequest) -> str:
        """Return an image's URL, or raise ``NotFetchedError`` if it has none."""
        raise NotImplementedError

    def _problem(self, request: ImageRequest, body: Body, fetched: FetchedImage) -> str | None:
        """Return why a response is unusable, in a few words; ``None`` if it is complete."""
        raise NotImplementedError


class Mirror(_WebSource):
    """``{mirror_url}/{subset}/{ImageID}.jpg``: copies with at most about 1024 pixels a side.

    They are verified by their length, their ETag if that is an MD5, and the JPEG's markers.
    """

    name = "mirror"

    def __init__(self, web: HttpClientPool, mirror_url: str) -> None:
        super().__init__(web)
        self._mirror_url = mirror_url.rstrip("/")

    def _url(self, request: ImageRequest) -> str:
        return f"{self._mirror_url}/{request.subset}/{request.image_id}.jpg"

    def _problem(self, _: ImageRequest, body: Body, fetched: FetchedImage) -> str | None:
        etag = _MD5_ETAG.match(body.etag)
        if etag and etag[1] != fetched.md5:
            return _WRONG_MD5
        return jpeg.find_defect(body.content)


class Original(_WebSource):
    """``OriginalURL``, the photograph as its author uploaded it.

    Only a file of the listed size and MD5 is accepted. What a photo site serves for a removed
    picture (a redirect to a placeholder, an HTML page) has another size and MD5 and is therefore
    never stored. A file that has the listed ones is the one that was annotated, even if it is a PNG
    whose name ends in ``.jpg``.
    """

    name = "original"

    def _url(self, request: ImageRequest) -> str:
        return _listed_url(request.original_url, "OriginalURL")

    def _problem(self, request: ImageRequest, body: Body, fetched: FetchedImage) -> str | None:
        return content_type_problem(body.content_type) or file_problem(request, fetched)


class Thumbnail(_WebSource):
    """``Thumbnail300KURL``, of images whose Rotation is 0: the last resort.

    A copy of about 300,000 pixels, which the photo site generates on demand. The site may have
    turned the others upright already, which would misplace their boxes. No list has the size or MD5
    of a thumbnail: they are "generated on the fly and their contents and even resolution might be
    different every day" (Open Images' README of version 3). So only the length and the JPEG's
    markers are verified.
    """

    name = "thumbnail"
    note = " (a small copy, for which Open Images lists no checksum)"

    def _url(self, request: ImageRequest) -> str:
        url = _listed_url(request.thumbnail_url, "Thumbnail300KURL")
        if request.rotation is None:
            raise _not_requested("rotation unknown", "its Rotation is unknown")
        if request.rotation != 0.0:
            raise _not_requested("rotated", f"its Rotation is {request.rotation:g}")
        return url

    def _problem(self, _: ImageRequest, body: Body, fetched: FetchedImage) -> str | None:
        return content_type_problem(body.content_type) or jpeg.find_defect(fetched.content)


def _listed_url(url: str, column: str) -> str:
    if not url:
        raise _not_requested("no URL", f"the image list has no {column}")
    return url


def _not_requested(reason: str, detail: str) -> NotFetchedError:
    return NotFetchedError(reason, detail, reached=False, attempts=0)


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


def removal_reason(url: str) -> str | None:
    """Return what a redirect to Flickr's "photo unavailable" picture means; else ``None``.

    The picture is on s.yimg.com, and its name begins with "photo_unavailable"
    (github.com/openimages/dataset, issue 9).
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    is_placeholder_host = host == _PLACEHOLDER_DOMAIN or host.endswith(f".{_PLACEHOLDER_DOMAIN}")
    return _REMOVED if is_placeholder_host or _PLACEHOLDER_NAME in parts.path else None


def content_type_problem(content_type: str) -> str | None:
    """Return what a response's Content-Type says it is instead of an image; else ``None``."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _GENERIC_TYPES or media_type.startswith("image/"):
        return None
    return "HTML instead of an image" if media_type == "text/html" else "not an image"
