"""Record the outcome of an image, and check how many are missing: common to all fetches."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UnavailableError
from oiyolo.core.results import format_table
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, Change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.project.project import Project
    from oiyolo.sources.event_loop import Outcome

NOT_TRIED: Final = "not tried yet"
_MAX_REASONS: Final = 5

_log = logging.getLogger("oiyolo")


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
        f"{missing_count:,} of {selected:,} images{scope} could not be fetched: {reasons}",
        expected=f"at most {allowed:,} missing ([images] tolerance = "
        f"{project.config.images.tolerance:g})",
        found=f"for example {example}" if example else "",
        remedy="`oiyolo fetch --retry failed` tries them again; with a higher tolerance the run "
        "continues without them",
    )
