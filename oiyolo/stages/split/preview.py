"""What the split stage leaves to look at: the facts of a dataset, handed to ``dataset_look``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.dataset_preview.facts import Facts, Pair
from oiyolo.dataset_preview.preview import look
from oiyolo.project.ledger import SPLITS
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages.split.group_keys import look_alikes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.stages.select import Selection

FOLDER: Final = "look"


def look_at(project: Project, selection: Selection, ledger: Ledger) -> list[Path]:
    """Leave contact sheets, charts and their page, if something in them is new."""
    prepared = prepare_stage.prepared_as(project)
    width_px, height_px = prepared["size"]
    turns = selection.images["Rotation"].fillna(0).astype(int)
    facts = Facts(
        boxes=prepare_stage.boxes_table(project),
        split_by_id={i: name for name in SPLITS for i in ledger.facts("state", name)},
        class_names=selection.class_names,
        images_folder=project.objects_folder,
        size_wh=(width_px, height_px),
        rotation_by_id=dict(zip(selection.images["ImageID"], turns.tolist(), strict=True)),
        duplicates=[Pair(*pair) for pair in look_alikes(ledger)],
        # The other fits keep an image's own shape.
        original_sizes_wh=_sizes_wh(ledger) if prepared["fit"] == "stretch" else {},
    )
    return look(facts, project.dataset_folder / FOLDER)


def _sizes_wh(ledger: Ledger) -> Mapping[str, tuple[int, int]]:
    widths = ledger.facts("width_px", *SPLITS)
    heights = ledger.facts("height_px", *SPLITS)
    return {i: (int(str(width)), int(str(heights[i]))) for i, width in widths.items()}
