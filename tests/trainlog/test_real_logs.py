"""Parse the logs of real trainings with all three forks of darknet."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pytest

from oiyolo.trainlog.parse import LogParser, parse_log, read_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.trainlog.parse import TrainLog

REAL = Path(__file__).parents[3] / "shared" / "real"
SEED_LOG = REAL / "seed_project" / "train_log.txt"

pytestmark = pytest.mark.skipif(
    not (REAL / "logs").is_dir(), reason="the logs of real trainings are not at ../shared/real"
)


class Expected(NamedTuple):
    lines: int
    iterations: int
    last_iteration: int | None
    last_average: float
    regions: int
    maps: tuple[float, ...] = ()
    resizes: int = 0
    saves: int = 0
    mended: int = 0
    complaints: int = 0
    unassigned: int = 0


NAN = math.nan

# lines       wc -l LOG (plus one if the last line has no newline: tail -c1 LOG | xxd)
# iterations  grep -caE 'seconds, -?[0-9]+ images' LOG
# the last    grep -aE 'seconds, -?[0-9]+ images' LOG | tail -n1
# regions     grep -caE 'Region [0-9]* ?Avg' LOG
# maps        grep -aE 'mean average precision \(mAP' LOG
# resizes     grep -ca '^Resizing' LOG
# saves       grep -ca 'Saving weights to' LOG
# mended      grep -caE '.Saving weights to' LOG
# complaints  grep -anE '[Ee]rror|Failed|Try to set' LOG, and by eye
EXPECTED = {
    "alexeyab_2020_colab_1028it": Expected(3819, 1024, 1028, 0.303765, 0, resizes=103, saves=11),
    "alexeyab_dies_cuda_out_of_memory": Expected(348, 0, None, NAN, 0, complaints=4),
    "alexeyab_dies_filters_mismatch": Expected(126, 0, None, NAN, 0, complaints=2),
    "alexeyab_merged_2and1": Expected(249, 30, 30, 6.479793, 30, (0.345943,), saves=2),
    "alexeyab_t96_map.stderr": Expected(648, 0, None, NAN, 300, saves=7, unassigned=300),
    "alexeyab_t96_map.stdout": Expected(1474, 300, 300, 0.521056, 0, (0.9375, 1.0, 1.0)),
    "alexeyab_windows_crlf_map_first4000lines": Expected(4000, 886, 886, 3.692314, 0, resizes=89),
    "deb_resume": Expected(32, 10, 310, 0.491146, 10),
    "deb_t64": Expected(902, 300, 300, 1.083101, 300),
    "debian_2and1_nostdbuf": Expected(649, 210, 210, 1.411398, 210, saves=5, mended=3),
    "debian_diverges_to_nan": Expected(122, 40, 40, NAN, 40, complaints=1),
    "debian_t96_300it.stderr": Expected(21, 0, None, NAN, 0, saves=7),
    "debian_t96_300it.stdout": Expected(902, 300, 300, 0.618491, 300),
    "hank_colour_map": Expected(93, 30, 30, 6.712, 0, (0.4679,), saves=2),
    "hank_nocolour_verbose": Expected(143, 30, 30, 7.510, 30, saves=1),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_log_is_parsed(name: str) -> None:
    expected = EXPECTED[name]
    log = read_log(REAL / "logs" / f"{name}.log")
    summary = log.summary
    assert summary.lines == expected.lines
    assert len(log.iterations) == expected.iterations
    assert summary.last_iteration == expected.last_iteration
    if log.latest:
        assert log.latest.avg_loss == pytest.approx(expected.last_average, nan_ok=True)
    assert len(log.regions) == expected.regions
    assert summary.regions_unassigned == expected.unassigned
    assert tuple(log.maps["map"]) == pytest.approx(expected.maps)
    kinds = log.events["kind"].value_counts()
    assert kinds.get("resize", 0) == expected.resizes
    assert kinds.get("saved", 0) == expected.saves
    assert summary.mended == expected.mended
    assert summary.torn == 0
    assert len(log.complaints()) == expected.complaints


def test_every_real_log_has_expected_values() -> None:
    assert {path.stem for path in (REAL / "logs").glob("*.log")} == set(EXPECTED)


def test_the_log_of_the_seed_project() -> None:
    log = read_log(SEED_LOG)
    table = log.metrics()
    assert table["iteration"].tolist() == list(range(1, 606))
    assert log.latest is not None
    assert log.latest.avg_loss == table["avg_loss"].iloc[-1] == 1.148727
    lines = log.regions.groupby("layer")["iou"].agg(["size", "count"])
    assert lines["size"].to_dict() == {82: 605, 94: 605, 106: 605}
    assert lines["count"].to_dict() == {82: 605, 94: 0, 106: 0}
    assert log.summary.regions_empty == 1210
    assert table["iou_82"].notna().all()
    assert table[["iou_94", "iou_106"]].isna().all(axis=None)
    np.testing.assert_array_equal(table["iou"], table["iou_82"])
    assert (table["images"] == table["iteration"]).all()  # trained with a batch of 1
    assert log.events["text"].str.fullmatch(r"Resizing \d{3}").sum() == 61


def test_region_lines_belong_to_the_iteration_after_them() -> None:
    # With one layer and one subdivision, total_loss is the loss of the iteration.
    log = read_log(REAL / "logs" / "alexeyab_merged_2and1.log")
    pairs = log.regions.merge(log.iterations, on="iteration", suffixes=("", "_of_iteration"))
    assert len(pairs) == 30
    assert (pairs["total_loss"] == pairs["loss"]).all()


def test_missing_iteration_lines_do_not_split_a_run() -> None:
    log = read_log(REAL / "logs" / "alexeyab_2020_colab_1028it.log")
    assert len(set(range(1, 1029)) - set(log.iterations["iteration"])) == 4
    assert log.summary.runs == 1


def test_a_resume_is_an_event() -> None:
    log = read_log(REAL / "logs" / "deb_resume.log")
    assert log.events["kind"].tolist() == ["start", "resume"]


def test_coloured_lines_are_parsed() -> None:
    log = read_log(REAL / "logs" / "hank_colour_map.log")
    assert log.iterations["iteration"].tolist() == list(range(1, 31))
    assert log.iterations["seconds"].iloc[-1] == pytest.approx(0.1213)


def test_a_log_in_one_json_string_has_the_same_iterations(real_logs: dict[str, bytes]) -> None:
    for name in ("hank_colour_map", "alexeyab_t96_map.stdout", "debian_t96_300it.stdout"):
        text = real_logs[name].decode(errors="replace")
        plain, in_json = parse_log(text), parse_log(json.dumps({"text": text}))
        columns = ["iteration", "loss", "avg_loss", "iou"]
        assert in_json.iterations[columns].equals(plain.iterations[columns]), name
        assert in_json.maps["map"].tolist() == plain.maps["map"].tolist(), name


def test_concatenated_logs_are_separate_runs(real_logs: dict[str, bytes]) -> None:
    names = ["debian_t96_300it.stdout", "deb_resume", "alexeyab_merged_2and1", "deb_t64"]
    log = parse_log(b"".join(real_logs[name] for name in names))
    assert log.runs.drop(columns=["first_line", "last_line"]).to_numpy().tolist() == [
        [0, "pjreddie", 1, 300, 300],
        [1, "pjreddie", 301, 310, 10],
        [2, "AlexeyAB", 1, 30, 30],
        [3, "pjreddie", 1, 300, 300],
    ]
    assert (log.runs["first_line"].iloc[1:] > log.runs["last_line"].iloc[:-1].to_numpy()).all()
    assert log.summary.runs == 4
    assert "640 iterations: 1 to 300 in 4 runs" in str(log.summary)
    assert log.summary.regions_unassigned == 0
    table = log.metrics()
    assert table["iteration"].tolist() == list(range(1, 311))
    later = parse_log(real_logs["deb_t64"]).metrics()
    assert table["loss"].iloc[:300].tolist() == later["loss"].tolist()


def test_region_lines_are_unassigned_if_stderr_precedes_stdout(
    real_logs: dict[str, bytes],
) -> None:
    parts = [real_logs[f"alexeyab_t96_map.{name}"] for name in ("stderr", "stdout")]
    log = parse_log(b"".join(parts))
    assert len(log.iterations) == len(log.regions) == 300
    assert log.summary.regions_unassigned == 300
    assert log.regions["iteration"].isna().all()
    assert log.iterations["iou"].isna().all()
    assert [name for name in log.metrics().columns if name.startswith("iou")] == ["iou"]
    assert "stderr seems to precede stdout in this file" in str(log.summary)
    # In the opposite order they come after the last iteration line.
    log = parse_log(b"".join(reversed(parts)))
    assert log.summary.regions_unassigned == 300
    assert "no region line precedes its iteration line" in str(log.summary)


def test_region_lines_can_be_skipped(real_logs: dict[str, bytes]) -> None:
    for name, data in real_logs.items():
        whole, without_regions = parse_log(data), parse_log(data, regions=False)
        columns = [column for column in whole.iterations.columns if column != "iou"]
        pd.testing.assert_frame_equal(
            without_regions.iterations[columns], whole.iterations[columns]
        )
        assert without_regions.iterations["iou"].isna().all()
        assert without_regions.regions.empty, name
        assert without_regions.summary.regions == whole.summary.regions
        assert without_regions.summary.torn == whole.summary.torn
        assert ("were only counted" in str(without_regions.summary)) == (whole.summary.regions > 0)


def test_pieces_of_any_size_give_the_same_tables(
    real_logs: dict[str, bytes], assert_same_tables: Callable[[TrainLog, TrainLog], None]
) -> None:
    for log in real_logs.values():
        data = log[:40_000]
        whole = parse_log(data)
        for size in (97, 4099, 33_000):
            parser = LogParser()
            for start in range(0, len(data), size):
                parser.feed(data[start : start + size])
            parser.close()
            assert_same_tables(parser.log(), whole)


def splice(logs: list[bytes], rng: random.Random) -> bytes:
    pieces = []
    for _ in range(6):
        log = rng.choice(logs)
        start = rng.randrange(len(log))
        pieces += [log[start : start + rng.randrange(3000)], rng.randbytes(5)]
    return b"".join(pieces)


@pytest.mark.parametrize(
    "rounds", [20, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_randomly_spliced_logs_can_be_parsed(rounds: int, real_logs: dict[str, bytes]) -> None:
    rng = random.Random(2)
    logs = list(real_logs.values())
    for _ in range(rounds):
        data = splice(logs, rng)
        log = parse_log(data)
        assert len(log.iterations) <= data.count(b" images")
        assert len(log.regions) <= data.count(b"count: ")
        assert len(log.maps) <= sum(map(data.count, (b"(mAP", b"last=", b"Last accuracy")))
        assert log.summary.lines == data.count(b"\n") + (not data.endswith(b"\n"))
        assert log.summary.regions_unassigned <= len(log.regions)
        assert log.metrics()["iteration"].is_unique
        assert log.runs["iterations"].sum() == len(log.iterations)
        assert str(log.summary)
        assert log._repr_html_()
