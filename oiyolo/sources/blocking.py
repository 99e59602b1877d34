"""A source that blocks, made one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oiyolo.net.workers import Threads
    from oiyolo.sources.image import BlockingSource, Check, WantedImage


class InThreads:
    """Asks a source in threads of their own, so that one that hangs holds up nobody."""

    told = ""

    def __init__(self, source: BlockingSource, threads: Threads) -> None:
        self.name = source.name
        self._source, self._threads = source, threads

    async def get(self, wanted: WantedImage) -> Check:
        """See ``Source``: it is verified already."""
        fetched = await self._threads.run(lambda: self._source.get(wanted))
        return lambda: fetched
