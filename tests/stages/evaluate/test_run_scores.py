"""The scores of a run: which weights and thresholds, what is kept, and what invalid input gets."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import oiyolo
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.darknet import lists
from oiyolo.evaluation import panel_files
from oiyolo.evaluation.panels import evaluate_images
from oiyolo.evaluation.tables import Detections
from oiyolo.project.project import open_project
from oiyolo.stages import split as split_stage
from oiyolo.stages.evaluate import checkpoint_panel, inputs, kept_detections, run_scores
from oiyolo.stages.evaluate import detect as detection
from oiyolo.stages.evaluate.kept_detections import choose_weights
from oiyolo.stages.evaluate.pictures import pictures_of
from oiyolo.stages.evaluate.run_scores import Evaluated
from oiyolo.training.run_detector import facts_of
from tests.support.finished_runs import make_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oiyolo.evaluation.summary import Evaluation
    from oiyolo.project.project import Project
    from oiyolo.stages.evaluate.kept_detections import Scored
    from oiyolo.training.run import Run
    from tests.conftest import Cli

BATCH = 4


@dataclass
class Scene:
    """A project with a run."""

    project: Project
    run: Run

    def evaluate(self, **options: object) -> Evaluated:
        result = oiyolo.evaluate(self.project.folder, **options)  # type: ignore[call-overload]
        assert isinstance(result, Evaluated)
        return result

    def paths_of(self, split: str) -> list[str]:
        return split_stage.image_paths(self.project, split)

    @property
    def saved(self) -> dict[str, object]:
        content = json.loads(self.run.evaluation_path.read_text())
        assert isinstance(content, dict)
        return content

    def save_weights(self, name: str, iteration: int) -> Path:
        path = self.run.weights_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = (self.run.folder / "some.weights").read_bytes()
        path.write_bytes(struct.pack("<3iQ", 0, 2, 0, iteration * BATCH) + content[20:])
        return path


@pytest.fixture(scope="module")
def shared_project(make_project: Callable[..., Path]) -> Path:
    folder = make_project(train=0.4, valid=0.3, test=0.3, executable="no/darknet")
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    return folder


def draw_nothing(_: Project, scored: Scored, __: Evaluation) -> dict[str, Path]:
    scored.run.panels_folder.mkdir(exist_ok=True)
    path = scored.run.panels_folder / "overview.png"
    path.touch()
    (path.parent / panel_files.NAME).write_text('{"images": {}, "panels": []}')
    return {path.name: path}


@pytest.fixture
def scene(shared_project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    project = open_project(shared_project)
    run = make_run(project, "tiny-001", ["Boat"])
    scene = Scene(project, run)
    shutil.copyfile(run.final_weights_path, run.folder / "some.weights")
    monkeypatch.setattr(run_scores, "_save_panels", draw_nothing)  # drawing takes seconds
    monkeypatch.setattr(run_scores, "_save_confusion", lambda *_: {})
    yield scene
    shutil.rmtree(project.runs_folder)


@pytest.fixture
def detected(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the number of images of each time that the network runs, which it really does."""
    counts: list[int] = []

    def detect(run: Run, weights_path: Path, paths: Sequence[str]) -> Detections:
        counts.append(len(paths))
        return detection.detect(run, weights_path, paths)

    assert scene.run.has_final_weights
    monkeypatch.setattr(kept_detections, "detect", detect)
    return counts


def test_the_network_runs_once_for_all_images_of_given_weights(
    scene: Scene, detected: list[int]
) -> None:
    first = scene.evaluate()
    assert detected == [sum(len(scene.paths_of(split)) for split in ("valid", "test"))]
    path = scene.run.folder / "detections.json"
    rows = json.loads(path.read_text())
    assert {tuple(row) for row in rows} == {
        ("image_id", "category_id", "bbox", "score", "image_wh")
    }
    ids = {*lists.ids_of(scene.paths_of("valid")), *lists.ids_of(scene.paths_of("test"))}
    assert {row["image_id"] for row in rows} <= ids
    assert {row["category_id"] for row in rows} == {0}
    boxes = np.array([[*row["bbox"], *row["image_wh"]] for row in rows])
    assert np.all(boxes[:, :2] >= 0)
    assert np.all(boxes[:, :2] + boxes[:, 2:4] <= boxes[:, 4:] + 1e-3)
    assert min(row["score"] for row in rows) > detection.MIN_SCORE
    assert str(scene.evaluate()) == str(first)
    scene.evaluate(split="valid")
    scene.run.evaluation_path.unlink()
    assert scene.evaluate().as_dict() == first.as_dict()
    assert len(detected) == 1
    other = scene.save_weights("other.weights", 7)
    assert scene.evaluate(weights=other).scored["iteration"] == 7
    assert len(detected) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"score": 0.', '"score": 0.9', 1),
        lambda _: "",
    ],
)
def test_damaged_detections_are_made_again(
    scene: Scene, detected: list[int], damage: Callable[[str], str]
) -> None:
    before = scene.evaluate(split="valid").as_dict()
    path = scene.run.folder / "detections.json"
    intact = path.read_text()
    path.write_text(damage(intact))
    scene.run.evaluation_path.unlink()
    assert scene.evaluate(split="valid").as_dict() == before
    assert path.read_text() == intact
    assert len(detected) == 2


