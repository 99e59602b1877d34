"""What selecting has to fetch of Open Images' official files, and whether there is room for it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core.errors import UnavailableError
from oiyolo.core.results import count
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.releases import release
from oiyolo.planning import estimates
from oiyolo.planning.disks import free_bytes
from oiyolo.planning.units import told_bytes
from oiyolo.stages.fetch import SPARE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.project.project import Project


@dataclass(frozen=True)
class Official:
    """What selecting would fetch of the official files.

    Attributes:
        folder: The cache folder of the files.
        missing: Files that are not there.
        known_bytes: What is still to come of those whose size is known.
        unknown: How many of them have no known size.
        free_bytes: What is free.
        streamed: They will not be kept.
    """

    folder: Path
    missing: Sequence[str]
    known_bytes: int
    unknown: int
    free_bytes: int
    streamed: bool

    @property
    def actions(self) -> list[str]:
        """What would be done."""
        if not self.missing:
            return ["look whether an official file changed, select, and plan"]
        sizes = [told_bytes(self.known_bytes)] if self.known_bytes else []
        sizes += [f"{self.unknown} of unknown size"] if self.unknown else []
        kept = "keeping none of them" if self.streamed else f"into {self.folder}"
        missing, free = count(len(self.missing), "official file"), told_bytes(self.free_bytes)
        return [
            f"fetch {missing} ({' and '.join(sizes)}), {kept} ({free} free)",
            "select, and plan",
        ]

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON knows it."""
        return {
            "official_files": list(self.missing),
            "official_bytes": self.known_bytes,
            "official_files_of_unknown_size": self.unknown,
            "cache": str(self.folder),
            "cache_free_bytes": self.free_bytes,
        }

    def check(self) -> None:
        """Refuse what does not fit.

        Raises:
            UnavailableError: There is less room in the cache than is needed.
        """
        needed = 0.0
        if not self.streamed:
            needed = estimates.with_margin(self.known_bytes, SPARE_BYTES)
        if needed > self.free_bytes:
            raise UnavailableError(
                "the official files do not fit on the disk of the cache",
                where=str(self.folder),
                expected=f"{told_bytes(needed)} free",
                found=told_bytes(self.free_bytes),
                remedy="Make room, name another folder with --cache, or keep none of them with "
                "--stream",
            )


def official_files(project: Project) -> Official:
    """Look what of the official files is in the cache; asks nobody, changes nothing."""
    options = project.config.openimages
    wanted = release(options.release).files(project.config.dataset.subsets)
    with contextlib.closing(Cache(project.cache_folder, options.base_url)) as cache:
        missing = [official for official in wanted if not cache.has(official)]
        sizes = [cache.missing_bytes(official) for official in missing]
    return Official(
        folder=cache.folder,
        missing=[official.path for official in missing],
        known_bytes=sum(sizes),
        unknown=sizes.count(0),
        free_bytes=free_bytes(cache.folder),
        streamed=options.stream,
    )
