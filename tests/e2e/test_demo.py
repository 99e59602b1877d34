"""The demo: the complete pipeline on generated scenes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import oiyolo
from oiyolo.operations.demo import Demonstrated

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Shell

pytestmark = pytest.mark.darknet

FEW: dict[str, Any] = {"scenes": 60, "max_batches": 120, "tolerance": 0.2}


def modification_times(folder: Path) -> dict[str, int]:
    """Return the modification time of each file except locks, the ledger and the mirror's URL."""
    ignored = {".lock", ".evaluate.lock", "mirror.json"}
    return {
        str(path): path.stat().st_mtime_ns
        for below in ("data", "runs")
        for path in (folder / below).rglob("*")
        if path.is_file() and path.name not in ignored and "ledger" not in path.name
    }


@pytest.mark.slow
def test_a_short_demo_writes_all_outputs_and_a_second_one_does_nothing(
    tmp_path: Path, darknet: Path
) -> None:
    folder = tmp_path / "demo"
    done = oiyolo.demo(folder, executable=str(darknet), **FEW)
    assert isinstance(done, Demonstrated)
    for name, place in done.paths.items():
        assert place.exists(), name
        assert place.is_relative_to(folder)
        assert str(place) in str(done)
    run = folder / "runs" / "demo-001"
    for picture in ("charts/loss.png", "charts/iou.png", "panels/overview.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 200
    scores = json.loads((run / "evaluation.json").read_text())
    assert 0.0 <= scores["map50"] <= 1.0
    assert scores["split"] == "test"
    assert (run / "report.html").stat().st_size > 50_000
    json.dumps(done.as_dict())

    before = modification_times(folder)
    again = oiyolo.demo(folder, executable=str(darknet), **FEW)
    assert modification_times(folder) == before
    assert again.as_dict()["evaluate"] == done.as_dict()["evaluate"]


def test_the_demo_refuses_a_folder_with_other_files(
    shell: Shell, tmp_path: Path, darknet: Path
) -> None:
    done = shell("demo", "--dry-run", cwd=tmp_path)
    assert done.code == 0
    assert not list(tmp_path.iterdir())
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "mirror").mkdir()
    (tmp_path / "busy" / "mirror" / "mine.txt").write_text("mine")
    refused = shell("demo", "busy", "--executable", darknet, cwd=tmp_path)
    assert refused.code == 2
    assert str(tmp_path / "busy" / "mirror") in refused.err
    assert (tmp_path / "busy" / "mirror" / "mine.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_trains_a_good_detector(tmp_path: Path, darknet: Path) -> None:
    oiyolo.demo(tmp_path, executable=str(darknet))
    scores = json.loads((tmp_path / "runs" / "demo-001" / "evaluation.json").read_text())
    assert scores["images"] >= 60
    assert scores["boxes"] >= 100
    assert scores["map50"] >= 0.80
