"""Parse the log formats of all forks, and logs that are truncated, torn, joined or damaged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError
from oiyolo.trainlog.dialects import parse_number, seconds_per_unit
from oiyolo.trainlog.lineage import build_lineage
from oiyolo.trainlog.parse import (
    NO_LAYER,
    LogParser,
    complaints,
    parse_log,
    read_log,
    write_metrics_csv,
)

if TYPE_CHECKING:
    from pathlib import Path

PJREDDIE = """\
boats
Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005
Resizing
448
Loaded: 0.000034 seconds
Region 16 Avg IOU: 0.200000, Class: 0.5, Obj: 0.4, No Obj: 0.3, .5R: 0.2, .75R: 0.1,  count: 3
Region 23 Avg IOU: 0.600000, Class: 0.5, Obj: 0.4, No Obj: 0.3, .5R: 0.2, .75R: 0.1,  count: 1
Region 16 Avg IOU: 0.400000, Class: 0.5, Obj: 0.4, No Obj: 0.3, .5R: 0.2, .75R: 0.1,  count: 1
Region 23 Avg IOU: -nan, Class: -nan, Obj: -nan, No Obj: 0.3, .5R: -nan, .75R: -nan,  count: 0
1: 8.500000, 8.500000 avg, 0.000001 rate, 0.500000 seconds, 8 images
Loaded: 0.000034 seconds
Region 16 Avg IOU: -nan, Class: -nan, Obj: -nan, No Obj: 0.3, .5R: -nan, .75R: -nan,  count: 0
Region 23 Avg IOU: -nan, Class: -nan, Obj: -nan, No Obj: 0.3, .5R: -nan, .75R: -nan,  count: 0
2: 7.500000, 8.400000 avg, 0.000002 rate, 0.250000 seconds, 16 images
Region 16 Avg IOU: 0.900000, Class: 0.5, Obj: 0.4, No Obj: 0.3, .5R: 0.2, .75R: 0.1,  count: 1
"""

ALEXEYAB = (
    "   layer   filters  size/strd(dil)      input                output\n"
    "Learning Rate: 0.002, Momentum: 0.9, Decay: 0.0005\n"
    "v3 (giou loss, Normalizer: (iou: 0.75, obj: 1.00, cls: 1.00) Region 30 Avg (IOU: 0.250000), "
    "count: 4, class_loss = 2.5, iou_loss = 0.5, total_loss = 3.000000 \n"
    "v3 (giou loss, Normalizer: (iou: 0.75, obj: 1.00, cls: 1.00) Region 37 Avg (IOU: 0.000000), "
    "count: 1, class_loss = 0.1, iou_loss = 0.0, total_loss = 0.100000 \n"
    " total_bbox = 4, rewritten_bbox = 0.000000 % \n"
    "Loaded: 0.043975 seconds - performance bottleneck on CPU or Disk HDD/SSD\n"
    "\n"
    " (next mAP calculation at 100 iterations) \x1b[H\x1b[J100/300: loss=3.1 hours left=0.1\x07\n"
    " 100: 3.100000, 3.200000 avg loss, 0.002000 rate, 0.500000 seconds, 6400 images, "
    "0.125000 hours left\n"
    " calculation mAP (mean average precision)...\n"
    " Detection layer: 30 - type = 28 \n"
    "\r rank = 0 of ranks = 31 \r rank = 30 of ranks = 31 \rclass_id = 0, name = Boat, "
    "ap = 100.00%   \t (TP = 8, FP = 0) \n"
    "\n for conf_thresh = 0.25, precision = -nan, recall = 0.00, F1-score = -nan \n"
    " for conf_thresh = 0.25, TP = 16, FP = 0, FN = 0, average IoU = 82.52 % \n"
    " mean average precision (mAP@0.50) = 0.937500, or 93.75 % \n"
    "\n mean_average_precision (mAP@0.50) = 0.937500 \n"
    "New best mAP!\n"
    "Saving weights to backup/boats_best.weights\n"
)

HANK = (
    '\x1b[1;33mWARNING: unexpected option "results=x" in obj.data\n'
    "\x1b[0mLearning Rate: 0.002000, Momentum: 0.900000, Decay: 0.000500\n"
    "v3 mse loss, Normalizer: (iou: 0.75, obj: 1.00, cls: 1.00) Region 10 Avg (IOU: 0.133612), "
    "count: 11, class_loss: 25.4, iou_loss: 12.6, total_loss: 38.0\n"
    "v3 mse loss, Normalizer: (iou: 0.75, obj: 1.00, cls: 1.00) Region 17 Avg (IOU: -nan), "
    "count: 0, class_loss: 0.1, iou_loss: 0.0, total_loss: 0.1\n"
    "total_bbox=11, rewritten_bbox=0.00%\n"
    "\x1b]2;29/30: loss=2.3 time=unknown\x07\x1b[1;37m29\x1b[0m: loss=\x1b[1;36m2.326\x1b[0m, "
    "avg loss=\x1b[0;36m7.252\x1b[0m, last=\x1b[0m46.79%\x1b[0m, best=\x1b[0mnone\x1b[0m, "
    "mAP=100, rate=0.00002000, load 8=22.2 milliseconds, train=131.7 milliseconds, 232 images, "
    "time remaining=3 minutes\n"
    "5989: loss=0.444, avg loss=0.329, rate=0.000026, 64.424 milliseconds, 383296 images, "
    "time remaining=7 seconds\n"
    "-> mean average precision (mAP@0.50)=\x1b[1;31m46.79%\x1b[0m\n"
)


EARLY_2020 = (
    "v3 (mse loss, Normalizer: (iou: 0.75, cls: 1.00) Region 16 Avg (IOU: 0.605842, "
    "GIOU: 0.574251), Class: 0.5, Obj: 0.5, No Obj: 0.5, .5R: 1.0, .75R: 0.0, count: 5, "
    "class_loss = 1.5, iou_loss = 0.5"
)
TOTAL_ONLY = (
    "v3 (iou loss, Normalizer: (iou: 0.07, obj: 1.00, cls: 1.00) Region 139 Avg "
    "(IOU: 0.300000), count: 2, total_loss = 4.5"
)
GAUSSIAN = (
    "Region 30 Avg IOU: 0.450000, Class: 0.5, Obj: 0.5, No Obj: 0.1, .5R: 0.4, "
    ".75R: 0.1,  count: 7, class_loss = 1.20, iou_loss = 0.30, total_loss = 1.50"
)
YOLOV2 = "Region Avg IOU: 0.250000, Class: 0.5, Obj: 0.5, No Obj: 0.1, Avg Recall: 0.2,  count: 12"
FILTERS_MISMATCH = (
    "Error: l.outputs == params.inputs, filters= in the [convolutional]-layer doesn't "
    "correspond to classes= or mask= in [yolo]-layer"
)


def iteration_line(n: int, loss: float = 1.0) -> str:
    return f"{n}: {loss:f}, {loss:f} avg, 0.001000 rate, 0.100000 seconds, {n * 8} images\n"


def region_line(iou: float, layer: int = 10, count: int = 1) -> str:
    return (
        f"Region {layer} Avg IOU: {iou:f}, Class: 0.5, Obj: 0.5, No Obj: 0.1, "
        f".5R: 0.0, .75R: 0.0,  count: {count}\n"
    )


def test_a_pjreddie_log_is_parsed() -> None:
    log = parse_log(PJREDDIE)
    assert log.summary.dialects == ("pjreddie",)
    first = log.iterations.iloc[0]
    assert first[["iteration", "loss", "avg_loss", "rate", "seconds", "images"]].tolist() == [
        1, 8.5, 8.5, 0.000001, 0.5, 8,
    ]  # fmt: skip
    assert first["iou"] == pytest.approx((0.2 * 3 + 0.6 + 0.4) / 5)
    assert math.isnan(first["hours_left"])
    assert log.regions["layer"].tolist() == [16, 23, 16, 23, 16, 23, 16]
    assert log.regions["count"].tolist() == [3, 1, 1, 0, 0, 0, 1]
    assert log.regions["iou"].isna().tolist() == [False, False, False, True, True, True, False]
    assert log.regions["iteration"].tolist()[:6] == [1, 1, 1, 1, 2, 2]
    assert log.regions["iteration"].isna().tolist() == [False] * 6 + [True]
    row = log.regions.iloc[0]
    names = ["class_score", "obj", "no_obj", "recall50", "recall75"]
    assert row[names].tolist() == [0.5, 0.4, 0.3, 0.2, 0.1]
    assert log.events[["kind", "text"]].to_numpy().tolist() == [
        ["start", "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005"],
        ["resize", "Resizing 448"],
    ]
    assert "1 region line without an iteration line" in str(log.summary)
    assert "7 region lines, 3 of them with count 0" in str(log.summary)


def test_metrics_of_a_pjreddie_log() -> None:
    table = parse_log(PJREDDIE).metrics()
    assert list(table.columns) == [
        "iteration", "loss", "avg_loss", "rate", "seconds", "images", "iou", "iou_16", "iou_23",
        "map",
        "valid_map50",
        "train_map50",
        "valid_loss",
    ]  # fmt: skip
    assert table["iteration"].tolist() == [1, 2]
    assert table["iou_16"][0] == pytest.approx((0.2 * 3 + 0.4) / 4)
    assert table["iou_23"][0] == pytest.approx(0.6)
    assert table.loc[1, ["iou", "iou_16", "iou_23", "map"]].isna().all()


def test_an_alexeyab_log_is_parsed() -> None:
    log = parse_log(ALEXEYAB)
    assert log.summary.dialects == ("AlexeyAB",)
    (row,) = log.iterations.to_dict("records")
    assert (row["iteration"], row["avg_loss"], row["hours_left"]) == (100, 3.2, 0.125)
    assert row["iou"] == 0.25
    assert log.summary.regions_empty == 1  # IOU 0.000000 with count 1: no object in the layer
    assert log.regions["total_loss"].tolist() == [3.0, 0.1]
    assert log.maps[["iteration", "map", "threshold"]].to_numpy().tolist() == [[100, 0.9375, 0.5]]
    assert log.metrics()["map"].tolist() == [0.9375]
    kinds = log.events["kind"].tolist()
    assert kinds == ["start", "warning", "resume", "saved"]
    assert log.summary.torn == 0


@pytest.mark.parametrize(
    ("line", "layer", "iou", "count"),
    [
        pytest.param(EARLY_2020, 16, 0.605842, 5, id="early 2020, with GIOU and scores"),
        pytest.param(TOTAL_ONLY, 139, 0.3, 2, id="without class and box losses"),
        pytest.param(GAUSSIAN, 30, 0.45, 7, id="Gaussian"),
        pytest.param(YOLOV2, NO_LAYER, 0.25, 12, id="YOLOv2"),
    ],
)
def test_older_region_lines_are_parsed(line: str, layer: int, iou: float, count: int) -> None:
    log = parse_log([line, "1: 1.0, 1.0 avg loss, 0.001 rate, 0.1 seconds, 64 images"])
    (row,) = log.regions.to_dict("records")
    assert (row["layer"], row["iou"], row["count"]) == (layer, iou, count)
    assert log.iterations["iou"].tolist() == [iou]
    expected = [] if layer == NO_LAYER else [f"iou_{layer}"]
    assert [name for name in log.metrics().columns if name.startswith("iou_")] == expected


@pytest.mark.parametrize(
    ("line", "dialect", "seconds", "images"),
    [
        pytest.param(
            "3, 0.384: 7.0, 7.5 avg, 0.099 rate, 0.38 seconds, 384 images",
            *("pjreddie classifier", 0.38, 384),
            id="classifier",
        ),
        pytest.param(
            "3, 0.384: 7.0, 7.5 avg, 0.099 rate, 0.38 seconds, 384 images, 12.3 hours left",
            *("AlexeyAB classifier", 0.38, 384),
            id="classifier of AlexeyAB",
        ),
        pytest.param(
            "3: 7.0, 7.5 avg, 0.4 seconds, 24 images",
            *("pjreddie classifier", 0.4, 24),
            id="captcha",
        ),
        pytest.param(
            "3: 7.0, 7.5 avg, 0.099 rate, 0.5 seconds, 0.01 epochs",
            *("pjreddie classifier", 0.5, 0),
            id="rnn",
        ),
    ],
)
def test_lines_of_other_trainings_are_complete(
    line: str, dialect: str, seconds: float, images: int
) -> None:
    log = parse_log([line, line.replace("3", "4", 1)])
    assert log.summary.dialects == (dialect,)
    assert log.iterations["iteration"].tolist() == [3, 4]
    row = log.iterations.iloc[0]
    assert row[["loss", "avg_loss", "seconds", "images"]].tolist() == [7.0, 7.5, seconds, images]
    assert (log.summary.torn, log.summary.other) == (0, 0)
    assert "2>&1" not in str(log.summary)


def test_region_lines_of_yolov1_have_an_iou() -> None:
    line = (
        "Detection Avg IOU: 0.25, Pos Cat: 0.4, All Cat: 0.05, Pos Obj: 0.1, Any Obj: 0.01, "
        "count: 7\n"
    )
    log = parse_log(line + iteration_line(1))
    (row,) = log.regions.to_dict("records")
    assert (row["layer"], row["iou"], row["count"]) == (NO_LAYER, 0.25, 7)
    assert (row["class_score"], row["obj"], row["no_obj"]) == (0.4, 0.1, 0.01)
    assert log.iterations["iou"].tolist() == [0.25]
    assert log.summary.torn == 0


@pytest.mark.parametrize(
    ("line", "layer"),
    [
        (
            "Region avg IoU: 0.25, class: 0.5, obj: 0.4, no obj: 1e-05, avg recall: 0.3, count: 9",
            NO_LAYER,
        ),
        (
            (
                "Region 30: avg IOU=0.25, class=0.5, obj=0.4, no obj=0.1, recall 50%=0.3, "
                "recall 75%=0.2, count=9, class loss=1.5, IOU loss=0.5, total loss=2.1"
            ),
            30,
        ),
    ],
)
def test_other_layers_of_hank_are_parsed(line: str, layer: int) -> None:
    log = parse_log([line, "5: loss=0.4, avg loss=0.3, rate=0.1, 64.4 milliseconds, 38 images"])
    (row,) = log.regions.to_dict("records")
    assert (row["layer"], row["iou"], row["count"], row["recall50"]) == (layer, 0.25, 9, 0.3)


def last_accuracy(n: int, percent: float) -> str:
    return (
        f" Last accuracy mAP@0.50 = {percent:.2f} %, best = {percent:.2f} % \x1b[H\x1b[J"
        f"{n}/300: loss=0.6 best=1.00 hours left=0.0\x07\n {n}: 1.0, 1.0 avg loss, 0.001 rate, "
        f"0.1 seconds, {n * 8} images, 0.1 hours left\n"
    )


def test_an_excerpt_shows_the_map_that_each_iteration_repeats() -> None:
    values = [40.0] * 3 + [45.0] * 3 + [45.0] * 2
    log = parse_log("".join(last_accuracy(n, value) for n, value in enumerate(values, 100)))
    # The first one was measured before the excerpt, the second after iteration 102.
    assert log.maps[["iteration", "map", "threshold"]].to_numpy().tolist() == [
        [100, 0.4, 0.5],
        [102, 0.45, 0.5],
    ]
    assert log.summary.other == 0


def test_a_repeated_map_is_not_measured_again() -> None:
    measured = " mean average precision (mAP@0.50) = 0.437512, or 43.75 % \n"
    text = iteration_line(99) + measured
    text += "".join(last_accuracy(n, 43.75) for n in range(100, 130))
    assert parse_log(text).maps["iteration"].tolist() == [99]
    restarted = text + "Learning Rate: 0.1\n" + last_accuracy(50, 43.75)
    assert parse_log(restarted).maps[["iteration", "run"]].to_numpy().tolist() == [[99, 0], [50, 1]]


@pytest.mark.parametrize(
    "error",
    [
        "Couldn't open file: weights/x_final.weights",
        '* Error message:  failed to open the file "weights/x_final.weights"',
    ],
)
def test_weights_that_could_not_be_written_were_not_saved(error: str) -> None:
    saving = "Saving weights to weights/x_100.weights\nSaving weights to weights/x_final.weights\n"
    log = parse_log(f"{iteration_line(100)}{saving}Resizing\n{error}\n")
    assert log.events["kind"].tolist() == ["saved", "warning", "resize", "error"]
    assert not build_lineage(log).has_final_weights
    assert build_lineage(parse_log(iteration_line(100) + saving)).has_final_weights


def test_zero_iou_of_an_object_is_kept() -> None:
    alexeyab = parse_log(ALEXEYAB.replace("(IOU: 0.000000), count: 1", "(IOU: 0.000000), count: 4"))
    assert alexeyab.summary.regions_empty == 0
    assert alexeyab.iterations["iou"].tolist() == [0.125]
    pjreddie = parse_log(
        region_line(0.0) + iteration_line(1)
    )  # prints count 0 if there is no object
    assert pjreddie.iterations["iou"].tolist() == [0.0]


def test_a_hank_log_is_parsed() -> None:
    log = parse_log(HANK)
    assert log.summary.dialects == ("hank-ai",)
    assert log.iterations["iteration"].tolist() == [29, 5989]
    assert log.iterations["seconds"].tolist() == pytest.approx([0.1317, 0.064424])
    assert log.iterations["hours_left"].tolist() == pytest.approx([0.05, 7 / 3600])
    assert log.iterations["rate"].tolist() == [0.00002, 0.000026]
    assert log.iterations["iou"].tolist()[0] == 0.133612
    assert log.regions["iou"].isna().tolist() == [False, True]
    # "last=" of the first line is what was measured before it.
    assert log.maps["map"].tolist() == pytest.approx([0.4679, 0.4679])
    assert log.maps["iteration"].tolist() == [29, 5989]
    assert parse_log(HANK.replace("\x1b", "")).metrics().equals(log.metrics())


def test_dialects_can_be_mixed_in_one_file() -> None:
    log = parse_log(PJREDDIE + ALEXEYAB + HANK)
    assert log.summary.dialects == ("pjreddie", "AlexeyAB", "hank-ai")
    assert log.iterations["run"].tolist() == [0, 0, 1, 2, 2]
    assert log.summary.runs == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("7002178813310485729616039835074560.000000", 7002178813310485729616039835074560.0),
        ("-inf", -math.inf),
        ("1.#INF", math.inf),
        ("-1.#INF00", -math.inf),
    ],
)
def test_numbers_are_parsed_as_c_prints_them(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["nan", "-nan", "-nan(ind)", "nan(snan)", "-1.#IND00", "1.#QNAN"])
def test_all_spellings_of_nan_are_parsed(text: str) -> None:
    assert math.isnan(parse_number(text))
    log = parse_log(f"1: {text}, {text} avg, 0.1 rate, 0.1 seconds, 8 images\n")
    assert log.iterations["loss"].isna().tolist() == [True]


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("64.5 milliseconds", 0.0645),
        ("1 second", 1.0),
        ("2 seconds", 2.0),
        ("1.5 minutes", 90.0),
        ("2 hours", 7200.0),
        ("3 days", 259200.0),
        ("7 microseconds", 7e-6),
        ("3 fortnights", math.nan),
    ],
)
def test_hank_durations_are_converted_to_seconds(duration: str, seconds: float) -> None:
    log = parse_log(
        f"5: loss=0.4, avg loss=0.3, rate=0.1, {duration}, 38 images, time remaining={duration}\n"
    )
    (row,) = log.iterations.to_dict("records")
    assert row["seconds"] == pytest.approx(seconds, nan_ok=True)
    assert row["hours_left"] == pytest.approx(seconds / 3600, nan_ok=True)
    assert seconds_per_unit(duration.split(maxsplit=1)[1]) == pytest.approx(
        seconds / float(duration.split(maxsplit=1)[0]), nan_ok=True
    )


def test_crlf_and_utf16_are_decoded(tmp_path: Path) -> None:
    expected = parse_log(ALEXEYAB).metrics()
    windows = ALEXEYAB.replace("\n", "\r\n")
    for name, data in {
        "crlf": windows.encode(),
        "bom": windows.encode("utf-8-sig"),
        "utf16": windows.encode("utf-16"),
    }.items():
        (tmp_path / name).write_bytes(data)
        log = read_log(tmp_path / name)
        assert log.metrics().equals(expected), name
        assert log.summary.lines == ALEXEYAB.count("\n"), name


def test_prose_and_prompts_around_lines_are_ignored() -> None:
    pasted = (
        f"user@vm:~$ tail train_log.txt\n> 2026-01-01T10:00:00Z {iteration_line(5)}and so on, "
        "12: a list item\n"
    )
    log = parse_log(pasted)
    assert log.iterations["iteration"].tolist() == [5]
    assert log.summary.other == 2
    assert log.summary.torn == 0


def test_lines_torn_by_stderr_are_rejoined() -> None:
    whole = region_line(0.25, count=9) + iteration_line(187, 0.875)
    expected = parse_log(whole).metrics()
    saving = "Saving weights to backup/tm.backup\nSaving weights to backup/tm_100.weights\n"
    for cut in (80, len(region_line(0.25, count=9)) + 40):
        log = parse_log(whole[:cut] + saving + whole[cut:])
        assert log.metrics().equals(expected), cut
        assert log.summary.mended == 1
        assert log.events["kind"].tolist() == ["saved", "saved"]
        assert log.events["text"][0] == "Saving weights to backup/tm.backup"


def test_region_lines_of_a_torn_iteration_are_not_assigned_to_the_next() -> None:
    text = region_line(0.25) + iteration_line(1)[:30] + "\n" + region_line(0.75) + iteration_line(2)
    log = parse_log(text)
    assert log.iterations[["iteration", "iou"]].to_numpy().tolist() == [[2, 0.75]]
    assert log.summary.regions_unassigned == 1
    assert log.summary.torn_lines == (2,)
    assert "1 broken line skipped (line 2)" in str(log.summary)


def test_a_truncated_last_line_is_skipped() -> None:
    log = parse_log(iteration_line(1) + iteration_line(2).removesuffix(" images\n"))
    assert log.iterations["iteration"].tolist() == [1]
    assert log.summary.torn == 1
    assert len(parse_log(iteration_line(1).removesuffix("\n"))) == 1


def test_a_resume_from_an_earlier_iteration_replaces_metrics() -> None:
    first = "".join(region_line(0.1) + iteration_line(n, 1.0) for n in range(1, 6)) + region_line(
        0.9
    )
    start = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"
    second = "".join(region_line(0.2) + iteration_line(n, 2.0) for n in range(4, 8))
    log = parse_log(first + start + second)
    assert len(log.iterations) == 9
    assert log.summary.runs == 2
    table = log.metrics()
    assert table["iteration"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert table["loss"].tolist() == [1, 1, 1, 2, 2, 2, 2]
    assert table["iou"].tolist() == pytest.approx([0.1] * 3 + [0.2] * 4)
    assert table["iou_10"].tolist() == pytest.approx([0.1] * 3 + [0.2] * 4)
    assert (
        log.summary.regions_unassigned == 1
    )  # of the iteration in which the first run was stopped
    assert parse_log(first + second).events["kind"].tolist() == ["resume"]


def test_iteration_numbers_that_jump_forward_are_one_run() -> None:
    log = parse_log("".join(iteration_line(n) for n in (4, 8, 12, 25, 26, 30)))
    assert log.summary.runs == 1
    assert log.events.empty


def test_region_lines_before_a_buffered_start_belong_to_the_new_run() -> None:
    header = "layer     filters    size              input                output\n"
    start = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"
    killed = region_line(0.1) + iteration_line(1) + region_line(0.9)
    log = parse_log(killed + header + region_line(0.2) + start + iteration_line(2))
    assert log.iterations["iou"].tolist() == pytest.approx([0.1, 0.2])
    assert log.summary.regions_unassigned == 1


def test_pieces_of_any_size_give_the_same_log() -> None:
    text = PJREDDIE + ALEXEYAB + HANK
    expected = parse_log(text)
    for size in (1, 7, 100):
        parser = LogParser()
        completed = [
            iteration
            for start in range(0, len(text), size)
            for iteration in parser.feed(text[start : start + size])
        ]
        parser.close()
        assert [i.iteration for i in completed] == expected.iterations["iteration"].tolist()
        assert parser.log().metrics().equals(expected.metrics())
        assert parser.log().summary == expected.summary


def test_feeding_pieces_returns_completed_iterations() -> None:
    parser = LogParser()
    assert parser.feed(region_line(0.5, count=2)) == []
    (now,) = parser.feed("10: 3.0, 4.0 avg, 0.001 rate, 0.5 seconds, 640 images\n")
    assert now == parser.latest
    assert (now.iteration, now.loss, now.avg_loss, now.iou) == (10, 3.0, 4.0, 0.5)
    assert now.images_per_s == 128
    assert math.isnan(now._replace(images=-5).images_per_s)
    before = parser.log("so far")
    parser.feed(iteration_line(11))
    assert len(before) == len(before.iterations) == 1
    assert len(parser.log()) == 2


def test_text_bytes_and_lines_give_the_same_log() -> None:
    expected = parse_log(PJREDDIE).metrics()
    assert parse_log(PJREDDIE.encode()).metrics().equals(expected)
    assert parse_log(PJREDDIE.splitlines()).metrics().equals(expected)
    assert parse_log(PJREDDIE.encode().splitlines(keepends=True)).metrics().equals(expected)


def test_the_summary_explains_missing_region_lines() -> None:
    alexeyab = parse_log("1: 1.0, 1.0 avg loss, 0.001 rate, 0.1 seconds, 64 images")
    assert "0 region lines: the log was captured without 2>&1" in str(alexeyab.summary)
    hank = parse_log("5: loss=0.4, avg loss=0.3, rate=0.1, 64.4 milliseconds, 38 images")
    assert "-verbose" in str(hank.summary)
    assert "0 iteration lines" in str(parse_log("").summary)


def test_a_notebook_shows_summary_and_iterations() -> None:
    log = parse_log(PJREDDIE, name="<runs>")
    html = log._repr_html_()
    assert "&lt;runs&gt;" in html
    assert "<table" in html
    assert "2 iterations" in html
    assert "<table" not in parse_log("")._repr_html_()
    assert repr(log) == "TrainLog('<runs>', 2 iterations)"


def test_metrics_csv_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.csv"
    write_metrics_csv(parse_log(PJREDDIE + ALEXEYAB), path)
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[0] == (
        "iteration,loss,avg_loss,rate,seconds,images,iou,iou_16,iou_23,iou_30,iou_37,map,"
        "valid_map50,train_map50,valid_loss"
    )
    assert text.splitlines()[3] == "100,3.1,3.2,0.002,0.5,6400,0.25,,,0.25,,0.9375,,,"
    assert pd.read_csv(path)["iteration"].tolist() == [1, 2, 100]


def test_empty_tables_have_their_columns() -> None:
    log = parse_log("nothing\n")
    assert log.metrics().columns.tolist() == [
        "iteration", "loss", "avg_loss", "rate", "seconds", "images", "iou", "map",
        "valid_map50", "train_map50", "valid_loss",
    ]  # fmt: skip
    assert log.regions.empty
    assert log.events.columns.tolist() == ["line", "iteration", "kind", "text"]
    assert log.latest is None


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputFormError, match="No such file"):
        read_log(tmp_path / "absent.txt")
    with pytest.raises(InputFormError, match="Is a directory"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA Error: out of memory: File exists",
        "CUDA Error: CUDA driver version is insufficient for CUDA runtime version",
        " Try to set subdivisions=64 in your cfg-file. ",
        "Couldn't open file: nobackup/r.backup",
        'Cannot load image "data/obj/x.jpg"',
        "Can't open label file. (This can be normal only if you use MSCOCO): obj/x.txt ",
        "darknet: ./src/parser.c:315: parse_yolo: Assertion `l.outputs == params.inputs' failed.",
        FILTERS_MISMATCH,
        "libcuda.so.1: cannot open shared object file: No such file or directory",
        "Segmentation fault (core dumped)",
    ],
)
def test_errors_of_darknet_are_reported_once(message: str) -> None:
    log = PJREDDIE + f"{message}\n" * 3 + ALEXEYAB
    assert complaints(log) == [message.strip()]
    assert complaints(parse_log(log)) == [message.strip()]


@pytest.mark.parametrize(
    "message",
    [
        " If error occurs - run training with flag: -dont_show ",
        " CUDA-version: 10010 (10010), cuDNN: 7.6.5, GPU count: 1  ",
        " CUDA allocate done! ",
        "Using 2 threads to prime loading 60 images into cache (w=96, h=96, c=3).",
        "-> 10 validation images for 2 classes",
    ],
)
def test_harmless_lines_are_neither_errors_nor_torn(message: str) -> None:
    log = parse_log(message)
    assert log.complaints() == []
    assert log.summary.torn == 0


def test_divergence_is_reported_unless_it_recovers() -> None:
    text = iteration_line(1) + iteration_line(2, math.nan) + iteration_line(3, math.inf)
    assert complaints(text)[0].startswith("the average loss is nan from iteration 2 on")
    assert complaints(text + iteration_line(4)) == []


FRAGMENTS = st.one_of(
    st.sampled_from([*(PJREDDIE + ALEXEYAB + HANK).splitlines(keepends=True), "\r", "\n", "\x1b["]),
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda data: data.decode(errors="replace")),
)


@given(pieces=st.lists(st.tuples(FRAGMENTS, st.integers(0, 200), st.integers(0, 200)), max_size=25))
def test_any_text_can_be_parsed(pieces: list[tuple[str, int, int]]) -> None:
    text = "".join(fragment[start : start + length] for fragment, start, length in pieces)
    log = parse_log(text)
    assert len(log.iterations) <= text.count(" images")
    assert len(log.regions) <= text.count("count: ")
    assert len(log.maps) <= text.count("(mAP") + text.count("last=")
    table = log.metrics()
    assert table["iteration"].is_unique
    assert len(table) <= len(log.iterations)
    assert log.summary.regions_unassigned <= len(log.regions)
    assert str(log.summary)
    assert log._repr_html_()


@given(data=st.binary(max_size=300))
def test_binary_junk_has_no_iterations(data: bytes) -> None:
    assert len(parse_log(data)) == 0


def test_long_unterminated_lines_are_parsed_quickly() -> None:
    parser = LogParser()
    for junk in ("1: loss=1, avg loss=1, rate=1, " * 20_000, "9" * 500_000, "\x1b]" * 200_000):
        parser.feed(junk)
        parser.close()
    assert parser.latest is None
    assert parser.log().summary.lines == 3


def test_a_long_line_is_one_line_however_it_is_fed() -> None:
    progress = "".join(f"\r rank = {n} of ranks = 9000 " for n in range(9000))
    text = f"{progress}\r{iteration_line(7)}{'9' * 150_000}\n{iteration_line(8)}"
    for size in (10_000, 70_001, len(text)):
        parser = LogParser()
        for start in range(0, len(text), size):
            parser.feed(text[start : start + size])
        parser.close()
        log = parser.log()
        assert log.iterations[["iteration", "line"]].to_numpy().tolist() == [[7, 1], [8, 3]]
        assert (log.summary.lines, log.summary.other) == (3, 1)


def test_runs_have_one_row_per_training() -> None:
    log = parse_log(PJREDDIE + ALEXEYAB + HANK)
    assert log.runs.columns.tolist() == [
        "run", "dialect", "first_iteration", "last_iteration", "iterations", "first_line",
        "last_line",
    ]  # fmt: skip
    assert log.runs["dialect"].tolist() == ["pjreddie", "AlexeyAB", "hank-ai"]
    assert log.runs["first_iteration"].tolist() == [1, 100, 29]
    assert log.runs["last_iteration"].tolist() == [2, 100, 5989]
    assert parse_log("").runs.empty


@pytest.mark.parametrize(
    ("first", "later", "is_assigned"),
    [
        (30, 0, False),  # stderr precedes stdout
        (3000, 9, False),
        (9, 9, True),
        (6, 0, True),  # too few to decide
        (72, 9, True),  # the lines of eight missing iterations, or a larger batch
        (73, 9, False),
    ],
)
def test_excess_region_lines_before_the_first_iteration_are_unassigned(
    first: int, later: int, is_assigned: bool
) -> None:
    log = parse_log(
        region_line(0.5) * first
        + iteration_line(1)
        + "".join(region_line(0.25) * later + iteration_line(n) for n in range(2, 6))
    )
    assert log.summary.regions_unassigned == (0 if is_assigned else first)
    assert log.iterations["iou"].notna().tolist() == [is_assigned] + [later > 0] * 4
    assert (log.regions["iteration"] == 1).sum() == (first if is_assigned else 0)
    assert ("iou_10" in log.metrics().columns) == (is_assigned or later > 0)
    assert ("stderr seems to precede stdout" in str(log.summary)) == (not is_assigned)


def test_a_single_iteration_keeps_its_region_lines() -> None:
    log = parse_log(region_line(0.5) * 500 + iteration_line(1))
    assert log.summary.regions_unassigned == 0


def test_a_hank_count_of_one_with_zero_iou_is_empty() -> None:
    log = parse_log(HANK.replace("(IOU: -nan), count: 0", "(IOU: 0.000000), count: 1"))
    assert log.summary.regions_empty == 1
    assert log.regions["iou"].isna().tolist() == [False, True]
    assert log.iterations["iou"].tolist()[0] == 0.133612


def test_alexeyab_logs_from_before_2020_are_parsed() -> None:
    # Region lines as in pjreddie's fork, iteration lines without the hours left.
    log = parse_log(
        region_line(0.5, layer=82)
        + " 7: 2.5, 3.5 avg loss, 0.001 rate, 1.5 seconds, 448 images\n"
        + " mean average precision (mAP@0.50) = 0.25, or 25.00 % \n"
        + " mean average precision (mAP) = 0.5, or 50.00 % \n"
    )
    (row,) = log.iterations.to_dict("records")
    assert (row["avg_loss"], row["iou"]) == (3.5, 0.5)
    assert math.isnan(row["hours_left"])
    assert log.maps["map"].tolist() == [0.25, 0.5]
    assert log.maps["threshold"].isna().tolist() == [False, True]


def test_excess_layers_are_ignored_as_junk() -> None:
    lines = "".join(region_line(0.5, layer=n) for n in range(1000)) + iteration_line(1)
    log = parse_log(lines)
    assert len(log.regions) == 1000
    assert len(log.metrics().columns) < 300


def test_the_validation_loss_belongs_to_the_iteration_before_it() -> None:
    """The torch engine's line; what surrounds it is read as without it."""
    region = "Region 16 Avg IOU: 0.5, Class: 0.5, Obj: 0.4, No Obj: 0.3, .5R: 1, .75R: 0,  count: 2"
    measured = ["2.500000 (40 images)", "nan (1 image)", "2.000000 (40 images)"]
    head = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005"

    def text(losses: list[str]) -> str:
        lines = [head]
        for number, loss in zip((1, 2, 3), losses, strict=True):
            lines += [region, f"{number}: 8.5, 8.5 avg, 0.000001 rate, 0.5 seconds, 8 images"]
            lines += [f"Validation loss: {loss}"] if loss else []
        return "\n".join(lines) + "\n"

    log, without = parse_log(text(measured)), parse_log(text(["", "", ""]))
    assert log.valid_losses.drop(columns="line").to_numpy().tolist()[::2] == [
        [1, 2.5, 0],
        [3, 2, 0],
    ]
    assert log.valid_losses["loss"].isna().tolist() == [False, True, False]
    assert log.metrics()["valid_loss"].tolist()[::2] == [2.5, 2.0]
    assert without.metrics()["valid_loss"].isna().all()
    other_columns = [name for name in log.metrics() if name != "valid_loss"]
    pd.testing.assert_frame_equal(log.metrics()[other_columns], without.metrics()[other_columns])
    assert log.summary.other == without.summary.other == 0
    assert log.summary.dialects == ("pjreddie",)
    # A run that replaces iterations replaces what was measured in them.
    resumed = text(measured) + text(["", "1.5 (40 images)", ""])
    lineage = build_lineage(parse_log(resumed))
    assert [points.tolist() for points in lineage.valid_loss_curve] == [[2], [1.5]]
    assert parse_log("Validation loss: unknown\n").valid_losses.empty
