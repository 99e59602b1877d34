"""Finds a source that has none of the images, although the others hide it by having them.

Only places that a user configures are judged: the mirror, a bucket, a folder. The URLs of originals
and thumbnails are in the official lists, and what is gone there is gone.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from oiyolo.project.ledger import EXCLUDED, STATES
from oiyolo.sources import registry
from oiyolo.sources.image import NoImagesError
from oiyolo.sources.web import Original, Thumbnail

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.sources.event_loop import Outcome

_MAX_LACKING: Final = 100
"""A source that lacks this many images before the first one it has is not the right one. A bucket
with a twentieth of the images, which are in no order, is mistaken for one at odds of 1 to 170."""
_MAX_UNREACHED: Final = 20
_MAX_LACKING_AT_END: Final = 20
"""At the end of a fetch, fewer images say too little about a source."""
_NOT_JUDGED: Final = frozenset({Original.name, Thumbnail.name})

_log = logging.getLogger("oiyolo")


def known_sources(project: Project, ledger: Ledger, also: Iterable[object] = ()) -> frozenset[str]:
    """Return the names of the sources that are known to have some of the project's images.

    Args:
        project: The project, whose ``[images] sources`` apply.
        ledger: Its ledger.
        also: Names of further sources that had images.

    Raises:
        NoImagesError: A folder has none of the selected images.
    """
    if not project.uses_open_images:
        return frozenset()
    sources, base = project.config.images.sources, project.folder
    names = {registry.ledger_name(name, base) for name in sources}
    known = {name for name in names if ledger.has_image_from([name])}.union(map(str, also))
    for folder in registry.folders(sources, base):
        if folder.name not in known:
            folder.check_has_any(ledger.iter_ids(*STATES, EXCLUDED))
            known.add(folder.name)
    return frozenset(known)


class SourceMonitor:
    """Counts what a source lacks until it, or one that is tried before it, has an image.

    A later source is asked only for what the earlier ones lack, which it may lack for good reason.

    Args:
        names: Names of the sources, in the order in which they are tried.
        known: Names of those that are known to have some of the images.
        places: What to correct, by name, where that is not the name itself: the mirror's URL.
    """

    def __init__(
        self, names: Sequence[str], known: Collection[str], places: Mapping[str, str]
    ) -> None:
        self._names, self._known, self._places = list(names), known, places
        first_known = next((at for at, name in enumerate(names) if name in known), len(names))
        self._unproven = set(self._names[: first_known + 1]) - _NOT_JUDGED
        self._lacking: Counter[str] = Counter()
        self._unreached: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, outcome: Outcome) -> None:
        """Count the outcome of one image."""
        if not self._unproven or outcome.is_imported:
            return
        if outcome.source is not None:
            self._unproven.difference_update(self._names[self._names.index(outcome.source) :])
        for failure in outcome.failures:
            if failure.source in self._unproven:
                self._examples.setdefault(failure.source, failure.detail)
                counts = self._lacking if failure.reached else self._unreached
                counts[failure.source] += 1

    def is_in_doubt(self, outcome: Outcome) -> bool:
        """Return whether a source that may be the wrong one lacked the image."""
        if not self._unproven:
            return False
        return any(
            failure.source in self._unproven
            and not (failure.reached and failure.source in self._known)
            for failure in outcome.failures
        )

    def check(self, *, at_end: bool = False) -> None:
        """Raise if a source seems to be the wrong one.

        Args:
            at_end: Whether no further image follows.

        Raises:
            NoImagesError: A source had none of many images, or responded for none of them.
        """
        max_lacking = _MAX_LACKING_AT_END if at_end else _MAX_LACKING
        for name in sorted(self._unproven):
            if self._unreached[name] >= _MAX_UNREACHED:
                raise self._error(
                    name, f"did not respond to any of the first {self._unreached[name]:,} requests"
                )
            if name not in self._known and self._lacking[name] >= max_lacking:
                raise self._error(
                    name, f"has none of the first {self._lacking[name]:,} requested images"
                )
        if at_end:
            self._accept()

    def _accept(self) -> None:
        """Accept all sources, with a warning about each that had no image."""
        for name in sorted(self._unproven - set(self._known)):
            if count := self._lacking[name]:
                _log.warning(
                    "%s has none of the %s requested from it, for example %s; check [images] "
                    "sources",
                    name,
                    f"{count:,} images" if count > 1 else "images",
                    self._examples[name],
                )
        self._unproven.clear()

    def _error(self, name: str, verdict: str) -> NoImagesError:
        return NoImagesError(
            f"the source {name} {verdict}",
            where=self._places.get(name, name),
            expected="a source that has at least some of the selected images",
            found=f"for example {self._examples[name]}",
            remedy="No image was excluded. Correct the source or remove it: [images] sources or "
            "mirror_url (--sources, --mirror-url)",
        )


def split_doubtful(
    monitor: SourceMonitor, outcomes: Sequence[Outcome]
) -> tuple[list[Outcome], list[Outcome]]:
    """Return the outcomes that can be recorded now, and those that have to wait."""
    ready: list[Outcome] = []
    doubtful: list[Outcome] = []
    for outcome in outcomes:
        (doubtful if monitor.is_in_doubt(outcome) else ready).append(outcome)
    return ready, doubtful
