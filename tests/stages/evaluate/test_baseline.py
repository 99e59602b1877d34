"""A detector that was not trained for the task: what counts as our classes, kept and compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from PIL import Image

import oiyolo
from oiyolo.boxes import to_xyxy
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.evaluation.summary import evaluate_detections
from oiyolo.evaluation.tables import Detections, GroundTruth
from oiyolo.networks.published import DETECTORS
from oiyolo.openimages.classes import find_class, read_children, read_names
from oiyolo.openimages.coco_classes import Counterparts, match_classes, mids_of_detector
from oiyolo.project.project import open_project
from oiyolo.stages.evaluate import baseline, inputs
from oiyolo.stages.evaluate.baseline_detector import detect_as, open_detector
from oiyolo.stages.evaluate.kept_detections import ChosenWeights, Images, Scored
from oiyolo.training.run import Run
from tests.support.finished_runs import make_run
from tests.support.models import BOXES, plain_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oiyolo.project.project import Project
    from tests.conftest import Cli

NAMES = ("Boat", "Bird", "Canoe")
"""Classes of the model: its first box is a Boat and a Canoe, its second a Boat and a Bird."""


def save_model(path: Path, names: tuple[str, ...] = NAMES) -> Path:
    metadata = {"names": repr(dict(enumerate(names)))} if names else {}
    onnx.save(plain_model(metadata=metadata), path)
    return path


@pytest.fixture(scope="module")
def shared_project(make_project: Callable[..., Path]) -> Path:
    folder = make_project(limit=20)
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    return folder


@pytest.fixture
def project(shared_project: Path) -> Iterator[Project]:
    opened = open_project(shared_project)
    yield opened
    shutil.rmtree(opened.data_folder / "baseline", ignore_errors=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "other.onnx")


def scored(project: Project, ours: Detections | None = None) -> Scored:
    """Return a run's detections on the test split: by default every true box."""
    paths = inputs.split_paths(project, "test")
    sizes_wh = inputs.sizes_wh(paths)
    truth = inputs.ground_truth(project, sizes_wh, ["Boat"])
    if ours is None:
        score = np.full(len(truth), 0.9)
        ours = Detections(truth.image_ids, truth.image, truth.class_id, score, truth.xyxy)
    return Scored(
        Run(project.runs_folder / "run-1"),
        ChosenWeights(project.folder, {}),
        Images("test", paths, sizes_wh),
        ours,
        truth,
        ["Boat"],
        "onnxruntime",
    )


def test_a_box_that_is_found_under_two_names_of_a_class_counts_once(
    model: Path, project: Project, tmp_path: Path
) -> None:
    image = tmp_path / "0123456789abcdef.jpg"
    Image.new("RGB", (64, 32), "white").save(image)
    detector = open_detector(project, model).detector
    boat, bird = Counterparts((0, 2), is_same=True), Counterparts((1,), is_same=True)
    found = detect_as(detector, [boat, bird, Counterparts((), is_same=False)], [str(image)])
    rows = list(zip(found.class_id.tolist(), found.score.round(4).tolist(), strict=True))
    assert rows == [(0, 0.875), (1, 0.75), (0, 0.25)]
    (cx, cy, w, h) = BOXES[0]
    np.testing.assert_allclose(
        found.xyxy[0], (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), atol=1e-5
    )
    assert found.image_ids == ("0123456789abcdef",)


