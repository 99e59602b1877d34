"""Scores of a run's checkpoints: on which images, how they are saved, and which one is chosen."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import oiyolo
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.results import Plan
from oiyolo.darknet import lists
from oiyolo.evaluation.tables import Detections, GroundTruth
from oiyolo.networks import cfg as cfg_file
from oiyolo.project.project import open_project
from oiyolo.stages.evaluate import checkpoints, detect, inputs
from oiyolo.stages.evaluate.checkpoint_scorer import (
    add_score,
    drop_later_scores,
    score_checkpoint,
    train_sample_paths,
)
from oiyolo.stages.evaluate.checkpoints import CheckpointsScored, score_all
from oiyolo.training.run import Run
from oiyolo.trainlog.scores import read_scores
from tests.conftest import TINY_CFG
from tests.support.darknet_parity import seeded_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oiyolo.project.project import Project

BATCH = 4
VALID = [f"{number:016x}" for number in range(1, 31)]
TRAIN = [f"{number:016x}" for number in range(101, 181)]
DRAW = checkpoints._draw
BOX = (0.25, 0.25, 0.75, 0.75)


def weights_of(iteration: int) -> bytes:
    content = seeded_weights(cfg_file.parse(TINY_CFG, path="network.cfg"), 1)
    return struct.pack("<3iQ", 0, 2, 0, iteration * BATCH) + content[20:]


@dataclass
class Scene:
    """A project with a run, whose checkpoints find the box of a given share of the images.

    Attributes:
        project: The project.
        run: The run.
        shares: Share of the valid images whose box is found, by iteration.
        boxes: Ids of the images with a box, in the order of the boxes.
        right: Right edge of the boxes.
        detected: Names of the weights that were run, in order.
    """

    project: Project
    run: Run
    shares: dict[int, float] = field(default_factory=dict)
    boxes: list[str] = field(default_factory=lambda: [*VALID, *TRAIN])
    right: float = BOX[2]
    detected: list[str] = field(default_factory=list)

    def save(self, name: str, iteration: int, share: float = 0.5) -> Path:
        path = self.run.weights_folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(weights_of(iteration))
        self.shares[iteration] = share
        return path

    def detect(
        self, _: Run, weights_path: Path, paths: Sequence[str], **options: object
    ) -> Detections:
        assert options["threads"] is None
        self.detected.append(weights_path.name)
        (seen,) = struct.unpack_from("<Q", weights_path.read_bytes(), 12)
        ids = lists.ids_of(paths)
        limit = self.shares[seen // BATCH] * len(VALID)
        found = [i for i, name in enumerate(ids) if name in TRAIN or VALID.index(name) < limit]
        return Detections(
            image_ids=tuple(ids),
            image=np.array(found, dtype=np.int64),
            class_id=np.zeros(len(found), dtype=np.int64),
            score=np.full(len(found), 0.9),
            xyxy=np.tile(BOX, (len(found), 1)),
        )

    def ground_truth(
        self,
        _: Project,
        sizes_wh: Mapping[str, tuple[int, int]],
        class_names: Sequence[str],
        *,
        labels: bool,
    ) -> GroundTruth:
        assert (class_names, labels) == (["Boat"], False)
        ids = [image_id for image_id in self.boxes if image_id in sizes_wh]
        return GroundTruth.from_rows(
            sizes_wh,
            box_image_ids=ids,
            class_id=np.zeros(len(ids)),
            xyxy=np.tile((*BOX[:2], self.right, BOX[3]), (len(ids), 1)),
            is_region=np.zeros(len(ids)),
        )

    def score_all(self, **options: bool) -> CheckpointsScored | Plan:
        self.tested: list[Path] = []

        def evaluate_on_test(path: Path) -> Plan:
            self.tested.append(path)
            return Plan("evaluate", [])

        return score_all(
            self.project, self.run, test_images=9, evaluate_on_test=evaluate_on_test, **options
        )

    def scored(self) -> CheckpointsScored:
        result = self.score_all()
        assert isinstance(result, CheckpointsScored)
        return result


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    oiyolo.init(tmp_path, classes=["Boat"])
    project = open_project(tmp_path)
    project.objects_folder.mkdir(parents=True)
    jpeg = tmp_path / "grey.jpg"
    Image.new("RGB", (32, 32), "grey").save(jpeg)
    for image_id in (*VALID, *TRAIN):
        (project.objects_folder / f"{image_id}.jpg").write_bytes(jpeg.read_bytes())
        (project.objects_folder / f"{image_id}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    run = Run(project.runs_folder / "tiny-001")
    run.folder.mkdir(parents=True)
    run.cfg_path.write_text(TINY_CFG)
    (run.folder / "obj.names").write_text("Boat\n")
    (project.dataset_folder / "obj.names").write_text("Boat\n")
    write_list(run, "valid", VALID)
    write_list(run, "train", TRAIN)
    run.record_path.write_text("{}")
    scene = Scene(project, run)
    monkeypatch.setattr(detect, "detect", scene.detect)
    monkeypatch.setattr(inputs, "ground_truth", scene.ground_truth)
    monkeypatch.setattr(checkpoints, "_draw", lambda _: None)  # a chart takes half a second
    return scene


def write_list(run: Run, split: str, ids: Iterable[str]) -> None:
    (run.folder / f"{split}.txt").write_text("".join(f"/elsewhere/{i}.jpg\n" for i in ids))


def test_the_sample_of_train_is_the_same_in_any_order(scene: Scene) -> None:
    sample = train_sample_paths(scene.project, scene.run)
    assert len(sample) == len(set(sample)) == len(VALID)
    assert all(Path(path).is_file() for path in sample)
    write_list(scene.run, "train", TRAIN[::-1])
    assert train_sample_paths(scene.project, scene.run) == sample
    write_list(scene.run, "train", TRAIN[:5])
    assert lists.ids_of(train_sample_paths(scene.project, scene.run)) == TRAIN[:5]


def test_a_checkpoint_is_scored_on_both_lists(scene: Scene) -> None:
    path = scene.save("network_100.weights", 100, 0.5)
    record = score_checkpoint(scene.project, scene.run, path)
    assert (record.valid_images, record.train_images) == (30, 30)
    assert record.score.iteration == 100
    assert record.score.path == "runs/tiny-001/weights/network_100.weights"
    assert record.score.valid_map50 == pytest.approx(0.5)
    assert record.score.train_map50 == pytest.approx(1)
    low, high = record.score.valid_map50_interval
    assert 0.25 < low < 0.5 < high < 0.75
    add_score(scene.run, record)
    assert read_scores(scene.run.scores_path) == (record.score.plotted,)


def test_missing_images_are_an_error_with_their_number(scene: Scene) -> None:
    path = scene.save("network_100.weights", 100)
    for image_id in VALID[:2]:
        (scene.project.objects_folder / f"{image_id}.jpg").unlink()
    with pytest.raises(InputFormError) as caught:
        score_checkpoint(scene.project, scene.run, path)
    assert caught.value.found.startswith("2 ")
    assert VALID[0] in caught.value.found


@pytest.mark.parametrize("ids", [[], VALID])
def test_a_valid_list_without_images_or_boxes_is_an_error(scene: Scene, ids: list[str]) -> None:
    path = scene.save("network_100.weights", 100)
    write_list(scene.run, "valid", ids)
    for image_id in ids:
        (scene.project.objects_folder / f"{image_id}.txt").write_text("")
    scene.boxes = TRAIN
    with pytest.raises(InputFormError) as caught:
        score_checkpoint(scene.project, scene.run, path)
    assert str(len(ids)) in caught.value.found


def test_images_whose_boxes_are_no_longer_selected_are_an_error(scene: Scene) -> None:
    path = scene.save("network_100.weights", 100)
    scene.boxes = [*VALID[3:], *TRAIN]
    with pytest.raises(InputFormError) as caught:
        score_checkpoint(scene.project, scene.run, path)
    assert "3 of 60" in caught.value.found


def test_weights_that_are_written_to_meanwhile_are_not_scored(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scene.save("network_100.weights", 100)

    def overwritten(*arguments: object, **options: object) -> Detections:
        detections = scene.detect(*arguments, **options)  # type: ignore[arg-type]
        path.write_bytes(weights_of(200))
        return detections

    monkeypatch.setattr(detect, "detect", overwritten)
    with pytest.raises(OSError, match="network_100"):
        score_checkpoint(scene.project, scene.run, path)


def test_processes_can_add_scores_at_the_same_time(scene: Scene) -> None:
    records = [
        score_checkpoint(scene.project, scene.run, scene.save(f"network_{i}.weights", i))
        for i in range(1, 9)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda record: add_score(scene.run, record), records))
    assert [score.iteration for score in read_scores(scene.run.scores_path)] == [*range(1, 9)]


def test_scores_after_a_rollback_are_dropped(scene: Scene) -> None:
    drop_later_scores(scene.run, 1)  # nothing to drop yet
    for i in (1, 2, 3):
        path = scene.save(f"network_{i}.weights", i)
        add_score(scene.run, score_checkpoint(scene.project, scene.run, path))
    drop_later_scores(scene.run, 2)
    assert [score.iteration for score in read_scores(scene.run.scores_path)] == [1, 2]


def test_scores_of_other_boxes_are_dropped(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    first, second = scene.save("network_1.weights", 1), scene.save("network_2.weights", 2)
    add_score(scene.run, score_checkpoint(scene.project, scene.run, first))
    scene.boxes.reverse()  # the same in another order
    add_score(scene.run, score_checkpoint(scene.project, scene.run, second))
    assert [score.iteration for score in read_scores(scene.run.scores_path)] == [1, 2]
    scene.right = 0.7
    with caplog.at_level("INFO", "oiyolo"):
        add_score(scene.run, score_checkpoint(scene.project, scene.run, second))
    assert [score.iteration for score in read_scores(scene.run.scores_path)] == [2]
    assert "2 checkpoints are dropped" in caplog.text


def test_every_iteration_is_scored_once_and_the_best_is_tested(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_draw", DRAW)
    scene.save("network_100.weights", 100, 0.4)
    best = scene.save("network_200.weights", 200, 0.9)
    scene.save("network_300.weights", 300, 0.6)
    scene.save("network.backup", 300, 0.6)
    scene.save("kept/last-200.weights", 200, 0.9)
    scene.save("kept/scoring-250.weights", 250, 1.0)
    result = scene.scored()
    assert scene.detected == [f"network_{i}00.weights" for i in (1, 2, 3)]
    assert scene.tested == [best]
    assert [score.iteration for score in result.scores] == [100, 200, 300]
    assert (result.best.iteration, result.last.iteration) == (200, 300)
    assert result.difference is not None
    assert result.difference.value == pytest.approx(0.3)
    low, high = result.difference.interval
    assert 0 < low < 0.3 < high
    assert result.difference.is_beyond_chance
    assert result.chart.is_file()
    assert result.as_dict()["test"] is not None
    again = scene.scored()
    assert len(scene.detected) == 3
    assert again.difference == result.difference


def test_damaged_scores_are_made_again(scene: Scene) -> None:
    for iteration in (1, 2):
        scene.save(f"network_{iteration}.weights", iteration, 0.9 - iteration / 5)
    expected = scene.scored().as_dict()
    for old, new in (('"best_against_last"', '"checkpoints": 1, "x"'), ("[", "[0.1,")):
        text = scene.run.scores_path.read_text().replace(old, new)
        scene.run.scores_path.write_text(text)
        found = scene.scored()
        assert found.difference is not None
        assert found.as_dict()["difference"] == expected["difference"]
    assert scene.detected == ["network_1.weights", "network_2.weights"] * 3


def test_a_small_difference_is_not_beyond_chance(scene: Scene) -> None:
    scene.save("network_100.weights", 100, 17 / 30)
    scene.save("network_200.weights", 200, 16 / 30)
    result = scene.scored()
    assert result.best.iteration == 100
    assert result.difference is not None
    assert not result.difference.is_beyond_chance
    scene.save("network_300.weights", 300, 1.0)
    last = scene.scored()
    assert last.best is last.last
    assert last.difference is None


def test_the_choice_among_many_checkpoints_is_allowed_for(scene: Scene) -> None:
    scene.save("network_1.weights", 1, 20 / 30)
    scene.save("network_99.weights", 99, 15 / 30)
    alone = scene.scored()
    for iteration in range(2, 11):
        scene.save(f"network_{iteration}.weights", iteration, 20 / 30)
    scene.save("network_11.weights", 11, 0.1)  # far below: it could not have been the best
    among_many = scene.scored()
    assert alone.difference is not None
    assert among_many.difference is not None
    assert (alone.candidates, among_many.candidates) == (1, 10)
    assert among_many.difference.value == alone.difference.value
    assert alone.difference.is_beyond_chance
    assert not among_many.difference.is_beyond_chance


def test_damaged_weights_are_skipped_and_listed(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.save("network_100.weights", 100)
    path = scene.save("network_200.weights", 200, 1.0)
    path.write_bytes(path.read_bytes()[:20] + b"\xff" * (path.stat().st_size - 20))
    (scene.run.weights_folder / "network_300.weights").write_bytes(b"<html>")
    truncated = scene.save("kept/last-400.weights", 400)
    truncated.write_bytes(truncated.read_bytes()[:-4])
    scene.save("network.backup", 400, 0.3)
    result = scene.scored()
    assert [score.iteration for score in result.scores] == [100, 400]
    assert [Path(path).name for path in sorted(result.skipped)] == [
        "last-400.weights",
        "network_200.weights",
        "network_300.weights",
    ]
    assert caplog.text.count("is skipped") == 3


def test_a_call_that_was_interrupted_is_resumed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for iteration in (1, 2, 3):
        scene.save(f"network_{iteration}.weights", iteration)

    def interrupted(*arguments: object, **options: object) -> Detections:
        if len(scene.detected) == 2:
            raise KeyboardInterrupt
        return scene.detect(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(detect, "detect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scene.score_all()
    monkeypatch.setattr(detect, "detect", scene.detect)
    assert [score.iteration for score in scene.scored().scores] == [1, 2, 3]
    assert scene.detected[:3] == [f"network_{i}.weights" for i in (1, 2, 3)]


def test_a_checkpoint_whose_weights_were_removed_is_not_chosen(scene: Scene) -> None:
    best = scene.save("network_1.weights", 1, 0.9)
    scene.save("network_2.weights", 2, 0.4)
    scene.save("network_3.weights", 3, 0.3)
    scene.scored()
    best.unlink()
    result = scene.scored()
    assert [score.iteration for score in result.scores] == [1, 2, 3]
    assert result.best.iteration == 2
    assert set(result.paths) == {2, 3}


def test_a_dry_run_lists_what_is_missing_and_writes_nothing(scene: Scene) -> None:
    scene.save("network_1.weights", 1)
    scene.scored()
    scene.save("network_2.weights", 2)
    before = {path: path.stat().st_mtime_ns for path in scene.project.folder.rglob("*")}
    plan = scene.score_all(dry_run=True)
    assert isinstance(plan, Plan)
    assert ["network_2.weights" in action for action in plan.actions] == [True, False]
    assert scene.tested == []
    assert {path: path.stat().st_mtime_ns for path in scene.project.folder.rglob("*")} == before


def test_a_run_without_usable_weights_is_an_error(scene: Scene) -> None:
    with pytest.raises(UsageError):
        scene.score_all()
    path = scene.save("network_1.weights", 1)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputFormError) as caught:
        scene.score_all()
    assert "network_1.weights" in caught.value.found
