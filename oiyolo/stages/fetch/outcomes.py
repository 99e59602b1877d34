"""What all fetches share: how outcomes are recorded, counted and judged."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UnavailableError
from oiyolo.core.results import Result, format_table, pluralize
from oiyolo.core.units import format_bytes, format_duration
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, Change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.sources.event_loop import Outcome

NOT_TRIED: Final = "not tried yet"
_MAX_REASONS: Final = 5

_log = logging.getLogger("oiyolo")


@dataclass(frozen=True, kw_only=True)
class FetchResult(Result):
    """What a fetch did.

    Attributes:
        new: Number of images that this fetch downloaded.
        failed: Number of images that failed in this fetch, by reason.
        missing: Number of images that no fetch has downloaded yet, by reason.
        seconds: Duration of the fetch.
        size_bytes: Total size of the new images.
        by_source: Number of new images by source.
    """

    new: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    size_bytes: int = 0
    by_source: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {
            "fetched": self.new,
            "failed": dict(self.failed),
            "missing": dict(self.missing),
            "sources": dict(self.by_source),
            "bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
        }

    def _with_missing(self, lines: list[str]) -> str:
        """Return the lines as text, with a table of the missing images if there are any."""
        if self.missing:
            table = format_table([(f"missing: {why}", n) for why, n in self.missing.items()])
            lines = [*lines, table]
        return "\n".join(lines)

    @property
    def _size_and_time(self) -> str:
        return f"{format_bytes(self.size_bytes)} in {format_duration(self.seconds)}"


def change_of(outcome: Outcome) -> Change:
    """Return the ledger entry for an outcome."""
    if outcome.source is None:
        return Change(
            outcome.image_id,
            PENDING if outcome.transient else EXCLUDED,
            outcome.message,
            reason=outcome.reason,
            attempts=outcome.attempts,
        )
    facts = {"source": outcome.source, "bytes": outcome.size_bytes, "md5": outcome.md5}
    return Change(
        outcome.image_id, FETCHED, outcome.message, facts=facts, attempts=outcome.attempts
    )


def recorded_bytes(
    image_id: str, ledger: Ledger, journal: Mapping[str, Change] | None = None
) -> int | None:
    """Return the size of an image recorded as fetched; ``None`` if it is not.

    Args:
        image_id: The image.
        ledger: The ledger.
        journal: Last change of each image in a journal, which takes precedence.
    """
    row: Mapping[str, object] = ledger.row(image_id) or {}
    if journal and (entry := journal.get(image_id)):
        row = {"state": entry.state, **entry.facts}
    size_bytes = row.get("bytes")
    return size_bytes if row.get("state") == FETCHED and isinstance(size_bytes, int) else None


def check_tolerance(
    project: Project, missing: Mapping[str, int], selected: int, example: str, scope: str = ""
) -> None:
    """Raise if more images are missing than ``[images] tolerance`` allows.

    Args:
        project: The project, whose ``[images] tolerance`` applies.
        missing: Number of missing images by reason, the most frequent first.
        selected: Number of images that were to be fetched in all.
        example: The message of one failed image; may be empty.
        scope: Words to add after "images" where only a part was fetched, such as " of shard 0/2".

    Raises:
        UnavailableError: More images are missing than allowed.
    """
    missing_count = sum(missing.values())
    allowed = int(project.config.images.tolerance * selected)
    if missing_count <= allowed:
        return
    counted = list(missing.items())
    reasons = "; ".join(f"{n:,} {why}" for why, n in counted[:_MAX_REASONS])
    if rest := sum(n for _, n in counted[_MAX_REASONS:]):
        reasons += f"; {rest:,} for other reasons"
        _log.warning("missing images:\n%s", format_table([(why, f"{n:,}") for why, n in counted]))
    raise UnavailableError(
        f"{missing_count:,} of {pluralize(selected, 'image')}{scope} could not be fetched: "
        f"{reasons}",
        expected=f"at most {allowed:,} missing ([images] tolerance = "
        f"{project.config.images.tolerance:g})",
        found=f"for example {example}" if example else "",
        remedy="`oiyolo fetch --retry failed` tries them again; with a higher tolerance the run "
        "continues without them",
    )
