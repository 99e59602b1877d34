"""Estimate which of Open Images' official files must be downloaded, and whether they fit."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core.disks import check_free_space, free_bytes
from oiyolo.core.results import pluralize
from oiyolo.core.units import format_bytes
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.releases import release
from oiyolo.planning import estimates
from oiyolo.stages.fetch import MIN_FREE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oiyolo.project.project import Project


@dataclass(frozen=True)
class OfficialFiles:
    """The official files that selecting would download.

    Attributes:
        folder: The cache folder.
        missing: Paths, below the site's base URL, of the files that are not in the cache.
        known_bytes: Bytes still to download of the missing files whose size is known.
        unknown_count: Number of missing files of unknown size.
        free_bytes: Free space on the cache's disk.
        streamed: Whether the files are read without keeping a copy.
        uses_open_images: Whether any are needed; not if all images are imported.
    """

    folder: Path
    missing: Sequence[str]
    known_bytes: int
    unknown_count: int
    free_bytes: int
    streamed: bool
    uses_open_images: bool = True

    @property
    def actions(self) -> list[str]:
        """Descriptions of what would be done."""
        if not self.missing and not self.uses_open_images:
            return ["select and plan"]
        if not self.missing:
            return ["check whether an official file changed, select, and plan"]
        sizes = [format_bytes(self.known_bytes)] if self.known_bytes else []
        sizes += [f"{self.unknown_count} of unknown size"] if self.unknown_count else []
        target = "without keeping them" if self.streamed else f"into {self.folder}"
        missing, free = pluralize(len(self.missing), "official file"), format_bytes(self.free_bytes)
        return [
            f"fetch {missing} ({' and '.join(sizes)}), {target} ({free} free)",
            "select and plan",
        ]

    def as_dict(self) -> dict[str, object]:
        """Return the estimate as JSON-compatible values."""
        return {
            "official_files": list(self.missing),
            "official_bytes": self.known_bytes,
            "official_files_of_unknown_size": self.unknown_count,
            "cache": str(self.folder),
            "cache_free_bytes": self.free_bytes,
        }

    @property
    def needed_bytes(self) -> float:
        """Free space that the download needs; 0 if nothing is kept or all sizes are unknown."""
        kept_bytes = 0 if self.streamed else self.known_bytes
        return estimates.with_margin(kept_bytes, MIN_FREE_BYTES)

    def check(self) -> None:
        """Raise if the files do not fit.

        Raises:
            UnavailableError: The cache's disk has too little free space.
        """
        check_free_space(
            self.folder,
            self.needed_bytes,
            what="the official files",
            remedy="choose another folder with --cache, or read the files without keeping them "
            "with --stream",
        )


def official_files(project: Project) -> OfficialFiles:
    """Return the official files that are not in the cache, without contacting the site."""
    options = project.config.openimages
    subsets = project.config.dataset.subsets
    required = release(options.release).files(subsets) if subsets else ()
    with contextlib.closing(Cache(project.cache_folder, options.base_url)) as cache:
        missing = [official for official in required if not cache.has(official)]
        sizes = [cache.missing_bytes(official) for official in missing]
    return OfficialFiles(
        folder=cache.folder,
        missing=[official.path for official in missing],
        known_bytes=sum(sizes),
        unknown_count=sizes.count(0),
        free_bytes=free_bytes(cache.folder),
        streamed=options.stream,
        uses_open_images=project.uses_open_images,
    )
