"""The public mirror of copies with at most about 1024 pixels a side, over plain HTTPS."""

from __future__ import annotations

import functools
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from oiyolo.imagery import jpeg
from oiyolo.sources.image import FetchedImage
from oiyolo.sources.web import ask, refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.net.client_pool import Body, ManyWeb
    from oiyolo.sources.image import Check, WantedImage

# An S3 ETag is the MD5 of what was uploaded in one part; with more parts it holds a dash.
_MD5_ETAG: Final = re.compile(r'^"([0-9a-f]{32})"$')


MIRROR_MEAN_BYTES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "train": 513 * 2**30 / 1_743_042,
        "validation": 12_844_530_798 / 41_620,
        "test": 38_750_827_781 / 125_436,
    }
)
"""Mean size of the mirror's copies, by subset: archives' bytes over their images.

The archives of validation and test are listed to the byte (tensorflow/datasets, checksums of
open_images_v4); train's only as "513 GB" (github.com/cvdfoundation/open-images-dataset), where the
other two stand as 12 and 36, which shows that GiB are meant. 100 copies at hand mean 328,568.
"""


class Mirror:
    """``{mirror_url}/{subset}/{ImageID}.jpg``."""

    name = "mirror"
    told = ""

    def __init__(self, web: ManyWeb, mirror_url: str) -> None:
        self._web = web
        self._mirror_url = mirror_url.rstrip("/")

    async def get(self, wanted: WantedImage) -> Check:
        """See ``Source``: verified by length, ETag where it is an MD5, and the JPEG's markers."""
        url = f"{self._mirror_url}/{wanted.subset}/{wanted.image_id}.jpg"
        return functools.partial(_check, url, await ask(self._web, url))


def _check(url: str, body: Body) -> FetchedImage:
    fetched = FetchedImage(body.content, body.attempts)
    etag = _MD5_ETAG.match(body.etag)
    if etag and etag[1] != fetched.md5:
        raise refused(url, "wrong MD5", body, transient=True)
    if wrong := jpeg.what_is_wrong(body.content):
        raise refused(url, wrong, body)
    return fetched
