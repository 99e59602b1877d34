"""Adapter that runs a blocking source in worker threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oiyolo.net.workers import WorkerThreads
    from oiyolo.sources.image import BlockingSource, ImageRequest, Verifier


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
