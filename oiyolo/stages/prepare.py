"""prepare: upright, resized images with their labels beside them.

Leaves ``data/dataset/obj/<ImageID>.jpg`` and ``.txt`` and ``data/dataset/boxes.csv``. Only images
whose pixels, boxes or options are new are made again; the ledger knows what each was made from.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from oiyolo import __version__, files, stamps
from oiyolo.config import AUTO
from oiyolo.errors import InputFormError
from oiyolo.imagery import labels
from oiyolo.imagery.placement import place_boxes
from oiyolo.imagery.upright import UnreadableImageError, make_upright
from oiyolo.ledger import EXCLUDED, FETCHED, HAS_PREPARED, PENDING, PREPARED, Change
from oiyolo.openimages.selection import CORNERS, FLAG_COLUMNS
from oiyolo.progress import progress
from oiyolo.project import open_project
from oiyolo.results import Plan, Result, columns, count, data_url
from oiyolo.stages import select as select_stage
from oiyolo.training.run import ids_in_use

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.boxes import Boxes
    from oiyolo.ledger import Counts, Ledger
    from oiyolo.project import Project, ProjectLike

STAGE: Final = "prepare"
_STAMP: Final = ".prepared-from.json"
_RECORD_EVERY: Final = 32
_IN_WORK_PER_JOB: Final = 4
_SHOWN_IMAGES: Final = 12
_SHOWN_HEIGHT_PX: Final = 160


@dataclass(frozen=True)
class Prepared(Result):
    """What a prepare did, and how the ledger stands after it.

    Attributes:
        folder: ``data/dataset``.
        new: Images made now.
        failed: Reasons of those that could not be made.
        dropped_boxes: Boxes of prepared images that are no labels, by reason.
        counts: The ledger's sums.
        seconds: How long it took.
    """

    folder: Path
    new: int
    failed: Mapping[str, int]
    dropped_boxes: Mapping[str, int]
    counts: Counts
    seconds: float

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """Every box in the prepared frame, ``used`` or not."""
        return _read_boxes(self.folder)

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "prepared": self.new,
            "failed": dict(self.failed),
            "dropped_boxes": dict(self.dropped_boxes),
            "seconds": round(self.seconds, 3),
            **self.counts.as_dict(),
        }

    def __str__(self) -> str:
        here = sum(self.counts.states[state] for state in HAS_PREPARED)
        if not (self.new or self.failed):
            return f"prepared: nothing to do; {count(here, 'image')} with labels"
        rate = self.new / self.seconds if self.seconds else 0.0
        effort = f"in {self.seconds:.1f} s ({rate:.0f} a second)"
        told = [f"prepared {count(self.new, 'image')} {effort}; {here:,} with labels"]
        rows = [(f"not prepared: {why}", n) for why, n in self.failed.items()]
        rows += [(f"boxes that are no labels: {why}", n) for why, n in self.dropped_boxes.items()]
        return "\n".join(told + ([columns(rows)] if rows else []))

    def _repr_html_(self) -> str:
        label_paths = sorted((self.folder / "obj").glob("*.txt"))[:_SHOWN_IMAGES]
        return super()._repr_html_() + "".join(map(_with_boxes, label_paths))


def prepare(
    project: ProjectLike = ".", *, dry_run: bool = False, **options: object
) -> Prepared | Plan:
    """Make the fetched images ready for darknet.

    Args:
        project: An open project or its folder.
        dry_run: Only tell what would be done.
        **options: Keys of ``[images]`` (``size``, ``fit``, ``jobs``, ``keep_originals``).

    Raises:
        UsageError: Nothing was fetched yet, or an unknown option.
        LockedError: Another run changes the dataset.
    """
    opened = open_project(project, options)
    if dry_run:
        selection = select_stage.load_or_complain(opened)
        with opened.ledger(read_only=True) as ledger:
            todo = _todo(opened, selection, ledger)
        actions = [f"prepare {count(len(todo), 'image')}"] if todo else []
        return Plan("prepare", actions, {"images": len(todo)})
    with opened.data_lock(STAGE):
        return run(opened)


def stale_reason(project: Project) -> str | None:
    """Tell why the prepared images are not what they would be now; ``None`` if they are."""
    with project.ledger() as ledger:
        if waiting := len(ledger.ids(FETCHED)):
            return f"{count(waiting, 'image')} fetched but not prepared"
        made_from = _made_from(project, select_stage.load_or_complain(project), ledger)
    return stamps.stale_reason(project.dataset_folder / _STAMP, made_from)


def prepared_as(project: Project) -> dict[str, Any]:
    """Give how the images that lie there were prepared: ``size`` (width, height) and ``fit``.

    It is what the last prepare recorded, which an option of a single call may have decided.
    """
    saved = files.read_json(project.dataset_folder / _STAMP) or {}
    options: dict[str, Any] = saved.get("options") or _options(project)
    return {"size": list(options["size"]), "fit": options["fit"]}


def _made_from(
    project: Project, selection: select_stage.Selection, ledger: Ledger
) -> dict[str, object]:
    return {
        "options": _options(project),
        "selection": selection.fingerprint,
        "the set of prepared images": stamps.fingerprint(ledger.ids(*HAS_PREPARED)),
        "version": __version__,
    }


def _options(project: Project) -> dict[str, object]:
    images = project.config.images
    mask = project.config.dataset.group_of == "mask"
    return {"size": list(images.size), "fit": images.fit, "mask_group_of": mask}


def run(project: Project) -> Prepared:
    """Prepare under a lock that the caller holds."""
    selection = select_stage.load_or_complain(project)
    folder = project.objects_folder
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_parts(folder)
    started_s = time.monotonic()
    new, failed = 0, Counter[str]()
    with project.ledger() as ledger:
        todo = _todo(project, selection, ledger)
        if todo:
            (project.dataset_folder / _STAMP).unlink(missing_ok=True)
        with progress("prepare", total=len(todo), unit="img") as told:
            for batch in _batches(_prepare_all(project, todo)):
                ledger.record(STAGE, batch)
                _free_originals(project, batch)
                told.advance(len(batch))
                new += sum(change.state == PREPARED for change in batch)
                failed.update(change.reason for change in batch if change.state != PREPARED)
        _remove_refused(project, ledger)
        dropped = _finish(project, selection, ledger)
        counts = ledger.counts()
    return Prepared(
        folder=project.dataset_folder,
        new=new,
        failed=dict(failed.most_common()),
        dropped_boxes=dropped,
        counts=counts,
        seconds=time.monotonic() - started_s,
    )


def boxes_table(project: Project) -> pd.DataFrame:
    """Read ``data/dataset/boxes.csv``: every box in the prepared frame, ``used`` or not."""
    return _read_boxes(project.dataset_folder)


def _read_boxes(folder: Path) -> pd.DataFrame:
    path = folder / "boxes.csv"
    types: dict[str, type[object]] = {
        **dict.fromkeys(("ImageID", "class", "dropped_because"), str),
        **dict.fromkeys(CORNERS, float),
        "class_id": int,
        "used": bool,
    }
    try:
        return pd.read_csv(path, dtype=types, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise InputFormError(
            "the table of prepared boxes cannot be read",
            where=str(path),
            expected="the table that prepare wrote",
            found=str(error),
            remedy="Remove it, if it is there, and run `oiyolo prepare`, which writes it anew",
        ) from None


def _with_boxes(label_path: Path) -> str:
    """Give a prepared image with its labels drawn on it, as HTML for a notebook."""
    jpeg_path = label_path.with_suffix(".jpg")
    with Image.open(jpeg_path) as image:
        width, height = image.size
    boxes = "".join(
        f'<rect x="{x1:.2%}" y="{y1:.2%}" width="{x2 - x1:.2%}" height="{y2 - y1:.2%}" '
        f'fill="none" stroke="#E69F00" stroke-width="{height / _SHOWN_HEIGHT_PX * 2:.2f}"/>'
        for x1, y1, x2, y2 in labels.read(label_path)[1]
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" height="{_SHOWN_HEIGHT_PX}" style="margin: 2px">'
        f"<title>{label_path.stem}</title>"
        f'<image width="100%" height="100%" href="{data_url(jpeg_path)}"/>{boxes}</svg>'
    )


@dataclass(frozen=True)
class _Task:
    """One image to prepare."""

    image_id: str
    rotation: int
    negative: bool
    xyxy: Boxes
    class_ids: npt.NDArray[np.int64]
    because: npt.NDArray[np.object_]
    group_of: npt.NDArray[np.bool_]
    made_from: str


def _todo(project: Project, selection: select_stage.Selection, ledger: Ledger) -> list[_Task]:
    """Give the images that are not what they would be now."""
    folder = project.objects_folder
    here = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    fetched = set(ledger.ids(FETCHED))
    made = {*ledger.ids(*HAS_PREPARED), *ledger.ids(EXCLUDED, stage="split")}
    refused = set(ledger.ids(EXCLUDED, stage=STAGE))
    before = ledger.facts("prepared_from")
    todo = []
    for task in _tasks(selection, _options(project), ledger.facts("md5")):
        image_id = task.image_id
        same = before.get(image_id) == task.made_from
        complete = {f"{image_id}.jpg", f"{image_id}.txt"} <= here
        if (
            image_id in fetched
            or (image_id in made and not (same and complete))
            or (image_id in refused and not same)
        ):
            todo.append(task)
    return todo


def _tasks(
    selection: select_stage.Selection,
    options: Mapping[str, object],
    md5_by_id: Mapping[str, object],
) -> Iterator[_Task]:
    boxes = selection.boxes
    xyxy = boxes[list(CORNERS)].to_numpy(dtype=np.float64)
    class_ids = boxes["class_id"].to_numpy(dtype=np.int64)
    because = boxes["dropped_because"].to_numpy(dtype=object)
    group_of = np.zeros(len(boxes), dtype=bool)
    if FLAG_COLUMNS["group_of"] in boxes:
        group_of = boxes[FLAG_COLUMNS["group_of"]].to_numpy() == 1
    rows_of = boxes.groupby("ImageID").indices
    none = np.array([], dtype=np.int64)
    named = (selection.images[name] for name in ("ImageID", "Rotation", "negative"))
    for image_id, rotation, negative in zip(*named, strict=True):
        rows = rows_of.get(image_id, none)
        turn = 0 if np.isnan(rotation) else int(rotation)
        digest = hashlib.sha256(repr((options, turn, md5_by_id.get(image_id), negative)).encode())
        for part in (xyxy[rows], class_ids[rows], group_of[rows]):
            digest.update(part.tobytes())
        digest.update("|".join(because[rows]).encode())
        yield _Task(
            image_id,
            turn,
            bool(negative),
            xyxy[rows],
            class_ids[rows],
            because[rows],
            group_of[rows],
            digest.hexdigest()[:16],
        )


def _prepare_all(project: Project, todo: Iterable[_Task]) -> Iterator[Change]:
    """Prepare in threads (decoding and resizing free the interpreter) with few in work at once."""
    jobs = project.config.images.jobs
    threads = (os.cpu_count() or 1) if jobs == AUTO else int(jobs)
    waiting = iter(todo)
    with ThreadPoolExecutor(threads) as pool:
        try:
            in_work: set[Future[Change]] = {
                pool.submit(_prepare_one, project, task)
                for task in itertools.islice(waiting, threads * _IN_WORK_PER_JOB)
            }
            while in_work:
                done, in_work = wait(in_work, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                more = itertools.islice(waiting, len(done))
                in_work |= {pool.submit(_prepare_one, project, task) for task in more}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _prepare_one(project: Project, task: _Task) -> Change:
    options = project.config.images
    jpeg_path = project.objects_folder / f"{task.image_id}.jpg"
    label_path = jpeg_path.with_suffix(".txt")
    masked = task.group_of if project.config.dataset.group_of == "mask" else task.group_of & False
    try:
        upright = make_upright(
            project.images_folder / f"{task.image_id}.jpg",
            task.rotation,
            options.size,
            options.fit,
            task.xyxy[masked].tolist(),
        )
    except UnreadableImageError as error:
        return _excluded(task, str(error))
    except FileNotFoundError:
        told = "its file is gone, so it must be fetched again"
        return Change(task.image_id, PENDING, told, reason="file gone, to be fetched again")
    because = np.where(masked & (task.because == ""), "masked", task.because)
    placed = place_boxes(
        task.xyxy,
        task.class_ids,
        because,
        rotation=task.rotation,
        source_wh=upright.source_wh,
        size_wh=options.size,
        fit=options.fit,
    )
    if not task.negative and not placed.used.any():
        return _excluded(task, "no box left")
    text = labels.render(task.class_ids[placed.used], placed.xyxy[placed.used])
    files.write_text(label_path, text, durable=False)
    files.write_bytes(jpeg_path, upright.jpeg, durable=False)
    width, height = upright.source_wh
    told = f"prepared: {width}x{height} upright"
    if task.rotation:
        told += f" after {task.rotation} degrees"
    return Change(
        task.image_id,
        PREPARED,
        f"{told}, {count(int(placed.used.sum()), 'label')}",
        facts={"width_px": width, "height_px": height, "prepared_from": task.made_from},
    )


def _excluded(task: _Task, reason: str) -> Change:
    facts = {"prepared_from": task.made_from}
    return Change(task.image_id, EXCLUDED, f"excluded: {reason}", reason=reason, facts=facts)


def _batches(changes: Iterator[Change]) -> Iterator[list[Change]]:
    while batch := list(itertools.islice(changes, _RECORD_EVERY)):
        yield batch


def _free_originals(project: Project, batch: Iterable[Change]) -> None:
    if project.config.images.keep_originals:
        return
    for change in batch:
        if change.state == PREPARED:
            (project.images_folder / f"{change.image_id}.jpg").unlink(missing_ok=True)


def _remove_refused(project: Project, ledger: Ledger) -> None:
    """Remove prepared files of images excluded since, but for those that a live run reads."""
    in_use = ids_in_use(project.runs_folder)
    for image_id in ledger.ids(EXCLUDED, stage=STAGE):
        if image_id not in in_use:
            for suffix in (".jpg", ".txt"):
                (project.objects_folder / f"{image_id}{suffix}").unlink(missing_ok=True)


def _finish(project: Project, selection: select_stage.Selection, ledger: Ledger) -> dict[str, int]:
    """Write ``boxes.csv`` and the stamp if they are not up to date; count what is no label."""
    path = project.dataset_folder / "boxes.csv"
    made_from = _made_from(project, selection, ledger)
    if stamps.stale_reason(project.dataset_folder / _STAMP, made_from) or not path.is_file():
        table = _prepared_boxes(project, selection, ledger)
        files.write_text(path, table.to_csv(index=False, float_format="%.7f"))
        stamps.write(project.dataset_folder / _STAMP, made_from)
    because = boxes_table(project)["dropped_because"]
    return dict(Counter(because[because != ""]).most_common())


def _prepared_boxes(
    project: Project, selection: select_stage.Selection, ledger: Ledger
) -> pd.DataFrame:
    """Give every box of the prepared images in their prepared frame."""
    options = project.config.images
    widths = ledger.facts("width_px", *HAS_PREPARED)
    heights = ledger.facts("height_px", *HAS_PREPARED)
    table = selection.boxes[selection.boxes["ImageID"].isin(widths.keys())].copy()
    xyxy = table[list(CORNERS)].to_numpy(dtype=np.float64, copy=True)
    because = table["dropped_because"].to_numpy(dtype=object, copy=True)
    if project.config.dataset.group_of == "mask":
        because[(table[FLAG_COLUMNS["group_of"]] == 1).to_numpy() & (because == "")] = "masked"
    class_ids = table["class_id"].to_numpy(dtype=np.int64)
    turns = selection.images["Rotation"].fillna(0).astype(int)
    rotation_by_id = dict(zip(selection.images["ImageID"], turns, strict=True))
    for key, rows in table.groupby("ImageID").indices.items():
        image_id = str(key)
        placed = place_boxes(
            xyxy[rows],
            class_ids[rows],
            because[rows],
            rotation=rotation_by_id[image_id],
            source_wh=(_whole(widths[image_id]), _whole(heights[image_id])),
            size_wh=options.size,
            fit=options.fit,
        )
        xyxy[rows], because[rows] = placed.xyxy, placed.because
    table[list(CORNERS)] = xyxy
    table["dropped_because"] = because
    table["used"] = because == ""
    return table


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"the ledger holds {value!r} where a number of pixels should be")
    return value
