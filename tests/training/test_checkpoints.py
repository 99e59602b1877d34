"""Weights of a run: what it goes on from, what is kept, what is evidence."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import UnavailableError
from oiyolo.darknet.forks import LINES
from oiyolo.networks import cfg as cfgs
from oiyolo.training.backup import Backup
from oiyolo.training.checkpoints import Checkpoints, Keeper
from oiyolo.training.monitors import Measured, Point, Saved
from oiyolo.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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


def made(tmp_path: Path, line: str = "pjreddie") -> Checkpoints:
    run = Run(tmp_path)
    run.weights_folder.mkdir(parents=True, exist_ok=True)
    return Checkpoints(run, LINES[line], cfgs.parse(TEXT, path="n.cfg"))  # type: ignore[index]


def save(path: Path, iteration: int, value: float = 0.5, *, floats: int = FLOATS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = np.full(floats, value, "<f4").tobytes()
    path.write_bytes(struct.pack("<3iQ", 0, 2, 0, iteration * 4) + body)
    return path


def test_the_newest_sound_weights_are_gone_on_with(tmp_path: Path) -> None:
    known = made(tmp_path)
    assert known.newest() == (None, 0)
    hundred = save(tmp_path / "weights" / "network_100.weights", 100)
    last = save(known.last_path, 200)
    assert known.newest() == (last, 200)
    assert known.newest(until=150) == (hundred, 100)
    save(known.last_path, 200, float("nan"))
    assert known.newest() == (hundred, 100)
    save(known.last_path, 300, floats=FLOATS - 1)  # torn
    assert known.newest() == (hundred, 100)
    known.last_path.write_bytes(b"")
    assert known.newest() == (hundred, 100)


def test_best_weights_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    known = made(tmp_path, "alexeyab")
    assert known.best_path is not None
    save(known.best_path, 400)
    last = save(known.last_path, 300)
    assert known.newest() == (last, 300)


def test_two_copies_of_the_last_weights_are_kept(tmp_path: Path) -> None:
    known = made(tmp_path)
    for iteration in (100, 200, 300):
        save(known.last_path, iteration)
        known.keep_last()
    assert sorted(p.name for p in known.kept_folder.iterdir()) == [
        "last-200.weights",
        "last-300.weights",
    ]
    known.last_path.write_bytes(b"torn")
    assert known.newest() == (known.kept_folder / "last-300.weights", 300)
    known.keep_last()
    assert known.newest_kept == known.kept_folder / "last-300.weights"


def test_what_it_was_taken_back_from_is_evidence(tmp_path: Path) -> None:
    known = made(tmp_path)
    save(tmp_path / "weights" / "network_100.weights", 100)
    for path in (known.last_path, known.kept_folder / "last-200.weights", known.final_path):
        save(path, 200, float("nan"))
    folder = known.move_aside(100, "002")
    assert folder == tmp_path / "evidence" / "002"
    names = {"network.backup", "last-200.weights", "network_final.weights"}
    assert {path.name for path in folder.iterdir()} == names
    assert [p.name for p in (tmp_path / "weights").rglob("*.*")] == ["network_100.weights"]
    assert known.move_aside(100, "003") is None


def test_the_best_is_kept_with_its_map_and_given_back(tmp_path: Path) -> None:
    known = made(tmp_path, "alexeyab")
    best = known.best_path
    assert best is not None
    known.keep_best(0.5)  # there is none yet
    assert not known.kept_folder.exists()
    save(best, 100)
    known.keep_best(0.8)
    save(best, 200)
    known.keep_best(0.7)  # a worse one took its place
    assert known.best is not None
    assert (known.best.map, known.best.iteration) == (0.8, 100)
    assert best.read_bytes() == known.best.path.read_bytes()
    save(best, 300)
    known.keep_best(0.9)
    assert (known.best.map, known.best.iteration) == (0.9, 300)
    assert len(list(known.kept_folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("iteration", "floats", "measured", "stays"),
    [
        (100, FLOATS, {100: 0.8}, 100),
        (200, FLOATS, {200: 0.9}, 200),  # killed before it was kept
        (200, FLOATS, {200: 0.7}, 100),  # killed before the better one was given back
        (200, FLOATS, {}, 100),
        (200, FLOATS - 3, {200: 0.9}, 100),  # killed while it was written
    ],
)
def test_a_best_that_a_kill_left_behind_is_mended(
    tmp_path: Path, iteration: int, floats: int, measured: dict[int, float], stays: int
) -> None:
    known = made(tmp_path, "alexeyab")
    assert known.best_path is not None
    save(known.best_path, 100)
    known.keep_best(0.8)
    (known.kept_folder / ".best-0.9-200.weights.1-1.part").write_bytes(b"half")
    save(known.best_path, iteration, floats=floats)
    known.mend(measured)
    assert known.best is not None
    assert known.best.iteration == stays
    assert known.best_path.read_bytes() == known.best.path.read_bytes()
    assert len(list(known.kept_folder.iterdir())) == 1


def test_weights_are_copied_when_they_are_whole(tmp_path: Path) -> None:
    known = made(tmp_path, "alexeyab")
    keeper = Keeper(known)
    keeper.hear(Point(100, 1, 1), 0)
    save(known.last_path, 100)
    keeper.hear(Saved("weights/network_last.weights"), 0)
    assert not known.kept_folder.exists()
    keeper.hear(Measured(0.4), 0)
    keeper.hear(Point(101, 1, 1), 0)
    assert known.newest_kept is not None
    assert (keeper.kept, keeper.iteration) == (1, 101)


def test_a_copy_that_fails_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = made(tmp_path)
    keeper = Keeper(known)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_copy", staticmethod(full))
    save(known.last_path, 100)
    keeper.hear(Saved("weights/network.backup"), 0)
    keeper.hear(Point(101, 1, 1), 0)
    assert "No space left" in caplog.text


# --- copies in a bucket ----------------------------------------------------------------------


class Bucket:
    """Takes copies, with what was in them."""

    def __init__(self) -> None:
        self.copies: list[tuple[str, dict[str, bytes]]] = []
        self.fails = False

    def __call__(self, paths: Sequence[Path], place: str) -> None:
        if self.fails:
            raise UnavailableError("the bucket does not answer")
        self.copies.append((place, {path.name: path.read_bytes() for path in paths}))


def test_weights_are_copied_to_a_bucket_under_darknets_names(tmp_path: Path) -> None:
    known = made(tmp_path / "a-001", "alexeyab")
    known.run.write_record(state="running")
    keeper, bucket = Keeper(known), Bucket()
    backup = Backup(known.run, known, keeper, place="gs://b/runs/", every_s=100, copy=bucket)
    backup.look(0.0, 0.0)
    assert bucket.copies == []  # there is nothing yet
    save(known.last_path, 100)
    assert known.best_path is not None
    save(known.best_path, 90)
    known.keep_best(0.5)
    keeper.hear(Saved("weights/network_last.weights"), 0)
    keeper.hear(Point(101, 1, 1), 0)
    backup.look(1.0, 0.0)
    known.last_path.write_bytes(b"being written anew")
    backup.close()
    place, first = bucket.copies[0]
    assert place == "gs://b/runs/a-001"
    assert set(first) == {"network_last.weights", "network_best.weights", "run.json"}
    assert struct.unpack_from("<Q", first["network_last.weights"], 12) == (400,)


def test_a_bucket_that_does_not_answer_is_told_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = made(tmp_path)
    known.run.write_record(state="running")
    bucket = Bucket()
    bucket.fails = True
    Backup(known.run, known, Keeper(known), place="gs://b", copy=bucket).close()
    assert "does not answer" in caplog.text
