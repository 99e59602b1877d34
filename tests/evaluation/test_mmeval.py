"""The Open Images metric against mmeval's ``OIDMeanAP``, in an environment of its own.

mmeval counts a group-of region as one object, as the Open Images Challenge does: a detection in it
is a true positive, and a region without one a false negative. With weight 0, as in Open Images V2,
regions are neither. The script takes the regions' columns away from what mmeval matched.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oiyolo.evaluation.openimages_metric import openimages_average_precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.evaluation.tables import Detections, GroundTruth

    RandomTables = Callable[..., tuple[Detections, GroundTruth]]

pytestmark = pytest.mark.slow

PACKAGES = ("mmeval==0.2.1", "plum-dispatch==1.7.4", "rich", "scipy")
"""Without what they depend on: mmeval's OpenCV would replace the project's."""
SCRIPT = """
import json, sys
import numpy as np
from mmeval import OIDMeanAP

class WithoutRegions(OIDMeanAP):
    @staticmethod
    def _calculate_image_tpfp(pred_bboxes, gt_bboxes, group_of_flags, *rest):
        found = OIDMeanAP._calculate_image_tpfp(pred_bboxes, gt_bboxes, group_of_flags, *rest)
        true, false, boxes = found
        if len(boxes) and group_of_flags.any():
            kept = len(boxes) - group_of_flags.sum()
            true, false, boxes = true[..., :kept], false[..., :kept], boxes[:kept]
        return true, false, boxes

    def calculate_class_tpfp(self, predictions, groundtruths, class_index, pool):
        true, false, count = super().calculate_class_tpfp(
            predictions, groundtruths, class_index, pool)
        flags = [g["is_group_ofs"][g["labels"] == class_index] for g in groundtruths]
        return true, false, count - np.concatenate(flags).sum()

results = []
for case in json.load(sys.stdin):
    predictions = [
        {"bboxes": np.array(p["bboxes"], dtype=np.float64).reshape(-1, 4),
         "scores": np.array(p["scores"], dtype=np.float64),
         "labels": np.array(p["labels"], dtype=np.int64)} for p in case["predictions"]]
    truths = [
        {"instances": t["instances"], "image_level_labels": np.array(t["verified"], dtype=np.int64)}
        for t in case["truths"]]
    metric = WithoutRegions(
        num_classes=case["classes"], class_relation_matrix=np.eye(case["classes"]),
        drop_class_ap=True, classwise=True, nproc=-1)
    results.append(float(metric(predictions, truths)["mAP"]))
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("mmeval")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    installed = subprocess.run(
        [*command, str(target), *PACKAGES], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"mmeval cannot be installed: {installed.stderr.strip()[-200:]}")
    return target


def as_case(detections: Detections, truth: GroundTruth, classes: int) -> dict[str, Any]:
    verified = truth.verified
    assert verified is not None
    predictions, truths = [], []
    for image in range(len(truth.image_ids)):
        found, boxes = detections.image == image, truth.image == image
        predictions.append(
            {
                "bboxes": detections.xyxy[found].tolist(),
                "scores": detections.score[found].tolist(),
                "labels": detections.class_id[found].tolist(),
            }
        )
        columns = (truth.xyxy[boxes], truth.class_id[boxes], truth.is_region[boxes])
        instances = [
            {"bbox": box, "bbox_label": class_id, "is_group_of": group_of}
            for box, class_id, group_of in zip(*(c.tolist() for c in columns), strict=True)
        ]
        labels = np.flatnonzero(verified[image]).tolist()
        truths.append({"instances": instances, "verified": labels})
    return {"classes": classes, "predictions": predictions, "truths": truths}


def test_the_open_images_metric_is_that_of_mmeval(
    random_tables: RandomTables, folder: Path
) -> None:
    cases, ours, plain = [], [], []
    for seed, group_of in ((0, 0.0), (1, 0.3), (2, 0.3), (3, 0.0)):
        detections, truth = random_tables(seed, images=60, classes=4, group_of=group_of)
        verified = np.random.default_rng(seed).integers(-1, 2, (60, 4)).astype(np.int8)
        truth = dataclasses.replace(truth, verified=verified)
        cases.append(as_case(detections, truth, 4))
        ours.append(np.nanmean(openimages_average_precision(detections, truth, 4)))
        unfiltered = dataclasses.replace(truth, verified=None)
        plain.append(np.nanmean(openimages_average_precision(detections, unfiltered, 4)))
    script = folder / "score.py"
    script.write_text(SCRIPT)
    scored = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(cases),
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert scored.returncode == 0, scored.stderr[-2000:]
    assert ours == pytest.approx(json.loads(scored.stdout.splitlines()[-1]), abs=1e-5)
    assert min(abs(np.subtract(ours, plain))) > 0.001  # the verified labels matter
