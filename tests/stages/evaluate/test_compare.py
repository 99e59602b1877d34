"""Two runs, compared on the images that neither has seen in training."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import oiyolo
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan
from oiyolo.darknet import lists
from oiyolo.project.project import open_project
from oiyolo.stages import split as split_stage
from oiyolo.stages.evaluate import compare, kept_detections
from oiyolo.stages.evaluate.compare import RunsCompared, compare_runs
from tests.support.finished_runs import make_run, true_boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from oiyolo.evaluation.tables import Detections
    from oiyolo.project.project import Project
    from oiyolo.training.run import Run

CLASSES = ["Boat", "Canoe"]


@dataclass
class Scene:
    """A project with two runs, whose detectors find the true boxes of all but some images.

    Attributes:
        project: The project.
        first: A run.
        second: Another run.
        blind: Ids of the images in which a run finds nothing, by its name.
        detected: Name of the run and number of images, for each time a network ran.
    """

    project: Project
    first: Run
    second: Run
    blind: dict[str, set[str]] = field(default_factory=dict)
    detected: list[tuple[str, int]] = field(default_factory=list)

    def ids_of(self, split: str) -> list[str]:
        return lists.ids_of(split_stage.image_paths(self.project, split))

    def detect(self, run: Run, _: Path, paths: Sequence[str]) -> Detections:
        self.detected.append((run.name, len(paths)))
        blind = self.blind.get(run.name, set())
        return true_boxes(self.project, run, paths, classes=CLASSES, blind=blind)

    def compare(self) -> RunsCompared:
        result = compare_runs(self.project, self.first, self.second)
        assert isinstance(result, RunsCompared)
        return result


@pytest.fixture(scope="module")
def folder(make_project: Callable[..., Path]) -> Path:
    folder = make_project(classes=CLASSES, train=0.4, valid=0.2, test=0.4)
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    return folder


@pytest.fixture
def scene(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    project = open_project(folder)
    first, second = (make_run(project, f"tiny-{number}", CLASSES) for number in ("1", "02"))
    scene = Scene(project, first, second)
    monkeypatch.setattr(kept_detections, "detect", scene.detect)
    yield scene
    shutil.rmtree(project.runs_folder)


def test_the_better_run_is_named_and_nothing_runs_twice(scene: Scene) -> None:
    test = scene.ids_of("test")
    scene.blind = {"tiny-1": set(test[::2])}
    result = scene.compare()
    content = result.content
    assert (content["better"], content["images"], content["images_seen"]) == (
        "tiny-02",
        len(test),
        0,
    )
    assert content["map50"]["second"] == 1
    assert content["map50"]["interval"][0] > 0
    assert list(content["classes"]) == CLASSES
    assert [content[side]["thresholds_from"] for side in ("first", "second")] == ["valid"] * 2
    images = {row["image_id"] for row in content["most_different"]}
    assert images
    assert images <= set(test[::2])
    assert all(row["second"]["false_negatives"] == 0 for row in content["most_different"])
    assert json.loads((scene.first.folder / "comparison-tiny-02.json").read_text()) == content
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        assert picture.format == "PNG"
    ran = len(scene.detected)
    assert ran == 2  # each run once, on valid and test together
    again = scene.compare()
    assert again.as_dict() == result.as_dict()
    assert str(again) == str(result)
    back = compare_runs(scene.project, scene.second, scene.first)
    assert isinstance(back, RunsCompared)
    assert back.content["better"] == "tiny-02"
    assert back.content["map50"]["difference"] == -content["map50"]["difference"]
    assert len(scene.detected) == ran


def test_a_damaged_picture_is_drawn_again(scene: Scene) -> None:
    scene.blind = {"tiny-1": set(scene.ids_of("test")[:3])}
    path = scene.compare().picture
    assert path is not None
    path.write_bytes(b"damaged")
    assert scene.compare().picture == path
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_only_the_classes_that_both_know_are_compared(scene: Scene) -> None:
    shutil.rmtree(scene.second.folder)
    scene.second = make_run(scene.project, "tiny-02", ["Duck", "Canoe"])
    result = scene.compare()
    assert list(result.content["classes"]) == ["Canoe"]
    assert result.content["first"]["other_classes"] == ["Boat"]
    assert result.content["second"]["other_classes"] == ["Duck"]
    scores = [result.content["map50"][side] for side in ("first", "second")]
    assert scores == [1, 1]
    assert (result.content["better"], result.picture) == (None, None)
    assert "Duck" in str(result)


def test_images_that_a_run_has_seen_are_left_out(scene: Scene) -> None:
    test = scene.ids_of("test")
    scene.blind = {"tiny-1": {test[0]}}
    with (scene.first.folder / "train.txt").open("a") as file:
        file.write(f"/elsewhere/{test[0]}.jpg\n")
    content = scene.compare().content
    assert (content["images"], content["images_seen"]) == (len(test) - 1, 1)
    assert content["map50"]["difference"] == 0
    # What the second found in all its images is kept for an evaluation of its own.
    assert scene.detected[-1] == ("tiny-02", len(test) + len(scene.ids_of("valid")))
    (scene.first.folder / "train.txt").write_text("".join(f"/x/{i}.jpg\n" for i in test))
    with pytest.raises(UsageError) as caught:
        scene.compare()
    assert f"{len(test)} images" in caught.value.found


def test_a_picture_without_differences_is_deleted(scene: Scene) -> None:
    scene.blind = {"tiny-02": set(scene.ids_of("test")[:5])}
    picture = scene.compare().picture
    assert picture is not None
    scene.blind = {}
    (scene.second.folder / "detections.json").unlink()
    (scene.first.folder / "comparison-tiny-02.json").write_text("{}")
    result = scene.compare()
    assert (result.picture, result.content["differing_images"]) == (None, 0)
    assert not picture.exists()
    assert scene.detected[-1][0] == "tiny-02"


def test_a_dry_run_says_what_would_be_done(scene: Scene) -> None:
    before = sorted(scene.project.runs_folder.rglob("*"))
    plan = compare_runs(scene.project, scene.first, scene.second, dry_run=True)
    assert isinstance(plan, Plan)
    assert len(plan.actions) == 5  # both runs on valid and on test, and the comparison
    assert sorted(scene.project.runs_folder.rglob("*")) == before
    scene.compare()
    plan = compare_runs(scene.project, scene.first, scene.second, dry_run=True)
    assert isinstance(plan, Plan)
    assert plan.actions == []


def test_runs_that_cannot_be_compared_are_an_error(scene: Scene) -> None:
    with pytest.raises(UsageError):
        compare_runs(scene.project, scene.first, scene.first)
    other = make_run(scene.project, "other-3", ["Duck"])
    with pytest.raises(UsageError) as caught:
        compare_runs(scene.project, scene.first, other)
    assert "Duck" in caught.value.found
    (scene.second.weights_folder / "network_final.weights").unlink()
    with pytest.raises(UsageError) as caught:
        scene.compare()
    assert caught.value.where == str(scene.second.weights_folder)


def test_two_names_compare_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.blind = {"tiny-02": set(scene.ids_of("test"))}
    result = oiyolo.evaluate(scene.project.folder, ["tiny-1", "tiny-02"])
    assert isinstance(result, RunsCompared)
    assert result.content["better"] == "tiny-1"
    monkeypatch.setattr(compare, "_compare", None)  # nothing is left to do
    assert oiyolo.evaluate(scene.project.folder, ["tiny-1", "tiny-02"]) == result
