"""Several processes that train one network: the same result as one, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch", reason="the torch engine needs PyTorch")

from PIL import Image

from oiyolo.core.errors import UsageError
from oiyolo.darknet.program import data_file
from oiyolo.networks.weights import read_header
from oiyolo.torch_engine.options import Options
from oiyolo.torch_engine.training import Training
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Callable

CFG = """[net]
width=32
height=32
channels=3
batch=8
subdivisions={parts}
learning_rate=0.02
burn_in=0
max_batches={iterations}
policy=constant
saturation=1.5
exposure=1.5
hue=.1
[convolutional]
batch_normalize=1
filters=4
size=3
stride=4
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1
anchors=8,8, 16,16
classes=2
num=2
jitter=.2
max=20
"""
TIMEOUT_S = 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a run's folder with seven images."""
    (tmp_path / "weights").mkdir()
    random = np.random.default_rng(3)
    paths = []
    for number in range(7):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(random.integers(0, 255, (40, 48, 3), np.uint8)).save(path)
        path.with_suffix(".txt").write_text(f"{number % 2} 0.4 0.5 0.4 0.5\n")
        paths.append(f"{path}\n")
    (tmp_path / "train.txt").write_text("".join(paths))
    lists = {"train": "train.txt", "valid": "train.txt", "names": "n", "results": "r"}
    text = data_file(class_count=2, backup="weights", **lists)
    (tmp_path / "obj.data").write_text(text)
    return tmp_path


def start(folder: Path, gpus: str, *, parts: int, iterations: int) -> subprocess.Popen[bytes]:
    """Start the program; its log goes to ``log.txt``."""
    (folder / "network.cfg").write_text(CFG.format(parts=parts, iterations=iterations))
    program = [sys.executable, "-m", "oiyolo.torch_engine"]
    words = ["detector", "train", "obj.data", "network.cfg", "--device", "cpu", "--seed", "5"]
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            [*program, *words, "-gpus", gpus],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )


def log_of(folder: Path) -> str:
    return (folder / "log.txt").read_text()


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def children_of(process_id: int) -> list[int]:
    text = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    return [int(word) for word in text.split()]


def is_running(process_id: int) -> bool:
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_two_processes_train_as_one(folder: Path) -> None:
    values, logs = {}, {}
    for gpus in ("0", "0,1"):
        assert start(folder, gpus, parts=4, iterations=6).wait(TIMEOUT_S) == 0, log_of(folder)
        path = folder / "weights" / "network_final.weights"
        values[gpus] = np.fromfile(path, np.float32, offset=read_header(path).header_bytes)
        logs[gpus] = read_log(folder / "log.txt")
    np.testing.assert_allclose(values["0,1"], values["0"], rtol=1e-4, atol=1e-6)
    one, two = (logs[gpus].iterations for gpus in ("0", "0,1"))
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    assert list(two["images"]) == list(one["images"])
    counts = [len(logs[gpus].regions["iou"]) for gpus in ("0", "0,1")]
    assert counts[0] == counts[1] == 6 * 4
    totals = [np.nansum(logs[gpus].regions["iou"]) for gpus in ("0", "0,1")]
    assert totals[1] == pytest.approx(totals[0], rel=1e-3)


@pytest.mark.slow
def test_a_stopped_training_saves_its_weights_and_leaves_no_process(folder: Path) -> None:
    program = start(folder, "0,1", parts=2, iterations=1_000_000)
    wait_for(lambda: "\n 3: " in log_of(folder))
    others = children_of(program.pid)
    assert len(others) == 1
    program.send_signal(signal.SIGTERM)
    assert program.wait(TIMEOUT_S) == -signal.SIGTERM
    assert (folder / "weights" / "network_last.weights").exists()
    wait_for(lambda: not any(map(is_running, others)))


@pytest.mark.slow
@pytest.mark.parametrize("is_first", [True, False])
def test_a_process_does_not_outlive_the_others(folder: Path, *, is_first: bool) -> None:
    program = start(folder, "0,1", parts=2, iterations=1_000_000)
    wait_for(lambda: "\n 3: " in log_of(folder))
    (other,) = children_of(program.pid)
    os.kill(program.pid if is_first else other, signal.SIGKILL)
    assert program.wait(TIMEOUT_S) == (-signal.SIGKILL if is_first else 1)
    wait_for(lambda: not is_running(other))
    assert is_first or "SIGKILL" in log_of(folder)


def test_a_batch_must_be_divisible_by_the_number_of_gpus(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "network.cfg").write_text(CFG.format(parts=1, iterations=1))
    options = Options(Path("obj.data"), Path("network.cfg"), device="cpu", gpus=(0, 1, 2))
    with pytest.raises(UsageError):
        Training(options, lambda _: None)
