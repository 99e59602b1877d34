"""Input from real sources; the tests are skipped where it is missing."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import oiyolo
from oiyolo.demo_data.server import serve
from oiyolo.demo_data.writer import CLASS_FILES, HIERARCHY_FILE
from tests.support.alpacas import labels_in, serve_alpacas, write_official

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Cli

COUNT = 100
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def alpacas(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Yield the options of a project whose images are the photographs, on a local server."""
    with serve_alpacas(real / "alpaca", tmp_path_factory.mktemp("alpacas")) as options:
        yield options


@pytest.fixture(scope="module")
def alpaca_project(alpacas: dict[str, object], make_project: Callable[..., Path]) -> Path:
    folder = make_project(**alpacas, size=(416, 416), fit="stretch")
    oiyolo.select(folder)
    oiyolo.fetch(folder)
    oiyolo.prepare(folder)
    oiyolo.split(folder)
    return folder


def test_every_photograph_is_saved_as_served(real: Path, alpaca_project: Path) -> None:
    fetched = sorted((alpaca_project / "data" / "images").iterdir())
    assert len(fetched) == COUNT
    for path in fetched:
        assert path.read_bytes() == (real / "alpaca" / "images" / path.name).read_bytes()


def test_stretched_labels_equal_the_original_labels(real: Path, alpaca_project: Path) -> None:
    written = sorted((alpaca_project / "data" / "dataset" / "obj").glob("*.txt"))
    assert len(written) == COUNT
    for path in written:
        original, ours = labels_in(real / "alpaca" / "labels" / path.name), labels_in(path)
        assert ours.shape == original.shape, path.name
        np.testing.assert_allclose(ours, original, atol=TOLERANCE, rtol=0, err_msg=path.name)
        with Image.open(path.with_suffix(".jpg")) as image:
            assert image.size == (416, 416)


def test_the_states_of_all_photographs_sum_to_the_number_selected(
    alpaca_project: Path, cli: Cli
) -> None:
    status = cli.ok("status", "--json", project=alpaca_project).json
    assert status["selected"] == COUNT
    assert status["excluded"] == {}
    states = status["states"]
    assert sum(states.values()) == COUNT
    splits = {"train": 80, "valid": 10, "test": 10}
    assert states == {**dict.fromkeys(("pending", "fetched", "prepared"), 0), **splits}
    dataset = alpaca_project / "data" / "dataset"
    listed = [
        line.split("/")[-1]
        for name in ("train", "valid", "test")
        for line in (dataset / f"{name}.txt").read_text().splitlines()
    ]
    assert len(set(listed)) == len(listed) == COUNT


def test_letterboxed_labels_enclose_the_same_pixels(
    real: Path, alpacas: dict[str, object], make_project: Callable[..., Path], cli: Cli
) -> None:
    folder = make_project(**alpacas, size=(416, 416), fit="letterbox")
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    counts = {"wide": 0, "tall": 0}
    for path in sorted((folder / "data" / "dataset" / "obj").glob("*.txt")):
        with Image.open(real / "alpaca" / "images" / f"{path.stem}.jpg") as image:
            width, height = image.size
        original, ours = labels_in(real / "alpaca" / "labels" / path.name), labels_in(path)
        side = max(width, height)
        scale = np.array([width / side, height / side])
        expected = original.copy()
        expected[:, 1:3] = original[:, 1:3] * scale + (1 - scale) / 2
        expected[:, 3:5] = original[:, 3:5] * scale
        # The image inside the letterbox has a whole number of pixels.
        np.testing.assert_allclose(
            np.sort(ours, axis=0), np.sort(expected, axis=0), atol=1.5 / 416, err_msg=path.name
        )
        counts["wide" if width > height else "tall"] += 1
    assert min(counts.values()) > 10


def test_the_log_of_the_seed_project_is_charted(real: Path, tmp_path: Path, cli: Cli) -> None:
    log = tmp_path / "train_log.txt"
    shutil.copyfile(real / "seed_project" / "train_log.txt", log)
    done = cli.ok("plot", log, "--json").json
    assert done["iterations"] == 605
    last = [line for line in log.read_text().splitlines() if " avg" in line][-1]
    assert f"{done['avg_loss']:.6f}" in last
    assert done["last_iteration"] == int(last.strip().split(":")[0])
    assert len(done["charts"]) == 3
    for path in done["charts"]:
        with Image.open(path) as image:
            assert min(image.size) > 300
    metrics = pd.read_csv(done["metrics"])
    assert len(metrics) == 605
    assert metrics["iou_82"].count() == 605
    assert metrics["iou_94"].count() == 0
    assert metrics["iou_106"].count() == 0
    assert metrics["avg_loss"].iloc[-1] == pytest.approx(done["avg_loss"])


def test_layers_without_objects_are_recognised_in_the_seed_log(real: Path) -> None:
    log = oiyolo.read_log(real / "seed_project" / "train_log.txt")
    regions = log.regions
    assert regions.groupby("layer").size().to_dict() == {82: 605, 94: 605, 106: 605}
    with_iou = regions[regions["iou"].notna()].groupby("layer").size().to_dict()
    assert with_iou == {82: 605}
    assert set(regions.loc[regions["layer"] != 82, "count"]) == {0}
    assert log.summary.torn == 0


def test_a_cfg_with_merge_conflict_markers_is_rejected_with_the_line(
    real: Path, make_project: Callable[..., Path], cli: Cli
) -> None:
    cfg = real / "seed_project" / "cfg" / "yolov3_ih_fp.cfg"
    markers = [n for n, line in enumerate(cfg.read_text().splitlines(), 1) if line[:7] == "<<<<<<<"]
    folder = make_project(limit=20)
    cli.ok("fetch", project=folder)
    cli.ok("split", project=folder)
    done = cli("train", "--network", cfg, project=folder)
    assert done.code == 3
    assert f"{cfg}:{markers[0]}" in done.err
    assert "<<<<<<< HEAD" in done.err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    "name",
    ["class-descriptions-boxable.kushagra414.csv", "class-descriptions-boxable.turpan9076.csv"],
)
def test_public_copies_of_the_class_list_are_read_or_rejected_with_the_line(
    real: Path,
    *,
    make_project: Callable[..., Path],
    alpacas: dict[str, object],
    cli: Cli,
    tmp_path: Path,
    name: str,
) -> None:
    write_official(real / "alpaca", tmp_path)
    shutil.copyfile(real / "metadata" / name, tmp_path / "openimages" / CLASS_FILES[1])
    shutil.copyfile(
        real / "metadata" / "bbox_labels_600_hierarchy.json",
        tmp_path / "openimages" / HIERARCHY_FILE,
    )
    lines = (real / "metadata" / name).read_text(encoding="utf-8-sig").splitlines()
    empty = [n for n, line in enumerate(lines, 1) if line.rstrip().endswith(",")]
    with serve(tmp_path) as server:
        urls = {
            "base_url": f"{server.base_url}/openimages",
            "mirror_url": f"{server.base_url}/open-images-dataset",
        }
        done = cli("select", project=make_project(**{**alpacas, **urls}))
    if empty:
        assert done.code == 3
        assert f"{CLASS_FILES[1]}:{empty[0]}:" in done.err
    else:
        assert done.code == 0, done.err
        assert "100 images" in done.out
