"""The demo: the complete pipeline on generated scenes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import oiyolo
from oiyolo.core.errors import UsageError
from oiyolo.demo_data.server import Server
from oiyolo.operations import demo as demo_module
from oiyolo.operations.demo import Demonstrated
from tests.conftest import SCENES, SEED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Shell, Site

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


def test_the_served_project_reads_the_mirror_wherever_it_is_served(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(site.mirror.folder, tmp_path / "mirror")  # drawing takes seconds
    selected = []
    monkeypatch.setattr(
        demo_module,
        "_wait_for_interrupt",
        lambda: selected.append(len(oiyolo.select(tmp_path).images)),
    )
    first = oiyolo.demo(tmp_path, seed=SEED, scenes=SCENES, serve=True)
    with (tmp_path / "oiyolo.toml").open("a") as file:
        file.write("# mine\n")
    with Server(tmp_path / "mirror", int(first.url.rpartition(":")[2])):  # occupies the port
        second = oiyolo.demo(tmp_path, seed=SEED, scenes=SCENES, serve=True)
    assert second.url != first.url
    assert selected[0] == selected[1] > 0
    text = (tmp_path / "oiyolo.toml").read_text()
    assert second.url in text
    assert first.url not in text
    assert text.endswith("# mine\n")


def test_a_server_takes_no_options_of_the_stages(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        oiyolo.demo(tmp_path, serve=True, max_batches=10)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_trains_a_good_detector(tmp_path: Path, darknet: Path) -> None:
    oiyolo.demo(tmp_path, executable=str(darknet))
    scores = json.loads((tmp_path / "runs" / "demo-001" / "evaluation.json").read_text())
    assert scores["images"] >= 60
    assert scores["boxes"] >= 100
    assert scores["map50"] >= 0.80
