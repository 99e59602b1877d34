"""The detector of a baseline: open it, and count what it detects as the classes of the dataset."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.boxes import clip, to_cxcywh, to_xyxy
from oiyolo.core import files
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.darknet import lists
from oiyolo.evaluation.tables import Detections
from oiyolo.inference.facts import ModelFacts
from oiyolo.inference.suppression import nms_rule, suppress
from oiyolo.networks.published import FILES
from oiyolo.openimages.cache import Cache
from oiyolo.openimages.classes import read_children, read_names
from oiyolo.openimages.coco_classes import match_classes, mids_of_detector
from oiyolo.openimages.releases import release
from oiyolo.stages import select as select_stage
from oiyolo.stages.evaluate.detect import each_image
from oiyolo.training.published_detectors import cached_digest, find_detector, obtain_detector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from oiyolo.boxes import Boxes
    from oiyolo.inference.detected import Detected
    from oiyolo.inference.detector import Detector
    from oiyolo.openimages.coco_classes import Counterparts
    from oiyolo.project.project import Project

_SHOWN_NAMES: Final = 5


@dataclass(frozen=True)
class BaselineDetector:
    """A detector that was not trained for this task.

    Attributes:
        name: Its name.
        source: URL of its weights, or path of the model, relative to the project if it is in it.
        sha256: SHA-256 of its weights or model.
        detector: The network.
    """

    name: str
    source: str
    sha256: str
    detector: Detector


def known_digests(project: Project, choice: str | Path) -> tuple[str, ...]:
    """Return the SHA-256 that the weights of a choice can have; nothing is downloaded.

    Raises:
        UsageError: There is no such baseline or file.
    """
    if isinstance(choice, Path):
        if not choice.is_file():
            raise UsageError("model not found", where=str(choice), expected="an ONNX file")
        return (files.sha256_of(choice),)
    weights = FILES[find_detector(choice).weights]
    published = weights.checksum.digests if weights.checksum else ()
    return (*published, cached_digest(weights, project.cache_folder))


def open_detector(project: Project, choice: str | Path) -> BaselineDetector:
    """Return the detector of a choice: a name in ``DETECTORS``, or the path of a model in ONNX.

    Raises:
        UsageError: There is no such baseline or file.
        UnavailableError: A file of it cannot be downloaded.
        InputFormError: A file is damaged, or the model has no class names.
    """
    from oiyolo.inference.convert import convert  # noqa: PLC0415  (onnx takes long to import)
    from oiyolo.inference.detector import Detector  # noqa: PLC0415  (needs OpenCV)
    from oiyolo.inference.session import open_model  # noqa: PLC0415

    if isinstance(choice, Path):
        session = open_model(choice)
        if session.facts is None:
            raise InputFormError(
                "the model does not name its classes",
                where=str(choice),
                expected="names in its metadata, as `oiyolo export onnx` writes them",
                remedy="Export it again with the names of its classes",
            )
        detector = Detector(session, session.facts, origin=str(choice))
        source = choice
        if choice.is_relative_to(project.folder):
            source = choice.relative_to(project.folder)
        return BaselineDetector(choice.stem, str(source), files.sha256_of(choice), detector)
    published = find_detector(choice)
    ready = obtain_detector(published, cache_folder=project.cache_folder)
    kind, beta = nms_rule(ready.cfg)
    facts = ModelFacts(ready.names, nms_kind=kind, nms_beta=beta, description=ready.name)
    model = convert(ready.cfg, ready.weights_path, facts).SerializeToString()
    detector = Detector(open_model(model), facts, origin=ready.name)
    return BaselineDetector(choice, published.url, ready.sha256, detector)


def match_dataset(
    project: Project, class_names: Sequence[str], detector_names: Sequence[str]
) -> dict[str, Counterparts]:
    """Return which classes of a detector count as each class of the dataset.

    Raises:
        UsageError: None counts as any of them.
        UnavailableError: Open Images' class hierarchy is not cached, and the site unreachable.
        InputFormError: One of its files is damaged.
    """
    options = project.config.openimages
    official = release(options.release)
    with contextlib.closing(Cache(project.cache_folder, options.base_url)) as cache:
        names = read_names(cache.get(official.classes).path)
        children = read_children(cache.get(official.hierarchy).path)
    labels: Mapping[str, Sequence[str]] = select_stage.load(project).summary["labels"]
    found = match_classes(
        [labels.get(name) or [name] for name in class_names],
        mids_of_detector(detector_names, names),
        children,
    )
    if not any(match.class_ids for match in found):
        shown = ", ".join(detector_names[:_SHOWN_NAMES])
        raise UsageError(
            "the baseline detects nothing that is near to the classes of the dataset",
            expected=f"a class near {', '.join(class_names)} in Open Images' hierarchy",
            found=f"{shown}, ..." if len(detector_names) > _SHOWN_NAMES else shown,
            remedy="Use --baseline yolov3-openimages, which knows all classes of Open Images, "
            "or another model with --baseline-model",
        )
    return dict(zip(class_names, found, strict=True))


def detect_as(
    detector: Detector, matches: Sequence[Counterparts], paths: Sequence[str]
) -> Detections:
    """Return what a detector finds in images, with the classes of the dataset.

    A box that counts as one of them under several names is kept once.

    Args:
        detector: The detector.
        matches: Its classes that count as each class of the dataset.
        paths: The images.

    Raises:
        InputFormError: An image cannot be read, or the network fails.
    """
    counts = np.zeros((len(detector.names), len(matches)), dtype=np.float32)
    for class_id, match in enumerate(matches):
        counts[list(match.class_ids), class_id] = 1
    found = each_image(detector, paths, what="baseline")
    columns = [_counted(detector, detected, counts) for detected in found]
    class_ids, scores, boxes = zip(*columns, strict=True)
    image = np.repeat(np.arange(len(columns)), [len(part[0]) for part in columns])
    return Detections(
        tuple(lists.ids_of(paths)),
        image,
        np.concatenate(class_ids),
        np.concatenate(scores),
        np.concatenate(boxes),
    )


def _counted(
    detector: Detector, detected: Detected, counts: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], Boxes]:
    """Return class, score and box, in fractions of the image, of what counts in an image.

    Args:
        detector: The detector.
        detected: All that it found.
        counts: 1 where a class of the detector counts as one of the dataset, else 0, shape
            (classes of the detector, classes of the dataset).
    """
    image_wh = (detected.width, detected.height)
    kept = suppress(
        to_cxcywh(detected.xyxy / np.tile(image_wh, 2)),
        detected.confidence[:, None] * counts[detected.class_id],
        threshold=0,
        nms_iou=detector.nms_iou,
        kind=detector.facts.nms_kind,
        beta=detector.facts.nms_beta,
        unit_wh=image_wh,
    )
    return kept.class_id, kept.confidence, clip(to_xyxy(kept.cxcywh))
