"""Prepare images in a pool of threads: decode, resize and write them, a few at a time."""

from __future__ import annotations

import itertools
import os
import warnings
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

from PIL import Image

from oiyolo.boxes import RIGHT_ANGLES
from oiyolo.core import files
from oiyolo.core.results import pluralize
from oiyolo.imagery import labels
from oiyolo.imagery.duplicates import hash_to_text
from oiyolo.imagery.placement import place_boxes
from oiyolo.imagery.resize import single_threaded_opencv
from oiyolo.imagery.upright import UnreadableImageError, make_upright
from oiyolo.project.ledger import EXCLUDED, PENDING, PREPARED, Change
from oiyolo.project.value_types import AUTO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from oiyolo.imagery.placement import PlacedBoxes
    from oiyolo.imagery.upright import UprightImage
    from oiyolo.project.project import Project
    from oiyolo.stages.prepare.tasks import Task

ORIGINAL_MISSING: Final = "original missing, to be fetched again"
_QUEUED_TASKS_PER_THREAD: Final = 4


def prepare_all(project: Project, tasks: Iterable[Task]) -> Iterator[Change]:
    """Prepare images in threads; yield the change to record for each, in no particular order.

    Threads suffice, because decoding, resizing and encoding release Python's global interpreter
    lock.
    """
    jobs = project.config.images.jobs
    threads = _usable_cores() if jobs == AUTO else int(jobs)
    remaining = iter(tasks)
    with ThreadPoolExecutor(threads) as pool, single_threaded_opencv(), warnings.catch_warnings():
        # By default Pillow only warns about images that are too large; they are to be excluded.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        running: set[Future[Change]] = {
            pool.submit(prepare_one, project, task)
            for task in itertools.islice(remaining, threads * _QUEUED_TASKS_PER_THREAD)
        }
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                more = itertools.islice(remaining, len(done))
                running |= {pool.submit(prepare_one, project, task) for task in more}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare_one(project: Project, task: Task) -> Change:
    """Write an image and its label; return the change to record in the ledger."""
    options = project.config.images
    if task.rotation not in RIGHT_ANGLES:
        return _excluded_change(task, f"rotation of {task.rotation} degrees")
    try:
        upright = make_upright(
            project.images_folder / f"{task.image_id}.jpg",
            task.rotation,
            options.size,
            options.fit,
            task.xyxy[task.is_masked],
        )
    except UnreadableImageError as error:
        return _excluded_change(task, str(error))
    except FileNotFoundError:
        return Change(task.image_id, PENDING, ORIGINAL_MISSING, reason=ORIGINAL_MISSING)
    placed = place_boxes(
        task.xyxy,
        task.class_ids,
        task.drop_reasons,
        rotation=task.rotation,
        source_wh=upright.source_wh,
        size_wh=options.size,
        fit=options.fit,
    )
    if not task.negative and not placed.used.any():
        return _excluded_change(task, "no box left")
    label = labels.render_checked(task.class_ids[placed.used], placed.xyxy[placed.used])
    _write(project.objects_folder / f"{task.image_id}.jpg", upright.jpeg, label)
    return _prepared_change(task, upright, placed)


def _write(jpeg_path: Path, jpeg: bytes, label: str) -> None:
    """Write the label first, because darknet treats an image without a label as a negative."""
    files.write_text(jpeg_path.with_suffix(".txt"), label, durable=False)
    files.write_bytes(jpeg_path, jpeg, durable=False)


def _prepared_change(task: Task, upright: UprightImage, placed: PlacedBoxes) -> Change:
    width, height = upright.source_wh
    rotated = f", rotated by {task.rotation} degrees" if task.rotation else ""
    message = (
        f"prepared: {width}x{height} pixels{rotated}, {pluralize(int(placed.used.sum()), 'label')}"
    )
    facts = {
        "width_px": width,
        "height_px": height,
        "prepared_from": task.fingerprint,
        "phash": hash_to_text(upright.phash),
    }
    return Change(task.image_id, PREPARED, message, facts=facts)


def _excluded_change(task: Task, reason: str) -> Change:
    facts = {"prepared_from": task.fingerprint}
    return Change(task.image_id, EXCLUDED, f"excluded: {reason}", reason=reason, facts=facts)
