"""The detector that a run has trained: which weights, and what is known about it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, records
from oiyolo.darknet.forks import FORKS
from oiyolo.evaluation.figures import SCORES
from oiyolo.inference.facts import ModelFacts
from oiyolo.inference.suppression import nms_rule
from oiyolo.networks import cfg as cfg_file
from oiyolo.networks.weights import read_header
from oiyolo.training.checkpoints import Checkpoints
from oiyolo.training.run import BASE_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.inference.facts import InputFit
    from oiyolo.networks.cfg import Cfg
    from oiyolo.training.run import Run

FINAL_REASON: Final = "the final weights"
_TRAIN_AGAIN: Final = "Restore it from a copy, or use another detector"
_DATA_LICENCES: Final = (
    "not stated; Open Images' annotations are licensed CC BY 4.0 by Google LLC, its images are "
    "listed as CC BY 2.0 by their authors"
)


@dataclass(frozen=True)
class RunWeights:
    """The weights of a run that are used unless others are named.

    Attributes:
        path: The file.
        iteration: Its iteration.
        reason: Why it was chosen, in a few words.
    """

    path: Path
    iteration: int
    reason: str


def weights_of(run: Run) -> RunWeights | None:
    """Return the weights of a run to use; ``None`` if it has no valid weights.

    These are its final weights or, if the training has not ended, those with the best mAP on the
    valid split so far or, if none were scored, the newest.
    """
    cfg = cfg_file.read(run.cfg_path)
    fork = FORKS.get(run.record.get("darknet", {}).get("fork"), FORKS["alexeyab"])
    checkpoints = Checkpoints(run, fork, cfg)
    final = checkpoints.final_path
    if final.is_file() and checkpoints.has_right_size(final):
        iteration = read_header(final).iteration(cfg.net.integer("batch", 1))
        return RunWeights(final, iteration, FINAL_REASON)
    best = checkpoints.best
    if best is not None and checkpoints.iteration_of(best.path) is not None:
        reason = "the best on the valid split so far; the training has not finished"
        return RunWeights(best.path, best.iteration, reason)
    path, iteration = checkpoints.newest()
    if path is None:
        return None
    return RunWeights(path, iteration, "the newest weights; the training has not finished")


def has_valid_weights(run: Run) -> bool:
    """Return whether a run has weights to use, as ``weights_of`` finds them."""
    return weights_of(run) is not None


def facts_of(run: Run, weights_path: Path, iteration: int | None) -> ModelFacts:
    """Return what is known about the detector of a run."""
    record = run.record
    cfg = cfg_file.read(run.cfg_path)
    darknet = record.get("darknet", {})
    fork = str(darknet.get("fork", ""))
    kind, beta = nms_rule(cfg, fork=fork)
    names = records.read_lines(run.folder / "obj.names", remedy=_TRAIN_AGAIN)
    evaluation = _evaluation_of(run, weights_path, iteration)
    network = str(record.get("network") or BASE_NAME)
    return ModelFacts(
        tuple(names),
        fit=_fit_of(record, cfg, fork),
        threshold=_threshold_in(evaluation),
        nms_kind=kind,
        nms_beta=beta,
        fork=fork,
        was_trained_on_gpu=bool(darknet.get("gpu")),
        scores={key: evaluation[key] for key in SCORES if _is_number(evaluation.get(key))},
        licence=data_licences(record),
        description=f"{network} trained as {run.name} to detect {', '.join(names)}",
    )


def data_licences(record: Mapping[str, Any]) -> str:
    """Return what is known about the licences of the data that a run was trained on.

    Args:
        record: Content of ``run.json``; older versions knew Open Images only.
    """
    sources = record.get("data_sources")
    if not isinstance(sources, dict):
        return _DATA_LICENCES
    imports = sources.get("imports")
    stated = [
        f"images imported as {name}: {licence or 'not stated'}"
        for name, licence in (imports.items() if isinstance(imports, dict) else ())
    ]
    if sources.get("open_images"):
        return "; ".join([_DATA_LICENCES, *stated])
    return "; ".join(["not stated", *stated])


def _fit_of(record: Mapping[str, Any], cfg: Cfg, fork: str) -> InputFit:
    """Return how a run's images were fitted to the network's input.

    Images that ``prepare`` left in their own shape were fitted by darknet: pjreddie's letterboxes
    them (examples/detector.c, validate_detector), the others stretch them unless ``letter_box`` is
    set (src/detector.c, src/parser.c).
    """
    images = (record.get("made_from") or {}).get("images")
    prepared = images.get("fit") if isinstance(images, dict) else None
    if prepared == "stretch":
        return "stretch"
    if prepared == "none" and fork not in {"", "pjreddie"}:
        return "letterbox" if cfg.net.integer("letter_box", 0) else "stretch"
    return "letterbox"


def _evaluation_of(run: Run, weights_path: Path, iteration: int | None) -> dict[str, Any]:
    """Return the scores of weights of a run; empty if these weights were not scored."""
    from oiyolo.evaluation.summary import with_current_keys  # noqa: PLC0415  (rarely needed)

    saved = files.read_json(run.evaluation_path)
    try:
        evaluation = with_current_keys(saved) if isinstance(saved, dict) else {}
    except ValueError:
        return {}
    scored = evaluation.get("weights", {})
    is_same = Path(str(scored.get("path"))).name == weights_path.name
    return evaluation if is_same and scored.get("iteration") == iteration else {}


def _threshold_in(evaluation: Mapping[str, Any]) -> float | None:
    """Return the threshold with the highest F1 on the valid split, the median of the classes.

    Scores of the test split are not used: a threshold chosen on them would flatter the detector.
    """
    if "valid" not in {evaluation.get("split"), evaluation.get("thresholds_from")}:
        return None
    thresholds = [row["score_threshold"] for row in evaluation["classes"].values()]
    numbers = [value for value in thresholds if _is_number(value) and 0 <= value <= 1]
    return float(statistics.median(numbers)) if numbers else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
