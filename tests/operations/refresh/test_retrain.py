"""Whether a refresh trains, and whether the new detector replaces the current one."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core import locks
from oiyolo.core.errors import (
    DarknetError,
    InputFormError,
    LockedError,
    UnavailableError,
    UsageError,
)
from oiyolo.core.results import Plan
from oiyolo.operations.refresh import publish
from oiyolo.operations.refresh import retrain as retrain_of
from oiyolo.operations.refresh.retrain import (
    MIN_IMAGES,
    continue_unfinished,
    decide,
    decide_first,
    plan_retraining,
)
from oiyolo.project.project import open_project
from oiyolo.stages import split as split_stage
from oiyolo.training.run import current_run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.operations.refresh.conftest import Retraining


def comparison(
    better: str | None, difference: float, interval: list[float] | None, **more: Any
) -> Any:
    row = {"first": 0.5, "second": 0.5 + difference, "difference": difference, "interval": interval}
    sides = {"first": {"run": "a-001"}, "second": {"run": "a-002"}}
    counts = {"images": 50, "boxes": 70, "further_images": None}
    return {**sides, **counts, "better": better, "map50": row, **more}


@pytest.mark.parametrize(
    ("content", "publishes", "words"),
    [
        (comparison("a-002", 0.1, [0.05, 0.15]), True, ("0.600", "+0.100", "0.050 to 0.150")),
        (comparison("a-001", -0.1, [-0.15, -0.05]), False, ("a-002", "-0.100", "-0.150 to -0.050")),
        (comparison(None, 0.0, [0.0, 0.0]), False, ("+0.000",)),
        (comparison(None, 0.1, [-0.1, 0.3], further_images=130), False, ("50 images", "130 more")),
        (comparison(None, -0.1, [-0.3, 0.1], further_images=130), False, ("-0.100",)),
    ],
)
def test_only_a_detector_that_is_better_beyond_chance_is_published(
    content: Any, words: tuple[str, ...], *, publishes: bool
) -> None:
    decision = decide(content)
    assert decision.publishes == publishes
    assert all(word in decision.reason for word in words), decision.reason


@pytest.mark.parametrize(
    "content",
    [
        comparison("a-002", 0.1, [0.05, 0.15], images=MIN_IMAGES - 1),
        comparison(None, 0.1, None),
    ],
)
def test_too_few_images_decide_nothing(content: Any) -> None:
    with pytest.raises(InputFormError):
        decide(content)


def test_the_first_detector_needs_a_score() -> None:
    assert decide_first(0.0, None).publishes
    assert not decide_first(None, None).publishes


def test_the_first_detector_is_published_and_nothing_is_done_twice(retraining: Retraining) -> None:
    result = retraining.retrain()
    assert (result.published, result.before, result.current) == (True, "", "tiny-001")
    assert "1.000" in result.reason
    assert retraining.current == "tiny-001"
    assert (retraining.run("tiny-001").folder / "report.html").is_file()
    again = retraining.retrain()
    assert (again.run, again.published, again.current) == ("", False, "tiny-001")
    assert retraining.trainings == ["auto"]
    assert retraining.detected == ["tiny-001"]
    assert "\n" not in f"{result}{again}"


def test_a_better_detector_replaces_the_current_one(retraining: Retraining) -> None:
    retraining.blind = {"tiny-001": set(retraining.test_ids[::2])}
    retraining.retrain()
    retraining.change_dataset()
    assert plan_retraining(retraining.project, data_changes=False)
    result = retraining.retrain()
    assert (result.published, result.before, result.current) == (True, "tiny-001", "tiny-002")
    assert result.comparison["better"] == "tiny-002"
    assert json.loads(json.dumps(result.as_dict()))["published"] is True
    assert retraining.current == "tiny-002"
    assert retraining.retrain().run == ""
    assert plan_retraining(retraining.project, data_changes=False) == []


@pytest.mark.parametrize("missed", [0, 1, 10], ids=["equal", "by chance", "worse"])
def test_another_detector_does_not_replace_it(retraining: Retraining, missed: int) -> None:
    retraining.retrain()
    retraining.change_dataset()
    retraining.blind = {"tiny-002": set(retraining.test_ids[:missed])}
    result = retraining.retrain()
    assert (result.run, result.published, result.current) == ("tiny-002", False, "tiny-001")
    assert "tiny-002" in str(result)
    detected = [*retraining.detected]
    again = retraining.retrain()
    assert again.as_dict() == result.as_dict()
    assert (retraining.trainings, retraining.detected) == (["auto"] * 2, detected)
    assert retraining.current == "tiny-001"


def test_a_training_starts_from_the_weights_that_are_configured(retraining: Retraining) -> None:
    retraining.set_options(retrain_from="last")
    retraining.retrain()
    retraining.change_dataset()
    retraining.retrain()
    last = retraining.run("tiny-001").final_weights_path
    assert retraining.trainings == ["auto", str(last)]


def test_a_failed_training_changes_nothing(retraining: Retraining) -> None:
    retraining.retrain()
    retraining.change_dataset()
    retraining.error = DarknetError("the loss is NaN")
    with pytest.raises(DarknetError):
        retraining.retrain()
    assert retraining.current == "tiny-001"


@pytest.mark.parametrize("fault", ["classes", "seen", "weights", "link"])
def test_a_current_detector_that_cannot_be_compared_is_an_error_before_a_training(
    retraining: Retraining, fault: str
) -> None:
    retraining.retrain()
    retraining.change_dataset()
    run = retraining.run("tiny-001")
    if fault == "classes":
        (run.folder / "obj.names").write_text("Boat\nCanoe\n")
    elif fault == "seen":
        seen = retraining.test_ids[: -MIN_IMAGES + 1]
        with (run.folder / "train.txt").open("a") as file:
            file.writelines(f"/elsewhere/{image_id}.jpg\n" for image_id in seen)
    elif fault == "weights":
        run.final_weights_path.write_bytes(b"")
    else:
        shutil.rmtree(run.folder)
    for call in (
        retraining.retrain,
        lambda: plan_retraining(retraining.project, data_changes=False),
    ):
        with pytest.raises(InputFormError) as caught:
            call()
        assert "runs/current" in caught.value.remedy or fault == "link"
    assert retraining.trainings == ["auto"]
    assert (retraining.project.runs_folder / "current").is_symlink()
    # The way out that the message names.
    (retraining.project.runs_folder / "current").unlink()
    assert retraining.retrain().published


def test_a_test_image_that_is_gone_counts_for_neither(
    retraining: Retraining, tmp_path: Path
) -> None:
    shutil.copytree(retraining.project.folder, tmp_path / "copy")
    retraining.project = open_project(tmp_path / "copy")
    retraining.blind = {"tiny-001": set(retraining.test_ids[::2])}
    retraining.retrain()
    retraining.change_dataset()
    before = retraining.test_ids
    split_stage.remove_images(retraining.project, before[:1])
    result = retraining.retrain()
    assert result.comparison["images"] == len(before) - 1
    assert result.published


def test_a_moved_project_keeps_its_detector(retraining: Retraining, tmp_path: Path) -> None:
    retraining.retrain()
    shutil.copytree(retraining.project.folder, tmp_path / "copy", symlinks=True)
    copy = open_project(tmp_path / "copy")
    retraining.project = copy
    assert retraining.retrain().run == ""
    current = current_run(copy.runs_folder)
    assert current is not None
    assert current.folder == copy.runs_folder / "tiny-001"


def test_what_is_unfinished_is_completed_before_the_dataset_changes(
    retraining: Retraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert continue_unfinished(retraining.project) == (None, None)
    retraining.blind = {"tiny-001": set(retraining.test_ids)}
    retraining.retrain()
    retraining.change_dataset()
    with monkeypatch.context() as patch:
        patch.setattr(publish, "set_current_run", fail)
        with pytest.raises(UnavailableError):
            retraining.retrain()
    retraining.run("tiny-002").write_record(state="interrupted")
    retraining.error = DarknetError("no darknet")
    assert continue_unfinished(retraining.project) == (None, retraining.error)
    retraining.error = None
    assert "tiny-002" in plan_retraining(retraining.project, data_changes=True)[0]
    with monkeypatch.context() as patch:  # a plan for a machine that has no darknet yet
        plan = Plan("train", ["fetch the sources and build them, then train with it"])
        patch.setattr(retrain_of, "train", lambda *_, **__: plan)
        assert "tiny-002" in plan_retraining(retraining.project, data_changes=True)[0]
        retraining.run("tiny-002").write_record(state="failed")
        assert "tiny-002" not in plan_retraining(retraining.project, data_changes=True)[0]
        retraining.run("tiny-002").write_record(state="interrupted")
    detected = [*retraining.detected]
    result, _ = continue_unfinished(retraining.project)
    assert result is not None
    assert (result.run, result.published) == ("tiny-002", True)
    assert (len(retraining.trainings), retraining.detected) == (3, detected)
    assert continue_unfinished(retraining.project) == (None, None)


def test_a_detector_that_was_not_better_is_not_unfinished(retraining: Retraining) -> None:
    retraining.retrain()
    retraining.change_dataset()
    assert not retraining.retrain().published
    assert continue_unfinished(retraining.project) == (None, None)


def fail(*_: object) -> None:
    raise UnavailableError("the network is down")


def test_one_process_retrains_at_a_time(retraining: Retraining) -> None:
    lock = retraining.project.runs_folder / ".retrain.lock"
    with locks.exclusive(lock, what="x", operation="x"), pytest.raises(LockedError):
        retraining.retrain()


def test_a_wrong_bucket_is_an_error_before_a_training(retraining: Retraining) -> None:
    retraining.set_options(publish_to="s3://bucket")
    with pytest.raises(UsageError):
        retraining.retrain()
    assert retraining.trainings == []


def test_a_dry_run_names_the_condition(retraining: Retraining) -> None:
    retraining.set_options(publish_to="gs://bucket/boats")
    first = plan_retraining(retraining.project, data_changes=True)
    assert "gs://bucket/boats" in first[-1]
    assert not retraining.project.runs_folder.exists()
