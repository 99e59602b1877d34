"""Where images come from; each source gives a whole, verified file or says why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.net.buckets import is_bucket
from oiyolo.sources.blocking import InThreads
from oiyolo.sources.folder import Folder
from oiyolo.sources.mirror import Mirror
from oiyolo.sources.original import Original
from oiyolo.sources.thumbnail import Thumbnail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.net.client_pool import ManyWeb
    from oiyolo.net.workers import Threads
    from oiyolo.sources.image import BlockingSource, Source


def sources_of(
    names: Sequence[str], *, mirror_url: str, base: Path, web: ManyWeb, threads: Threads
) -> list[Source]:
    """Give the configured sources in their order.

    Args:
        names: As in ``[images] sources``.
        mirror_url: The mirror's address.
        base: Folders with a relative path lie below it.
        web: The connections to use.
        threads: Where the sources that block are asked.
    """
    made: list[Source] = []
    for name in names:
        if name == "mirror":
            made.append(Mirror(web, mirror_url))
        elif name == "original":
            made.append(Original(web))
        elif name == "thumbnail":
            made.append(Thumbnail(web))
        else:
            made.append(InThreads(_blocking(name, base), threads))
    return made


def _blocking(name: str, base: Path) -> BlockingSource:
    if is_bucket(name):
        from oiyolo.sources.bucket import Bucket  # noqa: PLC0415  (google's libraries are large)

        return Bucket(name)
    return Folder(base / Path(name).expanduser())
