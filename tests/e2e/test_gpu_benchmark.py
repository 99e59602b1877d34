"""Parts of ``benchmarks/gpu.py``, whose ``--self-check`` runs the whole of it."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oiyolo.networks import cfg as cfgs


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the script as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("gpu")


def test_measurements_share_the_time_that_is_left(gpu: Any) -> None:
    now_s = [100.0]
    clock = gpu.Clock(60.0, 3, lambda: now_s[0])
    assert clock.next_share() == pytest.approx(20)
    now_s[0] += 30  # it took longer
    assert clock.next_share() == pytest.approx(15)
    now_s[0] += 5  # and this one ended early
    assert clock.next_share() == pytest.approx(25)
    now_s[0] += 60
    assert clock.next_share() == 0


def test_the_fewest_subdivisions_that_fit_are_used(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def run_case(bench: Any, speed: Any, _: float) -> tuple[bool, Any]:
        net = cfgs.read(bench.folder / "bench.cfg").net
        assert net.integer("burn_in", 1) == 0
        tried.append((speed.program, net.integer("batch", 0), net.integer("subdivisions", 0)))
        return speed.subdivisions >= 4, replace(speed, images_per_s=50.0)

    monkeypatch.setattr(gpu, "run_case", run_case)
    bench = gpu.Bench(tmp_path, {}, 416, 64, 10, {})
    speeds: list[Any] = []
    for program, device in (("torch", "GPU"), ("bare step", "GPU"), ("torch", "CPU")):
        case = gpu.Case("yolov3-tiny", program, device)
        speeds.append(gpu.measure_case(bench, case, 100.0, speeds))
    assert tried == [
        *[("torch", 64, parts) for parts in (1, 2, 4)],
        ("bare step", 64, 4),
        ("torch", 4, 1),
    ]
    assert [speed.subdivisions for speed in speeds] == [4, 4, 1]


def test_the_log_tells_iterations_and_lack_of_memory(gpu: Any) -> None:
    log = gpu.TrainingLog(math.inf, 2)
    line = b" %d: 2.5, 2.5 avg loss, 0.001 rate, 1.5 seconds, %d images, 1.0 hours left"
    log.on_line("stdout", line % (1, 64))
    log.on_line("stdout", b"Loaded: 0.0002 seconds")
    assert not log.should_end()
    log.on_line("stdout", line % (2, 128))
    assert [number for number, _ in log.iterations] == [1, 2]
    assert log.should_end()
    assert not log.is_out_of_memory
    log.on_line("stdout", b"Error: out of memory in training with torch: CUDA out of memory.")
    assert log.is_out_of_memory
    assert gpu.TrainingLog(0.0, 2).should_end()


@pytest.mark.parametrize(
    ("devices", "has_torch", "expected"),
    [
        ({"GPU", "CPU"}, True, ["darknet GPU", "torch GPU", "bare step GPU", "darknet CPU",
                                "torch CPU"]),
        ({"CPU"}, True, ["torch GPU", "bare step GPU", "darknet CPU", "torch CPU"]),
        ({"GPU", "CPU"}, False, ["darknet GPU", "darknet CPU"]),
    ],
)  # fmt: skip
def test_both_engines_are_measured_on_both_devices(
    gpu: Any, devices: set[str], has_torch: bool, expected: list[str]
) -> None:
    cases = gpu.cases_of(["yolov3", "yolov4"], devices, has_torch=has_torch)
    names = [f"{case.program} {case.device}" for case in cases]
    assert names == 2 * expected


def test_the_warm_up_does_not_count(gpu: Any) -> None:
    times = [(1, 0.0), (2, 60.0), (3, 61.0), (4, 62.0), (5, 63.0)]
    assert gpu.images_per_s(times, 64) == 64
    assert math.isnan(gpu.images_per_s(times[:1], 64))
    assert math.isnan(gpu.images_per_s([], 64))
