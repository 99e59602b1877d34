"""mAP@0.5 as a darknet with ``detector map`` measures it, on real photographs and weights.

The programs are those of ``test_forks_live.py``. Pictures have the size of the network and no loss,
so that both get the same pixels: how programs decode JPEG and resize moves average precision more
than the figure itself is uncertain (docs/evaluation.md).
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from PIL import Image

from oiyolo.boxes import clip, to_xyxy
from oiyolo.core import process
from oiyolo.darknet.program import data_file, probe
from oiyolo.evaluation.average_precision import average_precisions
from oiyolo.evaluation.matching import match
from oiyolo.evaluation.tables import GroundTruth
from oiyolo.inference.convert import convert
from oiyolo.inference.detector import Detector
from oiyolo.inference.facts import ModelFacts
from oiyolo.inference.session import open_model
from oiyolo.inference.suppression import nms_rule
from oiyolo.networks import cfg as cfgs
from oiyolo.stages.evaluate.detect import detect_with

if TYPE_CHECKING:
    from oiyolo.darknet.program import Darknet
    from oiyolo.evaluation.tables import Detections

pytestmark = [pytest.mark.darknet, pytest.mark.slow]

IMAGES: Final = 12
NEAREST: Final = "sheep"
"""The class of COCO by which the detector finds most alpacas."""
PROGRAMS: Final = [
    *filter(None, [shutil.which("darknet")]),
    *filter(None, os.environ.get("OIYOLO_TEST_DARKNETS", "").split(os.pathsep)),
]


@pytest.fixture(scope="module")
def program() -> Darknet:
    for path in PROGRAMS:
        darknet = probe(Path(path), "installed")
        if darknet.fork.map_flags:
            return darknet
    pytest.skip("no darknet with `detector map` in OIYOLO_TEST_DARKNETS")


def detect(program: Darknet, pretrained: Path, paths: list[str], names: list[str]) -> Detections:
    cfg = cfgs.read(pretrained / "yolo-fastest-1.1-xl.cfg")
    kind, beta = nms_rule(cfg, fork=program.fork.name)
    facts = ModelFacts(
        tuple(names), fit="stretch", fork=program.fork.name, nms_kind=kind, nms_beta=beta
    )
    model = convert(cfg, pretrained / "yolo-fastest-1.1-xl.weights", facts)
    detector = Detector(open_model(model.SerializeToString()), facts, origin=cfg.path)
    return detect_with(detector, paths)


def prepare(folder: Path, real: Path, names: list[str]) -> GroundTruth:
    """Write photographs of the network's size with their labels, and the files of a dataset."""
    image, cxcywh, paths = [], [], []
    for number, photograph in enumerate(sorted((real / "alpaca/images").glob("*.jpg"))[:IMAGES]):
        path = folder / f"{photograph.stem}.png"
        with Image.open(photograph) as opened:
            opened.convert("RGB").resize((320, 320)).save(path)
        text = (real / "alpaca/labels" / f"{photograph.stem}.txt").read_text()
        boxes = [line.split()[1:] for line in text.splitlines()]
        label = names.index(NEAREST)
        path.with_suffix(".txt").write_text("".join(f"{label} {' '.join(b)}\n" for b in boxes))
        paths.append(str(path))
        image += [number] * len(boxes)
        cxcywh += [[float(figure) for figure in box] for box in boxes]
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    (folder / "coco.names").write_text("".join(f"{name}\n" for name in names))
    lists = {"train": "list.txt", "valid": "list.txt", "names": "coco.names"}
    (folder / "obj.data").write_text(
        data_file(class_count=len(names), backup=".", results=".", **lists)
    )
    class_id, group_of = np.full(len(image), label), np.zeros(len(image), dtype=np.bool_)
    return GroundTruth(
        tuple(paths), np.array(image), class_id, clip(to_xyxy(np.array(cxcywh))), group_of
    )


def test_map_is_that_of_darknet_on_the_same_pixels(
    program: Darknet, real: Path, tmp_path: Path
) -> None:
    pretrained = real / "pretrained"
    names = (pretrained / "coco.names").read_text().split("\n")[:80]
    truth = prepare(tmp_path, real, names)
    cfg, weights = (pretrained / f"yolo-fastest-1.1-xl.{end}" for end in ("cfg", "weights"))
    argv = [str(program.executable), "detector", "map", "obj.data", str(cfg), str(weights)]
    output = process.run(argv, cwd=tmp_path).output
    found = re.search(rf"name = {NEAREST}, ap = ([\d.]+)", output)
    total = re.search(r"mAP@0.50\) = ([\d.]+)", output)
    assert found, output[-2000:]
    assert total, output[-2000:]
    detections = detect(program, pretrained, list(truth.image_ids), names)
    detections = dataclasses.replace(detections, image_ids=truth.image_ids)
    ours = average_precisions(match(detections, truth), detections, truth, len(names))
    score = float(ours[names.index(NEAREST)])
    assert 0.2 < score < 0.9
    assert 100 * score == pytest.approx(float(found[1]), abs=0.1)
    # Darknet counts the 79 classes without a true box as 0; here they are left out of the mean.
    assert np.isnan(ours).sum() == len(names) - 1
    assert float(total[1]) * len(names) == pytest.approx(score, abs=0.001)
