"""Lines of any darknet as events, which agree with the tables of ``read_log``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.training.history import TrainingHistory
from oiyolo.training.live_reader import LiveReader
from oiyolo.training.monitors import ErrorReported, IterationStats, MapMeasured, WeightsSaved
from oiyolo.trainlog.parse import LogParser, read_log

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.training.monitors import TrainingEvent


def live_events_in(path: Path) -> list[TrainingEvent]:
    read = LiveReader(not_resumable=["_best.weights"])
    return [event for line in path.read_bytes().split(b"\n") for event in read(line)]


@pytest.mark.parametrize(
    "name",
    [
        "alexeyab_2020_colab_1028it.log",
        "alexeyab_merged_2and1.log",
        "alexeyab_windows_crlf_map_first4000lines.log",
        "deb_t64.log",
        "debian_diverges_to_nan.log",
        "debian_t96_300it.stdout.log",
        "hank_colour_map.log",
        "hank_nocolour_verbose.log",
    ],
)
def test_events_agree_with_the_tables(real: Path, name: str) -> None:
    path = real / "logs" / name
    events = live_events_in(path)
    points = [event for event in events if isinstance(event, IterationStats)]
    table = read_log(path).iterations
    assert [point.iteration for point in points] == table["iteration"].tolist()
    for column, values in (
        ("loss", [point.loss for point in points]),
        ("avg_loss", [point.avg_loss for point in points]),
        ("iou", [point.iou for point in points]),
    ):
        assert values == pytest.approx(table[column].tolist(), nan_ok=True), column
    maps = [event.map for event in events if isinstance(event, MapMeasured)]
    assert maps == pytest.approx(read_log(path).maps["map"].tolist(), nan_ok=True)


def test_the_history_has_the_events_of_the_log_in_order(real: Path, tmp_path: Path) -> None:
    path = real / "logs" / "hank_colour_map.log"
    live = [
        event for event in live_events_in(path) if isinstance(event, (IterationStats, MapMeasured))
    ]
    history = TrainingHistory(path)
    assert [type(event) for event in history.events()] == [type(event) for event in live]
    assert history.map_by_iteration()
    empty = TrainingHistory(tmp_path / "none")
    assert list(empty.events()) == []
    assert empty.map_by_iteration() == {}


def test_the_history_reads_the_log_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.txt"
    sizes: list[int] = []
    feed_bytes = LogParser.feed_bytes

    def counting_feed_bytes(parser: LogParser, piece: bytes) -> None:
        sizes.append(len(piece))
        feed_bytes(parser, piece)

    monkeypatch.setattr(LogParser, "feed_bytes", counting_feed_bytes)
    history = TrainingHistory(path)
    for attempt in range(1, 6):
        with path.open("a") as log:
            log.write(f"{attempt}: 1.5, 2.5 avg, 0.001 rate, 0.25 seconds, 8 images\n")
        assert len(list(history.events())) == attempt
        assert history.map_by_iteration() == {}
    assert sum(sizes) == path.stat().st_size


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"Saving weights to weights/network.backup", WeightsSaved("weights/network.backup")),
        (b"Saving weights to weights/network_best.weights\r", WeightsSaved(
            "weights/network_best.weights", resumable=False)),
        (b" Try to set subdivisions=64 in your cfg-file. ", ErrorReported(
            "Try to set subdivisions=64 in your cfg-file.", out_of_memory=True)),
        (b"CUDA Error: out of memory: File exists", ErrorReported(
            "CUDA Error: out of memory: File exists", out_of_memory=True)),
        (b"cuDNN Error: CUDNN_STATUS_ALLOC_FAILED", ErrorReported(
            "cuDNN Error: CUDNN_STATUS_ALLOC_FAILED", out_of_memory=True)),
        (b" CUDA Error: 2", ErrorReported("CUDA Error: 2", out_of_memory=True)),
        (b"Couldn't open file: weights/x", ErrorReported("Couldn't open file: weights/x")),
        (b" mean_average_precision (mAP@0.50) = 0.446300 ", MapMeasured(0.4463)),
        (b" try to allocate additional workspace_size = 52.43 MB ", None),
        (b" CUDA allocate done! ", None),
        (b" total_bbox = 11, rewritten_bbox = 0.000000 % ", None),
        (b"Region 82 Avg IOU: -nan, Class: -nan, Obj: -nan, .5R: -nan,  count: 0", None),
        (b"", None),
    ],
)  # fmt: skip
def test_each_line_yields_its_event(line: bytes, event: TrainingEvent | None) -> None:
    read = LiveReader(not_resumable=["_best.weights"])
    events = [*read(line), *read(b"")]
    assert events == ([] if event is None else [event])


def test_a_map_that_is_printed_twice_is_one_event() -> None:
    read = LiveReader()
    assert list(read(b" mean average precision (mAP@0.50) = 0.446300, or 44.63 % ")) == [
        MapMeasured(0.4463)
    ]
    assert list(read(b" mean_average_precision (mAP@0.50) = 0.446300 ")) == []


def test_iou_is_the_mean_over_all_objects() -> None:
    read = LiveReader()
    head = b"Region 16 Avg IOU: %s, Class: 0.9, Obj: 0.3, No Obj: 0.1, .5R: 0.5, .75R: 0.0,  "
    for iou, count in ((b"0.500000", b"3"), (b"-nan", b"0"), (b"0.900000", b"1")):
        assert list(read(head % iou + b"count: " + count)) == []
    (point,) = read(b"1: 1.5, 2.5 avg, 0.001 rate, 0.25 seconds, 8 images")
    assert isinstance(point, IterationStats)
    assert point.iou == pytest.approx((0.5 * 3 + 0.9) / 4)
    assert point.images_per_s == pytest.approx(32)
    (after,) = read(b"2: 1.5, 2.5 avg, 0.001 rate, 0.25 seconds, 16 images")
    assert isinstance(after, IterationStats)
    assert math.isnan(after.iou)


@given(st.binary(max_size=300))
def test_no_line_raises(line: bytes) -> None:
    for event in LiveReader()(line):
        assert isinstance(event, (IterationStats, MapMeasured, WeightsSaved, ErrorReported))


def test_the_validation_loss_is_no_event_and_disturbs_none() -> None:
    """The torch engine prints it after an iteration."""
    read = LiveReader()
    iteration = b"1: 8.5, 8.5 avg, 0.000001 rate, 0.5 seconds, 8 images"
    (stats,) = read(iteration)
    assert not read(b"Validation loss: 2.500000 (40 images)")
    (again,) = LiveReader()(iteration)
    assert stats == again
    assert [type(event) for event in read(iteration.replace(b"1:", b"2:"))] == [IterationStats]
