"""A panel of the same images over the course of a training, with a row for each checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.core.errors import OiyoloError
from oiyolo.core.progress import no_progress, progress
from oiyolo.evaluation.panels import CHECKPOINTS, choose_overview, evaluate_images, save_rows
from oiyolo.stages.evaluate.checkpoints import find_files
from oiyolo.stages.evaluate.detect import detect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.evaluation.panels import ImageResult, Pictures
    from oiyolo.stages.evaluate.kept_detections import Scored

_log = logging.getLogger("oiyolo")

_MAX_ROWS: Final = 6
_IMAGES: Final = 4
_TITLE: Final = "Boxes by checkpoint"


def draw(
    scored: Scored,
    results: Sequence[ImageResult],
    score_thresholds: Sequence[float],
    pictures: Pictures,
) -> dict[str, Path]:
    """Draw what earlier weights of a run detect in a few images; return the file by name.

    Without earlier weights or images with boxes, nothing is drawn, and an old file is removed.
    Weights that are damaged are left out.

    Args:
        scored: The scored weights and their images.
        results: Results of the images with these weights.
        score_thresholds: Score threshold of each class.
        pictures: Function that returns the picture of an image.
    """
    path = scored.run.panels_folder / CHECKPOINTS
    with_objects = [r for r in results if len(r.true_positives) or len(r.false_negatives)]
    shown = choose_overview(with_objects, _IMAGES)
    rows = _earlier_rows(scored, [result.image_id for result in shown], score_thresholds)
    if not rows:
        path.unlink(missing_ok=True)
        return {}
    last = scored.weights.record["iteration"]
    rows.append((f"iteration {last:,}", shown))
    save_rows(path, _TITLE, rows, pictures)
    return {path.name: path}


def _earlier_rows(
    scored: Scored, image_ids: Sequence[str], score_thresholds: Sequence[float]
) -> list[tuple[str, Sequence[ImageResult]]]:
    """Return the results of some images with earlier weights, each with its iteration in words."""
    if not image_ids:
        return []
    path_by_id = {Path(path).stem: path for path in scored.images.paths}
    paths = [path_by_id[image_id] for image_id in image_ids]
    truth = scored.truth.of_images(image_ids)
    saved = find_files(scored.run)
    last = int(str(scored.weights.record["iteration"]))
    iterations = _spread([i for i in sorted(saved.by_iteration) if 0 < i < last])
    rows: list[tuple[str, Sequence[ImageResult]]] = []
    with progress("checkpoints", total=len(iterations), unit="file") as bar:
        for iteration in iterations:
            bar.advance()
            try:
                with no_progress():
                    found = detect(scored.run, saved.by_iteration[iteration][0], paths)
            except (OiyoloError, OSError) as error:
                _log.warning("evaluate: weights of iteration %s are skipped: %s", iteration, error)
                continue
            row = evaluate_images(found, truth, scored.class_names, score_thresholds)
            rows.append((f"iteration {iteration:,}", row))
    return rows


def _spread(iterations: Sequence[int]) -> list[int]:
    """Return some of the iterations, in equal steps from the first to the last."""
    count = min(_MAX_ROWS, len(iterations))
    positions = np.linspace(0, len(iterations) - 1, count).round().astype(int).tolist()
    return [iterations[position] for position in positions]
