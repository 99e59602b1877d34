"""Choose the detector to use: a run's, an ONNX model, or a network of darknet with its weights."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from oiyolo.core import files
from oiyolo.core.errors import InputFormError, OiyoloError, UsageError
from oiyolo.core.units import format_bytes
from oiyolo.inference.facts import InputFit, ModelFacts
from oiyolo.inference.suppression import nms_rule
from oiyolo.networks import cfg as cfg_file
from oiyolo.networks.layers import heads_of
from oiyolo.project.config import FILE_NAME
from oiyolo.project.project import open_or_default
from oiyolo.training import run_detector
from oiyolo.training.run import FINISHED, find_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oiyolo.inference.detector import Detector
    from oiyolo.inference.facts import Layout
    from oiyolo.inference.session import Session
    from oiyolo.networks.cfg import Cfg
    from oiyolo.project.project import Project, ProjectLike
    from oiyolo.training.run import Run
    from oiyolo.training.run_detector import RunWeights

    Names = str | Path | Sequence[str]
    """A names file, or the names."""

_GIVE_ONE: Final = (
    "Name a detector: --run in a project, or --cfg FILE --weights FILE --names FILE of a network "
    "of darknet (`oiyolo predict` also takes --model FILE.onnx)"
)
_MAX_NAMES_BYTES: Final = 10_000_000


@dataclass(frozen=True)
class DetectorFiles:
    """The files of a detector.

    Attributes:
        origin: Which detector it is, and why it was chosen, in words.
        name: A name for files that are made from it.
        cfg_path: Its network file.
        weights_path: Its weights.
        facts: What is known about it.
        run: The run that trained it; ``None`` for files from elsewhere.
    """

    origin: str
    name: str
    cfg_path: Path
    weights_path: Path
    facts: ModelFacts
    run: Run | None = None


def load_detector(
    project: ProjectLike = ".",
    *,
    run: str | None = None,
    model: str | Path | None = None,
    cfg: str | Path | None = None,
    weights: str | Path | None = None,
    names: Names | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    fit: InputFit | None = None,
    threshold: float | None = None,
    nms: float | None = None,
) -> Detector:
    """Return a detector, which is called on a path, a Pillow image or RGB pixels.

    Without ``run``, ``model`` and ``cfg`` it is that of the newest finished run of the project, or
    else of the newest run with valid weights.

    Args:
        project: An open project or its folder; not needed with ``model`` or ``cfg``.
        run: Name of a run.
        model: An ONNX model.
        cfg: A network file of darknet.
        weights: Its weights; without ``cfg``, weights of the run's network.
        names: Its class names: a list, or a file with a name on each line. By default those of the
            run or in the model, else "class 0", "class 1"...
        device: Where the network runs; ``auto`` is the GPU if onnxruntime can use it.
        fit: How images are fitted to the input; by default as the model says, else ``letterbox``.
        threshold: Lowest confidence to report; by default the one that was chosen for the run on
            its valid split, else 0.25.
        nms: IoU above which the less confident of two boxes of a class is dropped; by default as
            the model says, else 0.45.

    Raises:
        UsageError: There is no such run or file, nothing to choose from, or the device is not
            available.
        InputFormError: A file is damaged, or the files do not belong together.
        CfgError: The network has a layer or option that is not supported.
    """
    from oiyolo.inference.detector import Detector  # noqa: PLC0415  (needs OpenCV and Pillow)
    from oiyolo.inference.session import Device, open_model  # noqa: PLC0415

    _check_choice("device", device, get_args(Device))
    _check_choice("fit", fit, (None, *get_args(InputFit)))
    if model is not None:
        refuse_others("model", run=run, cfg=cfg, weights=weights)
        session, facts = open_with_facts(Path(model), names, device=device)
        origin = str(model)
    else:
        source = choose(project, run=run, cfg=cfg, weights=weights, names=names)
        session = open_model(to_onnx(source), device=device)
        facts, origin = source.facts, source.origin
    return Detector(session, facts, origin=origin, fit=fit, threshold=threshold, nms=nms)


def _check_choice(name: str, value: object, options: Sequence[object]) -> None:
    if value not in options:
        expected = " or ".join(f'"{option}"' for option in options if option is not None)
        raise UsageError(f"invalid {name} {value!r}", expected=expected)


def open_with_facts(
    model: Path, names: Names | None, *, device: Literal["auto", "cpu", "cuda"]
) -> tuple[Session, ModelFacts]:
    """Return a model in ONNX and what it says about itself, with the names that the user gave."""
    from oiyolo.inference.session import open_model  # noqa: PLC0415  (needs onnxruntime)

    given = None if names is None else _names(names)
    session = open_model(model, device=device, name_count=None if given is None else len(given))
    return session, _facts_in(session, given)


def _facts_in(session: Session, names: tuple[str, ...] | None) -> ModelFacts:
    """Return what a model says about itself, with the names that the user gave."""
    own = session.facts or ModelFacts(_numbered_names(session.class_count))
    return own if names is None else replace(own, names=names)


def to_onnx(source: DetectorFiles, *, layout: Layout = "darknet", half: bool = False) -> bytes:
    """Return a network as the content of an ONNX file; arguments and errors as for ``convert``."""
    from oiyolo.inference.convert import convert  # noqa: PLC0415  (onnx takes long to import)

    cfg = cfg_file.read(source.cfg_path)
    model = convert(cfg, source.weights_path, source.facts, layout=layout, half=half)
    return bytes(model.SerializeToString())


def choose(
    project: ProjectLike = ".",
    *,
    run: str | None = None,
    cfg: str | Path | None = None,
    weights: str | Path | None = None,
    names: Names | None = None,
) -> DetectorFiles:
    """Choose the files of a detector of darknet: those that are named, or those of a run.

    Args:
        project: An open project or its folder; not needed with ``cfg``.
        run: Name of a run; by default the newest finished one, else the newest with valid weights.
        cfg: A network file of darknet, in place of a run.
        weights: Its weights; without ``cfg``, weights of the run's network.
        names: Its class names: a list, or a file with a name on each line; by default those of the
            run, else "class 0", "class 1"...

    Raises:
        UsageError: There is no such run or file, or nothing to choose from.
        InputFormError: A file is damaged.
    """
    if weights is not None and not Path(weights).is_file():
        raise UsageError(
            "weights file not found", where=str(weights), remedy="Name a file with --weights"
        )
    if cfg is not None:
        refuse_others("cfg", run=run)
        if weights is None:
            raise UsageError(
                "the weights of the network are missing",
                where=str(cfg),
                remedy="Name them with --weights",
            )
        return _of_files(Path(cfg), Path(weights), names)
    opened = open_or_default(project)
    if run is None and weights is not None and not _has_runs(opened):
        raise UsageError(
            "the network of the weights is missing",
            where=str(weights),
            remedy="Name its .cfg file with --cfg",
        )
    return _of_run(opened, run, weights, names)


def refuse_others(option: str, **others: object) -> None:
    """Raise UsageError if one of the other options is given."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise UsageError(f"--{option} cannot be combined with --{given[0]}", remedy=_GIVE_ONE)


