"""A log that is followed while something writes it."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from oiyolo.core.errors import InputFormError
from oiyolo.trainlog.follow import LogFollower
from oiyolo.trainlog.parse import LogParser, parse_log, read_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.trainlog.parse import TrainLog


def lines_of(first: int, last: int) -> str:
    return "".join(
        f"Region 16 Avg IOU: 0.{n:06}, Class: 0.5, Obj: 0.5, No Obj: 0.1, .5R: 0.0, .75R: 0.0,  "
        f"count: 2\n{n}: 1.500000, 1.400000 avg, 0.001000 rate, 0.100000 seconds, {n * 8} images\n"
        for n in range(first, last + 1)
    )


def numbers(follower: LogFollower) -> list[int]:
    found: list[int] = follower.log.iterations["iteration"].tolist()
    return found


def test_a_log_that_comes_later_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    follower = LogFollower(path)
    assert not follower.update()
    assert numbers(follower) == []
    path.write_text("")
    assert not follower.update()
    path.write_text(lines_of(1, 3))
    assert follower.update()
    three = follower.log
    assert follower.log is three
    assert not follower.update()
    assert follower.log is three
    with path.open("a") as file:
        file.write(lines_of(4, 5))
    assert follower.update()
    assert numbers(follower) == [1, 2, 3, 4, 5]
    assert three.iterations["iteration"].tolist() == [1, 2, 3]
    assert len(three.regions) == 3
    assert follower.log.latest is not None
    assert follower.log.latest.iou == 0.000005
    assert follower.log.name == str(path)


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    text = lines_of(1, 2) + "caf\u00e9 \U0001f680 " + lines_of(3, 3)
    follower = LogFollower(path)
    seen = []
    with path.open("wb", buffering=0) as file:
        for byte in text.encode():
            file.write(bytes([byte]))
            follower.update()
            seen.append(len(follower.log))
    assert seen == sorted(seen)
    assert seen.index(1) == lines_of(1, 1).index("images\n") + len("images\n") - 1
    assert follower.log.summary == parse_log(text).summary


def truncate(path: Path) -> None:
    with path.open("r+") as file:
        file.truncate(0)
        file.write(lines_of(7, 8))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_text(lines_of(7, 8) + "x\n" * 5000)
    other.replace(path)


def write_anew_and_longer(path: Path) -> None:
    path.write_text(lines_of(7, 8) + "another training\n" * 5000)


def remove_and_write(path: Path) -> None:
    path.unlink()
    path.write_text(lines_of(7, 8))


@pytest.mark.parametrize(
    "change", [truncate, replace, write_anew_and_longer, remove_and_write], ids=lambda f: f.__name__
)
def test_another_log_by_that_name_is_read_from_its_beginning(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "log.txt"
    path.write_text(lines_of(1, 20))
    follower = LogFollower(path)
    follower.update()
    before = follower.log
    change(path)
    assert follower.update()
    assert numbers(follower) == [7, 8]
    assert len(before) == 20
    with path.open("a") as file:
        file.write(lines_of(9, 9))
    assert follower.update()
    assert numbers(follower) == [7, 8, 9]


def test_a_log_that_is_emptied_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(lines_of(1, 3))
    follower = LogFollower(path)
    follower.update()
    path.write_text("")
    assert follower.update()
    assert numbers(follower) == []
    assert not follower.update()


def test_a_log_that_is_gone_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(lines_of(1, 3))
    follower = LogFollower(path)
    follower.update()
    path.unlink()
    assert not follower.update()
    assert numbers(follower) == [1, 2, 3]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputFormError, match="Is a directory"):
        LogFollower(tmp_path).update()


def test_each_byte_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.txt"
    taken: list[int] = []

    take = LogParser.take

    def counted(parser: LogParser, piece: bytes) -> None:
        taken.append(len(piece))
        take(parser, piece)

    monkeypatch.setattr(LogParser, "take", counted)
    follower = LogFollower(path)
    for n in range(1, 200, 10):
        with path.open("a") as file:
            file.write(lines_of(n, n + 9))
        follower.update()
    assert sum(taken) == path.stat().st_size
    assert len(follower.log) == 200


def test_without_region_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(lines_of(1, 3))
    follower = LogFollower(path, regions=False)
    follower.update()
    assert follower.log.regions.empty
    assert follower.log.summary.regions == 3
    assert follower.log.iterations["iou"].isna().all()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_encodings_of_windows_in_small_pieces(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    data = lines_of(1, 4).replace("\n", "\r\n").encode(encoding)
    follower = LogFollower(path)
    for end in range(0, len(data), 97):
        path.write_bytes(data[:end])
        follower.update()
    path.write_bytes(data)
    follower.update()
    assert numbers(follower) == [1, 2, 3, 4]


def test_it_ends_as_the_whole_file_is_read(
    real_logs: dict[str, bytes],
    tmp_path: Path,
    assert_same: Callable[[TrainLog, TrainLog], None],
) -> None:
    for name, data in real_logs.items():
        path = tmp_path / name
        follower = LogFollower(path)
        for end in [*range(0, len(data), 30_011), len(data)]:
            path.write_bytes(data[:end])
            follower.update()
        if data.endswith(b"\n"):
            assert_same(follower.log, read_log(path))


ITERATIONS = 120


@pytest.fixture
def training(tmp_path: Path, tiny_cfg: Path) -> Path:
    """A folder in which darknet can train some seconds."""
    folder = tmp_path / "tm"
    folder.mkdir()
    for n in range(8):
        Image.new("RGB", (32, 32), (30 * n, 90, 200)).save(folder / f"{n}.jpg")
        (folder / f"{n}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (folder / "list.txt").write_text("".join(f"{n}.jpg\n" for n in range(8)))
    (folder / "obj.names").write_text("Boat\n")
    (folder / "obj.data").write_text(
        "classes=1\ntrain=list.txt\nvalid=list.txt\nnames=obj.names\nbackup=.\n"
    )
    cfg = tiny_cfg.read_text(encoding="utf-8")
    (folder / "tm.cfg").write_text(cfg.replace("max_batches=500", f"max_batches={ITERATIONS}"))
    return folder


@pytest.mark.darknet
def test_a_training_is_followed_while_darknet_writes_it(
    darknet: Path,
    training: Path,
    assert_same: Callable[[TrainLog, TrainLog], None],
) -> None:
    path = training / "train_log.txt"
    follower = LogFollower(path)
    counts = []
    with path.open("wb") as log:
        program = subprocess.Popen(
            ["stdbuf", "-oL", darknet, "detector", "train", "obj.data", "tm.cfg"],
            cwd=training,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        while program.poll() is None:
            if follower.update():
                counts.append(len(follower.log))
                assert numbers(follower) == list(range(1, len(follower.log) + 1))
            time.sleep(0.01)
    finally:
        program.kill()
        program.wait()
    follower.update()
    assert numbers(follower) == list(range(1, ITERATIONS + 1))
    assert len(set(counts)) > 5  # it was seen growing
    assert follower.log.summary.dialects == ("pjreddie",)
    assert follower.log.summary.torn == follower.log.summary.regions_unassigned == 0
    assert follower.log.iterations["iou"].notna().any()
    assert_same(follower.log, read_log(path))
