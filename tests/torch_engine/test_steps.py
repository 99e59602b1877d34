"""Training steps compared with what darknet prints and with the weights that it writes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

pytest.importorskip("torch", reason="the torch engine needs PyTorch")

from oiyolo.darknet.program import probe
from oiyolo.networks.layers import layers
from tests.support.training_parity import (
    CASES,
    LOSSES,
    darknet_training,
    engine_training,
    seeded_start,
    updates,
)

if TYPE_CHECKING:
    from oiyolo.networks.lint import ForkName
    from tests.support.training_parity import (
        Case,
        Training,
    )

PROGRAMS: Final = {
    "pjreddie": [*filter(None, [shutil.which("darknet")])],
    "alexeyab": [*filter(None, os.environ.get("OIYOLO_TEST_DARKNETS", "").split(os.pathsep))],
}
QUICK: Final = [
    ("pjreddie", "2 iterations"),
    ("pjreddie", "region"),
    *(("alexeyab", name) for name in CASES["alexeyab"]),
]
ALL: Final = [(fork, name) for fork, cases in CASES.items() for name in cases]
LOSS_TOLERANCE: Final = 2e-5


@pytest.mark.parametrize(("fork", "name"), QUICK)
def test_losses_are_those_that_darknet_printed(fork: ForkName, name: str, tmp_path: Path) -> None:
    printed = json.loads((LOSSES / f"{fork}.json").read_text(encoding="utf-8"))[name]
    own = engine_training(fork, tmp_path, CASES[fork][name]).losses
    assert own == pytest.approx(printed, rel=LOSS_TOLERANCE)


@pytest.mark.slow
@pytest.mark.darknet
@pytest.mark.parametrize(("fork", "name"), ALL)
def test_updates_and_statistics_are_darknets(fork: ForkName, name: str, tmp_path: Path) -> None:
    case = CASES[fork][name]
    programs = [probe(Path(path), "installed") for path in PROGRAMS[fork]]
    programs = [program for program in programs if program.fork.name == fork]
    if not programs:
        pytest.skip(f"no program of the fork {fork} is installed")
    theirs = darknet_training(programs[0], tmp_path / "darknet", case)
    own = engine_training(fork, tmp_path / "engine", case)
    assert own.losses == pytest.approx(theirs.losses, rel=LOSS_TOLERANCE), theirs.log[-2000:]
    if theirs.regions:
        np.testing.assert_allclose(own.regions, theirs.regions, rtol=1e-4, atol=1e-5)
    if case.has_updates:
        differences = relative_differences(case, theirs, own)
        assert max(differences.values()) < case.tolerance, differences


def relative_differences(case: Case, theirs: Training, own: Training) -> dict[str, float]:
    """Return, by kind of parameter, the norm of the difference over that of the update."""
    cfg = case.cfg()
    start = seeded_start(cfg)
    wanted, found = updates(start, theirs.weights), updates(start, own.weights)
    squares: dict[str, np.ndarray] = {}
    position = 0
    for layer in layers(cfg):
        for segment in layer.segments:
            part = slice(position, position + segment.count)
            position += segment.count
            pair = [wanted[part] - found[part], wanted[part]]
            sums = np.array([float(np.sum(x.astype(np.float64) ** 2)) for x in pair])
            squares[segment.name] = squares.get(segment.name, np.zeros(2)) + sums
    return {
        name: float(np.sqrt(off / total)) if total else float(off)
        for name, (off, total) in squares.items()
    }
