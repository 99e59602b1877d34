"""Images that this machine could not read or write: counted, and judged by the tolerance."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from oiyolo.core.errors import UnavailableError
from oiyolo.core.results import pluralize
from oiyolo.project.ledger import PENDING
from oiyolo.stages.prepare.originals import ORIGINAL_MISSING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from oiyolo.project.ledger import Change
    from oiyolo.project.project import Project


class Failures:
    """Count of the images that stay pending because of a fault of the machine, by reason."""

    def __init__(self) -> None:
        self._by_reason: Counter[str] = Counter()
        self._example = ""

    def add(self, changes: Iterable[Change], fetched_ids: Container[str]) -> None:
        """Count the failures among some changes.

        Args:
            changes: The changes.
            fetched_ids: Images whose originals have to exist. Those of other images may have been
                deleted on purpose, because ``keep_originals`` is false.
        """
        for change in changes:
            is_deleted = change.reason == ORIGINAL_MISSING and change.image_id not in fetched_ids
            if change.state == PENDING and not is_deleted:
                self._by_reason[change.reason] += 1
                self._example = self._example or change.image_id

    def check_tolerance(self, project: Project, selected: int) -> None:
        """Raise if more images failed than ``[images] tolerance`` allows.

        Raises:
            UnavailableError: More failed; they are pending, so that the next run tries them again.
        """
        tolerance = project.config.images.tolerance
        count, allowed = self._by_reason.total(), int(tolerance * selected)
        if count <= allowed:
            return
        reasons = "; ".join(f"{n:,} {reason}" for reason, n in self._by_reason.most_common())
        raise UnavailableError(
            f"{pluralize(count, 'image')} of {selected:,} could not be prepared: {reasons}",
            where=str(project.images_folder),
            expected=f"at most {allowed:,} ([images] tolerance = {tolerance:g})",
            found=f"for example {self._example}.jpg",
            remedy="Make sure that the disk and the files are accessible, then run `oiyolo fetch` "
            "and the same command again, which continue with these images",
        )
