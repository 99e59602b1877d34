"""The public mirror: copies with at most about 1024 pixels a side, over plain HTTPS."""

from __future__ import annotations

import functools
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage
from oiyolo.sources.web import fetch_body, unusable_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.net.client_pool import Body, HttpClientPool
    from oiyolo.sources.image import ImageRequest, Verifier

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


class Mirror:
    """``{mirror_url}/{subset}/{ImageID}.jpg``."""

    name = "mirror"
    note = ""

    def __init__(self, web: HttpClientPool, mirror_url: str) -> None:
        self._web = web
        self._mirror_url = mirror_url.rstrip("/")

    async def get(self, request: ImageRequest) -> Verifier:
        """Download a copy, verified by its length, its ETag if that is an MD5, and its markers."""
        url = f"{self._mirror_url}/{request.subset}/{request.image_id}.jpg"
        return functools.partial(_verify, url, await fetch_body(self._web, url))


def _verify(url: str, body: Body) -> FetchedImage:
    fetched = FetchedImage(body.content, body.attempts)
    etag = _MD5_ETAG.match(body.etag)
    if etag and etag[1] != fetched.md5:
        raise unusable_error(url, "wrong MD5", body, transient=True)
    if problem := jpeg.find_defect(body.content):
        raise unusable_error(url, problem, body)
    return fetched
