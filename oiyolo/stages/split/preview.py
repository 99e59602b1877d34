"""Collect a dataset's tables for its preview (``oiyolo.dataset_preview``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.dataset_preview.dataset import Pair, PreviewDataset
from oiyolo.dataset_preview.preview import write_preview
from oiyolo.project.ledger import SPLITS
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages.split.group_keys import assigned_splits, near_duplicates

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.stages.select import Selection

FOLDER: Final = "look"


def update(project: Project, selection: Selection, ledger: Ledger) -> list[Path]:
    """Write contact sheets, charts and their page, unless they are up to date; return the files."""
    prepared = prepare_stage.prepared_options(project)
    dataset = PreviewDataset(
        boxes=prepare_stage.boxes_table(project),
        split_by_id=assigned_splits(ledger),
        class_names=selection.class_names,
        images_folder=project.objects_folder,
        size_wh=tuple(prepared["size"]),
        rotation_by_id=selection.rotation_by_id,
        duplicates=[Pair(*pair) for pair in near_duplicates(ledger)],
        # The other fits keep the aspect ratio.
        original_sizes_wh=(
            prepare_stage.source_sizes_wh(ledger, *SPLITS) if prepared["fit"] == "stretch" else {}
        ),
    )
    return write_preview(dataset, project.dataset_folder / FOLDER)
