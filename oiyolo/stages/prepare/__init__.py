"""prepare: upright, resized images with their labels beside them.

Leaves ``data/dataset/obj/<ImageID>.jpg`` and ``.txt`` and ``data/dataset/boxes.csv``. Only images
whose pixels, boxes or options are new are made again; the ledger knows what each was made from.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from oiyolo import __version__
from oiyolo.core import files, staleness
from oiyolo.core.progress import progress
from oiyolo.core.results import Plan, Result, columns, count, data_url
from oiyolo.imagery import labels
from oiyolo.project.ledger import EXCLUDED, FETCHED, HAS_PREPARED, PENDING, PREPARED, Change
from oiyolo.project.project import open_project
from oiyolo.stages import select as select_stage
from oiyolo.stages.prepare import boxes_csv, originals, pending
from oiyolo.stages.prepare.pending import STAMP
from oiyolo.stages.prepare.tasks import METHOD, options_of
from oiyolo.training.run import ids_in_use

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from oiyolo.project.ledger import Counts, Ledger
    from oiyolo.project.project import Project, ProjectLike

STAGE: Final = originals.STAGE
_RECORD_EVERY: Final = 32
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
        lacking: Images whose originals are needed again.
    """

    folder: Path
    new: int
    failed: Mapping[str, int]
    dropped_boxes: Mapping[str, int]
    counts: Counts
    seconds: float
    lacking: int = 0

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """Every box in the prepared frame, ``used`` or not."""
        return boxes_csv.read(self.folder)

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
        if not (self.new or self.failed or self.lacking):
            return f"prepared: nothing to do; {count(here, 'image')} with labels"
        rate = self.new / self.seconds if self.seconds else 0.0
        effort = f"in {self.seconds:.1f} s ({rate:.0f} a second)"
        told = [f"prepared {count(self.new, 'image')} {effort}; {here:,} with labels"]
        rows = [(f"not prepared: {why}", n) for why, n in self.failed.items()]
        rows += [(f"boxes that are no labels: {why}", n) for why, n in self.dropped_boxes.items()]
        told += [columns(rows)] if rows else []
        if self.lacking:
            told.append(
                f"`oiyolo fetch` gets {count(self.lacking, 'original')} again (keep_originals "
                "frees them), then `oiyolo prepare` goes on"
            )
        return "\n".join(told)

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
        LockedError: Another run changes the dataset, or a training reads images that would be
            made anew as others.
    """
    opened = open_project(project, options)
    if dry_run:
        return _plan(opened)
    with opened.data_lock(STAGE):
        return run(opened)


def _plan(project: Project) -> Plan:
    selection = select_stage.load_or_complain(project)
    with project.ledger(read_only=True) as ledger:
        todo = pending.find(project, selection, ledger)
    wanted = {task.image_id for task in todo.tasks}
    lacking = wanted - originals.ids_in(project.images_folder)
    actions = [f"prepare {count(len(wanted - lacking), 'image')}"] if wanted - lacking else []
    if lacking:
        actions.append(f"need {count(len(lacking), 'original')} again, from `oiyolo fetch`")
    if todo.back:
        actions.append(f"count {count(len(todo.back), 'image')} as prepared again")
    facts = {"images": len(wanted), "lacking": len(lacking), "back": len(todo.back)}
    return Plan("prepare", actions, facts)


def stale_reason(project: Project) -> str | None:
    """Tell why the prepared images are not what they would be now; ``None`` if they are."""
    with project.ledger() as ledger:
        if waiting := len(ledger.ids(FETCHED)):
            return f"{count(waiting, 'image')} fetched but not prepared"
        made_from = _made_from(project, select_stage.load_or_complain(project), ledger)
    return staleness.stale_reason(project.dataset_folder / STAMP, made_from)


def prepared_as(project: Project) -> dict[str, Any]:
    """Give how the images that lie there were prepared: ``size`` (width, height) and ``fit``.

    It is what the last prepare recorded, which an option of a single call may have decided.
    """
    saved = files.read_json(project.dataset_folder / STAMP) or {}
    options: dict[str, Any] = saved.get("options") or options_of(project.config)
    return {"size": list(options["size"]), "fit": options["fit"]}


def _made_from(
    project: Project, selection: select_stage.Selection, ledger: Ledger
) -> dict[str, object]:
    return {
        "options": options_of(project.config),
        "selection": selection.fingerprint,
        "the set of prepared images": staleness.fingerprint(ledger.ids(*HAS_PREPARED)),
        "the way of preparing": METHOD,
        "version": __version__,
    }


def run(project: Project) -> Prepared:
    """Prepare under a lock that the caller holds."""
    selection = select_stage.load_or_complain(project)
    project.objects_folder.mkdir(parents=True, exist_ok=True)
    files.remove_parts(project.objects_folder)
    started_s = time.monotonic()
    tally = Counter[str]()
    with project.ledger() as ledger:
        if not _is_up_to_date(project, selection, ledger):
            tally = _make(project, ledger, pending.find(project, selection, ledger))
        if not project.config.images.keep_originals:
            left = originals.ids_in(project.images_folder)
            originals.free(project, ledger, sorted(left))
        _remove_refused(project, ledger)
        dropped = _finish(project, selection, ledger)
        counts = ledger.counts()
        lacking = len(ledger.ids(PENDING, stage=STAGE))
    return Prepared(
        folder=project.dataset_folder,
        new=tally.pop("", 0),
        failed=dict(tally.most_common()),
        dropped_boxes=dropped,
        counts=counts,
        seconds=time.monotonic() - started_s,
        lacking=lacking,
    )


def _is_up_to_date(project: Project, selection: select_stage.Selection, ledger: Ledger) -> bool:
    """Tell that there is nothing to do, without looking at each image's boxes."""
    made_from = _made_from(project, selection, ledger)
    return (
        staleness.stale_reason(project.dataset_folder / STAMP, made_from) is None
        and not ledger.ids(FETCHED)
        and not ledger.ids(PENDING, stage=STAGE)
        and pending.complete_in(project.objects_folder).issuperset(
            [*ledger.ids(*HAS_PREPARED), *ledger.ids(EXCLUDED, stage="split")]
        )
    )


