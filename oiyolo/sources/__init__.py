"""Where images come from; each source gives a whole, verified file or says why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.sources.folder import Folder
from oiyolo.sources.mirror import Mirror
from oiyolo.sources.original import Original

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.http import Web
    from oiyolo.sources.image import Source


def sources_of(names: Sequence[str], *, mirror_url: str, base: Path, web: Web) -> list[Source]:
    """Give the configured sources in their order.

    Args:
        names: As in ``[images] sources``.
        mirror_url: The mirror's address.
        base: Folders with a relative path lie below it.
        web: The connections to use.
    """
    made: list[Source] = []
    for name in names:
        if name == "mirror":
            made.append(Mirror(web, mirror_url))
        elif name == "original":
            made.append(Original(web))
        else:
            made.append(Folder(base / Path(name).expanduser()))
    return made
