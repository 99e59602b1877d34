"""why: the history of an image, from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.results import Result, table_html, text_html
from oiyolo.operations.image_names import FORM, find_id
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
        lines = [self._headline()]
        lines += [f"  {at}  {stage}: {what}" for at, stage, what in self.events]
        lines += [f"  run {run}: {use}" for run, use in self.training_runs.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        runs = [("", f"run {run}", use) for run, use in self.training_runs.items()]
        rows = [("at", "stage", "what happened"), *self.events, *runs]
        return text_html(self._headline()) + table_html(rows, right=False)

    def _headline(self) -> str:
        name = self.row.get("original_name")
        return f"{self.image_id}{f' ({name})' if name else ''}: {self._state_text()}"

    def _state_text(self) -> str:
        row = self.row
        if row["state"] == EXCLUDED and row["stage"] == WITHDRAW_STAGE:
            return "withdrawn"
        if not row["selected"]:
            return "no longer selected"
        if row["state"] == EXCLUDED:
            return f"excluded: {row['reason']}"
        if row["state"] in SPLITS:
            return f"in the {row['state']} split"
        return f"{row['state']} ({row['reason']})" if row["reason"] else str(row["state"])


def why(image_id: str, project: ProjectLike = ".") -> ImageHistory:
    """Return the history of an image: its source, its processing and its split.

    Args:
        image_id: The ImageID, 16 hexadecimal digits; or the name of an imported image.
        project: An open project or its folder.

    Raises:
        UsageError: The image was never selected.
    """
    opened = open_project(project)
    found = find_id(opened, image_id)
    if found is None:
        shown = ascii(image_id)[:_SHOWN_CHARACTERS]
        raise UsageError("no image of this project has this name", expected=FORM, found=shown)
    image_id = found
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
