"""The demo's network definition suits the demo's scenes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo import boxes
from oiyolo.demo_data.scenes import BOAT_FAMILY, SceneKind, draw_scene
from oiyolo.networks import anchors, builders, cfg, layers, lint

if TYPE_CHECKING:
    from oiyolo.demo_data.scenes import Scene

CFG = Path(__file__).parents[2] / "cfg" / "demo.cfg"


def _boat_boxes(scene: Scene) -> boxes.Boxes:
    return np.array([item.xyxy for item in scene.objects if item.name in BOAT_FAMILY])


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(np.random.default_rng([4, nth]), SceneKind.BOATS) for nth in range(80)]


@pytest.mark.parametrize("fork", ["pjreddie", "alexeyab", "hank"])
def test_the_network_is_valid_for_every_fork_of_darknet(fork: lint.ForkName) -> None:
    assert lint.lint(cfg.read(CFG), class_count=1, fork=fork) == []


def test_the_anchors_fit_the_boats_of_the_scenes(scenes: list[Scene]) -> None:
    cxcywh = np.concatenate([boxes.to_cxcywh(_boat_boxes(scene)) for scene in scenes])
    sizes_px = cxcywh[:, 2:] * 96
    actual = anchors.average_iou(sizes_px, builders.anchors_of(cfg.read(CFG)))
    best = anchors.average_iou(sizes_px, anchors.kmeans(sizes_px, 3))
    assert actual > best - 0.03
    assert actual > 0.65


@pytest.mark.darknet
@pytest.mark.skipif(not shutil.which("darknet"), reason="no darknet on PATH")
def test_darknet_trains_the_network(scenes: list[Scene], tmp_path: Path) -> None:
    network = cfg.read(CFG)
    short = re.sub(r"max_batches=\d+", "max_batches=2", CFG.read_text())
    assert short.count("max_batches=2\n") == 1
    (tmp_path / "demo.cfg").write_text(short)
    names = []
    for nth, scene in enumerate(scenes[:4]):
        path = tmp_path / "obj" / f"{nth}.png"
        path.parent.mkdir(exist_ok=True)
        scene.image.resize((96, 96), Image.Resampling.BOX).save(path)
        lines = [
            " ".join(("0", *(f"{value:.6f}" for value in box)))
            for box in boxes.to_cxcywh(_boat_boxes(scene))
        ]
        path.with_suffix(".txt").write_text("\n".join(lines) + "\n")
        names.append(f"obj/{nth}.png\n")
    (tmp_path / "train.txt").write_text("".join(names))
    (tmp_path / "obj.names").write_text("Boat\n")
    (tmp_path / "obj.data").write_text(
        "classes=1\ntrain=train.txt\nvalid=train.txt\nnames=obj.names\nbackup=weights\n"
    )
    (tmp_path / "weights").mkdir()
    finished = subprocess.run(
        ["darknet", "detector", "train", "obj.data", "demo.cfg"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    weights = tmp_path / "weights" / "demo_final.weights"
    assert weights.is_file(), finished.stderr
    assert weights.stat().st_size == layers.expected_weight_bytes(network)