def _make(project: Project, ledger: Ledger, todo: pending.Todo) -> Counter[str]:
    """Make what is to be made, and count it by reason; "" if all went well."""
    if todo:
        (project.dataset_folder / STAMP).unlink(missing_ok=True)
    told = "its prepared files are right again"
    ledger.record(STAGE, [Change(image_id, PREPARED, told) for image_id in todo.back])
    made = Counter[str]()
    if not todo.tasks:
        return made
    from oiyolo.stages.prepare.workers import prepare_all  # noqa: PLC0415  (OpenCV)

    with progress("prepare", total=len(todo.tasks), unit="img") as told_so_far:
        for batch in _batches(prepare_all(project, todo.tasks)):
            ledger.record(STAGE, batch)
            if not project.config.images.keep_originals:
                done = [change.image_id for change in batch if change.state == PREPARED]
                originals.free(project, ledger, done)
            told_so_far.advance(len(batch))
            made.update(change.reason for change in batch)
    return made


def boxes_table(project: Project) -> pd.DataFrame:
    """Read ``data/dataset/boxes.csv``: every box in the prepared frame, ``used`` or not."""
    return boxes_csv.read(project.dataset_folder)


def used_sizes(project: Project, image_ids: Container[str]) -> npt.NDArray[np.float64]:
    """Give widths and heights of the used boxes of some images; see ``prepare_boxes``."""
    return boxes_csv.used_sizes(project.dataset_folder, image_ids)


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


def _batches(changes: Iterator[Change]) -> Iterator[list[Change]]:
    while batch := list(itertools.islice(changes, _RECORD_EVERY)):
        yield batch


def _remove_refused(project: Project, ledger: Ledger) -> None:
    """Remove prepared files of images excluded since, but for those that a live run reads."""
    in_use = ids_in_use(project.runs_folder)
    for image_id in ledger.ids(EXCLUDED, stage=STAGE):
        if image_id not in in_use:
            for suffix in (".jpg", ".txt"):
                (project.objects_folder / f"{image_id}{suffix}").unlink(missing_ok=True)


def _finish(project: Project, selection: select_stage.Selection, ledger: Ledger) -> dict[str, int]:
    """Write ``boxes.csv`` and the stamp if they are not up to date; count what is no label."""
    path = project.dataset_folder / boxes_csv.NAME
    made_from = _made_from(project, selection, ledger)
    if staleness.stale_reason(project.dataset_folder / STAMP, made_from) or not path.is_file():
        files.write_text(path, boxes_csv.render(selection, ledger, options_of(project.config)))
        staleness.write(project.dataset_folder / STAMP, made_from)
    because = boxes_table(project)["dropped_because"]
    return dict(Counter(because[because != ""]).most_common())
