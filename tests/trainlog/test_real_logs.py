"""Logs that real trainings of all three lines of darknet left.

The expected counts were found with grep, for example
``grep -cE '^ ?[0-9]+: .* avg' LOG`` and ``grep -c 'Region [0-9]* Avg' LOG``.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from oiyolo.trainlog.parse import parse_log, read_log

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
def test_real_log(name: str) -> None:
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


def test_every_real_log_is_expected() -> None:
    assert {path.stem for path in (REAL / "logs").glob("*.log")} == set(EXPECTED)


def test_seed_project() -> None:
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
    # One layer and one subdivision: its total_loss is the loss of its iteration.
    log = read_log(REAL / "logs" / "alexeyab_merged_2and1.log")
    pairs = log.regions.merge(log.iterations, on="iteration", suffixes=("", "_of_iteration"))
    assert len(pairs) == 30
    assert (pairs["total_loss"] == pairs["loss"]).all()


def test_missing_lines_are_missing() -> None:
    log = read_log(REAL / "logs" / "alexeyab_2020_colab_1028it.log")
    assert len(set(range(1, 1029)) - set(log.iterations["iteration"])) == 4
    assert log.summary.runs == 1


def test_resume_is_an_event() -> None:
    log = read_log(REAL / "logs" / "deb_resume.log")
    assert log.events["kind"].tolist() == ["start", "resume"]


def test_colours_say_the_same_as_none() -> None:
    log = read_log(REAL / "logs" / "hank_colour_map.log")
    assert log.iterations["iteration"].tolist() == list(range(1, 31))
    assert log.iterations["seconds"].iloc[-1] == pytest.approx(0.1213)


def test_random_cuts_and_splices() -> None:
    chance = random.Random(2)
    logs = [path.read_bytes() for path in sorted((REAL / "logs").glob("*.log"))]
    for _ in range(60):
        pieces = []
        for _ in range(6):
            log = chance.choice(logs)
            start = chance.randrange(len(log))
            pieces += [log[start : start + chance.randrange(3000)], chance.randbytes(5)]
        data = b"".join(pieces)
        log_found = parse_log(data)
        assert len(log_found.iterations) <= data.count(b" images")
        assert len(log_found.regions) <= data.count(b"count: ")
        assert log_found.metrics()["iteration"].is_unique
        assert str(log_found.summary)
