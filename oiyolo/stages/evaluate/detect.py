"""Run a detector on the images of a split: with onnxruntime, or with darknet itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from oiyolo.boxes import to_cxcywh, to_xyxy
from oiyolo.core import files, process
from oiyolo.core.errors import DarknetError, InputFormError
from oiyolo.core.progress import progress
from oiyolo.darknet import lists
from oiyolo.darknet.build import failures
from oiyolo.darknet.detections import read_detections
from oiyolo.darknet.program import ENVIRONMENT, data_file, valid_command
from oiyolo.evaluation.tables import Detections
from oiyolo.inference.detected import Failed
from oiyolo.inference.suppression import nms_rule, suppress
from oiyolo.networks import cfg as cfg_file
from oiyolo.stages.evaluate.inputs import class_names
from oiyolo.training.run_detector import facts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.darknet.program import Darknet
    from oiyolo.inference.detected import Detected
    from oiyolo.inference.detector import Detector
    from oiyolo.inference.facts import NmsKind
    from oiyolo.training.run import Run

Scorer = Literal["onnxruntime", "darknet"]
"""The program that runs the network."""

MIN_SCORE: Final = 0.005
"""Detections below it are dropped, as by ``darknet detector valid`` (examples/detector.c)."""
NMS_IOU: Final = 0.45
"""As in ``darknet detector valid``."""
LOG_NAME: Final = "valid_log.txt"
"""Output of ``darknet detector valid``, in the run's folder."""
WORK_PREFIX: Final = ".evaluate-"
"""Beginning of the names of temporary folders in a run's folder."""
_PREFIX: Final = "found_"
_RESULTS: Final = "results"
_TIMEOUT_S: Final = 24 * 3600.0


def detect(
    run: Run,
    weights_path: Path,
    paths: Sequence[str],
    *,
    threads: int | None = None,
    what: str = "evaluate",
) -> Detections:
    """Return the detections of a run's network, computed with onnxruntime.

    Args:
        run: The run.
        weights_path: Weights of its network.
        paths: The prepared images; a file's name without its extension is the image's id.
        threads: Number of threads; by default one per core.
        what: What the progress is called.

    Raises:
        InputFormError: The weights are not complete, finite weights of the network, or an image
            is damaged.
        CfgError: The network has a layer or option that is not supported.
    """
    from oiyolo.inference.convert import convert  # noqa: PLC0415  (onnx takes long to import)
    from oiyolo.inference.detector import Detector  # noqa: PLC0415
    from oiyolo.inference.session import open_model  # noqa: PLC0415

    facts = facts_of(run, weights_path, None)
    model = convert(cfg_file.read(run.cfg_path), weights_path, facts)
    session = open_model(bytes(model.SerializeToString()))
    detector = Detector(session, facts, origin=run.name, threads=threads)
    return detect_with(detector, paths, what=what)


def detect_with(detector: Detector, paths: Sequence[str], *, what: str = "evaluate") -> Detections:
    """Return what any detector finds in prepared images.

    Raises:
        InputFormError: An image is damaged, or the network fails.
    """
    class_ids, scores, boxes = [], [], []
    for detected in each_image(detector, paths, what=what):
        class_ids.append(detected.class_id)
        scores.append(detected.confidence)
        boxes.append(detected.xyxy / np.tile((detected.width, detected.height), 2))
    counts = [len(part) for part in class_ids]
    return Detections(
        image_ids=tuple(lists.ids_of(paths)),
        image=np.repeat(np.arange(len(counts)), counts),
        class_id=np.concatenate(class_ids),
        score=np.concatenate(scores),
        xyxy=np.clip(np.concatenate(boxes), 0.0, 1.0),
    )


def each_image(detector: Detector, paths: Sequence[str], *, what: str) -> Iterator[Detected]:
    """Yield what a detector finds in each image, in their order, and show the progress.

    Raises:
        InputFormError: An image is damaged, or the network fails.
    """
    from oiyolo.imagery.upright import decode_upright  # noqa: PLC0415  (needs OpenCV)

    items = (
        (path, lambda path=path: decode_upright(files.read_bytes(Path(path)))) for path in paths
    )
    stream = detector.stream(items, threshold=MIN_SCORE, nms=NMS_IOU)
    with progress(what, total=len(paths), unit="image") as bar, contextlib.closing(stream):
        for detected in stream:
            if isinstance(detected, Failed):
                raise InputFormError(
                    "the image cannot be read",
                    where=detected.source,
                    found=detected.reason,
                    remedy="Delete it and its label, then run `oiyolo split`",
                )
            bar.advance()
            yield detected


