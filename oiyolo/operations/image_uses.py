"""Which training runs have used an image, and which of their files may show it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo.core import records
from oiyolo.evaluation import panel_files
from oiyolo.project.ledger import EXCLUDED
from oiyolo.training.run import runs_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.training.run import Run

_EVALUATED: Final = "evaluated on it"
_LISTS: Final = {"train": "trained on it", "valid": "validated on it"}


@dataclass(frozen=True)
class RunUse:
    """How a run has used an image.

    Attributes:
        run: The run.
        uses: What it used it for: "trained on it", "validated on it", "evaluated on it (test)".
    """

    run: Run
    uses: Sequence[str]

    @property
    def pictures(self) -> list[Path]:
        """Its reports and its pictures of detections, as far as these may show the image.

        A report shows samples of all splits, and suspected label errors.
        """
        folder = self.run.panels_folder
        reports = [self.run.folder / "report.html", *self.run.folder.glob("comparison-*.html")]
        if not any(use.startswith(_EVALUATED) for use in self.uses):
            return [path for path in reports if path.exists()]
        sheets = sorted([*folder.glob("*.png"), *folder.glob("*.jpg")])
        copies = [folder / panel_files.FOLDER, *reports]
        return [path for path in [*sheets, *copies] if path.exists() and path.stem != "confusion"]


class _Evaluated(TypedDict):
    split: str


def uses_of(image_ids: Sequence[str], runs_folder: Path, ledger: Ledger) -> dict[str, list[RunUse]]:
    """Return the runs that used each image, the oldest first; images that none used are missing.

    Raises:
        InputFormError: A run's record or list is damaged.
    """
    uses: dict[str, list[RunUse]] = {}
    for run in runs_in(runs_folder, half=None):
        ids_by_use = {
            use: set(run.image_ids(split))
            for split, use in _LISTS.items()
            if (run.folder / f"{split}.txt").is_file()
        }
        for image_id in image_ids:
            own = [use for use, ids in ids_by_use.items() if image_id in ids]
            own += _evaluation(run, image_id, ledger)
            if own:
                uses.setdefault(image_id, []).append(RunUse(run, own))
    return uses


def _evaluation(run: Run, image_id: str, ledger: Ledger) -> list[str]:
    """Return whether a run's scores count an image, in words; empty if not.

    The scores do not list their images: it was one of them if it was in that split by then.
    """
    scores = records.find_intact(run.evaluation_path, _Evaluated)
    row: Mapping[str, Any] = ledger.row(image_id) or {}
    if scores is None or row.get("split") != scores["split"]:
        return []
    scored_s = run.evaluation_path.stat().st_mtime
    was_in_it = False
    for at, stage, message in ledger.events(image_id):
        if dt.datetime.fromisoformat(at).timestamp() > scored_s:
            break
        if stage == "split":
            was_in_it = not message.startswith(EXCLUDED)
    return [f"{_EVALUATED} ({scores['split']})"] if was_in_it else []
