"""Event files, read by TensorBoard's own readers, which verify the checksums."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import warnings
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import UsageError
from oiyolo.trainlog.parse import parse_log, read_log
from oiyolo.trainlog.scores import CheckpointScore

pytest.importorskip("tensorboard", reason="the extra [tensorboard] is not installed")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by its imports
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import SessionLog

    from oiyolo.tracking.tensorboard import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

AT_S = 1_700_000_000.0
START = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"


@dataclasses.dataclass
class ReadEvent:
    step: int
    time_s: float
    values: dict[str, float]
    is_session_start: bool


def events_in(folder: Path) -> list[ReadEvent]:
    """Return the events of the only event file, without its version."""
    (path,) = folder.glob("*tfevents*")
    head, *events = LegacyEventFileLoader(str(path)).Load()
    assert head.file_version == "brain.Event:2"
    return [
        ReadEvent(
            event.step,
            event.wall_time,
            {value.tag: value.simple_value for value in event.summary.value},
            event.session_log.status == SessionLog.START,
        )
        for event in events
    ]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what remains for a reader that drops later steps at each session start."""
    values_by_tag: dict[str, list[tuple[int, float]]] = {}
    for read in events_in(folder):
        if read.is_session_start:
            values_by_tag = {
                tag: [p for p in ps if p[0] < read.step] for tag, ps in values_by_tag.items()
            }
        for tag, value in read.values.items():
            values_by_tag.setdefault(tag, []).append((read.step, value))
    return values_by_tag


def lines(first: int, last: int, *, loss: float = 1.5) -> str:
    return "".join(
        f"Region 82 Avg IOU: 0.5, Class: 0.5, Obj: 0.5, No Obj: 0.1, .5R: 1.0, .75R: 0.0,  "
        f"count: {i % 2}\n"
        f"{i}: {loss:f}, {loss * 2:f} avg, 0.001000 rate, 2.0 seconds, {i * 64} images\n"
        for i in range(first, last + 1)
    )


def write(folder: Path, text: str) -> int:
    writer = EventWriter(folder)
    writer.write(parse_log(text), written_at_s=AT_S)
    return writer.new_steps


def test_scalars_of_a_log(tmp_path: Path) -> None:
    text = lines(1, 3) + " mean_average_precision (mAP@0.50) = 0.75\n" + lines(4, 4)
    assert write(tmp_path / "a", text) == 5
    assert scalars(tmp_path / "a") == {
        "loss": [(i, 1.5) for i in (1, 2, 3, 4)],
        "avg_loss": [(i, 3.0) for i in (1, 2, 3, 4)],
        "rate": [(i, pytest.approx(0.001)) for i in (1, 2, 3, 4)],
        "images_per_s": [(i, 32.0) for i in (1, 2, 3, 4)],
        "iou": [(1, 0.5), (3, 0.5)],
        "iou_82": [(1, 0.5), (3, 0.5)],
        "map": [(3, 0.75)],
    }
    times = [read.time_s for read in events_in(tmp_path / "a")]
    assert times == [AT_S - 6, AT_S - 4, AT_S - 2, AT_S - 2, AT_S]


def test_only_new_iterations_are_appended(tmp_path: Path) -> None:
    write(tmp_path, lines(1, 10))
    (path,) = tmp_path.glob("*tfevents*")
    before = path.read_bytes()
    assert write(tmp_path, lines(1, 10)) == 0
    assert path.read_bytes() == before
    assert write(tmp_path, lines(1, 12)) == 2
    assert path.read_bytes().startswith(before)
    assert [read.step for read in events_in(tmp_path)] == list(range(1, 13))
    times = [read.time_s for read in events_in(tmp_path)]
    assert times == sorted(times)


def test_map_is_appended_after_its_iteration_was_written(tmp_path: Path) -> None:
    write(tmp_path, lines(1, 10))
    assert write(tmp_path, lines(1, 10) + " mean_average_precision (mAP@0.50) = 0.25\n") == 1
    assert scalars(tmp_path)["map"] == [(10, 0.25)]


def write_scores(folder: Path, text: str, scores: dict[int, tuple[float, float]]) -> int:
    writer = EventWriter(folder)
    rows = [CheckpointScore(i, *values, (0.0, 1.0)) for i, values in sorted(scores.items())]
    writer.write(parse_log(text).with_scores(rows), written_at_s=AT_S)
    return writer.new_steps


def test_scores_are_written_once_also_after_their_iterations(tmp_path: Path) -> None:
    text = START + lines(1, 40)
    assert write_scores(tmp_path, text, {10: (0.25, 0.5)}) == 41
    scores = {10: (0.25, 0.5), 20: (0.5, math.nan)}
    assert write_scores(tmp_path, text, scores) == 1
    assert write_scores(tmp_path, text, scores) == 0
    assert write_scores(tmp_path, text, {**scores, 10: (0.125, 0.5)}) == 1  # scored again
    found = scalars(tmp_path)
    assert found["valid_map50"] == [(10, 0.25), (20, 0.5), (10, 0.125)]
    assert found["train_map50"] == [(10, 0.5), (10, 0.5)]
    assert events_in(tmp_path)[-2].time_s == AT_S - 40


def test_scores_of_replaced_iterations_are_written_again(tmp_path: Path) -> None:
    first = START + lines(1, 100)
    write_scores(tmp_path, first, {80: (0.25, 0.5), 90: (0.5, 0.5)})
    second = first + START + lines(81, 95, loss=2.5)
    assert write_scores(tmp_path, second, {80: (0.25, 0.5)}) == 15
    assert scalars(tmp_path)["valid_map50"] == [(80, 0.25)]
    assert write_scores(tmp_path, second, {80: (0.25, 0.5), 90: (0.5, 0.5)}) == 1
    assert scalars(tmp_path)["valid_map50"] == [(80, 0.25), (90, 0.5)]


