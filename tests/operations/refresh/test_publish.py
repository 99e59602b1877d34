"""A published detector: its copy in a bucket, the current run, and the call that announces it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.operations.refresh import publish
from oiyolo.training.run import set_current_run
from tests.support.finished_runs import make_run

if TYPE_CHECKING:
    from tests.conftest import Cli
    from tests.operations.refresh.conftest import Retraining
    from tests.support.bucket_emulator import Emulator, FaultyBucket

NAMES = {
    *("network_final.weights", "network.cfg", "obj.names", "tiny-001.onnx", "tiny-001.md"),
    *("evaluation.json", "report.html", "run.json"),
}


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the facts of every call of ``on_new_detector``."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(publish, "call_hook", lambda _, facts: calls.append(facts))
    return calls


def manifest_in(bucket: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(bucket.blob("boats/current.json").download_as_bytes())
    return content


def test_the_bucket_gets_the_detector_and_then_its_manifest(
    retraining: Retraining, emulator: Emulator, announced: list[dict[str, Any]]
) -> None:
    bucket = emulator.make_bucket()
    retraining.set_options(publish_to=f"gs://{bucket.name}/boats", on_new_detector="mail")
    result = retraining.retrain()
    assert result.published_to == f"gs://{bucket.name}/boats/tiny-001"
    manifest = manifest_in(bucket)
    assert manifest["run"] == "tiny-001"
    assert manifest["scores"]["map50"] == 1
    assert len(manifest["scores"]["map50_interval"]) == 2
    assert manifest["files"].keys() == NAMES
    for name, checksum in manifest["files"].items():
        content = bucket.blob(f"boats/tiny-001/{name}").download_as_bytes()
        assert hashlib.sha256(content).hexdigest() == checksum
    assert [facts["run"] for facts in announced] == ["tiny-001"]
    json.dumps(announced)
    assert retraining.retrain().published_to == ""
    assert manifest_in(bucket) == manifest
    assert len(announced) == 1


def test_a_better_detector_says_than_which(
    retraining: Retraining, emulator: Emulator, announced: list[dict[str, Any]]
) -> None:
    bucket = emulator.make_bucket()
    retraining.set_options(publish_to=f"gs://{bucket.name}/boats", on_new_detector="mail")
    retraining.blind = {"tiny-001": set(retraining.test_ids)}
    retraining.retrain()
    retraining.change_dataset()
    assert retraining.retrain().published
    better_than = manifest_in(bucket)["better_than"]
    assert (better_than["run"], better_than["map50_difference"]) == ("tiny-001", 1)
    assert [facts["previous"] for facts in announced] == [None, "tiny-001"]
    assert announced[1]["map50_difference"] == 1
    assert bucket.blob("boats/tiny-001/network.cfg").exists()  # readers may still load it


def test_a_missing_bucket_leaves_the_current_detector_until_it_exists(
    retraining: Retraining, emulator: Emulator, announced: list[dict[str, Any]]
) -> None:
    url = f"gs://{emulator.make_bucket().name}-2/boats"
    retraining.set_options(publish_to=url, on_new_detector="mail")
    for _ in range(2):
        with pytest.raises(UsageError):
            retraining.retrain()
        assert (retraining.current, announced) == (None, [])
    bucket = emulator.client().create_bucket(url.split("/")[2])
    assert retraining.retrain().published
    assert retraining.current == "tiny-001"
    assert (len(retraining.trainings), retraining.detected) == (1, ["tiny-001"])
    assert manifest_in(bucket)["run"] == "tiny-001"


def test_a_bucket_that_refuses_this_user_is_an_error(
    retraining: Retraining, faulty_bucket: FaultyBucket
) -> None:
    faulty_bucket.responses[""] = [(403, b"{}", {"Content-Type": "application/json"})]
    retraining.set_options(publish_to="gs://photos/boats")
    with pytest.raises(UnavailableError) as caught:
        retraining.retrain()
    assert "gs://photos/boats" in caught.value.where
    assert retraining.current is None
    assert faulty_bucket.uploaded == b""


@pytest.mark.parametrize("killed_in", ["upload_files", "set_current_run", "call_hook"])
def test_an_interrupted_publication_is_completed(
    retraining: Retraining,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    killed_in: str,
) -> None:
    bucket = emulator.make_bucket()
    retraining.set_options(publish_to=f"gs://{bucket.name}/boats", on_new_detector="mail")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish, killed_in, die)
        with pytest.raises(KeyboardInterrupt):
            retraining.retrain()
    calls: list[Any] = []
    monkeypatch.setattr(publish, "call_hook", lambda _, facts: calls.append(facts["run"]))
    retraining.retrain()
    retraining.retrain()
    assert calls == ["tiny-001"]
    assert retraining.current == manifest_in(bucket)["run"] == "tiny-001"
    assert (len(retraining.trainings), retraining.detected) == (1, ["tiny-001"])


def test_a_run_that_the_user_chose_is_published(
    retraining: Retraining, emulator: Emulator, announced: list[dict[str, Any]]
) -> None:
    retraining.set_options(on_new_detector="mail")
    retraining.retrain()
    chosen = make_run(retraining.project, "chosen", ["Boat"])
    chosen.write_record(**{**retraining.run("tiny-001").record, "name": "chosen"})
    set_current_run(chosen)
    bucket = emulator.make_bucket()
    retraining.set_options(publish_to=f"gs://{bucket.name}/boats")
    assert publish.pending_actions(retraining.project, chosen)
    result = retraining.retrain()
    assert (result.run, result.current) == ("", "chosen")
    assert manifest_in(bucket)["run"] == "chosen"
    assert [facts["run"] for facts in announced] == ["tiny-001", "chosen"]
    assert publish.pending_actions(retraining.project, chosen) == []


def test_status_shows_the_current_run(retraining: Retraining, cli: Cli) -> None:
    folder = retraining.project.folder
    retraining.retrain()
    status = cli.ok("status", "--json", project=folder).json
    assert status["current"] == "tiny-001"
    assert [run["run"] for run in status["runs"]] == ["tiny-001"]
    assert "tiny-001 (current)" in cli.ok("status", project=folder).out
    assert cli.ok("report", "--run", "current", "--json", project=folder).json["run"] == "tiny-001"
    link = retraining.project.runs_folder / "current"
    link.unlink()
    link.symlink_to("gone")
    damaged = cli("status", "--json", project=folder)
    assert (damaged.code, damaged.json["damaged"][0]["where"]) == (3, str(link))
    assert cli("evaluate", "--run", "current", project=folder).code == 3
