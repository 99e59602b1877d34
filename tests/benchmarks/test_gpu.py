"""The GPU benchmark works as far as can be tested without a GPU."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import oiyolo

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("benchmark_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_gpu", module)
    spec.loader.exec_module(module)
    return module


def test_the_script_fails_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = subprocess.run(
        [sys.executable, SCRIPT, "--project", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("nvidia-smi reports no GPU")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("97, 10240, 301.55\n", [(97.0, 10240.0, 301.55)]),
        ("5, 100, 50\n0, 3, 40.0\n", [(5.0, 100.0, 50.0), (0.0, 3.0, 40.0)]),
        ("[N/A], 100, 50\n, ,\nnonsense\n1, 2\n", []),
        ("", []),
    ],
)
def test_the_output_of_nvidia_smi_is_parsed(
    gpu: Any, text: str, expected: list[tuple[float, ...]]
) -> None:
    samples = [(s.busy, s.memory_mib, s.power_w) for s in gpu.parse_samples(text)]
    assert samples == expected


def test_power_is_nan_if_it_is_not_reported(gpu: Any) -> None:
    (sample,) = gpu.parse_samples("97, 10240, [N/A]\n")
    assert math.isnan(sample.power_w)
    assert gpu.summary([sample])[:2] == (97.0, 10240.0)
    assert math.isnan(gpu.summary([sample])[2])


def test_idle_samples_are_ignored(gpu: Any) -> None:
    samples = gpu.parse_samples("0, 5, 30\n80, 900, 200\n100, 700, 300\n0, 5, 30\n")
    assert gpu.summary(samples) == (90.0, 900.0, 250.0)
    assert all(map(math.isnan, gpu.summary([])))


def test_speed_is_the_median_after_the_warm_up(gpu: Any) -> None:
    seconds = [9.0, 9.0, 2.0, 2.0, 2.0, 2.0, 7.0, 2.0]
    metrics = pd.DataFrame(
        {"iteration": range(1, 9), "images": range(64, 9 * 64, 64), "seconds": seconds}
    )
    assert gpu.speed(metrics) == (64.0, 32.0)


def test_the_table_shows_the_speed_up_over_the_cpu(gpu: Any) -> None:
    trainings = [
        gpu.Training("demo", "CPU", 20, 64, 10.0, 8.0),
        gpu.Training("demo", "GPU", 300, 64, 450.0, 300.0, 93.4, 2048, math.nan),
    ]
    header, cpu_row, gpu_row = gpu.rows(trainings)
    assert len(header) == len(cpu_row) == len(gpu_row)
    assert cpu_row == ("demo, CPU", "20", "64", "10.0", "8.0", "1.0", "-", "-", "-")
    assert gpu_row[5:] == ("45.0", "93 %", "2048 MiB", "-")


@pytest.mark.slow
def test_the_whole_script_runs_with_a_fake_nvidia_smi(
    tmp_path: Path, make_project: Callable[..., Path], *, darknet: Path,
    digests: Callable[[Path], dict[str, str]], tiny_cfg: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    project = make_project()
    oiyolo.fetch(project)
    oiyolo.split(project)
    before = digests(project)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(
        '#!/bin/sh\ncase "$1" in *compute_cap*) echo "0, Fake GPU, 16000, 15000, 8.0, 580.1";;\n'
        '*) echo "90, 1000, 100.5";; esac\n'
    )
    (tools / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin", prepend=None)
    done = subprocess.run(
        [
            *(sys.executable, SCRIPT, "--project", project, "--network", tiny_cfg),
            *("--iterations", "40", "--cpu-iterations", "10", "--folder", tmp_path / "out"),
            *("--gpu-darknet", darknet, "--cpu-darknet", darknet),
        ],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trainings = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert [(t["device"], t["iterations"], t["batch"]) for t in trainings] == [
        ("CPU", 10, 4.0), ("GPU", 40, 4.0),
    ]  # fmt: skip
    assert all(t["images_per_s"] > 0 for t in trainings)
    assert "Fake GPU" in done.stdout
    after = digests(project)  # SQLite adds two files next to the ledger when it is read
    assert {name: digest for name, digest in after.items() if name in before} == before
    assert {name for name in after if name not in before} <= {
        *("data/ledger.sqlite-shm", "data/ledger.sqlite-wal"),
    }
