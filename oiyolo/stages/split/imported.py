"""What imports mean for splits: splits that are given, shares, and images in several sources."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.results import pluralize
from oiyolo.openimages.releases import SPLIT_OF_SUBSET
from oiyolo.project.ledger import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

OPEN_IMAGES: Final = "Open Images"
_NEAR_DUPLICATE: Final = re.compile(r"near-duplicate of ([0-9a-f]{16})\b")


def given_splits(project: Project, images: pd.DataFrame) -> dict[str, str]:
    """Return the split that each imported image has in its source, if it is to keep it.

    Args:
        project: The project.
        images: The selected images.
    """
    kept = {name for name, record in project.imports().items() if record.keeps_splits}
    if not kept or "Import" not in images:
        return {}
    rows = images[images["Import"].isin(kept) & (images["Subset"] != "")]
    return dict(zip(rows["ImageID"], rows["Subset"].map(SPLIT_OF_SUBSET), strict=True))


@dataclass(frozen=True)
class SourceShares:
    """The sources of a dataset's images, if some of them are imported.

    Attributes:
        images: Number of images by source and split.
        identical: Number of images whose file is also in another source.
        similar: Number of further images that have a near-duplicate in another source.
    """

    images: Mapping[str, Mapping[str, int]]
    identical: int = 0
    similar: int = 0

    @property
    def notes(self) -> list[str]:
        """What to know about images that are in several sources."""
        count = self.identical + self.similar
        if not count:
            return []
        note = (
            f"{pluralize(count, 'image')} occur in two sources ({self.identical:,} as the same "
            f"file, {self.similar:,} as a near-duplicate); those that match are in one split, and "
            "split.csv names them"
        )
        return [note]


def survey_sources(
    project: Project, ledger: Ledger, split_by_id: Mapping[str, str], table: pd.DataFrame
) -> SourceShares | None:
    """Return the sources of the images; ``None`` without imports.

    Args:
        project: The project.
        ledger: Its ledger.
        split_by_id: The split of each image.
        table: ``split.csv``.
    """
    if not project.imports():
        return None
    names = ledger.original_names()
    source_by_id = {i: names[i].partition("/")[0] if i in names else "" for i in split_by_id}
    counts = Counter((source_by_id[i], split) for i, split in split_by_id.items())
    images = {
        source or OPEN_IMAGES: {split: counts[source, split] for split in SPLITS}
        for source in sorted(set(source_by_id.values()))
    }
    identical = _in_two_sources(source_by_id, ledger.column("md5", *SPLITS))
    links = zip(table["ImageID"], table["why"], strict=True)
    return SourceShares(images, len(identical), len(_similar(links, source_by_id) - identical))


def _in_two_sources(source_by_id: Mapping[str, str], md5_by_id: Mapping[str, object]) -> set[str]:
    """Return the images whose file is in another source as well."""
    ids_by_md5: dict[object, list[str]] = defaultdict(list)
    for image_id, md5 in md5_by_id.items():
        if md5 and image_id in source_by_id:
            ids_by_md5[md5].append(image_id)
    return {
        image_id
        for ids in ids_by_md5.values()
        if len({source_by_id[i] for i in ids}) > 1
        for image_id in ids
    }


def _similar(links: Iterable[tuple[str, str]], source_by_id: Mapping[str, str]) -> set[str]:
    """Return the images that are linked to a near-duplicate in another source."""
    found = set()
    for image_id, why in links:
        match = _NEAR_DUPLICATE.match(why)
        if match and source_by_id.get(match[1]) not in {None, source_by_id.get(image_id)}:
            found |= {image_id, match[1]}
    return found


def kept_note(project: Project) -> str:
    """Return which imports keep the splits of their source, in words; empty if none does."""
    kept = [name for name, record in project.imports().items() if record.keeps_splits]
    return f"images imported as {', '.join(kept)} keep the splits of their source" if kept else ""
