"""Divide train into two halves, to train detectors that have not seen the other half.

Scoring each half with the detector of the other is called cross-fitting. A label that the detector
has learned, right or wrong, would otherwise look right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.splits.assign import assign
from oiyolo.splits.groups import Member
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages.split import outputs

if TYPE_CHECKING:
    from oiyolo.project.project import Project

HALVES: Final = (1, 2)


def ids_of_half(project: Project, half: int) -> frozenset[str]:
    """Return the ids of the images in a half of train.

    Both halves have about the same number of images of each class, and images of a group (the same
    picture, the same author) are in the same half.

    Args:
        project: The project.
        half: 1 or 2.

    Raises:
        UsageError: All images of train are one group.
        InputFormError: A table of the dataset is damaged.
    """
    table = outputs.read_table(project.dataset_folder)
    table = table[table["split"] == "train"]
    ids = table["ImageID"].tolist()
    classes = prepare_stage.used_classes(project, set(ids))
    members = [
        Member(image_id, (group,), classes=tuple(sorted(classes.get(image_id, ()))))
        for image_id, group in zip(ids, table["group"].tolist(), strict=True)
    ]
    ratios = {str(half): 1 / len(HALVES) for half in HALVES}
    half_by_id = assign(members, ratios, project.config.split.seed).split_by_id
    if len(set(half_by_id.values())) < len(HALVES):
        raise UsageError(
            "train cannot be divided into two halves",
            where=str(project.dataset_folder / outputs.TABLE),
            expected="at least two images that belong to different groups",
            found=f"{len(ids)} images in one group",
        )
    return frozenset(i for i, name in half_by_id.items() if name == str(half))
