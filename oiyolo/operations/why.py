"""why: the history of an image, from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.image_ids import FORM, is_image_id
from oiyolo.core.results import Result
from oiyolo.operations.image_uses import uses_of
from oiyolo.project.ledger import EXCLUDED, SPLITS, WITHDRAW_STAGE, WITHDRAWN
from oiyolo.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.project.project import ProjectLike
    from oiyolo.project.withdrawn import Withdrawal

_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True)
class ImageHistory(Result):
    """The history of an image.

    Attributes:
        image_id: The ImageID.
        row: Its row in the ledger.
        events: Time, stage and message of each event, in order.
        training_runs: Use of the image in each training run, by the run's name.
    """

    image_id: str
    row: Mapping[str, object]
    events: Sequence[tuple[str, str, str]]
    training_runs: Mapping[str, str]

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        names = ("at", "stage", "message")
        return {
            **self.row,
            "selected": bool(self.row["selected"]),
            "events": [dict(zip(names, event, strict=True)) for event in self.events],
            "runs": dict(self.training_runs),
        }

    def __str__(self) -> str:
        row = self.row
        if row["state"] == EXCLUDED and row["stage"] == WITHDRAW_STAGE:
            lines = [f"{self.image_id}: withdrawn"]
        elif not row["selected"]:
            lines = [f"{self.image_id}: no longer selected"]
        elif row["state"] == EXCLUDED:
            lines = [f"{self.image_id}: excluded: {row['reason']}"]
        elif row["state"] in SPLITS:
            lines = [f"{self.image_id}: in the {row['state']} split"]
        else:
            reason = f" ({row['reason']})" if row["reason"] else ""
            lines = [f"{self.image_id}: {row['state']}{reason}"]
        lines += [f"  {at}  {stage}: {what}" for at, stage, what in self.events]
        lines += [f"  run {run}: {use}" for run, use in self.training_runs.items()]
        return "\n".join(lines)


def why(image_id: str, project: ProjectLike = ".") -> ImageHistory:
    """Return the history of an image: its source, its processing and its split.

    Args:
        image_id: The ImageID, 16 hexadecimal digits.
        project: An open project or its folder.

    Raises:
        UsageError: The image was never selected.
    """
    opened = open_project(project)
    if not is_image_id(image_id):
        found = ascii(image_id)[:_SHOWN_CHARACTERS]
        raise UsageError("invalid ImageID", expected=FORM, found=found)
    withdrawal = opened.withdrawals().get(image_id)
    if withdrawal is not None and not opened.ledger_path.is_file():
        return _history_of_withdrawal(withdrawal)
    with opened.ledger(read_only=True) as ledger:
        row = ledger.row(image_id)
        if row is None and withdrawal is not None:
            return _history_of_withdrawal(withdrawal)
        if row is None:
            raise UsageError(
                f"the image {image_id} was never selected in this project",
                where=str(opened.folder),
                remedy="data/selection/images.csv lists the selected images",
            )
        events = ledger.events(image_id)
        uses = uses_of([image_id], opened.runs_folder, ledger).get(image_id, [])
    return ImageHistory(image_id, row, events, {u.run.name: ", ".join(u.uses) for u in uses})


def _history_of_withdrawal(withdrawal: Withdrawal) -> ImageHistory:
    """Return the history of an image that was withdrawn before any selection contained it."""
    row = {
        "image_id": withdrawal.image_id,
        "selected": 0,
        "state": EXCLUDED,
        "stage": WITHDRAW_STAGE,
        "reason": WITHDRAWN,
    }
    events = [(withdrawal.date, WITHDRAW_STAGE, withdrawal.message)]
    return ImageHistory(withdrawal.image_id, row, events, {})