def test_darknet_detects_the_same_as_onnxruntime(scene: Scene, darknet: Path) -> None:
    scored = scene.evaluate(scorer="darknet", executable=str(darknet))
    assert (scored.scored_with, scored.thresholds_from) == ("darknet", "valid")
    assert scored.cross_check["scored_with"] == "onnxruntime"
    assert scored.cross_check["map50"] == pytest.approx(scored.evaluation.map50, abs=1e-3)
    difference = scored.cross_check["map50"] - scored.evaluation.map50
    assert scored.cross_check["difference"] == pytest.approx(difference)
    by_darknet = json.loads((scene.run.folder / "detections.json").read_text())
    own = scene.evaluate()
    assert own.cross_check == {}
    assert (scene.saved["scored_with"], scene.saved["cross_check"]) == ("onnxruntime", None)
    by_onnxruntime = json.loads((scene.run.folder / "detections.json").read_text())
    scores, others = (
        sorted(row["score"] for row in rows if row["score"] > 0.01)
        for rows in (by_darknet, by_onnxruntime)
    )
    assert others == pytest.approx(scores, abs=2e-3)


def finds(scene: Scene, score: dict[str, float]) -> Callable[..., Detections]:
    """Return a detector that finds every box, with a score for each split, and a wrong one."""
    splits = {i: split for split in score for i in lists.ids_of(scene.paths_of(split))}

    def detect(_: Run, __: Path, paths: Sequence[str]) -> Detections:
        truth = inputs.ground_truth(scene.project, inputs.sizes_wh(paths), ["Boat"])
        keep = ~truth.is_region
        image = np.concatenate([truth.image[keep], np.arange(len(paths))])
        scores = [score[splits[truth.image_ids[i]]] for i in image]
        scores[np.count_nonzero(keep) :] = [0.1] * len(paths)
        corner = np.tile((0.0, 0.0, 0.01, 0.01), (len(paths), 1))
        return Detections(
            truth.image_ids,
            image,
            np.zeros(len(image), dtype=np.int64),
            np.array(scores),
            np.concatenate([truth.xyxy[keep], corner]),
        )

    return detect


def test_thresholds_are_chosen_on_valid(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_detections, "detect", finds(scene, {"valid": 0.5, "test": 0.8}))
    scored = scene.evaluate()
    (boat,) = scored.evaluation.classes
    assert boat.score_threshold == 0.5
    assert (boat.true_positives, boat.false_positives) == (boat.boxes, 0)
    assert scene.saved["thresholds_from"] == "valid"
    weights = scene.run.final_weights_path
    assert facts_of(scene.run, weights, 0).threshold == 0.5
    assert scene.evaluate(split="valid").evaluation.score_thresholds == (0.5,)


def test_without_valid_images_thresholds_are_chosen_on_test(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_detections, "detect", finds(scene, {"valid": 0.5, "test": 0.8}))
    paths = {"valid": [], "test": scene.paths_of("test")}
    monkeypatch.setattr(split_stage, "image_paths", lambda _, split: paths[split])
    scored = scene.evaluate()
    assert scored.evaluation.score_thresholds == (0.8,)
    assert scene.saved["thresholds_from"] == "test"
    assert facts_of(scene.run, scene.run.final_weights_path, 0).threshold is None


def test_an_unfinished_run_is_scored_by_its_best_or_newest_weights(scene: Scene) -> None:
    scene.run.final_weights_path.unlink()
    with pytest.raises(UsageError) as caught:
        scene.evaluate()
    assert caught.value.where == str(scene.run.weights_folder)
    scene.save_weights("network_100.weights", 100)
    scene.save_weights("network_200.weights", 200)
    scored = scene.evaluate()
    assert scored.scored["iteration"] == 200
    assert "newest" in str(scored.scored["reason"])
    scene.save_weights("kept/best-0.700000-100.weights", 100)
    record = scene.evaluate().scored
    assert record["path"] == "runs/tiny-001/weights/kept/best-0.700000-100.weights"
    assert "best" in str(record["reason"])
    assert str(record["reason"]) in str(scene.evaluate())
    assert scene.saved["weights"] == record


