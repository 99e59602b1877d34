"""Converted networks compared with the darknet programs that are installed here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from PIL import Image

from oiyolo.networks import cfg as cfgs
from oiyolo.networks.layers import head_channels, heads_with_previous
from oiyolo.networks.stock import TEXTS
from tests.support.darknet_parity import (
    GOLDEN,
    SEED,
    compare,
    darknet_rows,
    measured_statistics,
    model_rows,
    seeded_images,
    seeded_weights,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.cfg import Cfg

pytestmark = pytest.mark.darknet

REAL: Final = Path(__file__).parents[3] / "shared" / "real"
PHOTOGRAPHS: Final = 6
ALL_FORKS: Final = ("yolov3", "yolov2", "depthwise")
"""Golden networks that every fork computes; the others have layers of AlexeyAB's."""

IMAGES: Final = 2
MEASURED_IMAGES: Final = 12
"""Enough that deep networks do not magnify the rounding of floats beyond the tolerances."""

MAX_MISSING_SHARE: Final = 0.01
"""Boxes that are compared within the image, but suppressed before they are cut off."""


def assert_equal(
    darknet: Darknet, cfg: Cfg, weights: bytes, images: npt.NDArray[np.uint8], folder: Path
) -> None:
    """Assert that a darknet and the converted network detect the same."""
    rows = darknet_rows(darknet, folder / "darknet", cfg, weights, images)
    path = folder / "darknet" / "n.weights"
    boxes, scores = model_rows(cfg, path, images, fork=darknet.fork.name)
    found = compare(rows, boxes, scores, cfg.size_wh)
    assert found.box_px < 0.5
    assert found.confidence < 1e-3
    assert found.missing <= MAX_MISSING_SHARE * found.count


@pytest.mark.parametrize("kind", sorted(path.stem for path in GOLDEN.glob("*.cfg")))
def test_small_networks_of_every_kind(kind: str, program: Darknet, tmp_path: Path) -> None:
    if program.fork.name == "pjreddie" and kind not in ALL_FORKS:
        pytest.skip("this fork lacks layers of the network")
    cfg = cfgs.read(GOLDEN / f"{kind}.cfg")
    images = seeded_images(cfg, SEED, IMAGES)
    assert_equal(program, cfg, seeded_weights(cfg, SEED), images, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_the_stock_networks(name: str, program: Darknet, tmp_path: Path) -> None:
    if program.fork.name == "pjreddie" and "v4" in name:
        pytest.skip("this fork lacks layers of the network")
    cfg = cfgs.parse(TEXTS[name](), path=name)
    for key, value in {"width": 96, "height": 64, "batch": 1, "subdivisions": 1}.items():
        cfg.net.set(key, value)
    for before, head in heads_with_previous(cfg):
        head.set("classes", 2)
        before.set("filters", head_channels(head))
    weights, images = tmp_path / "n.weights", seeded_images(cfg, SEED, MEASURED_IMAGES)
    weights.write_bytes(seeded_weights(cfg, SEED))
    measured = seeded_weights(cfg, SEED, measured_statistics(cfg, weights, images))
    assert_equal(program, cfg, measured, images[:IMAGES], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size_wh", [(320, 320), (320, 224)])
def test_a_trained_network_on_photographs(
    size_wh: tuple[int, int], program: Darknet, tmp_path: Path
) -> None:
    if not REAL.is_dir():
        pytest.skip("no photographs and no trained network in ../shared/real")
    cfg = cfgs.read(REAL / "pretrained" / "yolo-fastest-1.1.cfg")
    cfg.net.set("width", size_wh[0])
    cfg.net.set("height", size_wh[1])
    paths = sorted((REAL / "alpaca" / "images").glob("*.jpg"))[:PHOTOGRAPHS]
    photographs = [Image.open(path).convert("RGB").resize(size_wh) for path in paths]
    weights = (REAL / "pretrained" / "yolo-fastest-1.1.weights").read_bytes()
    assert_equal(program, cfg, weights, np.stack(list(map(np.asarray, photographs))), tmp_path)
