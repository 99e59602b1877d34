"""Measure how many label errors in train are found by cross-fitting, and what a repair is worth.

``python benchmarks/label_repair.py PROJECT [--share 0.05] [--seeds 3] [--objectlab] [--work DIR]``

PROJECT has a split dataset and the options to train with. For each seed, its dataset is exported,
and in a share of the labels of train a box is dropped, shifted by half of its size or, if there are
several classes, given another one; valid and test stay correct. The result is imported into a new
project. There a detector is trained, ``oiyolo review --cross-fit`` lists suspected errors, and a
reviewer who knows the truth decides about the first 3N rows of train (N errors): errors are
corrected, everything else is kept. Then a second detector is trained.

Printed are the share of the N errors among the first 3N rows, next to that in a random order of all
boxes of train, and mAP@0.5 on test before and after the repair, with the 95 % interval of the
difference from `oiyolo evaluate RUN RUN`. With ``--objectlab``, cleanlab's ObjectLab (``pip install
cleanlab``) ranks the same detections: its scores of overlooked, badly placed and swapped boxes in
one list, and its score of images.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd

import oiyolo
from oiyolo.boxes import iou
from oiyolo.label_errors import decisions
from oiyolo.operations.review import halves
from oiyolo.project import config
from oiyolo.training.run import runs_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.label_errors.decisions import ReviewRow
    from oiyolo.stages.evaluate import Scored

SAME_IOU = 0.5
BUDGET = 3
KEPT_SECTIONS = ("images", "train", "darknet", "split")


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path, metavar="PROJECT")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--objectlab", action="store_true")
    parser.add_argument("--work", type=Path, help="keep the projects in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        source = work / "correct"
        if not source.exists():
            oiyolo.export_yolo_yaml(arguments.project, out=source)
        print(
            "| seed | N | listed early | random | ObjectLab | images: listed | ObjectLab | "
            "mAP before | after | difference |\n|---|---|---|---|---|---|---|---|---|---|"
        )
        results = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            trial = Trial(arguments.project, source, work / f"{arguments.share:g}-{seed}")
            result = trial.run(arguments.share, seed, with_objectlab=arguments.objectlab)
            results.append(result)
            print(result.row(seed), flush=True)
        for name in ("listed", "objectlab"):
            shares = [getattr(result, name) for result in results]
            print(f"{name}: mean {statistics.mean(shares):.0%}")


class Error(NamedTuple):
    """An error that was put into a label of train.

    Attributes:
        file_name: Name of the image.
        kind: "drop", "shift" or "swap".
        correct: Class and corners (fractions) of the correct box.
        wrong: The same of the wrong box; ``None`` if it was dropped.
    """

    file_name: str
    kind: str
    correct: tuple[int, np.ndarray]
    wrong: tuple[int, np.ndarray] | None


@dataclass(frozen=True)
class Result:
    """What came out for one seed; shares are NaN if they were not measured.

    Attributes:
        errors: Number N of errors.
        listed: Share of them among the first 3N rows.
        random: The same in a random order.
        objectlab: The same in ObjectLab's order of boxes.
        images_listed: Share of the images with an error among three times as many first ones.
        images_objectlab: The same in ObjectLab's order of images.
        comparison: The detectors before and after the repair, as `oiyolo evaluate` compares them.
    """

    errors: int
    listed: float
    random: float
    objectlab: float
    images_listed: float
    images_objectlab: float
    comparison: dict[str, Any]

    def row(self, seed: int) -> str:
        """Return a row of the table."""
        score = self.comparison["map50"]
        low, high = score["interval"]
        boxes = (self.listed, self.random, self.objectlab)
        shares = (*boxes, self.images_listed, self.images_objectlab)
        cells = [str(seed), str(self.errors), *(f"{share:.0%}" for share in shares)]
        cells += [f"{score[name]:.3f}" for name in ("first", "second")]
        cells.append(f"{score['difference']:+.3f} ({low:+.3f} to {high:+.3f})")
        return f"| {' | '.join(cells)} |"


class Trial:
    """One project with errors in its labels."""

    def __init__(self, model: Path, source: Path, folder: Path) -> None:
        """Prepare a trial.

        Args:
            model: The project whose options are used.
            source: Its dataset, exported as YOLO.
            folder: Where the trial works.
        """
        self._model, self._source, self._folder = model, source, folder
        self._project = folder / "project"

    def run(self, share: float, seed: int, *, with_objectlab: bool) -> Result:
        """Inject errors, train, review, repair and train again."""
        errors = self._inject(share, seed)
        self._make_project()
        first = cast("Any", oiyolo.train(self._project)).run
        oiyolo.evaluate(self._project, run=first.name)
        oiyolo.review(self._project, cross_fit=True, limit=100_000)
        opened = oiyolo.open_project(self._project)
        listed = decisions.read(opened.review_path)
        in_train = {i for half in (1, 2) for run in runs_in(opened.runs_folder, half=half)
                    for i in run.image_ids("train")}  # fmt: skip
        rows = [row for row in listed if row.image_id in in_train]
        names = self._names()
        early = rows[: BUDGET * len(errors)]
        hits = [find_error(row, errors, names) for row in early]
        found = {hit for hit in hits if hit is not None}
        scored = halves.scored_train(opened, halves.train_halves(opened, judge=first))
        boxes = sum(len(part.truth) for part in scored)
        bad_images = {error.file_name for error in errors}
        count = BUDGET * len(bad_images)
        ordered = list(dict.fromkeys(names[row.image_id] for row in rows))[:count]
        by_box = by_image = float("nan")
        if with_objectlab:
            by_box, by_image = objectlab(scored, errors, names)
        class_names = scored[0].class_names
        decided = [
            decide(row, hit, errors, class_names) for row, hit in zip(early, hits, strict=True)
        ]
        decisions.write(opened.review_path, decided)
        oiyolo.split(self._project)
        second = cast("Any", oiyolo.train(self._project)).run
        oiyolo.evaluate(self._project, run=second.name)
        compared = cast("Any", oiyolo.evaluate(self._project, [first.name, second.name]))
        return Result(
            len(errors),
            len(found) / len(errors),
            min(1.0, BUDGET * len(errors) / boxes),
            by_box,
            len(bad_images.intersection(ordered)) / len(bad_images),
            by_image,
            compared.content,
        )

    def _inject(self, share: float, seed: int) -> list[Error]:
        """Write a copy of the dataset with errors in the labels of train; return them."""
        generator = np.random.default_rng(seed)
        folder = self._folder / "images-with-errors"
        shutil.copytree(self._source, folder)
        class_count = len(oiyolo.open_project(self._model).config.dataset.classes)
        lines = [
            (path, line)
            for path in sorted((folder / "labels" / "train").glob("*.txt"))
            for line in path.read_text().splitlines()
        ]
        chosen = set(generator.choice(len(lines), round(share * len(lines)), replace=False))
        kinds = ("drop", "shift", "swap") if class_count > 1 else ("drop", "shift")
        errors: list[Error] = []
        texts = dict.fromkeys({path for path, _ in lines}, "")
        for number, (path, line) in enumerate(lines):
            if number not in chosen:
                texts[path] += f"{line}\n"
                continue
            error = wrong(path.stem, parse(line), kinds[len(errors) % len(kinds)], class_count)
            errors.append(error)
            texts[path] += "" if error.wrong is None else render(*error.wrong)
        for path, text in texts.items():
            path.write_text(text)
        return errors

    def _make_project(self) -> None:
        options = config.read_file(self._model / config.FILE_NAME)
        kept = {
            name: value
            for section in KEPT_SECTIONS
            for name, value in options.get(section, {}).items()
        }
        names = oiyolo.open_project(self._model).config.dataset.classes
        init = cast("Any", oiyolo.init)  # the types of the options are those of the file
        init(self._project, classes=list(names), subsets=[], negatives=1.0, **kept)
        data = self._folder / "images-with-errors" / "data.yaml"
        oiyolo.import_images("yolo", data, self._project, keep_splits=True, name="trial")
        oiyolo.split(self._project)

    def _names(self) -> dict[str, str]:
        """Return the name of each image's file, without its ending, by image id."""
        table = pd.read_csv(self._project / "data" / "imports" / "trial" / "images.csv", dtype=str)
        return {i: Path(n).stem for i, n in zip(table["ImageID"], table["Name"], strict=True)}