def _of_files(cfg_path: Path, weights_path: Path, names: Names | None) -> DetectorFiles:
    cfg = cfg_file.read(cfg_path)
    kind, beta = nms_rule(cfg)
    facts = ModelFacts(
        _numbered_names(_class_count(cfg)) if names is None else _names(names),
        nms_kind=kind,
        nms_beta=beta,
        description=f"{cfg_path.stem} with the weights {weights_path.name}",
    )
    origin = f"{weights_path} with {cfg_path}"
    return DetectorFiles(origin, weights_path.stem, cfg_path, weights_path, facts)


def _of_run(
    project: Project, name: str | None, weights: str | Path | None, names: Names | None
) -> DetectorFiles:
    weights_of = functools.cache(run_detector.weights_of)  # checking large files takes time
    run = _find_run(project, name, weights_of)
    chosen = weights_of(run) if weights is None else None
    if weights is None and chosen is None:
        raise UsageError(
            f"the run {run.name} has no valid weights yet",
            where=str(run.weights_folder),
            remedy=f"Run `{run.train_command}`, which resumes it, or choose another detector",
        )
    path, iteration = (chosen.path, chosen.iteration) if chosen else (Path(weights or ""), None)
    why = "" if name is not None else ", the newest finished run"
    if name is None and run.state != FINISHED:
        why = ", the newest run with valid weights; it is not finished"
    shown = f"iteration {iteration:,}" if iteration is not None else str(path)
    facts = run_detector.facts_of(run, path, iteration)
    if names is not None:
        facts = replace(facts, names=_names(names))
    return DetectorFiles(f"run {run.name} ({shown}){why}", run.name, run.cfg_path, path, facts, run)


def _has_runs(project: Project) -> bool:
    return any(project.runs_folder.glob("*/run.json"))


def _find_run(
    project: Project, name: str | None, weights_of: Callable[[Run], RunWeights | None]
) -> Run:
    """Return the named run, or the newest finished one, or the newest with valid weights."""
    if name is None and not _has_runs(project):
        is_project = (project.folder / FILE_NAME).is_file()
        raise UsageError(
            "there is no detector yet" if is_project else "no detector is named",
            where=str(project.folder),
            expected="a training run" if is_project else "",
            found="" if is_project else f"a folder without {FILE_NAME}, which is not a project",
            remedy=f"Run `oiyolo train` first. {_GIVE_ONE}" if is_project else _GIVE_ONE,
        )

    def has_weights(run: Run) -> bool:
        with contextlib.suppress(OiyoloError):  # another run may have a valid network
            return weights_of(run) is not None
        return False

    def is_finished(run: Run) -> bool:
        return run.state == FINISHED and has_weights(run)

    return find_run(project.runs_folder, name, is_finished, has_weights)


def _class_count(cfg: Cfg) -> int:
    heads = heads_of(cfg)
    return heads[-1].integer("classes", 20) if heads else 0


def _numbered_names(class_count: int) -> tuple[str, ...]:
    """Return names for classes whose names are not known."""
    return tuple(f"class {number}" for number in range(class_count))


def _names(names: Names) -> tuple[str, ...]:
    """Return names, or the lines of a names file.

    Raises:
        UsageError: The file does not exist or cannot be read.
        InputFormError: It has no names.
    """
    if not isinstance(names, (str, Path)):
        return tuple(map(str, names))
    path = Path(names)
    try:
        if path.stat().st_size > _MAX_NAMES_BYTES:
            raise InputFormError(
                "not a names file",
                where=str(path),
                expected="a class name on each line",
                found=format_bytes(path.stat().st_size),
            )
        text = files.read_bytes(path).decode("utf-8-sig", "replace")
    except OSError as error:
        raise UsageError(
            "the names file cannot be read", where=str(path), found=error.strerror or str(error)
        ) from None
    lines = text.rstrip().splitlines()
    if not lines:
        raise InputFormError(
            "the names file is empty", where=str(path), expected="a class name on each line"
        )
    return tuple(line.strip() for line in lines)
