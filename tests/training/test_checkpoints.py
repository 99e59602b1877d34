"""Checkpoints of a run: the newest to resume from, the kept copies, the rejected weights."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import UnavailableError
from oiyolo.darknet.forks import FORKS
from oiyolo.networks import cfg as cfgs
from oiyolo.training import backup as backup_module
from oiyolo.training.backup import Backup
from oiyolo.training.checkpoints import CheckpointKeeper, Checkpoints
from oiyolo.training.monitors import IterationStats, MapMeasured, WeightsSaved
from oiyolo.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.net.buckets import BucketFolder

TEXT = """\
[net]
batch=4
subdivisions=1
width=32
height=32
channels=3
max_batches=500

[convolutional]
filters=2
size=1
stride=1
activation=linear
"""
FLOATS = 2 + 3 * 2


def make_checkpoints(tmp_path: Path, fork: str = "pjreddie") -> Checkpoints:
    run = Run(tmp_path)
    run.weights_folder.mkdir(parents=True, exist_ok=True)
    return Checkpoints(run, FORKS[fork], cfgs.parse(TEXT, path="n.cfg"))  # type: ignore[index]


def save(path: Path, iteration: int, value: float = 0.5, *, floats: int = FLOATS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = np.full(floats, value, "<f4").tobytes()
    path.write_bytes(struct.pack("<3iQ", 0, 2, 0, iteration * 4) + body)
    return path


def test_the_newest_valid_weights_are_chosen(tmp_path: Path) -> None:
    checkpoints = make_checkpoints(tmp_path)
    assert checkpoints.newest() == (None, 0)
    hundred = save(tmp_path / "weights" / "network_100.weights", 100)
    last = save(checkpoints.last_path, 200)
    assert checkpoints.newest() == (last, 200)
    assert checkpoints.newest(max_iteration=150) == (hundred, 100)
    save(checkpoints.last_path, 200, float("nan"))
    assert checkpoints.newest() == (hundred, 100)
    save(checkpoints.last_path, 300, floats=FLOATS - 1)  # incomplete
    assert checkpoints.newest() == (hundred, 100)
    checkpoints.last_path.write_bytes(b"")
    assert checkpoints.newest() == (hundred, 100)


def test_best_weights_are_not_chosen_to_resume_from(tmp_path: Path) -> None:
    checkpoints = make_checkpoints(tmp_path, "alexeyab")
    assert checkpoints.best_path is not None
    save(checkpoints.best_path, 400)
    last = save(checkpoints.last_path, 300)
    assert checkpoints.newest() == (last, 300)


def test_two_copies_of_the_last_weights_are_kept(tmp_path: Path) -> None:
    checkpoints = make_checkpoints(tmp_path)
    for iteration in (100, 200, 300):
        save(checkpoints.last_path, iteration)
        checkpoints.keep_last()
    assert sorted(p.name for p in checkpoints.kept_folder.iterdir()) == [
        "last-200.weights",
        "last-300.weights",
    ]
    checkpoints.last_path.write_bytes(b"incomplete")
    assert checkpoints.newest() == (checkpoints.kept_folder / "last-300.weights", 300)
    checkpoints.keep_last()
    assert checkpoints.newest_kept == checkpoints.kept_folder / "last-300.weights"


def test_a_rollback_moves_newer_weights_to_the_evidence_folder(tmp_path: Path) -> None:
    checkpoints = make_checkpoints(tmp_path)
    save(tmp_path / "weights" / "network_100.weights", 100)
    for path in (
        checkpoints.last_path,
        checkpoints.kept_folder / "last-200.weights",
        checkpoints.final_path,
    ):
        save(path, 200, float("nan"))
    folder = checkpoints.move_aside(100, "002")
    assert folder == tmp_path / "evidence" / "002"
    names = {"network.backup", "last-200.weights", "network_final.weights"}
    assert {path.name for path in folder.iterdir()} == names
    assert [p.name for p in (tmp_path / "weights").rglob("*.*")] == ["network_100.weights"]
    assert checkpoints.move_aside(100, "003") is None


def test_the_best_weights_are_kept_with_their_map_and_restored(tmp_path: Path) -> None:
    checkpoints = make_checkpoints(tmp_path, "alexeyab")
    best = checkpoints.best_path
    assert best is not None
    checkpoints.keep_best(0.5)  # there are no best weights yet
    assert not checkpoints.kept_folder.exists()
    save(best, 100)
    checkpoints.keep_best(0.8)
    save(best, 200)
    checkpoints.keep_best(0.7)  # worse weights have overwritten them
    assert checkpoints.best is not None
    assert (checkpoints.best.map, checkpoints.best.iteration) == (0.8, 100)
    assert best.read_bytes() == checkpoints.best.path.read_bytes()
    save(best, 300)
    checkpoints.keep_best(0.9)
    assert (checkpoints.best.map, checkpoints.best.iteration) == (0.9, 300)
    assert len(list(checkpoints.kept_folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("iteration", "floats", "map_by_iteration", "kept_iteration"),
    [
        (100, FLOATS, {100: 0.8}, 100),
        (200, FLOATS, {200: 0.9}, 200),  # killed before they were kept
        (200, FLOATS, {200: 0.7}, 100),  # killed before the better ones were restored
        (200, FLOATS, {}, 100),
        (200, FLOATS - 3, {200: 0.9}, 100),  # killed while they were written
    ],
)
def test_the_best_weights_are_repaired_after_a_kill(
    tmp_path: Path,
    iteration: int,
    floats: int,
    map_by_iteration: dict[int, float],
    kept_iteration: int,
) -> None:
    checkpoints = make_checkpoints(tmp_path, "alexeyab")
    assert checkpoints.best_path is not None
    save(checkpoints.best_path, 100)
    checkpoints.keep_best(0.8)
    (checkpoints.kept_folder / ".best-0.9-200.weights.1-1.part").write_bytes(b"partial")
    save(checkpoints.best_path, iteration, floats=floats)
    checkpoints.repair(map_by_iteration)
    assert checkpoints.best is not None
    assert checkpoints.best.iteration == kept_iteration
    assert checkpoints.best_path.read_bytes() == checkpoints.best.path.read_bytes()
    assert len(list(checkpoints.kept_folder.iterdir())) == 1


def own_checkpoints(tmp_path: Path) -> Checkpoints:
    return replace(make_checkpoints(tmp_path, "alexeyab"), own_map=True)


@pytest.mark.parametrize("has_links", [True, False])
def test_weights_are_linked_to_be_scored_or_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    checkpoints = own_checkpoints(tmp_path)
    assert checkpoints.link_for_scoring() is None
    save(checkpoints.last_path, 100)
    checkpoints.keep_last()
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    linked = checkpoints.link_for_scoring()
    assert linked == (checkpoints.kept_folder / "scoring-100.weights", 100)
    source = checkpoints.newest_kept
    assert source is not None
    assert linked[0].samefile(source) == has_links
    assert linked[0].read_bytes() == source.read_bytes()


def no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_links_of_a_killed_training_are_removed_and_nothing_is_restored_for_darknet(
    tmp_path: Path,
) -> None:
    checkpoints = own_checkpoints(tmp_path)
    for name in ("best-0.500000-100", "scoring-200", "last-200"):
        save(checkpoints.kept_folder / f"{name}.weights", 100)
    checkpoints.repair({})
    names = sorted(path.name for path in checkpoints.kept_folder.iterdir())
    assert names == ["best-0.500000-100.weights", "last-200.weights"]
    assert list(checkpoints.run.weights_folder.iterdir()) == [checkpoints.kept_folder]


def test_best_weights_from_a_backup_are_kept_if_their_score_is_known(tmp_path: Path) -> None:
    checkpoints = own_checkpoints(tmp_path)
    copied = save(checkpoints.run.weights_folder / "network_best.weights", 100)
    checkpoints.repair({200: 0.5})
    assert copied.exists()
    assert not checkpoints.kept_folder.exists()
    checkpoints.repair({100: 0.5, 200: 0.4})
    assert checkpoints.best is not None
    assert (checkpoints.best.map, checkpoints.best.iteration) == (0.5, 100)
    assert not copied.exists()


def test_weights_are_copied_once_they_are_complete(tmp_path: Path) -> None:
    checkpoints = make_checkpoints(tmp_path, "alexeyab")
    keeper = CheckpointKeeper(checkpoints)
    keeper.on_event(IterationStats(100, 1, 1), 0)
    save(checkpoints.last_path, 100)
    keeper.on_event(WeightsSaved("weights/network_last.weights"), 0)
    assert not checkpoints.kept_folder.exists()
    keeper.on_event(MapMeasured(0.4), 0)
    keeper.on_event(IterationStats(101, 1, 1), 0)
    assert checkpoints.newest_kept is not None
    assert (keeper.kept_count, keeper.iteration) == (1, 101)


def test_a_failed_copy_does_not_stop_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = make_checkpoints(tmp_path)
    keeper = CheckpointKeeper(checkpoints)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_copy", staticmethod(full))
    save(checkpoints.last_path, 100)
    keeper.on_event(WeightsSaved("weights/network.backup"), 0)
    keeper.on_event(IterationStats(101, 1, 1), 0)
    assert "No space left" in caplog.text


# --- copies in a bucket ----------------------------------------------------------------------


class Bucket:
    """Record uploads with the content of the files."""

    def __init__(self) -> None:
        self.copies: list[tuple[str, dict[str, bytes]]] = []
        self.fails = False

    def __call__(self, files: Mapping[str, Path], folder: BucketFolder) -> None:
        if self.fails:
            raise UnavailableError("the bucket does not answer")
        contents = {name: path.read_bytes() for name, path in files.items()}
        self.copies.append((str(folder), contents))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    bucket = Bucket()
    monkeypatch.setattr(backup_module, "upload_files", bucket)
    return bucket


def test_weights_are_copied_to_a_bucket_under_darknets_names(
    tmp_path: Path, bucket: Bucket
) -> None:
    checkpoints = make_checkpoints(tmp_path / "a-001", "alexeyab")
    checkpoints.run.write_record(state="running")
    keeper = CheckpointKeeper(checkpoints)
    backup = Backup(checkpoints, keeper, "gs://backups/runs/")
    backup.on_tick(0.0, 0.0)
    assert bucket.copies == []  # there are no weights yet
    save(checkpoints.last_path, 100)
    assert checkpoints.best_path is not None
    save(checkpoints.best_path, 90)
    checkpoints.keep_best(0.5)
    keeper.on_event(WeightsSaved("weights/network_last.weights"), 0)
    keeper.on_event(IterationStats(101, 1, 1), 0)
    backup.on_tick(1.0, 0.0)
    checkpoints.last_path.write_bytes(b"being overwritten")
    backup.close()
    destination, first = bucket.copies[0]
    assert destination == "gs://backups/runs/a-001"
    assert set(first) == {"network_last.weights", "network_best.weights", "run.json"}
    assert struct.unpack_from("<Q", first["network_last.weights"], 12) == (400,)


def test_best_weights_that_oiyolo_scored_are_copied_under_darknets_name(
    tmp_path: Path, bucket: Bucket
) -> None:
    checkpoints = replace(own_checkpoints(tmp_path), fork=FORKS["pjreddie"])
    checkpoints.run.write_record(state="running")
    checkpoints.run.scores_path.write_text("{}")
    save(checkpoints.kept_folder / "best-0.500000-100.weights", 100)
    Backup(checkpoints, CheckpointKeeper(checkpoints), "gs://backups").close()
    ((_, files),) = bucket.copies
    assert set(files) == {"network_best.weights", "run.json", "checkpoint_scores.json"}


def test_an_unreachable_bucket_is_only_logged(
    tmp_path: Path, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = make_checkpoints(tmp_path)
    checkpoints.run.write_record(state="running")
    bucket.fails = True
    Backup(checkpoints, CheckpointKeeper(checkpoints), "gs://backups").close()
    assert "does not answer" in caplog.text


def test_the_torch_engine_writes_a_state_with_the_weights(tmp_path: Path) -> None:
    darknets = make_checkpoints(tmp_path)
    torchs = replace(darknets, engine="torch")
    assert torchs.needed_bytes == darknets.needed_bytes + darknets.size_bytes
    averaged = cfgs.parse(TEXT.replace("[net]", "[net]\nema_alpha=.9", 1), path="n.cfg")
    assert (
        replace(torchs, cfg=averaged).needed_bytes
        == darknets.needed_bytes + 3 * darknets.size_bytes
    )
