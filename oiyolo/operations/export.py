"""export: write the detector to a file that other programs run."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal, TypedDict, get_args, overload

import numpy as np

from oiyolo import __version__
from oiyolo.core import disks, files, staleness
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.core.units import format_bytes
from oiyolo.inference.facts import Layout
from oiyolo.inference.model_file import check_form
from oiyolo.inference.session import open_model
from oiyolo.networks import cfg as cfg_file
from oiyolo.operations import exported_file
from oiyolo.operations.detectors import choose, to_onnx
from oiyolo.project.project import open_or_default
from oiyolo.provenance import model_card

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt
    from typing_extensions import Unpack

    from oiyolo.operations.detectors import DetectorFiles
    from oiyolo.project.project import ProjectLike

    Floats = npt.NDArray[np.float32]
    Outputs = tuple[Floats, Floats]
    """Boxes, shape (1, N, 4), and scores, shape (1, N, classes)."""

_log = logging.getLogger("oiyolo")

COMMAND: Final = "export onnx"
_SUFFIX: Final = ".onnx"
_SEED: Final = 0
_BLOCKS: Final = 16
_MAX_BOX_DIFFERENCE_PX: Final = 0.01
_MAX_SCORE_DIFFERENCE: Final = 1e-4
_MAX_HALF_SCORE_DIFFERENCE: Final = 0.1
"""Larger differences are not those of rounding: float16 overflows in this network."""


@dataclass(frozen=True)
class Exported(Result):
    """A detector in a file for other programs.

    Attributes:
        path: The file.
        origin: Which weights it was made from, and why these.
        layout: Layout of its outputs.
        half: Whether it computes in float16.
        size_wh: Size of its input in pixels.
        class_names: Names of its classes.
        box_difference_px: Largest difference of a box's edge from that of the float32 network, in
            pixels of the input, on a test image.
        score_difference: Largest difference of a score, likewise.
        card: Its model card, a Markdown file next to it.
        is_new: Whether this call wrote it; otherwise it was up to date.
    """

    path: Path
    origin: str
    layout: Layout
    half: bool
    size_wh: tuple[int, int]
    class_names: tuple[str, ...]
    box_difference_px: float
    score_difference: float
    card: Path
    is_new: bool = True

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        values = asdict(self)
        paths = {"path": str(self.path), "card": str(self.card)}
        return {**values, **paths, "bytes": self.path.stat().st_size}

    def __str__(self) -> str:
        width, height = self.size_wh
        precision = "float16" if self.half else "float32"
        parts = (
            format_bytes(self.path.stat().st_size),
            f"layout {self.layout}, {precision}, input {width}x{height}",
            pluralize(len(self.class_names), "class"),
        )
        verified = "verified on a test image"
        if self.half:
            verified += (
                f": its boxes differ from those of float32 by at most "
                f"{self.box_difference_px:.2g} px, its scores by {self.score_difference:.2g}"
            )
        state = "" if self.is_new else " (up to date)"
        lines = [f"{self.path}: {', '.join(parts)}{state}", f"made from {self.origin}", verified]
        return "\n".join([*lines, f"model card: {self.card}"])


@dataclass(frozen=True)
class _Differences:
    """Largest differences between the outputs of two models."""

    box_px: float
    score: float


class _SavedDifferences(TypedDict):
    box_px: float
    score: float


class _SavedRecipe(TypedDict):
    differences: _SavedDifferences


class _Options(TypedDict, total=False):
    """Options of ``export_onnx`` that do not change the type of its result."""

    run: str | None
    cfg: str | Path | None
    weights: str | Path | None
    names: str | Path | None
    layout: Layout
    half: bool
    out: str | Path | None


@overload
def export_onnx(
    project: ProjectLike = ..., *, dry_run: Literal[False] = ..., **options: Unpack[_Options]
) -> Exported: ...


@overload
def export_onnx(
    project: ProjectLike = ..., *, dry_run: Literal[True], **options: Unpack[_Options]
) -> Plan: ...


@overload
def export_onnx(
    project: ProjectLike = ..., *, dry_run: bool, **options: Unpack[_Options]
) -> Exported | Plan: ...


def export_onnx(
    project: ProjectLike = ".",
    *,
    run: str | None = None,
    cfg: str | Path | None = None,
    weights: str | Path | None = None,
    names: str | Path | None = None,
    layout: Layout = "darknet",
    half: bool = False,
    out: str | Path | None = None,
    dry_run: bool = False,
) -> Exported | Plan:
    """Write a detector as an ONNX file, which runs without oiyolo and without darknet.

    The file gets its name only after it was loaded and run on a test image, with the same result as
    the network that was converted. A model card is written next to it.

    Args:
        project: An open project or its folder; not needed with ``cfg``, ``weights`` and ``names``.
        run: Name of a run; by default the newest finished one, else the one with the newest
            weights.
        cfg: Network file of any darknet detector, in place of a run.
        weights: Its weights file.
        names: Its names file, with a class per line.
        layout: Layout of the outputs: "darknet" for ``boxes`` and ``scores``, or "yolov8" for one
            output that readers of that family of models accept.
        half: Whether to compute in float16, in half the space; inputs and outputs stay float32.
        out: The file, or a folder for it; by default ``runs/<run>/export/<run>.onnx``, or without a
            run the name of the weights in the current folder.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There is no such run, file or layout.
        InputFormError: The weights do not fit the network, or the names do not; a layer cannot be
            converted (CfgError, with its line); or float16 changes the result too much.
    """
    if layout not in get_args(Layout):
        expected = " or ".join(get_args(Layout))
        raise UsageError(f"unknown layout {layout!r}", expected=expected)
    source = choose(project, run=run, cfg=cfg, weights=weights, names=names)
    path = exported_file.path_for(source.name, source.run, out, suffix=_SUFFIX, what="model")
    recipe = _recipe(source, layout=layout, half=half)
    saved = _find_saved(path, recipe)
    is_new = isinstance(saved, str)
    card = _card(project, source, path, recipe)
    if dry_run:
        if is_new:
            to_onnx(source, layout=layout, half=half)  # the errors that the command would raise
        actions = [f"write {path} from {source.origin}"] if is_new else []
        if is_new or not model_card.is_current(card):
            actions.append(f"write the model card {card.path}")
        return Plan(COMMAND, actions, {"path": str(path)})
    if isinstance(saved, str):
        _log.info("export: writing %s (%s)", path, saved)
        saved = _write(path, source, recipe, layout=layout, half=half)
    else:
        _log.info("export: up to date")
    if model_card.write(card):
        _log.info("export: writing %s", card.path)
    return Exported(
        path=path,
        origin=source.origin,
        layout=layout,
        half=half,
        size_wh=cfg_file.read(source.cfg_path).size_wh,
        class_names=source.facts.names,
        box_difference_px=saved.box_px,
        score_difference=saved.score,
        card=card.path,
        is_new=is_new,
    )


def _card(
    project: ProjectLike, source: DetectorFiles, path: Path, recipe: Mapping[str, object]
) -> model_card.ModelCard:
    """Return what the model card says about a file and what it is made from."""
    precision = "float16" if recipe["half"] else "float32"
    dataset_folder = None if source.run is None else open_or_default(project).dataset_folder
    return model_card.ModelCard(
        name=source.name,
        model_path=path,
        size_wh=cfg_file.read(source.cfg_path).size_wh,
        form=f"Its outputs have the layout {recipe['layout']}; it computes in {precision}",
        facts=source.facts,
        network_sha256=str(recipe["network"]),
        weights_sha256=str(recipe["weights"]),
        run=source.run,
        dataset_folder=dataset_folder,
    )


def _recipe(source: DetectorFiles, *, layout: Layout, half: bool) -> dict[str, object]:
    """Return what the file is made from."""
    own = {"layout": layout, "half": half, "version": __version__}
    return {**exported_file.recipe_of(source), **own}


def _find_saved(path: Path, recipe: Mapping[str, object]) -> _Differences | str:
    """Return the differences of a file that is up to date, or why it must be written."""
    saved = exported_file.find_saved(path, recipe, _SavedRecipe)
    if isinstance(saved, str):
        return saved
    return _Differences(saved["differences"]["box_px"], saved["differences"]["score"])


def _write(
    path: Path, source: DetectorFiles, recipe: Mapping[str, object], *, layout: Layout, half: bool
) -> _Differences:
    """Verify the model, write it and its recipe, and return how it differs from the network."""
    size_wh = cfg_file.read(source.cfg_path).size_wh
    content = to_onnx(source, layout=layout, half=half)
    remedy = "or choose a folder on a larger disk with --out"
    with (
        disks.convert_disk_full_error(path.parent, what="the model", remedy=remedy),
        files.atomic_write(path) as part,
    ):
        part.write_bytes(content)
        check_form(part)
        if (layout, half) != ("darknet", False):
            content = to_onnx(source)
        # The file is compared with the float32 network in memory, whatever its layout.
        expected = _outputs(content, size_wh)
        del content  # as large as the weights
        if not _are_finite(expected):
            raise InputFormError(
                "the network returns values that are not finite",
                where=str(source.weights_path),
                remedy="The run that wrote these weights diverged; use others",
            )
        differences = _differences(expected, _outputs(part, size_wh), size_wh)
        _check_differences(differences, path, half=half)
        exported_file.recipe_path(path).unlink(missing_ok=True)
    saved = {**recipe, "differences": asdict(differences)}
    staleness.write_recipe(exported_file.recipe_path(path), saved, artifacts=[path])
    return differences


def _outputs(model: Path | bytes, size_wh: tuple[int, int]) -> Outputs:
    """Return the boxes and scores of a picture of random rectangles, the same in each call."""
    blocks = np.random.default_rng(_SEED).random((1, 3, _BLOCKS, _BLOCKS), np.float32)
    columns, rows = (np.arange(size) * _BLOCKS // size for size in size_wh)
    return open_model(model, device="cpu")(blocks[:, :, rows[:, np.newaxis], columns])


def _are_finite(outputs: Outputs) -> bool:
    return all(bool(np.isfinite(array).all()) for array in outputs)


def _differences(expected: Outputs, found: Outputs, size_wh: tuple[int, int]) -> _Differences:
    """Return the largest differences of two models; infinite if the second is not finite."""
    if not _are_finite(found):
        return _Differences(math.inf, math.inf)
    box_px = np.abs(_edges_px(found[0], size_wh) - _edges_px(expected[0], size_wh))
    return _Differences(float(box_px.max()), float(np.abs(found[1] - expected[1]).max()))


def _edges_px(boxes: Floats, size_wh: tuple[int, int]) -> Floats:
    """Return left, top, right and bottom of boxes within the input, in its pixels."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    edges = np.concatenate((centre - size / 2, centre + size / 2), axis=-1).clip(0, 1)
    px: Floats = edges * np.tile(np.array(size_wh, np.float32), 2)
    return px


def _check_differences(differences: _Differences, path: Path, *, half: bool) -> None:
    """Raise InputFormError if a file does not compute what the network computes."""
    max_box_px = math.inf if half else _MAX_BOX_DIFFERENCE_PX
    max_score = _MAX_HALF_SCORE_DIFFERENCE if half else _MAX_SCORE_DIFFERENCE
    if differences.box_px <= max_box_px and differences.score <= max_score:
        return
    raise InputFormError(
        "the model does not return what the network returns",
        where=str(path),
        expected=f"scores within {max_score}"
        + ("" if half else f" and boxes within {max_box_px} px"),
        found=f"differences of {differences.score:.2g} and {differences.box_px:.2g} px",
        remedy="This network needs float32: export it without half precision" if half else "",
    )
