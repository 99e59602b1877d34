"""A small Open Images server on loopback with a latency of 50 to 100 ms, in its own process.

It does almost no work for a request, so that it is not the bottleneck: it looks only at the path
and, after the latency, sends a prepared response. ``fetch.py --floor`` measures its capacity.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import multiprocessing
import random
import socket
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from oiyolo.openimages.releases import release

if TYPE_CHECKING:
    from collections.abc import Iterator

BOAT: Final = "/m/019jd"
_DISTINCT_PHOTOGRAPHS: Final = 16
_MIN_PHOTOGRAPH_BYTES: Final = 90_000
_SIDE: Final = 384
_LATENCY_S: Final = (0.05, 0.1)
_IMAGE_COLUMNS: Final = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
)
_BOX_COLUMNS: Final = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,"
    "IsDepiction,IsInside"
)


def image_ids(count: int) -> list[str]:
    """Return ``count`` ImageIDs, sorted."""
    return [f"{number * 0x9E3779B1:016x}" for number in range(1, count + 1)]


def photographs() -> list[bytes]:
    """Return distinct JPEGs of about 100 kB each."""
    jpegs = []
    for seed in range(_DISTINCT_PHOTOGRAPHS):
        pixels = np.random.default_rng(seed).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
        quality, content = 30, b""
        while len(content) < _MIN_PHOTOGRAPH_BYTES:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=quality)
            content, quality = file.getvalue(), quality + 5
        jpegs.append(content)
    return jpegs


@contextlib.contextmanager
def slow_site(images: int) -> Iterator[str]:
    """Serve a number of images and the tables that list them; yield the base URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    process = multiprocessing.get_context("fork").Process(
        target=_serve, args=(listener, images), daemon=True
    )
    process.start()
    listener.close()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.join()


def _serve(listener: socket.socket, images: int) -> None:
    photos = [_http_response(content) for content in photographs()]
    tables = {path: _http_response(text.encode()) for path, text in _tables(images).items()}
    latency_rng = random.Random(1)  # noqa: S311  (not for security)

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.buffer = b""

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
                head, self.buffer = self.buffer[:end], self.buffer[end + 4 :]
                path = head.split(b" ", 2)[1].decode()
                if path in tables:
                    is_conditional = b"if-none-match" in head.lower()
                    self.respond(_NOT_MODIFIED if is_conditional else tables[path])
                    continue
                photo = photos[int(path[-20:-4], 16) % _DISTINCT_PHOTOGRAPHS]
                loop.call_later(latency_rng.uniform(*_LATENCY_S), self.respond, photo)

        def respond(self, response: bytes) -> None:
            self.transport.write(response)  # type: ignore[attr-defined]

    async def serve() -> None:
        server = await loop.create_server(Connection, sock=listener)
        await server.serve_forever()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(serve())


_NOT_MODIFIED: Final = b"HTTP/1.1 304 Not Modified\r\n\r\n"


def _http_response(content: bytes) -> bytes:
    etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nETag: "{etag}"\r\n\r\n'
    return head.encode() + content


def _tables(images: int) -> dict[str, str]:
    official = release("v7")
    train = official.subsets["train"]
    ids = image_ids(images)
    md5 = base64.b64encode(bytes(16)).decode()
    boxes = [f"{i},xclick,{BOAT},1,0.1,0.5,0.2,0.8,0,0,0,0,0" for i in ids]
    rows = [
        f"{i},train,http://127.0.0.1:1/{i}_o.jpg,http://127.0.0.1:1/{i},"
        f"https://creativecommons.org/licenses/by/2.0/,http://127.0.0.1:1/u,u,a boat,"
        f"100000,{md5},,0.0"
        for i in ids
    ]
    return {
        f"/{official.classes.path}": f"{BOAT},Boat\n",
        f"/{official.hierarchy.path}": '{"LabelName": "/m/0bl9f", "Subcategory": '
        f'[{{"LabelName": "{BOAT}"}}]}}',
        f"/{train.boxes.path}": "\n".join([_BOX_COLUMNS, *boxes, ""]),
        f"/{train.images.path}": "\n".join([_IMAGE_COLUMNS, *rows, ""]),
        f"/{train.labels.path}": "ImageID,Source,LabelName,Confidence\n"
        + "".join(f"{i},verification,{BOAT},1\n" for i in ids),
    }
