"""A site on loopback that does to each image what real ones do, and projects that fetch from it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import hashlib
import io
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import oiyolo
from oiyolo.core import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from oiyolo.project.project import Project

TRICKLE_EVERY_S = 0.05
COLUMNS = (
    *("ImageID", "Subset", "OriginalURL", "OriginalSize", "OriginalMD5", "Thumbnail300KURL"),
    "Rotation",
)


def picture(colour: int, form: str = "JPEG") -> bytes:
    """Make a small picture; each colour another."""
    file = io.BytesIO()
    image = Image.new("RGB", (32, 24), (colour % 256, colour // 256 % 256, 90))
    image.putpixel((colour % 32, colour % 24), (255, 255, 255))
    image.save(file, form)
    return file.getvalue()


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass
class Way:
    """How one path is answered.

    Attributes:
        body: What is sent.
        status: The status line's number and words.
        headers: Beside Content-Length.
        length: What Content-Length says; its true value if ``None``, nothing if negative.
        first: Whole ways for the first requests, one each.
        reset: The connection is reset after so many bytes of the answer.
        trickle: Only a byte at a time is sent, for ever.
        stall: Nothing of the body is sent.
        endless: The body goes on for ever, in chunks.
        close: The connection is closed at the end.
        pause_s: Before anything is sent.
    """

    body: bytes = b""
    status: str = "200 OK"
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    first: list[Way] = field(default_factory=list)
    reset: int | None = None
    trickle: bool = False
    stall: bool = False
    endless: bool = False
    close: bool = False
    pause_s: float = 0.0

    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.endless:
            lines.append("Transfer-Encoding: chunked")
        elif self.length is None or self.length >= 0:
            told = len(self.body) if self.length is None else self.length
            lines.append(f"Content-Length: {told}")
        return "\r\n".join([*lines, "", ""]).encode()


class Fates(threading.Thread):
    """The site.

    Attributes:
        url: Its address.
        ways: How it answers, by path; 404 where there is none.
        asked: How often, by path.
        headers: What was sent with the last request, by path, as it came.
        at_once: The most requests that were under way at one time.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.ways: dict[str, Way] = {}
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, bytes] = {}
        self.under_way = self.at_once = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self.join()

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._connection, sock=self._listening)
        await self._over.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await reader.readuntil(b"\r\n\r\n")
        path = request.split(b" ", 2)[1].decode()
        self.asked[path] += 1
        self.headers[path] = request
        way = self.ways.get(path, Way(status="404 Not Found"))
        if way.first:
            way = way.first.pop(0)
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        try:
            return await self._send(way, writer)
        finally:
            self.under_way -= 1

    async def _send(self, way: Way, writer: asyncio.StreamWriter) -> bool:
        if way.pause_s:
            await asyncio.sleep(way.pause_s)
        answer = way.head() + (b"" if way.stall else way.body)
        if way.reset is not None:
            writer.write(answer[: way.reset])
            await writer.drain()
            await asyncio.sleep(0.01)
            # With nothing to linger for, closing sends RST.
            own = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        writer.write(answer)
        await writer.drain()
        while way.trickle:
            await asyncio.sleep(TRICKLE_EVERY_S)
            writer.write(b"\0")
            await writer.drain()
        while way.endless:
            writer.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            await writer.drain()
        if way.stall:
            await asyncio.sleep(60.0)
        return not way.close


@pytest.fixture
def fates() -> Iterator[Fates]:
    site = Fates()
    site.start()
    yield site
    site.close()


@dataclass(frozen=True)
class Listed:
    """A row of the image list."""

    image_id: str
    original: str = ""
    content: bytes = b""
    thumbnail: str = ""
    rotation: str = "0.0"

    def row(self) -> dict[str, Any]:
        md5 = bytes.fromhex(md5_of(self.content)) if self.content else b""
        values = (
            *(self.image_id, "train", self.original, len(self.content) or ""),
            *(base64.b64encode(md5).decode(), self.thumbnail, self.rotation),
        )
        return dict(zip(COLUMNS, values, strict=True))


@pytest.fixture
def make_selected(tmp_path: Path) -> Callable[..., Project]:
    """Make a project that has selected some images; options are those of ``oiyolo.init``."""

    def make(listed: Sequence[Listed], at: Path | None = None, **options: Any) -> Project:
        folder = at or tmp_path / "project"
        oiyolo.init(folder, **{"classes": ["Boat"], "tolerance": 1.0, **options})
        project = oiyolo.open_project(folder)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        ordered = sorted(listed, key=lambda image: image.image_id)
        writer.writerows(image.row() for image in ordered)
        path = project.selection_folder / "images.csv"
        files.write_text(path, text.getvalue())
        table = {"sha256": files.sha256_of(path), "lines": len(listed) + 1}
        files.write_json(
            project.selection_folder / "selection.json", {"tables": {path.name: table}}
        )
        with project.ledger() as ledger:
            ledger.reselect({image.image_id: "train" for image in ordered})
        return project

    return make