def detect_with_darknet(
    darknet: Darknet,
    run: Run,
    weights: Path,
    paths: Sequence[str],
    sizes_wh: Mapping[str, tuple[int, int]],
) -> Detections:
    """Return darknet's detections, which it writes to a temporary folder in the run's folder.

    ``detector valid`` of AlexeyAB's fork keeps scores above 0.001, and boxes up to an IoU of 0.6
    (validate_detector in src/detector.c), unlike its ``detector map`` and pjreddie's fork. What
    these would drop is dropped here, or mAP would be up to 5 points lower.
    """
    class_count = len(class_names(run))
    with tempfile.TemporaryDirectory(prefix=WORK_PREFIX, dir=run.folder) as name:
        folder = Path(name)
        # Debian's darknet crashes if the results folder is missing.
        (folder / _RESULTS).mkdir()
        (folder / "list.txt").write_text("".join(f"{path}\n" for path in lists.pad(paths)))
        # Numbers instead of names, because darknet uses them as file names.
        (folder / "numbers.names").write_text("".join(f"{n}\n" for n in range(class_count)))
        (folder / "obj.data").write_text(
            data_file(
                class_count=class_count,
                train="list.txt",
                valid="list.txt",
                names="numbers.names",
                backup=_RESULTS,
                results=_RESULTS,
            )
        )
        shutil.copyfile(run.cfg_path, folder / run.cfg_path.name)
        argv = valid_command(
            darknet,
            data="obj.data",
            cfg=run.cfg_path.name,
            weights=os.path.relpath(weights, folder),
            prefix=_PREFIX,
        )
        finished = process.run(argv, cwd=folder, environment=ENVIRONMENT, timeout_s=_TIMEOUT_S)
        files.write_text(run.folder / LOG_NAME, finished.output)
        try:
            detections = read_detections(
                folder / _RESULTS,
                class_count=class_count,
                prefix=_PREFIX,
                image_sizes_wh=sizes_wh,
            )
        except DarknetError as error:
            raise failures.explained_error(
                f"darknet wrote no detections ({finished.exit_description})",
                finished.output,
                where=str(run.folder / LOG_NAME),
                remedy="Read this log, and check that the weights belong to the run's network",
                exit_code=finished.exit_code,
                is_built=darknet.is_built,
            ) from error
    if darknet.fork.name == "pjreddie":
        return detections
    rule = nms_rule(cfg_file.read(run.cfg_path), fork=darknet.fork.name)
    return suppressed(detections, sizes_wh, class_count, rule)


def suppressed(
    detections: Detections,
    sizes_wh: Mapping[str, tuple[int, int]],
    class_count: int,
    rule: tuple[NmsKind, float],
) -> Detections:
    """Return detections without low scores and repeated boxes, by ``MIN_SCORE`` and ``NMS_IOU``.

    Args:
        detections: The detections.
        sizes_wh: Width and height of each image in pixels, by its id.
        class_count: Number of classes.
        rule: How overlap is measured, by ``nms_rule``.
    """
    kind, beta = rule
    by_image = np.argsort(detections.image, kind="stable")
    counts = np.bincount(detections.image, minlength=len(detections.image_ids))
    kept = []
    for rows, image_id in zip(
        np.split(by_image, np.cumsum(counts)[:-1]), detections.image_ids, strict=True
    ):
        scores = np.zeros((len(rows), class_count))
        scores[np.arange(len(rows)), detections.class_id[rows]] = detections.score[rows]
        boxes = to_cxcywh(detections.xyxy[rows])
        kept.append(
            suppress(
                boxes,
                scores,
                threshold=MIN_SCORE,
                nms_iou=NMS_IOU,
                kind=kind,
                beta=beta,
                unit_wh=sizes_wh[image_id],
            )
        )
    return Detections(
        image_ids=detections.image_ids,
        image=np.repeat(np.arange(len(kept)), [len(found.class_id) for found in kept]),
        class_id=np.concatenate([found.class_id for found in kept]),
        score=np.concatenate([found.confidence for found in kept]),
        xyxy=np.clip(to_xyxy(np.concatenate([found.cxcywh for found in kept])), 0.0, 1.0),
    )
