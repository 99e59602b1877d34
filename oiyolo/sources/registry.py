"""Creates the configured sources; each returns a complete, verified file or says why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.net.buckets import is_bucket, parse_bucket_url
from oiyolo.sources.folder import Folder
from oiyolo.sources.web import Mirror, Original, Thumbnail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.net.client_pool import HttpClientPool
    from oiyolo.net.workers import WorkerThreads
    from oiyolo.sources.image import BlockingSource, ImageRequest, Source, Verifier

WEB_SOURCES: Final = (Mirror.name, Original.name, Thumbnail.name)


class ThreadedSource:
    """A ``Source`` that runs a blocking one in worker threads, so the event loop never blocks."""

    note = ""

    def __init__(self, source: BlockingSource, threads: WorkerThreads) -> None:
        self.name = source.name
        self._source, self._threads = source, threads

    async def get(self, request: ImageRequest) -> Verifier:
        """Fetch an image in a thread; the blocking source has verified it already."""
        fetched = await self._threads.run(lambda: self._source.get(request))
        return lambda: fetched


def make_sources(
    names: Sequence[str],
    *,
    mirror_url: str,
    base: Path,
    web: HttpClientPool,
    threads: WorkerThreads,
) -> list[Source]:
    """Return the configured sources in their order, after checking the folders and buckets.

    Args:
        names: Value of ``[images] sources``.
        mirror_url: Value of ``[images] mirror_url``.
        base: Folder that relative paths start from.
        web: Client for the sources on the web.
        threads: Threads for the sources that block.

    Raises:
        NoImagesError: A folder or bucket does not exist, cannot be read or is empty.
    """
    sources: list[Source] = []
    for name in names:
        if name == "mirror":
            sources.append(Mirror(web, mirror_url))
        elif name == "original":
            sources.append(Original(web))
        elif name == "thumbnail":
            sources.append(Thumbnail(web))
        else:
            blocking = _blocking(name, base)
            blocking.check()
            sources.append(ThreadedSource(blocking, threads))
    return sources


def ledger_name(name: str, base: Path) -> str:
    """Return the name by which the ledger knows a source.

    Args:
        name: One of ``[images] sources``.
        base: Folder that relative paths start from.
    """
    if name in WEB_SOURCES:
        return name
    return str(parse_bucket_url(name)) if is_bucket(name) else str(_folder_path(name, base))


def folders(names: Sequence[str], base: Path) -> list[Folder]:
    """Return those of the configured sources that are folders; arguments as for ``ledger_name``."""
    return [
        Folder(_folder_path(name, base))
        for name in names
        if name not in WEB_SOURCES and not is_bucket(name)
    ]


def _folder_path(name: str, base: Path) -> Path:
    return base / Path(name).expanduser()


def _blocking(name: str, base: Path) -> BlockingSource:
    if is_bucket(name):
        from oiyolo.sources.bucket import Bucket  # noqa: PLC0415  (google's libraries are large)

        return Bucket(name)
    return Folder(_folder_path(name, base))
