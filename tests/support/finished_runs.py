"""Finished runs without any training, and detectors that find what a test wants them to find."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np

from oiyolo.evaluation.tables import Detections
from oiyolo.networks import cfg as cfg_file
from oiyolo.stages.evaluate import inputs
from oiyolo.training.run import Run
from tests.conftest import TINY_CFG
from tests.support.darknet_parity import seeded_weights

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from oiyolo.project.project import Project


def make_run(project: Project, name: str, classes: Sequence[str]) -> Run:
    """Return a finished run of the project's lists, with random weights."""
    run = Run(project.runs_folder / name)
    run.weights_folder.mkdir(parents=True)
    text = TINY_CFG.replace("classes=1", f"classes={len(classes)}")
    text = text.replace("filters=12", f"filters={2 * (5 + len(classes))}")
    run.cfg_path.write_text(text)
    (run.folder / "obj.names").write_text("".join(f"{name}\n" for name in classes))
    weights = seeded_weights(cfg_file.parse(text, path="network.cfg"), len(name))
    (run.weights_folder / "network_final.weights").write_bytes(weights)
    run.record_path.write_text(json.dumps({"state": "finished", "max_batches": 1}))
    for split in ("train", "valid"):
        shutil.copyfile(project.dataset_folder / f"{split}.txt", run.folder / f"{split}.txt")
    return run


def true_boxes(
    project: Project,
    run: Run,
    paths: Sequence[str],
    *,
    classes: Sequence[str],
    blind: Collection[str],
) -> Detections:
    """Return the true boxes of images as a run's detections, and nothing in the ``blind`` ones."""
    truth = inputs.ground_truth(project, inputs.sizes_wh(paths), classes)
    own = inputs.class_names(run)
    new = np.array([own.index(name) if name in own else -1 for name in classes])
    is_blind = np.array([image_id in blind for image_id in truth.image_ids])
    keep = (new[truth.class_id] >= 0) & ~truth.is_region & ~is_blind[truth.image]
    image = truth.image[keep]
    class_id = new[truth.class_id[keep]]
    return Detections(truth.image_ids, image, class_id, np.full(len(image), 0.9), truth.xyxy[keep])
