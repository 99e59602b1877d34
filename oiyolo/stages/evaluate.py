"""evaluate: what the detector finds on images that training never saw.

Leaves ``runs/<run>/evaluation.json`` and ``runs/<run>/panels/``. Detections come from ``darknet
detector valid`` on the test split.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo import __version__
from oiyolo.core import files, locks, process, staleness
from oiyolo.core.errors import DarknetError, UsageError
from oiyolo.core.results import Plan, Result, shown
from oiyolo.darknet import lists
from oiyolo.darknet.detections import read_detections
from oiyolo.darknet.forks import FINAL_WEIGHTS
from oiyolo.darknet.program import data_file, valid_command
from oiyolo.evaluation.panels import judge_images, save_panels
from oiyolo.evaluation.summary import Evaluation, evaluate_detections
from oiyolo.evaluation.tables import GroundTruth, verification
from oiyolo.openimages.selection import CORNERS, FLAG_COLUMNS, SEPARATOR
from oiyolo.project.ledger import SPLITS
from oiyolo.project.project import open_project
from oiyolo.stages import build as build_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage
from oiyolo.training.run import BASE, find_run, ids_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.darknet.program import Darknet
    from oiyolo.evaluation.tables import Detections, Verified
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

STAGE: Final = "evaluate"
_PREFIX: Final = "found_"
_RESULTS: Final = "results"
_STAMP: Final = ".evaluated-from.json"
_WORK_PREFIX: Final = ".evaluate-"
_TIMEOUT_S: Final = 24 * 3600.0


@dataclass(frozen=True)
class Evaluated(Result):
    """A scored detector.

    Attributes:
        run: Its run.
        split: The split that it was scored on.
        weights: The weights that were scored.
        evaluation: The scores.
        panels: Pictures of detections.
    """

    run: Run
    split: str
    weights: Path
    evaluation: Evaluation
    panels: Mapping[str, Path]

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "run": self.run.name,
            "split": self.split,
            "weights": str(self.weights),
            **self.evaluation.to_json(),
            "panels": {name: str(path) for name, path in self.panels.items()},
        }

    def __str__(self) -> str:
        wrote = ", ".join(str(p) for p in [self.run.evaluation_path, *self.panels.values()])
        return f"{self.run.name} on {self.split}:\n{self.evaluation}\nsee {wrote}"

    def _repr_html_(self) -> str:
        return self.evaluation._repr_html_() + shown(self.panels.values())


def evaluate(
    project: ProjectLike = ".",
    *,
    run: str | None = None,
    split: str = "test",
    weights: str | None = None,
    dry_run: bool = False,
    **options: object,
) -> Evaluated | Plan:
    """Score a run's detector on a split that it was not trained on.

    Args:
        project: An open project or its folder.
        run: A run's name; the latest one if not given.
        split: "test", or "valid".
        weights: A weights file of this network; the run's final ones if not given.
        dry_run: Only tell what would be done.
        **options: Keys of ``[darknet]``.

    Raises:
        UsageError: No such run, an empty split, or one that the run was trained on.
        DarknetError: No darknet, or it wrote no detections.
    """
    if split not in SPLITS[1:]:
        raise UsageError(
            f"cannot evaluate on {split!r}",
            expected=" or ".join(SPLITS[1:]),
            remedy="A score on the images of the training says nothing about others",
        )
    opened = open_project(project, options)
    found = find_run(opened.runs_folder, run)
    weights_path = Path(weights).absolute() if weights else _final_weights(found)
    if not weights_path.is_file():
        raise UsageError(
            f"the run {found.name} has no weights to evaluate",
            where=str(weights_path),
            remedy="Run `oiyolo train`, which goes on with it; or name others with --weights",
        )
    paths = _unseen(opened, found, split)
    if dry_run:
        return Plan("evaluate", [f"score {weights_path} on {len(paths)} images of {split}"])
    made_from = _made_from(opened, split, weights_path, paths)
    done = _load(found, split, weights_path, made_from)
    if done is not None:
        _log.info("evaluate: nothing new")
        return done
    darknet = build_stage.run(opened).darknet
    # A lock of its own: weights can be scored while the run goes on.
    lock = locks.exclusive(found.folder / ".evaluate.lock", what="the evaluation", doing=STAGE)
    with lock:
        for left in found.folder.glob(f"{_WORK_PREFIX}*"):  # by a killed run
            shutil.rmtree(left, ignore_errors=True)
        (found.folder / _STAMP).unlink(missing_ok=True)
        detections = _detect(darknet, found, weights_path, paths)
        done = _score(opened, found, split, weights_path, paths, detections)
        staleness.write(found.folder / _STAMP, made_from)
        return done


def _made_from(
    project: Project, split: str, weights: Path, paths: Sequence[str]
) -> dict[str, object]:
    return {
        "split": split,
        "weights": files.sha256_of(weights),
        "the set of images": staleness.fingerprint(ids_in("\n".join(paths))),
        "boxes.csv": files.sha256_of(project.dataset_folder / "boxes.csv"),
        "version": __version__,
    }


def _load(run: Run, split: str, weights: Path, made_from: Mapping[str, object]) -> Evaluated | None:
    """Give the scores that lie in the run's folder; ``None``, and say why, if they are stale."""
    saved = files.read_json(run.evaluation_path)
    reason = staleness.stale_reason(run.folder / _STAMP, made_from)
    panels = {path.name: path for path in sorted(run.panels_folder.glob("*.png"))}
    if reason is None and saved is not None and panels:
        return Evaluated(run, split, weights, Evaluation.from_json(saved), panels)
    _log.info("evaluate: %s", reason or "scores or panels are gone")
    return None


