"""Prepare images in a pool of threads: decode, resize and write them, a few at a time."""

from __future__ import annotations

import itertools
import os
import warnings
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

from PIL import Image

from oiyolo.boxes import RIGHT_ANGLES
from oiyolo.core import disks, files
from oiyolo.core.results import pluralize
from oiyolo.imagery import labels
from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.imagery.duplicates import hash_to_text
from oiyolo.imagery.threads import single_threaded_libraries
from oiyolo.imagery.upright import make_upright
from oiyolo.label_errors.reviewed import REASON as REVIEW_REASON
from oiyolo.project.ledger import EXCLUDED, PENDING, PREPARED, Change
from oiyolo.project.value_types import AUTO
from oiyolo.stages.prepare.originals import ORIGINAL_MISSING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from oiyolo.project.project import Project
    from oiyolo.stages.prepare.pending import PendingImages
    from oiyolo.stages.prepare.tasks import SelectedBoxes, Task

_QUEUED_TASKS_PER_THREAD: Final = 4


def prepare_all(project: Project, work: PendingImages) -> Iterator[Change]:
    """Prepare images in threads; yield the change to record for each, in no particular order.

    Threads suffice, because decoding, resizing and encoding release Python's global interpreter
    lock.
    """
    jobs = project.config.images.jobs
    threads = len(os.sched_getaffinity(0)) if jobs == AUTO else int(jobs)
    remaining = iter(work.tasks)
    with (
        ThreadPoolExecutor(threads) as pool,
        single_threaded_libraries(),
        warnings.catch_warnings(),
    ):
        # By default Pillow only warns about images that are too large; they are to be excluded.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        running: set[Future[Change]] = {
            pool.submit(prepare_one, project, work.boxes, task)
            for task in itertools.islice(remaining, threads * _QUEUED_TASKS_PER_THREAD)
        }
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                more = itertools.islice(remaining, len(done))
                running |= {pool.submit(prepare_one, project, work.boxes, task) for task in more}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def prepare_one(project: Project, boxes: SelectedBoxes, task: Task) -> Change:
    """Write an image and its label; return the change to record in the ledger."""
    options = project.config.images
    if task.is_rejected or task.rotation not in RIGHT_ANGLES:
        rotation = f"rotation of {task.rotation} degrees"
        return _excluded(task, REVIEW_REASON if task.is_rejected else rotation)
    try:
        upright = make_upright(
            project.images_folder / f"{task.image_id}.jpg",
            task.rotation,
            options.size,
            options.fit,
            boxes.masked(task.image_id),
        )
    except UnreadableImageError as error:
        return _excluded(task, str(error))
    except (OSError, MemoryError) as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = ORIGINAL_MISSING if is_missing else f"cannot be read: {_describe(error)}"
        return _postponed(task, reason)
    class_ids, xyxy = boxes.place(task.image_id, upright.source_wh)
    review_note = boxes.review_note(task.image_id)
    if not task.negative and not len(class_ids):
        return _excluded(task, REVIEW_REASON if review_note else "no box left")
    jpeg_path = project.objects_folder / f"{task.image_id}.jpg"
    label = labels.render(class_ids, xyxy)
    try:
        # The label first, because darknet treats an image without a label as a negative.
        files.write_text(jpeg_path.with_suffix(".txt"), label, durable=False)
        files.write_bytes(jpeg_path, upright.jpeg, durable=False)
    except OSError as error:
        if error.errno in disks.DISK_FULL_ERRNOS:
            raise
        # Without a fingerprint, because one of the files may have been replaced.
        facts: dict[str, object] = {"prepared_from": None}
        return _postponed(task, f"cannot be written: {_describe(error)}", facts)
    width, height = upright.source_wh
    rotated = f", rotated by {task.rotation} degrees" if task.rotation else ""
    message = f"prepared: {width}x{height} pixels{rotated}, {pluralize(len(class_ids), 'label')}"
    message += f"; {review_note}" if review_note else ""
    facts = {
        "width_px": width,
        "height_px": height,
        "prepared_from": task.fingerprint,
        "prepared_bytes": len(upright.jpeg),
        "phash": hash_to_text(upright.phash),
    }
    return Change(task.image_id, PREPARED, message, facts=facts)


def _postponed(task: Task, reason: str, facts: Mapping[str, object] | None = None) -> Change:
    """Return the change for an image that this machine could not read or write now.

    It stays pending, and the next run tries it again: only its content can exclude an image.
    """
    return Change(task.image_id, PENDING, reason, reason=reason, facts=facts or {})


def _describe(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    return error.strerror or type(error).__name__


def _excluded(task: Task, reason: str) -> Change:
    facts = {"prepared_from": task.fingerprint}
    return Change(task.image_id, EXCLUDED, f"excluded: {reason}", reason=reason, facts=facts)
