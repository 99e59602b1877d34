"""A detector on images of any size, compared with the darknet programs that are installed here.

Everything takes part: placement in the input, the network, suppression, and the boxes' way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oiyolo.demo_data.scenes import draw_scene
from oiyolo.inference.convert import convert
from oiyolo.inference.detector import Detector
from oiyolo.inference.facts import ModelFacts
from oiyolo.inference.session import open_model
from oiyolo.inference.suppression import nms_rule
from oiyolo.networks import cfg as cfgs
from tests.support.darknet_parity import (
    GOLDEN,
    SEED,
    class_count_of,
    darknet_rows,
    seeded_weights,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.cfg import Cfg
    from tests.support.darknet_parity import Floats

    Rgb = npt.NDArray[np.uint8]

pytestmark = pytest.mark.darknet

LIMITS = {"pjreddie": (0.005, 0.45), "alexeyab": (0.001, 0.6), "hank": (0.001, 0.6)}
"""Threshold and IoU of ``darknet detector valid`` (validate_detector in detector.c)."""


def detector_rows(darknet: Darknet, cfg: Cfg, weights: Path, images: Sequence[Rgb]) -> Floats:
    """Return what a detector finds, as ``darknet_rows`` does."""
    fork = darknet.fork.name
    kind, beta = nms_rule(cfg, fork=fork)
    names = tuple(str(number) for number in range(class_count_of(cfg)))
    facts = ModelFacts(names, nms_kind=kind, nms_beta=beta, fork=fork)
    model = convert(cfg, weights, facts).SerializeToString()
    detector = Detector(
        open_model(model, threads=1),
        facts,
        origin="a test",
        fit="letterbox" if fork == "pjreddie" else "stretch",
        threshold=LIMITS[fork][0],
        nms=LIMITS[fork][1],
    )
    rows = []
    for number, rgb in enumerate(images):
        found = detector(rgb)
        low, high = np.maximum(found.xyxy[:, :2] + 1, 1), found.xyxy[:, 2:] + 1
        high = np.minimum(high, (found.width, found.height))
        image = np.full(len(found), number)
        rows.append(np.column_stack((image, found.class_id, found.confidence, low, high)))
    return np.concatenate(rows)


def assert_same(rows: Floats, printed: Floats, images: Sequence[Rgb]) -> None:
    """Assert that each of darknet's detections was found, and nothing else.

    Darknet also prints boxes that are entirely in the border of a letterbox.
    """
    sizes_wh = np.array([rgb.shape[1::-1] for rgb in images])[printed[:, 0].astype(int)]
    inside = (printed[:, 3:5] - 1 < sizes_wh) & (printed[:, 5:] - 1 > 0)
    expected = printed[inside.all(axis=1)]
    assert len(rows) == len(expected) > 0
    for image, class_id in np.unique(expected[:, :2], axis=0):
        own, wanted = (
            each[(each[:, 0] == image) & (each[:, 1] == class_id)] for each in (rows, expected)
        )
        difference = np.abs(own[:, None, 2:] - wanted[None, :, 2:])
        same = (difference[..., 0] < 1e-3) & (difference[..., 1:] < 0.5).all(axis=-1)
        assert same.any(axis=0).all()
        assert same.any(axis=1).all()


@pytest.mark.parametrize("kind", ["yolov3", "yolov2"])
def test_a_drawn_scene_of_any_shape(kind: str, program: Darknet, tmp_path: Path) -> None:
    cfg = cfgs.read(GOLDEN / f"{kind}.cfg")
    sizes_wh = [(400, 300), (97, 240), (333, 81), (60, 44)]
    scene = draw_scene(np.random.default_rng(SEED)).image
    images = [np.asarray(scene.resize(size_wh)) for size_wh in sizes_wh]
    folder = tmp_path / "darknet"
    printed = darknet_rows(program, folder, cfg, seeded_weights(cfg, SEED), images)
    assert_same(detector_rows(program, cfg, folder / "n.weights", images), printed, images)


@pytest.mark.slow
def test_a_trained_network_on_photographs(program: Darknet, real: Path, tmp_path: Path) -> None:
    cfg = cfgs.read(real / "pretrained" / "yolo-fastest-1.1.cfg")
    weights = (real / "pretrained" / "yolo-fastest-1.1.weights").read_bytes()
    paths = sorted((real / "alpaca" / "images").glob("*.jpg"))[:4]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    folder = tmp_path / "darknet"
    printed = darknet_rows(program, folder, cfg, weights, images)
    assert_same(detector_rows(program, cfg, folder / "n.weights", images), printed, images)
