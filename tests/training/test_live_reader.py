"""Lines of any darknet into facts, the same as the tables of ``read_log`` have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.training.history import facts_of, measured_in
from oiyolo.training.live_reader import Reader
from oiyolo.training.monitors import Complaint, Measured, Point, Saved
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.training.monitors import Fact


def facts_in(path: Path) -> list[Fact]:
    read = Reader(not_to_go_on=["_best.weights"])
    return [fact for line in path.read_bytes().split(b"\n") for fact in read(line)]


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
def test_facts_are_those_of_the_tables(real: Path, name: str) -> None:
    path = real / "logs" / name
    facts = facts_in(path)
    points = [fact for fact in facts if isinstance(fact, Point)]
    table = read_log(path).iterations
    assert [point.iteration for point in points] == table["iteration"].tolist()
    for column, got in (
        ("loss", [point.loss for point in points]),
        ("avg_loss", [point.avg_loss for point in points]),
        ("iou", [point.iou for point in points]),
    ):
        assert got == pytest.approx(table[column].tolist(), nan_ok=True), column
    maps = [fact.map for fact in facts if isinstance(fact, Measured)]
    assert maps == pytest.approx(read_log(path).maps["map"].tolist(), nan_ok=True)


def test_history_is_what_the_log_tells_in_its_order(real: Path, tmp_path: Path) -> None:
    path = real / "logs" / "hank_colour_map.log"
    live = [fact for fact in facts_in(path) if isinstance(fact, (Point, Measured))]
    again = list(facts_of(path))
    assert [type(fact) for fact in again] == [type(fact) for fact in live]
    assert measured_in(path)
    assert list(facts_of(tmp_path / "none")) == []
    assert measured_in(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        (b"Saving weights to weights/network.backup", Saved("weights/network.backup")),
        (b"Saving weights to weights/network_best.weights\r", Saved(
            "weights/network_best.weights", to_go_on=False)),
        (b" Try to set subdivisions=64 in your cfg-file. ", Complaint(
            " Try to set subdivisions=64 in your cfg-file. ", out_of_memory=True)),
        (b"CUDA Error: out of memory: File exists", Complaint(
            "CUDA Error: out of memory: File exists", out_of_memory=True)),
        (b"cuDNN Error: CUDNN_STATUS_ALLOC_FAILED", Complaint(
            "cuDNN Error: CUDNN_STATUS_ALLOC_FAILED", out_of_memory=True)),
        (b"Couldn't open file: weights/x", Complaint("Couldn't open file: weights/x")),
        (b" mean_average_precision (mAP@0.50) = 0.446300 ", Measured(0.4463)),
        (b" try to allocate additional workspace_size = 52.43 MB ", None),
        (b" CUDA allocate done! ", None),
        (b" total_bbox = 11, rewritten_bbox = 0.000000 % ", None),
        (b"Region 82 Avg IOU: -nan, Class: -nan, Obj: -nan, .5R: -nan,  count: 0", None),
        (b"", None),
    ],
)  # fmt: skip
def test_what_a_line_tells(line: bytes, fact: Fact | None) -> None:
    found = list(Reader(not_to_go_on=["_best.weights"])(line))
    assert found == ([] if fact is None else [fact])


def test_a_map_that_is_printed_twice_is_one() -> None:
    read = Reader()
    assert list(read(b" mean average precision (mAP@0.50) = 0.446300, or 44.63 % ")) == [
        Measured(0.4463)
    ]
    assert list(read(b" mean_average_precision (mAP@0.50) = 0.446300 ")) == []


def test_iou_is_the_mean_over_all_that_met_a_layer() -> None:
    read = Reader()
    head = b"Region 16 Avg IOU: %s, Class: 0.9, Obj: 0.3, No Obj: 0.1, .5R: 0.5, .75R: 0.0,  "
    for iou, count in ((b"0.500000", b"3"), (b"-nan", b"0"), (b"0.900000", b"1")):
        assert list(read(head % iou + b"count: " + count)) == []
    (point,) = read(b"1: 1.5, 2.5 avg, 0.001 rate, 0.25 seconds, 8 images")
    assert isinstance(point, Point)
    assert point.iou == pytest.approx((0.5 * 3 + 0.9) / 4)
    assert point.images_per_s == pytest.approx(32)
    (after,) = read(b"2: 1.5, 2.5 avg, 0.001 rate, 0.25 seconds, 16 images")
    assert isinstance(after, Point)
    assert math.isnan(after.iou)


@given(st.binary(max_size=300))
def test_no_line_is_an_error(line: bytes) -> None:
    for fact in Reader()(line):
        assert isinstance(fact, (Point, Measured, Saved, Complaint))
