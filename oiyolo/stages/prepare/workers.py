"""How prepare makes images: decoded, resized and written in threads, few at a time."""

from __future__ import annotations

import itertools
import os
import warnings
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

from PIL import Image

from oiyolo.boxes import RIGHT_ANGLES
from oiyolo.core import files
from oiyolo.core.results import count
from oiyolo.imagery import labels
from oiyolo.imagery.duplicates import as_text
from oiyolo.imagery.placement import place_boxes
from oiyolo.imagery.resize import one_thread_each
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

ORIGINAL_GONE: Final = "original gone, to be fetched again"
_IN_WORK_PER_THREAD: Final = 4


def prepare_all(project: Project, todo: Iterable[Task]) -> Iterator[Change]:
    """Prepare images in threads, and give what is to be recorded of each, in no order.

    Threads are enough, because decoding, resizing and encoding free the interpreter.
    """
    jobs = project.config.images.jobs
    threads = _usable_cores() if jobs == AUTO else int(jobs)
    waiting = iter(todo)
    with ThreadPoolExecutor(threads) as pool, one_thread_each(), warnings.catch_warnings():
        # Pillow only warns of pictures that are too large; they are excluded.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        in_work: set[Future[Change]] = {
            pool.submit(prepare_one, project, task)
            for task in itertools.islice(waiting, threads * _IN_WORK_PER_THREAD)
        }
        try:
            while in_work:
                done, in_work = wait(in_work, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                more = itertools.islice(waiting, len(done))
                in_work |= {pool.submit(prepare_one, project, task) for task in more}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare_one(project: Project, task: Task) -> Change:
    """Write an image and its label, and give what is to be recorded of it."""
    options = project.config.images
    if task.rotation not in RIGHT_ANGLES:
        return _excluded(task, f"rotation of {task.rotation} degrees")
    try:
        upright = make_upright(
            project.images_folder / f"{task.image_id}.jpg",
            task.rotation,
            options.size,
            options.fit,
            task.xyxy[task.masked],
        )
    except UnreadableImageError as error:
        return _excluded(task, str(error))
    except FileNotFoundError:
        return Change(task.image_id, PENDING, ORIGINAL_GONE, reason=ORIGINAL_GONE)
    placed = place_boxes(
        task.xyxy,
        task.class_ids,
        task.because,
        rotation=task.rotation,
        source_wh=upright.source_wh,
        size_wh=options.size,
        fit=options.fit,
    )
    if not task.negative and not placed.used.any():
        return _excluded(task, "no box left")
    label = labels.render_checked(task.class_ids[placed.used], placed.xyxy[placed.used])
    _write(project.objects_folder / f"{task.image_id}.jpg", upright.jpeg, label)
    return _prepared(task, upright, placed)


def _write(jpeg_path: Path, jpeg: bytes, label: str) -> None:
    """Write the label first: darknet takes a picture without one for a negative."""
    files.write_text(jpeg_path.with_suffix(".txt"), label, durable=False)
    files.write_bytes(jpeg_path, jpeg, durable=False)


def _prepared(task: Task, upright: UprightImage, placed: PlacedBoxes) -> Change:
    width, height = upright.source_wh
    turned = f" after {task.rotation} degrees" if task.rotation else ""
    told = f"prepared: {width}x{height} upright{turned}, {count(int(placed.used.sum()), 'label')}"
    facts = {
        "width_px": width,
        "height_px": height,
        "prepared_from": task.made_from,
        "phash": as_text(upright.phash),
    }
    return Change(task.image_id, PREPARED, told, facts=facts)


def _excluded(task: Task, reason: str) -> Change:
    facts = {"prepared_from": task.made_from}
    return Change(task.image_id, EXCLUDED, f"excluded: {reason}", reason=reason, facts=facts)