def test_damaged_final_weights_are_not_passed_over(scene: Scene) -> None:
    scene.save_weights("network_100.weights", 100)
    path = scene.run.final_weights_path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputFormError) as caught:
        scene.evaluate()
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))


def test_weights_that_training_replaces_meanwhile_are_not_scored(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scene.run.final_weights_path

    def detect(run: Run, weights_path: Path, paths: Sequence[str]) -> Detections:
        found = detection.detect(run, weights_path, paths)
        scene.save_weights(path.name, 9)
        return found

    monkeypatch.setattr(kept_detections, "detect", detect)
    with pytest.raises(InputFormError) as caught:
        scene.evaluate()
    assert caught.value.where == str(path)
    assert not scene.run.evaluation_path.exists()


def with_nan(content: bytes) -> bytes:
    return content[:-4] + struct.pack("<f", float("nan"))


@pytest.mark.parametrize("change", [with_nan, lambda content: content + content[-4:]])
def test_invalid_weights_leave_the_earlier_scores(
    scene: Scene, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    scene.run.evaluation_path.write_text("{}")
    path = tmp_path / "other.weights"
    path.write_bytes(change(scene.run.final_weights_path.read_bytes()))
    with pytest.raises(InputFormError) as caught:
        scene.evaluate(weights=path)
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))
    assert caught.value.found
    assert scene.run.evaluation_path.read_text() == "{}"


def test_invalid_images_leave_the_earlier_scores(
    scene: Scene, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.run.evaluation_path.write_text("{}")
    lost = Path(scene.paths_of("test")[0])
    content = lost.read_bytes()
    lost.unlink()
    done = cli("evaluate", "--json", project=scene.project.folder)
    lost.write_bytes(content)
    assert done.code == 3
    assert "1" in done.json["found"]
    monkeypatch.setattr(split_stage, "image_paths", lambda *_: [])
    done = cli("evaluate", "--json", project=scene.project.folder)
    assert (done.code, done.json["found"]) == (3, "0 images")
    assert scene.run.evaluation_path.read_text() == "{}"


def test_a_dry_run_says_what_would_run(scene: Scene, cli: Cli, detected: list[int]) -> None:
    words = ("evaluate", "--dry-run", "--json")
    before = cli.ok(*words, project=scene.project.folder).json["would"]
    assert not (scene.run.folder / "detections.json").exists()
    assert sum("onnxruntime" in action for action in before) == 2
    scene.evaluate(split="valid")
    after = cli.ok(*words, project=scene.project.folder).json["would"]
    assert sum("onnxruntime" in action for action in after) == 1
    scene.evaluate()
    assert cli.ok(*words, project=scene.project.folder).json["would"] == []
    assert len(detected) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"run": "tiny-001", "runs": "tiny-001"},
        {"runs": ("a", "b", "c")},
        {"runs": ("a", "b"), "weights": "x.weights"},
        {"all_checkpoints": True, "split": "valid"},
        {"scorer": "tensorflow"},
        {"split": "train"},
        {"baseline": "yolov4-tiny", "baseline_model": "x.onnx"},
        {"baseline": "yolov4-tiny", "all_checkpoints": True},
    ],
)
def test_options_that_do_not_go_together_are_refused(
    scene: Scene, options: dict[str, object]
) -> None:
    with pytest.raises(UsageError):
        scene.evaluate(**options)


def test_earlier_weights_are_drawn_in_rows_and_damaged_ones_left_out(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for iteration in (10, 20, 30):
        scene.save_weights(f"network_{iteration}.weights", iteration)
    scene.save_weights("network_final.weights", 40)
    damaged = scene.run.weights_folder / "network_20.weights"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    chosen = choose_weights(scene.project, scene.run, None)
    task = run_scores.plan_task(scene.project, scene.run, "test", chosen, "onnxruntime")
    _, scored = run_scores.score(task)
    results = evaluate_images(scored.detections, scored.truth, scored.class_names, [0.9])
    drawn: list[str] = []

    def save_rows(path: Path, _: str, rows: Any, __: object) -> None:
        drawn.extend(name for name, _ in rows)
        path.touch()

    monkeypatch.setattr(checkpoint_panel, "save_rows", save_rows)
    pictures = pictures_of(scene.project, scored.images.paths)
    (path,) = checkpoint_panel.draw(scored, results, [0.9], pictures).values()
    assert drawn == ["iteration 10", "iteration 30", "iteration 40"]
    for file in scene.run.weights_folder.glob("network_?0.weights"):
        file.unlink()
    assert checkpoint_panel.draw(scored, results, [0.9], pictures) == {}
    assert not path.exists()