def _final_weights(run: Run) -> Path:
    return run.weights_folder / f"{BASE}{FINAL_WEIGHTS}"


def _unseen(project: Project, run: Run, split: str) -> list[str]:
    """Give the split's list of paths.

    Raises:
        UsageError: It is empty, or the run saw some of its images.
    """
    dataset = split_stage.load_or_complain(project)
    names = (run.folder / "obj.names").read_text(encoding="utf-8").splitlines()
    if names != list(dataset.class_names):
        raise UsageError(
            f"the dataset has other classes than the run {run.name}",
            where=str(run.folder / "obj.names"),
            expected=", ".join(names),
            found=", ".join(dataset.class_names),
            remedy="Train anew, or bring the classes back",
        )
    list_path = dataset.list_path(split)
    paths = list_path.read_text(encoding="utf-8").splitlines()
    if not paths:
        raise UsageError(
            f"there is no image in {split}",
            where=str(list_path),
            remedy=f"Give [split] {split} a share, or fetch more images",
        )
    seen = set(run.image_ids("train"))
    if split == "test":
        seen |= set(run.image_ids("valid"))
    if known := seen.intersection(ids_in("\n".join(paths))):
        raise UsageError(
            f"the run {run.name} has seen {len(known)} images of {split}",
            where=str(list_path),
            found=f"for example {min(known)}",
            remedy="The dataset was dealt anew since; train anew to get an honest score",
        )
    lists.check(paths, list_path)
    trained_on = run.record.get("made_from", {}).get("images")
    if trained_on != (now := prepare_stage.prepared_as(project)):
        _log.warning(
            "evaluate: %s was trained on images prepared as %s, and these are %s",
            run.name,
            trained_on,
            now,
        )
    return paths


def _score(  # noqa: PLR0917  (the parts of one result)
    project: Project,
    run: Run,
    split: str,
    weights: Path,
    paths: Sequence[str],
    detections: Detections,
) -> Evaluated:
    image_ids = ids_in("\n".join(paths))
    class_names = split_stage.load_or_complain(project).class_names
    truth = _truth(project, image_ids, class_names)
    evaluation = evaluate_detections(detections, truth, class_names)
    sizes_wh = None
    if prepare_stage.prepared_as(project)["fit"] == "stretch":
        with project.ledger(read_only=True) as ledger:
            widths, heights = ledger.facts("width_px"), ledger.facts("height_px")
        sizes_wh = {i: (int(str(widths[i])), int(str(heights[i]))) for i in image_ids}
    panels = save_panels(
        run.panels_folder,
        image_paths={i: Path(path) for i, path in zip(image_ids, paths, strict=True)},
        verdicts=judge_images(detections, truth, class_names, evaluation.score_thresholds),
        original_sizes_wh=sizes_wh,
    )
    files.write_json(
        run.evaluation_path,
        {"split": split, "weights": weights.name, **evaluation.to_json()},
    )
    return Evaluated(run, split, weights, evaluation, panels)


