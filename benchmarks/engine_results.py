"""Compare the detectors that darknet and the torch engine train: is one engine's mAP higher?

``python benchmarks/engine_results.py [--folder FOLDER] [--alexeyab PROGRAM]`` trains the demo and,
where they are in ``../shared/real``, the real photographs of alpacas: three runs with darknet on
PATH, as many with torch and the rules of its fork, and with torch as it is by default (the rules of
AlexeyAB's); with ``--alexeyab`` also with that program. All runs of a dataset have the same images,
splits, network and schedule. Darknet's random numbers cannot be chosen; torch gets the seeds 1 to
3. It takes hours on two cores; what is finished is kept in ``--folder``, so that a later call goes
on from there. Durations say little, because several trainings run at a time (``--jobs``).

The final weights of every run are scored as ``oiyolo evaluate`` does, on the same test images. The
interval of the difference between two engines' means covers both sources of chance: the test images
(the paired bootstrap of the mean of the runs' scores, as in ``evaluation.comparison``) and the runs
(Student's t with the standard deviations of the runs, by Welch and Satterthwaite). A difference is
within the noise if this interval contains 0.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import multiprocessing
import shutil
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _measure import layout

import oiyolo
from oiyolo.core.errors import OiyoloError
from oiyolo.demo_data.server import serve_mirror
from oiyolo.evaluation.bootstrap import (
    image_weights,
    interval,
    mean_over_resampled_classes,
    resampled_scores,
    student_deviate,
)
from oiyolo.stages.evaluate.inputs import class_names, ground_truth
from oiyolo.stages.evaluate.kept_detections import choose_weights, find_or_detect, unseen_images
from oiyolo.stages.train import engine as engines
from oiyolo.training.run import find_run, is_rollback
from tests.support.alpacas import serve_alpacas

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from oiyolo.evaluation.tables import Floats

ALPACA: Final = Path(__file__).resolve().parents[2] / "shared" / "real" / "alpaca"
ALEXEYAB: Final = "alexeyab"
NAMES: Final = {
    "darknet": "darknet on PATH",
    "torch-pjreddie": "torch, rules of pjreddie",
    ALEXEYAB: "AlexeyAB's darknet",
    "torch": "torch (rules of AlexeyAB)",
}
"""What trains, by its key; as in the tables."""
PAIRS: Final = (
    ("darknet", "torch-pjreddie"),
    ("darknet", "torch"),
    (ALEXEYAB, "torch"),
    ("darknet", ALEXEYAB),
)
"""Whose means are compared."""


@dataclass(frozen=True)
class Dataset:
    """Images to train on.

    Attributes:
        name: Its name, and that of its folder.
        options: The options of its project.
        schedule: Options of its trainings.
    """

    name: str
    options: dict[str, Any]
    schedule: dict[str, Any]


DATASETS: Final = (
    Dataset(
        "demo",
        {"classes": ["Boat"], "negatives": 0.05, "tolerance": 0.1, "size": (96, 96)},
        {},
    ),
    # A network and schedule that one core trains with darknet in a few minutes, and many test
    # images for the narrower intervals.
    Dataset(
        "alpacas",
        {"size": (96, 96), "train": 0.6, "valid": 0.1, "test": 0.3},
        {"max_batches": 1200},
    ),
)


@dataclass(frozen=True)
class Training:
    """A training run that is to be done.

    Attributes:
        dataset: Its images.
        engine: What trains, a key of ``NAMES``.
        number: Its number, and its seed if the engine has one.
        folder: The folder of its project.
        program: The darknet executable; ``None`` for the torch engine.
    """

    dataset: Dataset
    engine: str
    number: int
    folder: Path
    program: str | None


@dataclass(frozen=True, eq=False)
class Score:
    """What a run scores on the test images.

    Attributes:
        map50: The mAP@0.5.
        map50_95: The mAP@0.5:0.95.
        resampled: The mAP@0.5 in every resample of the images, shape (resamples,).
        interval: The 95 % interval of ``map50``.
        images: Number of test images with boxes.
        boxes: Number of true boxes.
        rollbacks: How often the training returned to earlier weights, because it diverged.
    """

    map50: float
    map50_95: float
    resampled: Floats
    interval: tuple[float, float]
    images: int
    boxes: int
    rollbacks: int


@contextlib.contextmanager
def serve_images(dataset: Dataset, folder: Path) -> Iterator[dict[str, Any]]:
    """Serve the images of a dataset on this machine; yield the options of a project with them."""
    if dataset.name == "alpacas":
        with serve_alpacas(ALPACA, folder) as options:
            yield {**dataset.options, **options}
    else:
        with serve_mirror(folder) as mirror:
            urls = {"base_url": mirror.openimages_url, "mirror_url": mirror.images_url}
            yield {**dataset.options, **urls}


def create_project(dataset: Dataset, folder: Path) -> Path:
    """Create the split project that all runs of a dataset begin with; return its folder."""
    project = folder / "base"
    if not (project / "data" / "dataset" / "split.csv").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        with serve_images(dataset, folder / "mirror") as options:
            cache = str(folder / "cache")
            oiyolo.init(project, network="demo", cache=cache, look=False, **options)
            oiyolo.fetch(project)
        oiyolo.split(project)
    return project


def train(training: Training) -> str:
    """Train a run, as far as that is not done yet; return what happened."""
    logging.disable(logging.INFO)
    if not training.folder.is_dir():
        part = training.folder.with_name(f".{training.folder.name}")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(training.folder.parent / "base", part)
        part.rename(training.folder)
    options: dict[str, Any] = dict(training.dataset.schedule)
    if training.program is None:
        options |= {"engine": "torch", "train_seed": training.number}
    else:
        options |= {"engine": "darknet", "executable": training.program}
    # A project has no key for the fork whose rules torch follows: that of the run it resumes.
    rules = partial(engines.torch_program, fork="pjreddie")
    place: AbstractContextManager[Any] = nullcontext()
    if training.engine == "torch-pjreddie":
        place = mock.patch.object(engines, "torch_program", rules)
    try:
        with place:
            # Scores while training, which cost time, are left to darknet: Debian's has none.
            done = oiyolo.train(training.folder, map="darknet", **options)
    except OiyoloError as error:
        return f"failed: {error}"
    return str(done).splitlines()[0]


def score(folder: Path) -> Score | None:
    """Return the scores of the run in a project; ``None`` if it has not been finished."""
    try:
        project = oiyolo.open_project(folder)
        run = find_run(project.runs_folder, None, lambda run: run.has_final_weights)
    except OiyoloError:
        return None
    if not run.has_final_weights:
        return None
    # Not the best ones on valid, which darknet chooses where it measures mAP.
    final = run.final_weights_path
    evaluated: dict[str, Any] = oiyolo.evaluate(project, weights=final).details()
    names = class_names(run)
    images = unseen_images(project, run, "test")
    detections = find_or_detect(
        project, run, choose_weights(project, run, final), images, "onnxruntime"
    )
    truth = ground_truth(project, images.sizes_wh, names)
    weights = image_weights(truth.image_ids)
    resampled = resampled_scores(detections, truth, len(names), weights)
    values = mean_over_resampled_classes(resampled.map50)
    with_boxes = resampled.images_with_boxes
    return Score(
        map50=evaluated["map50"],
        map50_95=evaluated["map50_95"],
        resampled=values,
        interval=interval(values, evaluated["map50"], images=with_boxes),
        images=with_boxes,
        boxes=evaluated["boxes"],
        rollbacks=sum(is_rollback(event) for event in run.record.get("events", [])),
    )


@dataclass(frozen=True)
class MeanDifference:
    """By how much the mean mAP@0.5 of an engine's runs exceeds that of the baseline's.

    Attributes:
        value: The difference.
        interval: Its 95 % interval.
        images_deviation: Its standard deviation over resamples of the test images.
        runs_deviation: Its standard deviation over the runs.
    """

    value: float
    interval: tuple[float, float]
    images_deviation: float
    runs_deviation: float

    @property
    def verdict(self) -> str:
        """Whether it is within the noise, in words."""
        low, high = self.interval
        return "within the noise" if low <= 0 <= high else "beyond the noise"


def difference(baseline: Sequence[Score], others: Sequence[Score]) -> MeanDifference | None:
    """Return the difference of two engines' means; ``None`` with fewer than two runs of each."""
    sides = (baseline, others)
    if min(map(len, sides)) < 2:  # noqa: PLR2004  (a standard deviation needs two)
        return None
    means = [statistics.fmean(run.map50 for run in side) for side in sides]
    resampled = [np.mean([run.resampled for run in side], axis=0) for side in sides]
    of_images = float(np.nanvar(resampled[1] - resampled[0]))
    parts = [(of_images, baseline[0].images - 1)]
    parts += [(statistics.variance(r.map50 for r in s) / len(s), len(s) - 1) for s in sides]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / free for part, free in parts) if variance else math.inf
    margin = student_deviate(freedom) * math.sqrt(variance)
    value = means[1] - means[0]
    of_runs = math.sqrt(variance - of_images)
    return MeanDifference(value, (value - margin, value + margin), math.sqrt(of_images), of_runs)


