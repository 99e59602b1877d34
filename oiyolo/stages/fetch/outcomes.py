"""What all ways to fetch say alike: of one image, and of too many that are missing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UnavailableError
from oiyolo.core.results import columns
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, Change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.project.project import Project
    from oiyolo.sources.event_loop import Outcome

NOT_TRIED: Final = "not tried yet"
_TOLD_REASONS: Final = 5

_log = logging.getLogger("oiyolo")


def change_of(outcome: Outcome) -> Change:
    """Give what the ledger says of an outcome."""
    if outcome.source is None:
        return Change(
            outcome.image_id,
            PENDING if outcome.transient else EXCLUDED,
            outcome.told,
            reason=outcome.reason,
            attempts=outcome.attempts,
        )
    facts = {"source": outcome.source, "bytes": outcome.size_bytes, "md5": outcome.md5}
    return Change(outcome.image_id, FETCHED, outcome.told, facts=facts, attempts=outcome.attempts)


def check_tolerance(
    project: Project, missing: Mapping[str, int], selected: int, example: str, of: str = ""
) -> None:
    """Complain when more images are missing than ``[images] tolerance`` allows.

    Args:
        project: Its options count.
        missing: Images by reason, the most frequent first.
        selected: Of how many they are.
        example: What was told of one that failed.
        of: Which part of the selection was fetched, where it was a part.

    Raises:
        UnavailableError: There are more.
    """
    lacking = sum(missing.values())
    allowed = int(project.config.images.tolerance * selected)
    if lacking <= allowed:
        return
    told = list(missing.items())
    reasons = "; ".join(f"{n:,} {why}" for why, n in told[:_TOLD_REASONS])
    if rest := sum(n for _, n in told[_TOLD_REASONS:]):
        reasons += f"; {rest:,} for other reasons"
        _log.warning("missing images:\n%s", columns([(why, f"{n:,}") for why, n in told]))
    raise UnavailableError(
        f"{lacking:,} of {selected:,} images{of} could not be fetched: {reasons}",
        expected=f"at most {allowed:,} missing ([images] tolerance = "
        f"{project.config.images.tolerance:g})",
        found=f"for example {example}" if example else "",
        remedy="`oiyolo fetch --retry failed` tries them again; a higher tolerance goes on "
        "without them",
    )
