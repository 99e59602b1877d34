"""Measure how many injected label errors `oiyolo review` lists, and how early.

``python benchmarks/label_errors.py PROJECT... [--run NAME] [--share 0.05] [--seeds 5]``

In the labels of valid and test of a project with a trained detector, a share of the boxes is
dropped, shifted by half of its size, or given another class; the project itself is not changed.
Printed is which share of the N errors is among the first 3N rows, with a 95 % interval over the
seeds (normal approximation), next to the share in a random order of all boxes and detections,
and, for dropped boxes, the share in the order of the confidence of unmatched detections. The
interval covers which boxes are chosen; give several projects to see how much the detector matters.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from oiyolo.boxes import iou
from oiyolo.evaluation.matching import match
from oiyolo.label_errors.candidates import Candidate, find_candidates
from oiyolo.project.project import open_project
from oiyolo.stages import evaluate as evaluate_stage
from oiyolo.training.run import find_run
from oiyolo.training.run_detector import weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.evaluation.tables import Detections, GroundTruth

KINDS = ("drop", "shift", "swap")
SAME_IOU = 0.5


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("projects", type=Path, nargs="+", metavar="PROJECT")
    parser.add_argument("--run")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print(
        "| project | errors | N | among the first 3N rows | by confidence alone | random order |\n"
        "|---|---|---|---|---|---|"
    )
    for folder in arguments.projects:
        project = open_project(folder)
        run = find_run(project.runs_folder, arguments.run, lambda run: weights_of(run) is not None)
        parts = evaluate_stage.scored_splits(project, run)
        scored = [(part.detections, part.truth) for part in parts]
        names = parts[0].class_names
        for kind in KINDS:
            if kind == "swap" and len(names) == 1:
                continue
            results = [
                measure(scored, names, kind, share=arguments.share, seed=seed)
                for seed in range(arguments.seeds)
            ]
            confidence = interval([r.by_confidence for r in results]) if kind == "drop" else "-"
            print(
                f"| {folder.name}, {run.name} | {kind} | {results[0].errors} | "
                f"{interval([r.listed for r in results])} | {confidence} | "
                f"{statistics.mean(r.random for r in results):.0%} |"
            )


def interval(shares: Sequence[float]) -> str:
    """Return the mean of some shares with its 95 % interval, as text."""
    error = 1.96 * statistics.stdev(shares) / len(shares) ** 0.5
    return f"{statistics.mean(shares):.0%} ± {error:.0%}"


class Result(NamedTuple):
    """How many injected errors are found early.

    Attributes:
        errors: Number N of injected errors.
        listed: Share of them among the first 3N rows of the list.
        by_confidence: The same in the order of the confidence of unmatched detections.
        random: The same in a random order.
    """

    errors: int
    listed: float
    by_confidence: float
    random: float


def measure(
    parts: Sequence[tuple[Detections, GroundTruth]],
    names: Sequence[str],
    kind: str,
    *,
    share: float,
    seed: int,
) -> Result:
    """Inject errors into the labels of some splits and count which are found early."""
    generator = np.random.default_rng(seed)
    listed: list[tuple[float, bool]] = []
    by_confidence: list[tuple[float, bool]] = []
    errors = rows = 0
    for detections, truth in parts:
        candidates_of = np.flatnonzero(~truth.is_region)
        bad = generator.choice(candidates_of, round(share * len(candidates_of)), replace=False)
        changed, row_of = inject(truth, bad, kind, len(names))
        errors += len(bad)
        unmatched = np.flatnonzero(match(detections, changed).false_positive)
        # What a person without a detector would have to look at: every box, or every detection.
        rows += len(changed) if kind != "drop" else len(unmatched)
        found = find_candidates(detections, changed, names)
        listed += hits(found, truth, bad, row_of)
        by_confidence += hits(
            [as_missing(detections, int(row)) for row in unmatched], truth, bad, row_of
        )
    early = 3 * errors
    return Result(
        errors,
        first_hits(listed, early) / errors,
        first_hits(by_confidence, early) / errors,
        min(1.0, early / max(rows, 1)),
    )


def as_missing(detections: Detections, row: int) -> Candidate:
    """Return a detection as a suspected missing box, whose score is its confidence."""
    x1, y1, x2, y2 = detections.xyxy[row].tolist()
    class_id = int(detections.class_id[row])
    return Candidate(
        detections.image_ids[int(detections.image[row])], "missing", class_id, None,
        float(detections.score[row]), "", class_id, (x1, y1, x2, y2),
    )  # fmt: skip


def hits(
    candidates: Sequence[Candidate], truth: GroundTruth, bad: np.ndarray, row_of: dict[int, int]
) -> list[tuple[float, bool]]:
    """Return each candidate's score, and whether it is the first about an injected error."""
    left, result = set(bad.tolist()), []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.score):
        found = next((box for box in left if is_about(candidate, truth, box, row_of)), None)
        left -= {found}
        result.append((candidate.score, found is not None))
    return result


def first_hits(scored: list[tuple[float, bool]], count: int) -> int:
    """Return how many of the rows with the highest scores are about an injected error."""
    ordered = sorted(scored, key=lambda pair: -pair[0])
    return sum(is_hit for _, is_hit in ordered[:count])


def inject(
    truth: GroundTruth, bad: np.ndarray, kind: str, class_count: int
) -> tuple[GroundTruth, dict[int, int]]:
    """Return labels with errors in some boxes, and the new row of each box that is left."""
    if kind == "drop":
        keep = np.ones(len(truth), dtype=bool)
        keep[bad] = False
        rows = {int(old): new for new, old in enumerate(np.flatnonzero(keep))}
        changed = dataclasses.replace(
            truth, image=truth.image[keep], class_id=truth.class_id[keep], xyxy=truth.xyxy[keep],
            is_region=truth.is_region[keep],
            attributes={name: flags[keep] for name, flags in truth.attributes.items()},
        )  # fmt: skip
        return changed, rows
    xyxy, class_id = truth.xyxy.copy(), truth.class_id.copy()
    if kind == "shift":
        half = np.tile((xyxy[bad, 2:] - xyxy[bad, :2]) / 2, 2)
        direction = np.where(xyxy[bad, :2].sum(axis=1) < 1, 1, -1)[:, None]
        xyxy[bad] = np.clip(xyxy[bad] + direction * half, 0, 1)
    else:
        class_id[bad] = (class_id[bad] + 1) % class_count
    rows = {row: row for row in range(len(truth))}
    return dataclasses.replace(truth, xyxy=xyxy, class_id=class_id), rows


def is_about(candidate: Candidate, truth: GroundTruth, box: int, row_of: dict[int, int]) -> bool:
    """Return whether a candidate is about a box in which an error was injected."""
    if candidate.image_id != truth.image_ids[int(truth.image[box])]:
        return False
    if box in row_of:
        return candidate.box == row_of[box]
    if candidate.box is not None or candidate.new_xyxy is None:
        return False
    overlap = iou(np.array([candidate.new_xyxy]), truth.xyxy[[box]])[0]
    return bool(overlap >= SAME_IOU) and candidate.class_id == int(truth.class_id[box])


if __name__ == "__main__":
    main()