def report(dataset: str, scores: dict[str, list[tuple[int, Score | None]]]) -> str:
    """Return the tables of a dataset's runs and of the differences between the engines."""
    runs: list[tuple[str, ...]] = [
        ("trained by", "run", "mAP@0.5", "95 % interval", "mAP@0.5:0.95", "rollbacks")
    ]
    means: list[tuple[str, ...]] = [("", "runs", "mean mAP@0.5", "deviation", "lowest", "highest")]
    differences: list[tuple[str, ...]] = [
        ("difference of the means", "", "95 % interval", "by images", "by runs", "")
    ]
    finished = {name: [score for _, score in row if score] for name, row in scores.items()}
    for name, row in scores.items():
        for number, done in row:
            runs.append((NAMES[name], str(number), *cells(done)))
        if values := [run.map50 for run in finished[name]]:
            deviation = f"{statistics.stdev(values):.3f}" if len(values) > 1 else "-"
            figures = (f"{x:.3f}" for x in (min(values), max(values)))
            mean = f"{statistics.fmean(values):.3f}"
            means.append((NAMES[name], str(len(values)), mean, deviation, *figures))
    for first, second in PAIRS:
        found = difference(finished.get(first, []), finished.get(second, []))
        if found is not None:
            low, high = found.interval
            differences.append(
                (
                    f"{NAMES[second]} - {NAMES[first]}",
                    f"{found.value:+.3f}",
                    f"{low:+.3f} to {high:+.3f}",
                    f"{found.images_deviation:.3f}",
                    f"{found.runs_deviation:.3f}",
                    found.verdict,
                )
            )
    any_score = next((row[0] for row in finished.values() if row), None)
    counts = f"{any_score.images} test images with {any_score.boxes} boxes" if any_score else ""
    return "\n\n".join([f"{dataset}: {counts}", layout(runs), layout(means), layout(differences)])