def parse(line: str) -> tuple[int, np.ndarray]:
    """Return class and corners of a label."""
    class_id, *numbers = line.split()
    x, y, width, height = map(float, numbers)
    return int(class_id), np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def render(class_id: int, xyxy: np.ndarray) -> str:
    """Return the line of a label."""
    x1, y1, x2, y2 = xyxy
    return f"{class_id} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n"


def wrong(name: str, correct: tuple[int, np.ndarray], kind: str, class_count: int) -> Error:
    """Return an error of a kind in a label."""
    class_id, xyxy = correct
    if kind == "drop":
        return Error(name, kind, correct, None)
    if kind == "swap":
        return Error(name, kind, correct, ((class_id + 1) % class_count, xyxy))
    half = np.tile((xyxy[2:] - xyxy[:2]) / 2, 2)
    direction = 1 if xyxy[:2].sum() < 1 else -1
    return Error(name, kind, correct, (class_id, np.clip(xyxy + direction * half, 0, 1)))


def find_error(row: ReviewRow, errors: Sequence[Error], names: dict[str, str]) -> int | None:
    """Return the number of the error that a row is about; ``None`` if it is about none."""
    for number, error in enumerate(errors):
        if error.file_name != names[row.image_id]:
            continue
        shown = error.correct[1] if error.wrong is None else error.wrong[1]
        is_missing = row.kind == "missing"
        if is_missing == (error.wrong is None) and overlap(row.xyxy, shown) >= SAME_IOU:
            return number
    return None


