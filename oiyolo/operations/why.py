"""why: one image's whole story, out of the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core.errors import UsageError
from oiyolo.core.results import Result
from oiyolo.project.ledger import EXCLUDED, SPLITS
from oiyolo.project.project import open_project
from oiyolo.training.run import runs_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.project.project import ProjectLike


@dataclass(frozen=True)
class Story(Result):
    """One image's whole story.

    Attributes:
        image_id: The image.
        row: What the ledger holds of it.
        events: Time, stage and what happened, in order.
        training_runs: Runs by what they used the image for.
    """

    image_id: str
    row: Mapping[str, object]
    events: Sequence[tuple[str, str, str]]
    training_runs: Mapping[str, str]

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        names = ("at", "stage", "told")
        return {
            **self.row,
            "selected": bool(self.row["selected"]),
            "events": [dict(zip(names, event, strict=True)) for event in self.events],
            "runs": dict(self.training_runs),
        }

    def __str__(self) -> str:
        row = self.row
        if not row["selected"]:
            told = [f"{self.image_id}: no longer selected"]
        elif row["state"] == EXCLUDED:
            told = [f"{self.image_id}: excluded: {row['reason']}"]
        elif row["state"] in SPLITS:
            told = [f"{self.image_id}: in the {row['state']} split"]
        else:
            reason = f" ({row['reason']})" if row["reason"] else ""
            told = [f"{self.image_id}: {row['state']}{reason}"]
        told += [f"  {at}  {stage}: {what}" for at, stage, what in self.events]
        told += [f"  run {run}: {use}" for run, use in self.training_runs.items()]
        return "\n".join(told)


def why(image_id: str, project: ProjectLike = ".") -> Story:
    """Tell one image's story: from where it came, what was made of it, in which split it is.

    Args:
        image_id: 16 hexadecimal digits.
        project: An open project or its folder.

    Raises:
        UsageError: The image was never selected.
    """
    opened = open_project(project)
    with opened.ledger(read_only=True) as ledger:
        row = ledger.row(image_id)
        if row is None:
            raise UsageError(
                f"the image {image_id} was never selected in this project",
                where=str(opened.folder),
                remedy="data/selection/images.csv lists those that are",
            )
        events = ledger.story(image_id)
    used = {}
    for run in runs_in(opened.runs_folder):
        for split in ("train", "valid"):
            if (run.folder / f"{split}.txt").is_file() and image_id in run.image_ids(split):
                used[run.name] = "trained on it" if split == "train" else "validated on it"
    return Story(image_id, row, events, used)
