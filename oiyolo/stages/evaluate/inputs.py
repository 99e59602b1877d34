"""The images that a detector is scored on, and their true boxes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.core import records
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.results import format_value, pluralize
from oiyolo.darknet import lists
from oiyolo.darknet.lists import ImageCheck
from oiyolo.evaluation.tables import GroundTruth, verification
from oiyolo.openimages.selection import CORNERS, FLAG_COLUMNS, SEPARATOR
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy.typing as npt
    import pandas as pd

    from oiyolo.evaluation.tables import Verified
    from oiyolo.project.project import Project
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_TRAIN_AGAIN: Final = "Restore it from a copy, or train a new run with `oiyolo train --again`"


def class_names(run: Run) -> list[str]:
    """Return the names of a run's classes."""
    return records.read_lines(run.folder / "obj.names", remedy=_TRAIN_AGAIN)


def split_paths(project: Project, split: str, among: Collection[str] | None = None) -> list[str]:
    """Return the paths of the images of a split.

    Args:
        project: The project.
        split: The split.
        among: Ids of the images to return; ``None`` for all.

    Raises:
        InputFormError: The split is empty, or images or labels are missing or damaged.
    """
    dataset = split_stage.load(project)
    list_path = dataset.list_path(split)
    paths = split_stage.image_paths(project, split)
    if among is not None:
        ids = lists.ids_of(paths)
        paths = [path for image_id, path in zip(ids, paths, strict=True) if image_id in among]
    if not paths:
        raise InputFormError(
            f"the {split} split has no images",
            where=str(list_path),
            expected="at least one image",
            found="0 images",
            remedy=f"Set [split] {split} above 0, or fetch more images",
        )
    image_bytes = prepare_stage.prepared_bytes(project)
    check = ImageCheck(len(dataset.class_names), image_bytes=image_bytes)
    check.require(paths, list_path)
    return paths


def unseen_paths(
    project: Project, run: Run, split: str, among: Collection[str] | None = None
) -> list[str]:
    """Return the paths of the split's images, or of some of them, which a run has not seen.

    Args:
        project: The project.
        run: The run.
        split: The split.
        among: Ids of the images to return; ``None`` for all.

    Raises:
        UsageError: The classes differ from the run's, or the run has seen some of the images.
        InputFormError: The split is empty, or images or labels are missing or damaged.
    """
    dataset = split_stage.load(project)
    names = class_names(run)
    if names != list(dataset.class_names):
        raise UsageError(
            f"the classes of the dataset differ from those of the run {run.name}",
            where=str(run.folder / "obj.names"),
            expected=", ".join(names),
            found=", ".join(dataset.class_names),
            remedy="Train a new run, or restore the classes of this one",
        )
    paths = split_paths(project, split, among)
    if overlap := seen_ids(run, split).intersection(lists.ids_of(paths)):
        raise UsageError(
            f"the run {run.name} has seen {pluralize(len(overlap), 'image')} of {split}",
            where=str(dataset.list_path(split)),
            found=f"for example {min(overlap)}",
            remedy="The dataset was split again after training; train a new run for a fair score",
        )
    return paths


def seen_ids(run: Run, split: str) -> set[str]:
    """Return the ids of the images that a run has seen before it is scored on a split.

    The images of valid stop a training early, and choose its best weights and thresholds.
    """
    seen = set(run.image_ids("train"))
    return seen if split == "valid" else seen | set(run.image_ids("valid"))


def warn_of_preparation(project: Project, run: Run) -> None:
    """Log a warning if the images are prepared differently than a run's were."""
    trained_on = (run.record.get("made_from") or {}).get("images")
    if trained_on != (now := prepare_stage.prepared_options(project)):
        _log.warning(
            "evaluate: %s was trained on images prepared as %s, but these were prepared as %s",
            run.name,
            format_value(trained_on),
            format_value(now),
        )


def sizes_wh(paths: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the width and height of each image in pixels, by its id."""
    from PIL import Image  # noqa: PLC0415  (only sizes are read)

    sizes = {}
    for path in paths:
        with Image.open(path) as image:
            sizes[Path(path).stem] = image.size
    return sizes


def ground_truth(
    project: Project,
    sizes_wh: Mapping[str, tuple[int, int]],
    class_names: Sequence[str],
    *,
    labels: bool = True,
) -> GroundTruth:
    """Return the true boxes of images.

    Args:
        project: The project.
        sizes_wh: Width and height of each image in pixels, by its id.
        class_names: Names of the classes.
        labels: Whether to read which classes were verified in each image. Only Open Images' metric
            needs them, and reading the table of all images takes long.

    Raises:
        UsageError: Boxes have another class than that of their number in ``class_names``.
        InputFormError: The table of boxes is damaged.
    """
    image_ids = tuple(sizes_wh)
    boxes = prepare_stage.boxes_table(project, image_ids)
    _check_classes(project, boxes, class_names)
    rows = true_rows(boxes)
    boxes = boxes.iloc[rows]
    return GroundTruth.from_rows(
        image_ids,
        box_image_ids=boxes["ImageID"],
        class_id=boxes["class_id"],
        xyxy=boxes[list(CORNERS)],
        is_region=_is_region(boxes),
        verified=_verified(project, image_ids, class_names) if labels else None,
        sizes_wh=[*sizes_wh.values()],
        # Group-of boxes have a column of their own.
        attributes={
            name: boxes[column].to_numpy() == 1
            for name, column in FLAG_COLUMNS.items()
            if column in boxes and name != "group_of"
        },
    )


def true_rows(boxes: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return which rows of ``boxes.csv`` are true boxes, in the order of ``ground_truth``.

    A group box that was not used in training still counts, so that a detection there is no false
    positive.
    """
    return np.flatnonzero(boxes["used"].to_numpy(dtype=bool) | _is_region(boxes))


def _is_region(boxes: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which boxes are regions in which detections are neither right nor wrong.

    These are groups, and difficult objects that are no labels, as in VOC's scoring
    (VOCevaldet.m).
    """
    used = boxes["used"].to_numpy(dtype=bool)
    return np.asarray(_flags(boxes, "group_of") | (_flags(boxes, "difficult") & ~used))


def _flags(boxes: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    """Return whether each box has an attribute."""
    column = FLAG_COLUMNS[name]
    if column not in boxes:
        return np.zeros(len(boxes), dtype=bool)
    return np.asarray(boxes[column].to_numpy() == 1)


def _check_classes(project: Project, boxes: pd.DataFrame, class_names: Sequence[str]) -> None:
    """Raise UsageError if the classes of boxes are not those of a run."""
    present = sorted(set(zip(boxes["class_id"].tolist(), boxes["class"].tolist(), strict=True)))
    wrong = [(i, name) for i, name in present if class_names[i : i + 1] != [name]]
    if wrong:
        raise UsageError(
            "the classes of the boxes differ from those of the run",
            where=str(project.dataset_folder / "boxes.csv"),
            expected=", ".join(class_names),
            found=", ".join(f"{name} as number {i}" for i, name in wrong),
            remedy="Train a new run, or restore the classes of this one",
        )


def _verified(project: Project, image_ids: Sequence[str], class_names: Sequence[str]) -> Verified:
    images = select_stage.load(project).images
    images = images[images["ImageID"].isin(image_ids)]

    def pairs(column: str) -> list[tuple[str, int]]:
        rows = zip(images["ImageID"], images[column], strict=True)
        return [(i, class_names.index(n)) for i, names in rows for n in names.split(SEPARATOR) if n]

    return verification(
        image_ids, len(class_names), present=pairs("present"), absent=pairs("absent")
    )
