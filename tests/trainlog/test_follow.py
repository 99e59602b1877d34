"""Follow a log that another process writes."""

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
    iterations: list[int] = follower.log.iterations["iteration"].tolist()
    return iterations


def test_a_log_may_appear_later_and_grow(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    follower = LogFollower(path)
    assert not follower.update()
    assert numbers(follower) == []
    path.write_text("")
    assert not follower.update()
    path.write_text(lines_of(1, 3))
    assert follower.update()
    first_log = follower.log
    assert follower.log is first_log
    assert not follower.update()
    assert follower.log is first_log
    with path.open("a") as file:
        file.write(lines_of(4, 5))
    assert follower.update()
    assert numbers(follower) == [1, 2, 3, 4, 5]
    assert first_log.iterations["iteration"].tolist() == [1, 2, 3]
    assert len(first_log.regions) == 3
    assert follower.log.latest is not None
    assert follower.log.latest.iou == 0.000005
    assert follower.log.name == str(path)


def test_an_incomplete_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    text = lines_of(1, 2) + "caf\u00e9 \U0001f680 " + lines_of(3, 3)
    follower = LogFollower(path)
    lengths = []
    with path.open("wb", buffering=0) as file:
        for byte in text.encode():
            file.write(bytes([byte]))
            follower.update()
            lengths.append(len(follower.log))
    assert lengths == sorted(lengths)
    assert lengths.index(1) == lines_of(1, 1).index("images\n") + len("images\n") - 1
    assert follower.log.summary == parse_log(text).summary


def truncate(path: Path) -> None:
    with path.open("r+") as file:
        file.truncate(0)
        file.write(lines_of(7, 8))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_text(lines_of(7, 8) + "x\n" * 5000)
    other.replace(path)


def rewrite_longer(path: Path) -> None:
    path.write_text(lines_of(7, 8) + "another training\n" * 5000)


def remove_and_write(path: Path) -> None:
    path.unlink()
    path.write_text(lines_of(7, 8))


@pytest.mark.parametrize(
    "change", [truncate, replace, rewrite_longer, remove_and_write], ids=lambda f: f.__name__
)
def test_a_replaced_log_is_read_from_the_start(
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


def test_a_truncated_log_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(lines_of(1, 3))
    follower = LogFollower(path)
    follower.update()
    path.write_text("")
    assert follower.update()
    assert numbers(follower) == []
    assert not follower.update()


def test_a_deleted_log_keeps_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(lines_of(1, 3))
    follower = LogFollower(path)
    follower.update()
    path.unlink()
    assert not follower.update()
    assert numbers(follower) == [1, 2, 3]


def test_an_unreadable_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputFormError, match="Is a directory"):
        LogFollower(tmp_path).update()


def test_each_byte_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.txt"
    sizes: list[int] = []

    feed_bytes = LogParser.feed_bytes

    def counting_feed_bytes(parser: LogParser, piece: bytes) -> None:
        sizes.append(len(piece))
        feed_bytes(parser, piece)

    monkeypatch.setattr(LogParser, "feed_bytes", counting_feed_bytes)
    follower = LogFollower(path)
    for n in range(1, 200, 10):
        with path.open("a") as file:
            file.write(lines_of(n, n + 9))
        follower.update()
    assert sum(sizes) == path.stat().st_size
    assert len(follower.log) == 200


def test_region_lines_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(lines_of(1, 3))
    follower = LogFollower(path, regions=False)
    follower.update()
    assert follower.log.regions.empty
    assert follower.log.summary.regions == 3
    assert follower.log.iterations["iou"].isna().all()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_windows_encodings_are_decoded_in_small_pieces(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    data = lines_of(1, 4).replace("\n", "\r\n").encode(encoding)
    follower = LogFollower(path)
    for end in range(0, len(data), 97):
        path.write_bytes(data[:end])
        follower.update()
    path.write_bytes(data)
    follower.update()
    assert numbers(follower) == [1, 2, 3, 4]


def test_following_gives_the_same_tables_as_reading_the_file(
    real_logs: dict[str, bytes],
    tmp_path: Path,
    assert_same_tables: Callable[[TrainLog, TrainLog], None],
) -> None:
    for name, data in real_logs.items():
        path = tmp_path / name
        follower = LogFollower(path)
        for end in [*range(0, len(data), max(30_011, len(data) // 8)), len(data)]:
            path.write_bytes(data[:end])
            follower.update()
        if data.endswith(b"\n"):
            assert_same_tables(follower.log, read_log(path))


ITERATIONS = 120


@pytest.fixture
def training(tmp_path: Path, tiny_cfg: Path) -> Path:
    """A folder in which darknet can train for a few seconds."""
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
    assert_same_tables: Callable[[TrainLog, TrainLog], None],
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
    assert len(set(counts)) > 5  # several updates saw it grow
    assert follower.log.summary.dialects == ("pjreddie",)
    assert follower.log.summary.torn == follower.log.summary.regions_unassigned == 0
    assert follower.log.iterations["iou"].notna().any()
    assert_same_tables(follower.log, read_log(path))
