"""export: write the dataset in the format of another program.

Writes ``exports/<format>/``: images, boxes in the pixels of these images, and the credits. The
folder appears when it is complete; an export that is up to date is left as it is.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from oiyolo import __version__
from oiyolo.core import disks
from oiyolo.core.errors import UsageError
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.interchange import (
    coco_writer,
    fiftyone_writer,
    openimages_writer,
    tfrecord_writer,
    voc_writer,
    yolo_writer,
)
from oiyolo.operations.export_dataset import contents as exported
from oiyolo.operations.export_dataset import folder as folders
from oiyolo.operations.export_dataset.contents import Contents, Pixels
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.interchange.exported import ExportedImage, Writer
    from oiyolo.project.project import Project, ProjectLike

_log = logging.getLogger("oiyolo")

_FOLDER: Final = "exports"
_CREDITS: Final = ("CREDITS.md", "CREDITS.csv")
"""Files of the dataset that name the authors of the images, whoever receives these."""
_CHANGES: Final = {
    "": "{n} as fetched",
    "orientation": "{n} as fetched, but for an EXIF orientation, which is removed",
    "rotated": "{n} rotated upright, which encodes a JPEG again (quality 95)",
    "converted": "{n} in a format that few programs read, as PNG or RGB JPEG",
    exported.PREPARED: "{n} prepared",
    exported.MISSING: "{n} prepared, because the original was deleted (keep_originals) or is lost",
    exported.UNREADABLE: "{n} prepared, because the original cannot be decoded",
}
"""What the pixels of images are, by what was changed in the original."""


@dataclass(frozen=True)
class DatasetExported(Result):
    """A dataset in the format of another program.

    Attributes:
        path: The folder.
        format: Name of the format.
        images: Number of images by split.
        boxes: Number of labels.
        ignored_boxes: Number of boxes that are not labels, because they are difficult or a group,
            and that the format marks as such.
        pixels: Number of images by what was changed in the original.
        is_new: Whether this call wrote it; otherwise it was up to date.
    """

    path: Path
    format: str
    images: Mapping[str, int]
    boxes: int
    ignored_boxes: int
    pixels: Mapping[str, int]
    is_new: bool = True

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        pixels = {change or "original": n for change, n in self.pixels.items()}
        return {**asdict(self), "path": str(self.path), "pixels": pixels}

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {n:,}" for split, n in self.images.items())
        images = pluralize(sum(self.images.values()), "image")
        boxes = pluralize(self.boxes, "box")
        state = "" if self.is_new else " (up to date)"
        lines = [f"{self.path}: {images} ({counts}), {boxes}{state}"]
        if self.ignored_boxes:
            lines.append(f"and {self.ignored_boxes:,} that are difficult or a group, not labels")
        pixels = (_CHANGES[change].format(n=f"{n:,}") for change, n in self.pixels.items())
        return "\n".join([*lines, "images: " + "; ".join(pixels)])


@dataclass(frozen=True)
class Format:
    """A format to export to.

    Attributes:
        name: Its name, as in ``export <name>``.
        write: The function that writes it.
        is_upright: Whether originals are turned upright; otherwise they are exported as stored.
        recipe: What else the export is made from.
        ignored: Attributes for which it can mark boxes that are not labels.
    """

    name: str
    write: Writer
    is_upright: bool = True
    recipe: Mapping[str, object] = field(default_factory=dict)
    ignored: tuple[str, ...] = ("group_of", "difficult")


def export_coco(
    project: ProjectLike = ".",
    *,
    split: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    images: Pixels = "original",
    dry_run: bool = False,
) -> DatasetExported | Plan:
    """Write the dataset in COCO's format: ``annotations/instances_<split>.json`` and images.

    Args:
        project: An open project or its folder.
        split: Names of the only splits to export; all by default.
        out: The folder; ``exports/coco`` in the project by default.
        images: "original" for the fetched images, turned upright, or "prepared" for those that
            darknet reads. An original that was deleted is replaced by the prepared image.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: The dataset is not split or is out of date, or the folder has other files.
        InputFormError: A file of the dataset is missing or damaged.
        UnavailableError: The disk is full.
        LockedError: Another process is changing the dataset, or writes the same folder.
    """
    return export_dataset(COCO, project, split=split, out=out, images=images, dry_run=dry_run)


def export_voc(
    project: ProjectLike = ".",
    *,
    split: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    images: Pixels = "original",
    dry_run: bool = False,
) -> DatasetExported | Plan:
    """Write the dataset in Pascal VOC's format, as the tree ``VOCdevkit/VOC2012``.

    The arguments and errors are those of ``export_coco``.
    """
    return export_dataset(VOC, project, split=split, out=out, images=images, dry_run=dry_run)


def export_yolo_yaml(
    project: ProjectLike = ".",
    *,
    split: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    images: Pixels = "original",
    dry_run: bool = False,
) -> DatasetExported | Plan:
    """Write the dataset as ultralytics reads it: ``images/``, ``labels/`` and ``data.yaml``.

    The arguments and errors are those of ``export_coco``.
    """
    return export_dataset(YOLO, project, split=split, out=out, images=images, dry_run=dry_run)


def export_openimages(
    project: ProjectLike = ".",
    *,
    split: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    images: Pixels = "original",
    dry_run: bool = False,
) -> DatasetExported | Plan:
    """Write the dataset in Open Images' own CSV formats; originals as stored, with ``Rotation``.

    The arguments and errors are those of ``export_coco``.
    """
    return export_dataset(OPENIMAGES, project, split=split, out=out, images=images, dry_run=dry_run)


def export_fiftyone(
    project: ProjectLike = ".",
    *,
    split: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    images: Pixels = "original",
    dry_run: bool = False,
) -> DatasetExported | Plan:
    """Write the dataset as FiftyOne loads it: a FiftyOneImageDetectionDataset for each split.

    The arguments and errors are those of ``export_coco``.
    """
    return export_dataset(FIFTYONE, project, split=split, out=out, images=images, dry_run=dry_run)


def export_tfrecord(
    project: ProjectLike = ".",
    *,
    split: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    images: Pixels = "original",
    dry_run: bool = False,
) -> DatasetExported | Plan:
    """Write the dataset as TFRecord files with a label map, for TensorFlow's Object Detection API.

    The arguments and errors are those of ``export_coco``.
    """
    return export_dataset(TFRECORD, project, split=split, out=out, images=images, dry_run=dry_run)


COCO: Final = Format("coco", coco_writer.write)
VOC: Final = Format("voc", voc_writer.write, ignored=("difficult",))
YOLO: Final = Format("yolo-yaml", yolo_writer.write, ignored=())
OPENIMAGES: Final = Format(
    "openimages", openimages_writer.write, is_upright=False, ignored=("group_of",)
)
FIFTYONE: Final = Format("fiftyone", fiftyone_writer.write)
TFRECORD: Final = Format("tfrecord", tfrecord_writer.write)


def export_dataset(
    form: Format,
    project: ProjectLike,
    *,
    split: str | Sequence[str] | None,
    out: str | Path | None,
    images: Pixels,
    dry_run: bool,
) -> DatasetExported | Plan:
    """Write the dataset in a format, unless that is up to date.

    The other arguments and the errors are those of ``export_coco``.
    """
    opened = open_project(project)
    splits = _chosen_splits(split)
    if images not in get_args(Pixels):
        expected = " or ".join(get_args(Pixels))
        raise UsageError(f"unknown images {images!r}", expected=expected)
    path = _path(opened, form, splits, out)
    if dry_run:
        return _plan(form, Contents(opened, splits, images, form.is_upright), path)
    with opened.data_lock(f"export {form.name}"):
        return _run(form, Contents(opened, splits, images, form.is_upright), path)


def _chosen_splits(split: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the splits to export, in the usual order."""
    names = [split] if isinstance(split, str) else list(split or SPLITS)
    if unknown := [name for name in names if name not in SPLITS]:
        raise UsageError(
            f"unknown split {unknown[0]!r}", where="--split", expected=" or ".join(SPLITS)
        )
    return tuple(name for name in SPLITS if name in names)


