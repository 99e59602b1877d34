"""Measure how many injected label errors `oiyolo review` lists, and how early.

``python benchmarks/label_errors.py PROJECT [--run NAME] [--share 0.05] [--seeds 5]``

In the labels of valid and test of a project with a trained detector, a share of the boxes is
dropped, shifted by half of its size, or given another class; the project itself is not changed.
Printed is which share of the N errors is among the first 3N rows, with a 95 % interval over the
seeds (normal approximation), next to the share in a random order of all boxes and detections.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.boxes import iou
from oiyolo.evaluation.matching import match
from oiyolo.label_errors.candidates import find_candidates
from oiyolo.project.project import open_project
from oiyolo.stages import evaluate as evaluate_stage
from oiyolo.training.run import find_run
from oiyolo.training.run_detector import weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.evaluation.tables import Detections, GroundTruth
    from oiyolo.label_errors.candidates import Candidate

KINDS = ("drop", "shift", "swap")
SAME_IOU = 0.5


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--run")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    project = open_project(arguments.project)
    run = find_run(project.runs_folder, arguments.run, lambda run: weights_of(run) is not None)
    parts = evaluate_stage.scored_splits(project, run)
    names = parts[0].class_names
    print("| errors | N | among the first 3N rows | random order | lift |\n|---|---|---|---|---|")
    for kind in KINDS:
        if kind == "swap" and len(names) == 1:
            continue
        shares, randoms, count = [], [], 0
        for seed in range(arguments.seeds):
            count, share, random_share = measure(
                [(part.detections, part.truth) for part in parts], names, kind,
                share=arguments.share, seed=seed,
            )  # fmt: skip
            shares.append(share)
            randoms.append(random_share)
        mean, chance = statistics.mean(shares), statistics.mean(randoms)
        error = 1.96 * statistics.stdev(shares) / len(shares) ** 0.5
        print(
            f"| {kind} | {count} | {mean:.0%} ± {error:.0%} | {chance:.0%} | {mean / chance:.1f} |"
        )


def measure(
    parts: Sequence[tuple[Detections, GroundTruth]],
    names: Sequence[str],
    kind: str,
    *,
    share: float,
    seed: int,
) -> tuple[int, float, float]:
    """Return the number of injected errors, the share listed early, and that of a random order."""
    generator = np.random.default_rng(seed)
    listed: list[tuple[float, bool]] = []
    errors = rows = 0
    for detections, truth in parts:
        candidates_of = np.flatnonzero(~truth.group_of)
        bad = generator.choice(candidates_of, round(share * len(candidates_of)), replace=False)
        changed, row_of = inject(truth, bad, kind, len(names))
        errors += len(bad)
        # What a person without a detector would have to look at: every box, or every detection.
        rows += (
            len(changed) if kind != "drop" else int(match(detections, changed).false_positive.sum())
        )
        left = set(bad.tolist())
        for candidate in find_candidates(detections, changed, names):
            found = next((box for box in left if is_about(candidate, truth, box, row_of)), None)
            left -= {found}
            listed.append((candidate.score, found is not None))
    listed.sort(key=lambda pair: -pair[0])
    hits = sum(is_hit for _, is_hit in listed[: 3 * errors])
    return errors, hits / errors, min(1.0, 3 * errors / max(rows, 1))


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
            group_of=truth.group_of[keep],
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
