"""A local site that answers each request as scripted, and projects that fetch from it."""

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


def make_image(colour: int, file_format: str = "JPEG") -> bytes:
    """Return a small image file; each colour yields a different file."""
    file = io.BytesIO()
    image = Image.new("RGB", (32, 24), (colour % 256, colour // 256 % 256, 90))
    image.putpixel((colour % 32, colour % 24), (255, 255, 255))
    image.save(file, file_format)
    return file.getvalue()


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass
class Answer:
    """The answer to requests for one path.

    Attributes:
        body: The body.
        status: Status code and phrase.
        headers: Headers in addition to Content-Length.
        length: Value of Content-Length; ``None`` for the true one, negative to omit the header.
        first: Answers to the first requests, one each, before this one is used.
        reset: Number of bytes after which the connection is reset.
        trickle: Whether to send endless single bytes after the body.
        stall: Whether to send the headers only, and then nothing.
        endless: Whether to send an endless chunked body.
        close: Whether to close the connection afterwards.
        pause_s: Delay before the answer.
    """

    body: bytes = b""
    status: str = "200 OK"
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    first: list[Answer] = field(default_factory=list)
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
            length = len(self.body) if self.length is None else self.length
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode()


class ScriptedSite(threading.Thread):
    """A local HTTP site in a thread.

    Attributes:
        port: Its port.
        url: Its base URL.
        answers: Its answers by path; 404 for other paths.
        requests: Number of requests by path.
        headers: Raw headers of the last request by path.
        active: Number of requests in progress.
        max_active: Largest number of requests in progress at one time.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.answers: dict[str, Answer] = {}
        self.requests: Counter[str] = Counter()
        self.headers: dict[str, bytes] = {}
        self.active = self.max_active = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closed.set)
        self.join()

    async def _serve(self) -> None:
        self._closed = asyncio.Event()
        server = await asyncio.start_server(self._connection, sock=self._listening)
        await self._closed.wait()
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
        self.requests[path] += 1
        self.headers[path] = request
        answer = self.answers.get(path, Answer(status="404 Not Found"))
        if answer.first:
            answer = answer.first.pop(0)
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        try:
            return await self._send(answer, writer)
        finally:
            self.active -= 1

    async def _send(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        if answer.pause_s:
            await asyncio.sleep(answer.pause_s)
        content = answer.head() + (b"" if answer.stall else answer.body)
        if answer.reset is not None:
            writer.write(content[: answer.reset])
            await writer.drain()
            await asyncio.sleep(0.01)
            # With a linger time of zero, closing the connection sends RST.
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        writer.write(content)
        await writer.drain()
        while answer.trickle:
            await asyncio.sleep(TRICKLE_EVERY_S)
            writer.write(b"\0")
            await writer.drain()
        while answer.endless:
            writer.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            await writer.drain()
        if answer.stall:
            await asyncio.sleep(60.0)
        return not answer.close


@pytest.fixture
def scripted_site() -> Iterator[ScriptedSite]:
    site = ScriptedSite()
    site.start()
    yield site
    site.close()


@dataclass(frozen=True)
class ImageRow:
    """A row of ``images.csv``."""

    image_id: str
    original: str = ""
    content: bytes = b""
    thumbnail: str = ""
    rotation: str = "0.0"

    def as_dict(self) -> dict[str, Any]:
        md5 = bytes.fromhex(md5_of(self.content)) if self.content else b""
        values = (
            *(self.image_id, "train", self.original, len(self.content) or ""),
            *(base64.b64encode(md5).decode(), self.thumbnail, self.rotation),
        )
        return dict(zip(COLUMNS, values, strict=True))


@pytest.fixture
def make_selected_project(tmp_path: Path) -> Callable[..., Project]:
    """Return a function that creates a project with selected images and options of ``init``."""

    def make(rows: Sequence[ImageRow], at: Path | None = None, **options: Any) -> Project:
        folder = at or tmp_path / "project"
        oiyolo.init(folder, **{"classes": ["Boat"], "tolerance": 1.0, **options})
        project = oiyolo.open_project(folder)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        ordered = sorted(rows, key=lambda row: row.image_id)
        writer.writerows(row.as_dict() for row in ordered)
        path = project.selection_folder / "images.csv"
        files.write_text(path, text.getvalue())
        table = {"sha256": files.sha256_of(path), "lines": len(rows) + 1}
        summary = {
            "images": len(rows),
            "boxes": len(rows),
            "classes": {},
            "folded_in": {},
            "excluded": {},
            "labels": {},
            "tables": {path.name: table},
            "fingerprint": "0",
        }
        files.write_json(project.selection_folder / "selection.json", summary)
        with project.ledger() as ledger:
            ledger.reselect({row.image_id: "train" for row in ordered})
        return project

    return make