def test_a_resume_invalidates_replaced_iterations(tmp_path: Path) -> None:
    first = START + lines(1, 100)
    write(tmp_path, first)
    second = first + START + lines(81, 90, loss=2.5)
    assert write(tmp_path, second) == 10
    assert [read.step for read in events_in(tmp_path) if read.is_session_start] == [81]
    assert scalars(tmp_path)["loss"] == [(i, 1.5) for i in range(1, 81)] + [
        (i, 2.5) for i in range(81, 91)
    ]
    assert write(tmp_path, second + lines(91, 95, loss=2.5)) == 5
    assert len([read for read in events_in(tmp_path) if read.is_session_start]) == 1


def test_iterations_replaced_earlier_are_not_written(tmp_path: Path) -> None:
    write(tmp_path, START + lines(1, 100) + START + lines(81, 90))
    assert [read.step for read in events_in(tmp_path)] == list(range(1, 91))
    assert not [read for read in events_in(tmp_path) if read.is_session_start]


def test_an_incomplete_record_is_removed(tmp_path: Path) -> None:
    write(tmp_path, lines(1, 10))
    (path,) = tmp_path.glob("*tfevents*")
    with path.open("ab") as file:
        file.write(b"half a record")
    write(tmp_path, lines(1, 12))
    assert [read.step for read in events_in(tmp_path)] == list(range(1, 13))


@pytest.mark.parametrize(
    "damage", ["another log", "no state", "invalid state", "invalid size", "shorter"]
)
def test_an_unusable_event_file_is_rewritten(tmp_path: Path, damage: str) -> None:
    write(tmp_path, lines(1, 10))
    (path,) = tmp_path.glob("*tfevents*")
    text = lines(1, 12)
    if damage == "another log":
        text = lines(1, 12, loss=9)
    elif damage == "shorter":
        os.truncate(path, 40)
    else:
        state = tmp_path / ".oiyolo-events.json"
        changes: dict[str, dict[str, object]] = {
            "invalid state": {"file": 1},
            "invalid size": {"size_bytes": "9"},
        }
        content = changes.get(damage)
        before = json.loads(state.read_text())
        state.unlink()
        if content is not None:
            state.write_text(json.dumps({**before, **content}), encoding="utf-8")
    assert write(tmp_path, text) == 12
    assert [read.step for read in events_in(tmp_path)] == list(range(1, 13))


def test_nan_and_overflowing_values_are_written(tmp_path: Path) -> None:
    text = "1: -nan, inf avg, 0.1 rate, 0.0 seconds, 64 images\n"
    text += f"2: {'9' * 45}, 1.0 avg, 0.1 rate, 0.5 seconds, 128 images\n"
    write(tmp_path, text)
    first, second = events_in(tmp_path)
    assert math.isnan(first.values["loss"])
    assert first.values["avg_loss"] == math.inf
    assert set(first.values) == {"loss", "avg_loss", "rate"}
    assert second.values["loss"] == math.inf


def test_a_log_without_iterations_writes_no_files(tmp_path: Path) -> None:
    assert write(tmp_path / "a", "nothing\n") == 0
    assert not (tmp_path / "a").exists()


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("", encoding="utf-8")
    for folder in (tmp_path / "a", tmp_path / "a" / "run"):
        with pytest.raises(UsageError) as caught:
            EventWriter(folder)
        assert caught.value.where == str(tmp_path / "a")


def test_tensorboard_reads_the_event_file(real: Path, tmp_path: Path) -> None:
    path = real / "logs" / "alexeyab_merged_2and1.log"
    log = read_log(path)
    EventWriter(tmp_path).write(log, written_at_s=path.stat().st_mtime)
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    assert set(reader.Tags()["scalars"]) == {
        *("loss", "avg_loss", "rate", "images_per_s", "iou", "iou_10", "map"),
    }
    metrics = log.metrics()
    for tag in ("loss", "avg_loss", "rate", "iou", "iou_10"):
        read = reader.Scalars(tag)
        assert [scalar.step for scalar in read] == metrics["iteration"].tolist()
        assert [scalar.value for scalar in read] == pytest.approx(metrics[tag].tolist())
    assert [(point.step, point.value) for point in reader.Scalars("map")] == [
        (30, pytest.approx(log.maps["map"].iloc[-1]))
    ]
    times = [scalar.wall_time for scalar in reader.Scalars("loss")]
    assert times == sorted(times)
    assert times[-1] == path.stat().st_mtime


def test_tensorboard_drops_iterations_that_a_resume_replaced(tmp_path: Path) -> None:
    first = START + lines(1, 100)
    write(tmp_path, first)
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    assert [scalar.step for scalar in reader.Scalars("loss")] == list(range(1, 101))
    write(tmp_path, first + START + lines(81, 90, loss=2.5))
    reader.Reload()  # while TensorBoard is open
    read = [(scalar.step, scalar.value) for scalar in reader.Scalars("loss")]
    assert read == [(i, 1.5) for i in range(1, 81)] + [(i, 2.5) for i in range(81, 91)]


def test_the_validation_loss_is_appended_after_its_iteration_was_written(tmp_path: Path) -> None:
    write(tmp_path, lines(1, 10))
    assert write(tmp_path, lines(1, 10) + "Validation loss: 0.250000 (40 images)\n") == 1
    assert scalars(tmp_path)["valid_loss"] == [(10, 0.25)]
