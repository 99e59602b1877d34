"""Which detector is used, and what is known about it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

import oiyolo
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.inference.facts import ModelFacts
from oiyolo.networks import cfg as cfg_file
from oiyolo.operations.detectors import choose, load_detector
from tests.conftest import TINY_CFG
from tests.support.darknet_parity import seeded_weights
from tests.support.models import BOXES, SCORES, detector_model, plain_model

if TYPE_CHECKING:
    from pathlib import Path

ITERATIONS = 40
BATCH = 4


def weights_of(iteration: int, text: str = TINY_CFG) -> bytes:
    content = seeded_weights(cfg_file.parse(text, path="network.cfg"), 1)
    return struct.pack("<3iQ", 0, 2, 0, iteration * BATCH) + content[20:]


@dataclass(frozen=True)
class Runs:
    """The runs of a project."""

    folder: Path

    def add(
        self,
        name: str,
        *,
        state: str = "finished",
        day: int = 1,
        text: str = TINY_CFG,
        fork: str = "pjreddie",
        gpu: bool = False,
        fit: str | None = "stretch",
        final: bool = True,
    ) -> Path:
        """Add a run, and return its folder."""
        folder = self.folder / name
        (folder / "weights").mkdir(parents=True)
        (folder / "network.cfg").write_text(text)
        (folder / "obj.names").write_text("Boat\n")
        record = {
            "state": state,
            "network": "tiny",
            "began_at": f"2026-11-{day:02}T00:00:00+00:00",
            "darknet": {"fork": fork, "gpu": gpu},
            "made_from": None if fit is None else {"images": {"size": [32, 32], "fit": fit}},
        }
        (folder / "run.json").write_text(json.dumps(record))
        name = "network_final.weights" if final else "network.backup"
        (folder / "weights" / name).write_bytes(weights_of(ITERATIONS, text))
        return folder


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    oiyolo.init(tmp_path, classes=["Boat"])
    return Runs(tmp_path / "runs")


def test_the_newest_finished_run_is_used(runs: Runs, tmp_path: Path) -> None:
    runs.add("tiny-001", day=1)
    runs.add("tiny-002", day=2)
    runs.add("tiny-003", day=3, state="interrupted", final=False)
    source = choose(tmp_path)
    assert source.run is not None
    assert (source.run.name, source.name) == ("tiny-002", "tiny-002")
    assert source.weights_path == runs.folder / "tiny-002" / "weights" / "network_final.weights"
    assert all(part in source.origin for part in ("tiny-002", "newest finished", "40"))
    assert "newest" not in choose(tmp_path, run="tiny-001").origin
    assert "tiny-001" in repr(load_detector(tmp_path, run="tiny-001"))


def test_without_a_finished_run_the_newest_valid_weights_are_used(
    runs: Runs, tmp_path: Path
) -> None:
    runs.add("tiny-001", state="interrupted", final=False)
    runs.add("tiny-002", day=2, state="failed", final=False)
    damaged = runs.folder / "tiny-002" / "weights" / "network.backup"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    source = choose(tmp_path)
    assert source.weights_path == runs.folder / "tiny-001" / "weights" / "network.backup"
    assert all(part in source.origin for part in ("tiny-001", "not finished"))
    with pytest.raises(UsageError) as caught:
        choose(tmp_path, run="tiny-002")
    assert "tiny-002" in caught.value.what


def test_a_finished_run_without_its_weights_is_passed_over(runs: Runs, tmp_path: Path) -> None:
    runs.add("tiny-001")
    folder = runs.add("tiny-002", day=2)
    (folder / "weights" / "network_final.weights").unlink()
    assert choose(tmp_path).name == "tiny-001"
    with pytest.raises(UsageError):
        choose(tmp_path, run="tiny-002")
    with pytest.raises(UsageError) as caught:
        choose(tmp_path, run="tiny-009")
    assert "tiny-001" in caught.value.expected


def test_a_run_whose_network_is_missing_is_passed_over_unless_it_is_named(
    runs: Runs, tmp_path: Path
) -> None:
    runs.add("tiny-001")
    folder = runs.add("tiny-002", day=2)
    (folder / "network.cfg").unlink()
    assert choose(tmp_path).name == "tiny-001"
    with pytest.raises(UsageError) as caught:
        choose(tmp_path, run="tiny-002")
    assert caught.value.where == str(folder / "network.cfg")


@pytest.mark.parametrize("is_project", [False, True])
def test_with_nothing_to_choose_from_the_error_says_what_to_give(
    tmp_path: Path, *, is_project: bool
) -> None:
    if is_project:
        oiyolo.init(tmp_path, classes=["Boat"])
    with pytest.raises(UsageError) as caught:
        load_detector(tmp_path)
    assert all(option in caught.value.remedy for option in ("--model", "--cfg", "--run"))
    assert ("oiyolo train" in caught.value.remedy) == is_project


def test_a_damaged_record_is_an_input_error(runs: Runs, tmp_path: Path) -> None:
    folder = runs.add("tiny-001")
    (folder / "run.json").write_text('{"darknet": []}')
    with pytest.raises(InputFormError):
        choose(tmp_path)


LETTER_BOX = TINY_CFG.replace("channels=3", "channels=3\nletter_box=1")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fit": "stretch", "fork": "pjreddie"}, "stretch"),
        ({"fit": "stretch", "fork": "alexeyab"}, "stretch"),
        ({"fit": "letterbox", "fork": "alexeyab"}, "letterbox"),
        ({"fit": "none", "fork": "pjreddie"}, "letterbox"),
        ({"fit": "none", "fork": "alexeyab"}, "stretch"),
        ({"fit": "none", "fork": "hank"}, "stretch"),
        ({"fit": "none", "fork": "alexeyab", "text": LETTER_BOX}, "letterbox"),
        ({"fit": None, "fork": "alexeyab"}, "letterbox"),
    ],
)
def test_images_are_fitted_as_in_training(
    runs: Runs, tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    runs.add("tiny-001", **options)
    assert choose(tmp_path).facts.fit == expected


def test_suppression_is_that_of_the_fork(runs: Runs, tmp_path: Path) -> None:
    text = TINY_CFG.replace("[yolo]", "[yolo]\nnms_kind=greedynms")
    runs.add("tiny-001", text=text, fork="alexeyab")
    runs.add("tiny-002", text=text, fork="pjreddie")
    kinds = [choose(tmp_path, run=f"tiny-00{n}").facts.nms_kind for n in (1, 2)]
    assert kinds == ["diou", "greedy"]


def test_a_run_says_whether_it_was_trained_on_a_gpu(runs: Runs, tmp_path: Path) -> None:
    runs.add("tiny-001")
    runs.add("tiny-002", gpu=True)
    on_gpu = [choose(tmp_path, run=f"tiny-00{n}").facts.was_trained_on_gpu for n in (1, 2)]
    assert on_gpu == [False, True]


def evaluation(split: str, iteration: int, thresholds: list[float | None]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        **dict.fromkeys(("map50", "map50_95", "openimages_map"), 0.5),
        **dict.fromkeys(("images", "boxes", "group_of_boxes", "detections"), 3),
    }
    counts = dict.fromkeys(("true_positives", "false_positives", "false_negatives"), 1)
    ratios = dict.fromkeys(("precision", "recall", "f1", "average_iou"), 0.5)
    rows = {
        f"class {n}": {**figures, **counts, **ratios, "score_threshold": threshold, "curve": {}}
        for n, threshold in enumerate(thresholds)
    }
    weights = {"path": "runs/x/weights/network_final.weights", "iteration": iteration}
    return {
        "split": split,
        "weights": {**weights, "sha256": "0" * 64},
        **figures,
        "openimages_map": None,
        "classes": rows,
    }


@pytest.mark.parametrize(
    ("saved", "threshold"),
    [
        (evaluation("valid", ITERATIONS, [0.4]), 0.4),
        (evaluation("valid", ITERATIONS, [0.4, None, 0.6]), 0.5),
        (evaluation("valid", ITERATIONS, [None]), None),
        (evaluation("valid", ITERATIONS - 1, [0.4]), None),  # other weights
        (evaluation("test", ITERATIONS, [0.4]), None),
        ({"split": "valid"}, None),
        ([], None),
    ],
)
def test_the_threshold_is_that_of_the_valid_split(
    runs: Runs, tmp_path: Path, saved: object, threshold: float | None
) -> None:
    folder = runs.add("tiny-001")
    (folder / "evaluation.json").write_text(json.dumps(saved))
    facts = choose(tmp_path).facts
    assert facts.threshold == (None if threshold is None else pytest.approx(threshold))
    detector = load_detector(tmp_path)
    assert detector.threshold == pytest.approx(0.25 if threshold is None else threshold)
    is_scored = isinstance(saved, dict) and saved.get("weights", {}).get("iteration") == ITERATIONS
    assert facts.scores == ({"map50": 0.5, "map50_95": 0.5} if is_scored else {})


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """A network of one class outside of projects."""
    paths: dict[str, Any] = {
        option: tmp_path / f"boats.{option}" for option in ("cfg", "weights", "names")
    }
    paths["cfg"].write_text(TINY_CFG)
    paths["weights"].write_bytes(weights_of(1))
    paths["names"].write_bytes(b"\xef\xbb\xbfBo\xc3\xa5t \r\n\r\n")
    return paths


def test_a_network_of_darknet_is_used_outside_of_projects(
    files: dict[str, Any], tmp_path: Path
) -> None:
    detector = load_detector(tmp_path, **files)
    assert detector.names == ("Boåt",)
    assert (detector.size_wh, detector.fit, detector.threshold) == ((32, 32), "letterbox", 0.25)
    assert str(files["weights"]) in detector.origin
    detected = detector(np.zeros((20, 30, 3), np.uint8), threshold=0.0)
    assert (detected.width, detected.height) == (30, 20)
    numbered = load_detector(cfg=files["cfg"], weights=files["weights"])
    assert numbered.names == ("class 0",)
    given = load_detector(cfg=files["cfg"], weights=files["weights"], names=["Ship"])
    assert given.names == ("Ship",)


def test_weights_of_another_network_or_with_nan_are_refused_with_the_numbers(
    files: dict[str, Any],
) -> None:
    content = files["weights"].read_bytes()
    two_classes = TINY_CFG.replace("classes=1", "classes=2").replace("filters=12", "filters=14")
    nan = content[:-4] + struct.pack("<f", float("nan"))
    for damaged in (content[:-4], content + bytes(8), weights_of(1, two_classes), nan):
        files["weights"].write_bytes(damaged)
        with pytest.raises(InputFormError) as caught:
            load_detector(**files)
        assert caught.value.where == str(files["weights"])
        assert any(character.isdigit() for character in caught.value.found)


@pytest.mark.parametrize(("text", "count"), [("a\nb\n", 2), ("a\n\nb\n\n", 3)])
def test_names_that_do_not_fit_are_refused_with_the_numbers(
    files: dict[str, Any], text: str, count: int
) -> None:
    files["names"].write_text(text)
    with pytest.raises(InputFormError) as caught:
        load_detector(**files)
    assert ("1 " in caught.value.expected, str(count) in caught.value.found) == (True, True)


def test_names_files_that_cannot_be_used(files: dict[str, Any]) -> None:
    files["names"].write_text("\n\n")
    with pytest.raises(InputFormError):
        load_detector(**files)
    with files["names"].open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(InputFormError):
        load_detector(**files)
    files["names"].unlink()
    files["names"].mkdir()
    with pytest.raises(UsageError):
        load_detector(**files)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "a.onnx", "run": "tiny-001"},
        {"model": "a.onnx", "cfg": "a.cfg"},
        {"cfg": "a.cfg", "weights": "a.weights", "run": "tiny-001"},
        {"cfg": "a.cfg"},
        {"weights": "a.weights"},
        {"model": "absent.onnx"},
    ],
)
def test_options_that_contradict_each_other_are_usage_errors(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        load_detector(tmp_path, **options)


def test_other_weights_of_a_run(runs: Runs, tmp_path: Path) -> None:
    folder = runs.add("tiny-001")
    other = folder / "weights" / "network_best.weights"
    other.write_bytes(weights_of(20))
    source = choose(tmp_path, weights=other)
    assert (source.weights_path, source.facts.names) == (other, ("Boat",))
    assert str(other) in source.origin


def test_models_in_onnx(files: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(plain_model(), path)
    assert load_detector(model=path).names == ("class 0", "class 1", "class 2")
    names = ["boat", "buoy", "gull"]
    assert load_detector(model=path, names=names).names == tuple(names)
    with pytest.raises(InputFormError):
        load_detector(model=path, names=files["names"])
    metadata = {"names": "{0: 'ship', 1: 'quay', 2: 'gull'}"}
    onnx.save(detector_model({"boxes": BOXES, "scores": SCORES}, metadata=metadata), path)
    assert load_detector(model=path).names == ("ship", "quay", "gull")
    assert load_detector(model=path, names=names).names == tuple(names)


def test_an_exported_model_knows_what_the_run_knew(runs: Runs, tmp_path: Path) -> None:
    folder = runs.add("tiny-001", fork="alexeyab", fit="stretch")
    (folder / "evaluation.json").write_text(json.dumps(evaluation("valid", ITERATIONS, [0.4])))
    exported = oiyolo.export_onnx(tmp_path)
    run, model = load_detector(tmp_path), load_detector(model=exported.path)
    assert model.facts == run.facts
    assert isinstance(model.facts, ModelFacts)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    ours, theirs = run(pixels, threshold=0.1), model(pixels, threshold=0.1)
    assert len(ours)
    np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=1e-3)