def _detect(darknet: Darknet, run: Run, weights: Path, paths: Sequence[str]) -> Detections:
    """Let darknet write its detections, in a folder beside the run's files, and read them."""
    from PIL import Image  # noqa: PLC0415  (only sizes are read)

    class_count = len((run.folder / "obj.names").read_text(encoding="utf-8").splitlines())
    with tempfile.TemporaryDirectory(prefix=_WORK_PREFIX, dir=run.folder) as name:
        folder = Path(name)
        # Debian's dies of a missing results folder.
        (folder / _RESULTS).mkdir()
        (folder / "list.txt").write_text("".join(f"{path}\n" for path in lists.padded(paths)))
        # Numbers for names, because darknet makes file names of them.
        (folder / "numbers.names").write_text("".join(f"{n}\n" for n in range(class_count)))
        (folder / "obj.data").write_text(
            data_file(
                class_count=class_count,
                train="list.txt",
                valid="list.txt",
                names="numbers.names",
                backup=_RESULTS,
                results=_RESULTS,
            )
        )
        shutil.copyfile(run.cfg_path, folder / run.cfg_path.name)
        argv = valid_command(
            darknet,
            data="obj.data",
            cfg=run.cfg_path.name,
            weights=os.path.relpath(weights, folder),
            prefix=_PREFIX,
        )
        done = process.run(argv, cwd=folder, timeout_s=_TIMEOUT_S)
        files.write_text(run.folder / "valid_log.txt", done.output)
        sizes_wh = {}
        for path in paths:
            with Image.open(path) as image:
                sizes_wh[Path(path).stem] = image.size
        try:
            return read_detections(
                folder / _RESULTS,
                class_count=class_count,
                prefix=_PREFIX,
                image_sizes_wh=sizes_wh,
            )
        except DarknetError as error:
            raise DarknetError(
                f"darknet wrote no detections ({done.ended})",
                where=str(run.folder / "valid_log.txt"),
                found=f"its last words:\n{done.output.strip()[-500:]}\n",
                remedy="Check that the weights belong to the run's network",
            ) from error


def _truth(project: Project, image_ids: Sequence[str], class_names: Sequence[str]) -> GroundTruth:
    boxes = prepare_stage.boxes_table(project)
    boxes = boxes[boxes["ImageID"].isin(set(image_ids))]
    group_of = np.zeros(len(boxes), dtype=bool)
    if FLAG_COLUMNS["group_of"] in boxes:
        group_of = boxes[FLAG_COLUMNS["group_of"]].to_numpy() == 1
    # A group that was dropped from training is still no place for false alarms.
    counted = boxes["used"].to_numpy(dtype=bool) | group_of
    boxes, group_of = boxes[counted], group_of[counted]
    return GroundTruth.from_rows(
        image_ids,
        box_image_ids=boxes["ImageID"].tolist(),
        class_id=boxes["class_id"].to_numpy(),
        xyxy=boxes[list(CORNERS)].to_numpy(dtype=float),
        group_of=group_of,
        verified=_verified(project, image_ids, class_names),
    )


def _verified(project: Project, image_ids: Sequence[str], class_names: Sequence[str]) -> Verified:
    images = select_stage.load_or_complain(project).images
    images = images[images["ImageID"].isin(set(image_ids))]
    class_id = {name: number for number, name in enumerate(class_names)}

    def pairs(column: str) -> list[tuple[str, int]]:
        rows = zip(images["ImageID"], images[column], strict=True)
        return [(i, class_id[n]) for i, names in rows for n in names.split(SEPARATOR) if n]

    return verification(
        image_ids, len(class_names), present=pairs("present"), absent=pairs("absent")
    )