def _path(project: Project, form: Format, splits: Sequence[str], out: str | Path | None) -> Path:
    if out is not None:
        return Path(out).absolute()
    suffix = "" if len(splits) == len(SPLITS) else f"-{'-'.join(splits)}"
    return project.folder / _FOLDER / f"{form.name}{suffix}"


def _recipe(form: Format, contents: Contents) -> dict[str, object]:
    return {"format": form.name, **form.recipe, **contents.recipe, "version": __version__}


def _plan(form: Format, contents: Contents, path: Path) -> Plan:
    saved = folders.find_result(path, _recipe(form, contents))
    actions = []
    if isinstance(saved, str):
        counts = [f"{split} {len(ids):,}" for split, ids in contents.ids_by_split.items()]
        images = pluralize(sum(map(len, contents.ids_by_split.values())), "image")
        actions.append(f"write {path}: {images} ({', '.join(counts)})")
    facts: dict[str, object] = {
        "path": str(path),
        "images": {split: len(ids) for split, ids in contents.ids_by_split.items()},
    }
    return Plan(f"export {form.name}", actions, facts)


def _run(form: Format, contents: Contents, path: Path) -> DatasetExported:
    recipe = _recipe(form, contents)
    saved = folders.find_result(path, recipe)
    if not isinstance(saved, str):
        _log.info("export: up to date")
        return DatasetExported(path=path, is_new=False, **saved)
    _log.info("export: writing %s (%s)", path, saved)
    needed = sum(size.bytes for size in contents.dataset.splits.values())
    remedy = "or choose a folder on a larger disk with --out"
    disks.check_free_space(path, needed, what="the export", remedy=remedy)
    tally = Counter[str]()
    with (
        disks.convert_disk_full_error(path.parent, what="the export", remedy=remedy),
        folders.replace(path) as part,
    ):
        form.write(_counted(contents, form, tally), part, contents.dataset)
        for name in _CREDITS:
            if (source := contents.project.dataset_folder / name).is_file():
                shutil.copyfile(source, part / name)
        result: dict[str, Any] = {
            "format": form.name,
            "images": {split: len(ids) for split, ids in contents.ids_by_split.items()},
            "boxes": tally["boxes"],
            "ignored_boxes": tally["ignored_boxes"],
            "pixels": dict(contents.changes.most_common()),
        }
        folders.write_record(part, recipe, result)
    return DatasetExported(path=path, **result)


def _counted(contents: Contents, form: Format, tally: Counter[str]) -> Iterator[ExportedImage]:
    """Yield the images; count the boxes that the format has, and show the progress."""
    total = sum(map(len, contents.ids_by_split.values()))
    with progress("export", total=total, unit="img") as bar:
        for image in contents.images():
            tally["boxes"] += len(image.labels)
            tally["ignored_boxes"] += sum(
                any(getattr(box, name) == 1 for name in form.ignored)
                for box in image.boxes
                if not box.is_label
            )
            yield image
            bar.advance(1)
