"""A project whose trainings are stand-ins: what a refresh decides does not depend on them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import oiyolo
from oiyolo.core.results import Plan
from oiyolo.darknet import lists
from oiyolo.operations.refresh import retrain
from oiyolo.project.project import open_project
from oiyolo.stages import split as split_stage
from oiyolo.stages.evaluate import compare, kept_detections, run_scores
from oiyolo.stages.train.inputs import data_recipe
from oiyolo.training.run import Run, current_run, next_name, runs_in
from tests.support.finished_runs import make_run, true_boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from oiyolo.evaluation.tables import Detections
    from oiyolo.operations.refresh.retrain import Retrained
    from oiyolo.project.project import Project

CLASSES = ["Boat"]


@dataclass
class Retraining:
    """A project that is retrained by a stand-in, whose detectors find what the test wants.

    Attributes:
        project: The project.
        blind: Ids of the images in which a run finds nothing, by its name.
        trainings: Initial weights of each training.
        detected: Name of the run, for each time a network ran.
        error: What the next training raises.
    """

    project: Project
    blind: dict[str, set[str]] = field(default_factory=dict)
    trainings: list[str] = field(default_factory=list)
    detected: list[str] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def test_ids(self) -> list[str]:
        return lists.ids_of(split_stage.image_paths(self.project, "test"))

    @property
    def current(self) -> str | None:
        run = current_run(self.project.runs_folder)
        return run.name if run else None

    def run(self, name: str) -> Run:
        return Run(self.project.runs_folder / name)

    def set_options(self, **options: Any) -> None:
        config = self.project.config
        refresh = replace(config.refresh, **options)
        self.project = replace(self.project, config=replace(config, refresh=refresh))

    def retrain(self) -> Retrained:
        return retrain.retrain(self.project)

    def change_dataset(self) -> None:
        """Make the runs be of an older dataset."""
        for run in runs_in(self.project.runs_folder):
            run.write_record(made_from={**run.record["made_from"], "dataset": "older"})

    def train(self, project: Project, *, dry_run: bool = False) -> Any:
        """Return the run of this dataset and these weights, trained if there is none."""
        recipe = data_recipe(project, split_stage.load_lists(project))
        recipe["weights"] = project.config.train.weights
        runs = [r for r in runs_in(project.runs_folder) if r.record.get("made_from") == recipe]
        name = runs[-1].name if runs else next_name(project.runs_folder, "tiny")
        run = Run(project.runs_folder / name)
        if dry_run:
            return Plan("train", [f"train {name}"], {"run": name})
        if self.error is not None:
            raise self.error
        if run.state != "finished":
            self.trainings.append(project.config.train.weights)
            if not runs:
                make_run(project, name, CLASSES)
            run.write_record(
                state="finished",
                made_from=recipe,
                began_at=name,
                network="tiny",
                darknet={"fork": "pjreddie"},
            )
        return SimpleNamespace(run=run)

    def detect(self, run: Run, _: Path, paths: Sequence[str]) -> Detections:
        self.detected.append(run.name)
        blind = self.blind.get(run.name, set())
        return true_boxes(self.project, run, paths, classes=CLASSES, blind=blind)


def write_report(project: Project, *, run: str) -> None:
    (project.runs_folder / run / "report.html").write_text("<p>Scores</p>")


def save_no_picture(run: Run, _: object) -> dict[str, Path]:
    path = run.panels_folder / "confusion.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (1, 1)).save(path)
    return {path.name: path}


@pytest.fixture(scope="session")
def split_project(make_project: Callable[..., Path]) -> Path:
    folder = make_project(classes=CLASSES, train=0.4, valid=0.2, test=0.4)
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    return folder


@pytest.fixture
def retraining(split_project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Retraining]:
    stand_in = Retraining(open_project(split_project))
    monkeypatch.setattr(retrain, "train", stand_in.train)
    monkeypatch.setattr(kept_detections, "detect", stand_in.detect)
    # Drawing takes seconds.
    monkeypatch.setattr(retrain, "report", write_report)
    monkeypatch.setattr(run_scores, "_save_panels", lambda *_: {})
    monkeypatch.setattr(run_scores, "_save_confusion", save_no_picture)
    monkeypatch.setattr(compare, "_draw", lambda *_: None)
    yield stand_in
    shutil.rmtree(split_project / "runs", ignore_errors=True)
