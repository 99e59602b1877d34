"""Delete the files of images that are not selected any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.project.ledger import PENDING, Change
from oiyolo.stages import prepare as prepare_stage
from oiyolo.training.run import ids_in_use

if TYPE_CHECKING:
    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

_STAGE: Final = "refresh"
_MESSAGE: Final = "its files were deleted, because it is no longer selected"


@dataclass(frozen=True)
class Leftovers:
    """What became of the files of images that are not selected any more.

    Attributes:
        deleted: Number of images whose files were deleted.
        in_use: Number of images that a training run uses, whose files are deleted when it ends.
        kept: Number of images whose files are kept, because they are more than ``max_loss`` allows.
    """

    deleted: int = 0
    in_use: int = 0
    kept: int = 0


def remove_leftovers(project: Project, allowed: int | None) -> Leftovers:
    """Delete the files of images that are not selected any more; the caller holds the lock.

    An image that is selected again later is fetched again, and gets the split that it had. So that
    a mistaken change of options deletes nothing that is expensive to fetch, the files of many
    images are kept.

    Args:
        project: The project.
        allowed: Number of images whose files may be deleted; ``None`` for any number.
    """
    with project.ledger() as ledger:
        ids, in_use = _find(project, ledger)
        if allowed is not None and len(ids) > allowed:
            return Leftovers(in_use=len(in_use), kept=len(ids))
        # Recorded first: after a kill, the next refresh deletes the rest.
        ledger.record(_STAGE, [Change(image_id, PENDING, _MESSAGE) for image_id in sorted(ids)])
    prepare_stage.remove_files_of(project, ids, in_use)
    return Leftovers(deleted=len(ids), in_use=len(in_use))


def count_leftovers(project: Project, ledger: Ledger, allowed: int | None) -> int:
    """Return of how many images ``remove_leftovers`` would delete the files now."""
    ids, _ = _find(project, ledger)
    return len(ids) if allowed is None or len(ids) <= allowed else 0


def _find(project: Project, ledger: Ledger) -> tuple[set[str], set[str]]:
    """Return the images whose files are to be deleted, and those that a training run uses."""
    unselected = set(ledger.unselected_ids()) - ledger.withdrawn_ids()
    ids = {i for i in unselected if prepare_stage.image_paths(project, i)}
    in_use = ids & ids_in_use(project.runs_folder) if ids else set()
    return ids - in_use, in_use