def test_a_baseline_is_scored_once_without_a_run(
    model: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    def detect(*arguments: object) -> Detections:
        runs.append(1)
        return detect_as(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(baseline, "detect_as", detect)
    assert len(baseline.plan(project, model, "test")) == 1
    first = baseline.score_alone(project, model, "test")
    assert first.classes == {"Boat": ["Boat", "Canoe"]}
    assert (first.nearest, first.name, first.source) == ([], "other", str(model))
    saved = json.loads(first.path.read_text())
    assert saved == first.as_dict()
    assert saved["map50"] == first.scores["map50"]
    assert baseline.plan(project, model, "test") == []
    again = baseline.score_alone(project, model, "test")
    assert (again.as_dict(), len(runs)) == (saved, 1)
    # Damaged files, and another model, are noticed.
    first.path.with_name("detections.json").write_text("[]\n")
    assert baseline.score_alone(project, model, "test").as_dict() == saved
    assert len(runs) == 2
    other = save_model(model.with_name("third.onnx"), ("Bird", "Boat", "Person"))
    assert baseline.score_alone(project, other, "test").classes == {"Boat": ["Boat"]}
    assert len(runs) == 3


def test_a_run_is_compared_with_the_baseline_that_was_scored_last(
    model: Path, project: Project
) -> None:
    ours = scored(project)
    assert baseline.find_baseline(project, ours) is None
    compared = baseline.score_baseline(project, ours, model)
    assert compared.difference is not None
    assert compared.difference.is_beyond_chance
    value = compared.to_json()
    expected = pytest.approx(1 - compared.scores["map50"])
    assert value["difference"]["map50"] == expected
    low, high = value["difference"]["interval"]
    assert 0 < low <= value["difference"]["map50"] <= high
    # Other weights of the run are compared without running the baseline again.
    nothing = ours.detections.where(np.zeros(len(ours.detections), dtype=bool))
    kept = baseline.find_baseline(project, scored(project, nothing))
    assert kept is not None
    assert kept.difference is not None
    assert kept.difference.value == pytest.approx(-compared.scores["map50"])
    # The other split has a baseline of its own; other images than these have none.
    assert baseline.score_alone(project, model, "valid").split == "valid"
    assert baseline.find_baseline(project, ours) is not None
    fewer = dict(list(ours.images.sizes_wh.items())[1:])
    others = replace(ours, images=replace(ours.images, sizes_wh=fewer))
    assert baseline.find_baseline(project, others) is None


def test_the_scores_and_the_report_of_a_run_show_the_baseline(
    model: Path, project: Project, cli: Cli
) -> None:
    alone = cli.ok("evaluate", "--baseline-model", model, "--json", project=project.folder).json
    assert "difference" not in alone
    run = make_run(project, "tiny-1", ["Boat"])
    try:
        run.write_record(network="tiny", darknet={"fork": "alexeyab"})
        evaluated = oiyolo.evaluate(project.folder)
        assert evaluated.baseline is not None  # that of before the training
        saved = json.loads(run.evaluation_path.read_text())["baseline"]
        assert saved["map50"] == alone["map50"]
        assert saved["difference"]["map50"] == evaluated.evaluation.map50 - alone["map50"]
        assert not oiyolo.evaluate(project.folder, baseline_model=model, dry_run=True).actions
        written_ns = run.evaluation_path.stat().st_mtime_ns
        again = oiyolo.evaluate(project.folder, baseline_model=model)
        assert again.as_dict() == evaluated.as_dict()
        assert run.evaluation_path.stat().st_mtime_ns == written_ns
        page = oiyolo.report(project.folder).path.read_text(encoding="utf-8")
        assert f"{alone['map50']:.1%}" in page
        assert "Counted as Boat: Boat, Canoe" in page
        for options in (["--all-checkpoints"], ["tiny-1", "tiny-1"], ["--baseline"]):
            done = cli("evaluate", *options, "--baseline-model", model, project=project.folder)
            assert done.code == 2
    finally:
        shutil.rmtree(project.runs_folder)


def test_a_class_that_is_not_known_is_found_by_its_nearest_ones(
    make_project: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_project(classes=["Canoe", "Boat"], limit=20)
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    model = save_model(tmp_path / "birds.onnx", ("Bird", "Boat", "gnat"))
    result = baseline.score_alone(open_project(folder), model, "test")
    assert result.classes == {"Canoe": ["Boat"], "Boat": ["Boat"]}
    assert result.nearest == ["Canoe"]


def test_the_help_names_every_published_detector(cli: Cli) -> None:
    words = {word.strip(".,]") for word in cli.ok("evaluate", "--help").out.split()}
    assert words >= DETECTORS.keys()


def test_what_cannot_be_used_is_refused(project: Project, tmp_path: Path) -> None:
    for choice in (tmp_path / "missing.onnx", tmp_path, "yolov9"):
        with pytest.raises(UsageError):
            baseline.score_alone(project, choice, "test")
        with pytest.raises(UsageError):
            baseline.plan(project, choice, "test")
    with pytest.raises(UsageError):  # nothing that is near to a boat
        baseline.score_alone(project, save_model(tmp_path / "a.onnx", ("a", "b", "Tree")), "test")
    with pytest.raises(InputFormError):
        baseline.score_alone(project, save_model(tmp_path / "b.onnx", ()), "test")
    (tmp_path / "c.onnx").write_bytes(b"<html>")
    with pytest.raises(InputFormError):
        baseline.score_alone(project, tmp_path / "c.onnx", "test")
    assert not (project.data_folder / "baseline" / "baseline.json").exists()


REAL = Path(__file__).parents[4] / "shared" / "real"


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real")
def test_a_small_detector_for_coco_finds_alpacas_as_other_mammals(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = project.cache_folder / "weights"
    cache.mkdir(parents=True)
    for name in ("yolo-fastest-1.1-xl.cfg", "yolo-fastest-1.1-xl.weights"):
        (cache / name).symlink_to(REAL / "pretrained" / name)
    opened = open_detector(project, "yolo-fastest-xl")
    names = read_names(REAL / "metadata" / "class-descriptions-boxable.kushagra414.csv")
    children = read_children(REAL / "metadata" / "bbox_labels_600_hierarchy.json")
    matches = match_classes(
        [[find_class("Alpaca", names)]], mids_of_detector(opened.detector.names, names), children
    )
    paths = sorted(map(str, (REAL / "alpaca" / "images").glob("*.jpg")))[:30]
    found = detect_as(opened.detector, matches, paths)
    labels = [REAL / "alpaca" / "labels" / f"{Path(path).stem}.txt" for path in paths]
    cxcywh = np.concatenate([np.loadtxt(path, ndmin=2)[:, 1:] for path in labels])
    counts = [len(path.read_text().splitlines()) for path in labels]
    truth = GroundTruth.from_rows(
        found.image_ids,
        box_image_ids=np.repeat(found.image_ids, counts),
        class_id=np.zeros(len(cxcywh)),
        xyxy=to_xyxy(cxcywh),
        is_region=np.zeros(len(cxcywh)),
    )
    assert evaluate_detections(found, truth, ["Alpaca"]).map50 == pytest.approx(0.64, abs=0.03)