def cells(done: Score | None) -> tuple[str, ...]:
    """Return the cells of a run."""
    if done is None:
        return ("not finished", "", "", "")
    low, high = done.interval
    rest = (f"{done.map50_95:.3f}", str(done.rollbacks))
    return (f"{done.map50:.3f}", f"{low:.3f} to {high:.3f}", *rest)


def trainings(folder: Path, options: argparse.Namespace) -> list[Training]:
    """Return all runs, after creating the projects that they begin with."""
    found = []
    programs = {"darknet": options.darknet, ALEXEYAB: options.alexeyab}
    for dataset in DATASETS:
        if dataset.name not in options.datasets:
            continue
        if dataset.name == "alpacas" and not ALPACA.is_dir():
            print(f"skipped alpacas: there are no photographs in {ALPACA}", file=sys.stderr)
            continue
        create_project(dataset, folder / dataset.name)
        for number in range(1, options.runs + 1):
            for engine in NAMES:
                if engine in programs and programs[engine] is None:
                    continue
                place = folder / dataset.name / f"{engine}-{number}"
                found.append(Training(dataset, engine, number, place, programs.get(engine)))
    # Darknet takes the longest.
    return sorted(found, key=lambda training: training.program is None)


def main() -> None:
    """Train what is not trained yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [dataset.name for dataset in DATASETS]
    parser.add_argument("--folder", type=Path, help="folder that is kept for the next call")
    parser.add_argument("--runs", type=int, default=3, help="runs of each engine")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--datasets", nargs="+", choices=names, default=names)
    parser.add_argument("--darknet", default=shutil.which("darknet"), help="pjreddie's darknet")
    parser.add_argument("--alexeyab", help="AlexeyAB's darknet; left out by default")
    parser.add_argument("--report", action="store_true", help="only print what is finished")
    options = parser.parse_args()
    if options.darknet is None:
        sys.exit("no darknet on PATH")
    logging.disable(logging.INFO)
    place: AbstractContextManager[Any] = tempfile.TemporaryDirectory()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        place = nullcontext(options.folder.absolute())
    with place as name:
        todo = trainings(Path(name), options)
        if not options.report:
            train_all(todo, options.jobs)
        for dataset in dict.fromkeys(training.dataset.name for training in todo):
            scores: dict[str, list[tuple[int, Score | None]]] = {}
            for engine in NAMES:
                mine = [one for one in todo if (one.dataset.name, one.engine) == (dataset, engine)]
                if mine:
                    scores[engine] = [(one.number, score(one.folder)) for one in mine]
            print(report(dataset, scores), end="\n\n")


def train_all(todo: Sequence[Training], jobs: int) -> None:
    """Train what is not trained yet, some at a time, and print what happened."""
    # Every run has a process of its own, because signals are handled in its main thread.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        waiting = {pool.submit(train, training): training for training in todo}
        for future in as_completed(waiting):
            training = waiting[future]
            words = f"{training.dataset.name}, {NAMES[training.engine]}, run {training.number}"
            print(f"{words}: {future.result()}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
