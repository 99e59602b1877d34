"""Converted networks compared with the darknet programs that are installed here.

AlexeyAB's is to be built with AVX=0: with AVX, its max-pooling is wrong at the left edge
(docs/building.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from oiyolo.networks import cfg as cfgs
from oiyolo.networks.stock import TEXTS
from tests.support.darknet_parity import (
    ALL_FORKS,
    GOLDEN,
    SEED,
    compare,
    darknet_rows,
    measured_weights,
    model_rows,
    photographs,
    seeded_images,
    seeded_weights,
    stock_network,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.cfg import Cfg

pytestmark = pytest.mark.darknet

REAL: Final = Path(__file__).parents[3] / "shared" / "real"
PHOTOGRAPHS: Final = 6
IMAGES: Final = 2
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
    cfg = stock_network(name)
    weights = measured_weights(cfg, tmp_path / "n.weights")
    assert_equal(program, cfg, weights, seeded_images(cfg, SEED, IMAGES), tmp_path)


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
    images = photographs(REAL / "alpaca" / "images", size_wh, PHOTOGRAPHS)
    weights = (REAL / "pretrained" / "yolo-fastest-1.1.weights").read_bytes()
    assert_equal(program, cfg, weights, images, tmp_path)