def overlap(first: Sequence[float], second: np.ndarray) -> float:
    """Return the IoU of two boxes."""
    return float(iou(np.array([first], dtype=float), second[None])[0])


def decide(
    row: ReviewRow, hit: int | None, errors: Sequence[Error], class_names: Sequence[str]
) -> ReviewRow:
    """Return the row with the decision of a person who knows the truth, and the correct box."""
    if hit is None:
        return replace(row, decision=decisions.KEEP)
    class_id, xyxy = errors[hit].correct
    name, (x1, y1, x2, y2) = class_names[class_id], np.clip(xyxy, 0, 1).tolist()
    if row.kind == "missing":
        return replace(row, class_name=name, xyxy=(x1, y1, x2, y2), decision=decisions.ADD)
    return replace(row, new_class=name, new_xyxy=(x1, y1, x2, y2), decision=decisions.REPLACE)


def objectlab(
    scored: Sequence[Scored], errors: Sequence[Error], names: dict[str, str]
) -> tuple[float, float]:
    """Return which shares of the errors, and of the images with one, ObjectLab ranks early."""
    rank = importlib.import_module("cleanlab.object_detection.rank")

    boxes: list[tuple[float, str, str, np.ndarray]] = []
    images: list[tuple[float, str]] = []
    for part in scored:
        labels, predictions = as_cleanlab(part)
        ids = part.truth.image_ids
        functions = {
            "drop": rank.compute_overlooked_box_scores,
            "shift": rank.compute_badloc_box_scores,
            "swap": rank.compute_swap_box_scores,
        }
        for kind, function in functions.items():
            scores = function(labels=labels, predictions=predictions)
            for at, of_image in enumerate(scores):
                all_boxes = (
                    np.vstack([p[:, :4] for p in predictions[at]])
                    if kind == "drop"
                    else labels[at]["bboxes"]
                )
                boxes += [
                    (float(score), kind, names[ids[at]], box)
                    for score, box in zip(of_image, all_boxes, strict=True)
                    if np.isfinite(score)
                ]
        quality = rank.get_label_quality_scores(labels, predictions, verbose=False)
        images += [(float(q), names[i]) for q, i in zip(quality, ids, strict=True)]
    early = sorted(boxes, key=lambda box: box[0])[: BUDGET * len(errors)]
    found = {number for box in early for number in about(box, errors)}
    bad_images = {error.file_name for error in errors}
    first = [name for _, name in sorted(images)[: BUDGET * len(bad_images)]]
    return len(found) / len(errors), len(bad_images.intersection(first)) / len(bad_images)


def about(box: tuple[float, str, str, np.ndarray], errors: Sequence[Error]) -> Iterator[int]:
    """Yield the numbers of the errors that a ranked box is about."""
    _, kind, name, xyxy = box
    for number, error in enumerate(errors):
        shown = error.correct[1] if error.wrong is None else error.wrong[1]
        is_same = error.file_name == name and (kind == "drop") == (error.wrong is None)
        if is_same and overlap(xyxy.tolist(), shown) >= SAME_IOU:
            yield number


def as_cleanlab(part: Scored) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return labels and detections as cleanlab takes them."""
    truth, found, count = part.truth, part.detections, len(part.class_names)
    labels, predictions = [], []
    for image in range(len(truth.image_ids)):
        own = truth.image == image
        labels.append({"bboxes": truth.xyxy[own], "labels": truth.class_id[own]})
        rows = found.image == image
        table = np.hstack([found.xyxy[rows], found.score[rows, None]])
        by_class = [table[found.class_id[rows] == class_id] for class_id in range(count)]
        array = np.empty(count, dtype=object)
        array[:] = by_class
        predictions.append(array)
    return labels, predictions


if __name__ == "__main__":
    main()
