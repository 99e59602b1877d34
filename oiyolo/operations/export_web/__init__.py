"""export web: a detector in one HTML file, which runs offline in a browser."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict, overload

from oiyolo import __version__
from oiyolo.core import disks, files, staleness
from oiyolo.core.errors import InputFormError
from oiyolo.core.results import Plan, Result, pluralize
from oiyolo.core.units import format_bytes
from oiyolo.inference.half_weights import with_half_weights
from oiyolo.inference.session import open_model
from oiyolo.operations import exported_file
from oiyolo.operations.detectors import choose, open_with_facts, refuse_others, to_onnx
from oiyolo.operations.export_web import page, runtime
from oiyolo.operations.export_web.card import card_of
from oiyolo.project.project import open_or_default

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.inference.facts import ModelFacts
    from oiyolo.operations.detectors import DetectorFiles
    from oiyolo.project.project import ProjectLike
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

COMMAND: Final = "export web"
_SUFFIX: Final = ".html"
_MAX_MODEL_BYTES: Final = 256 << 20
"""A browser holds the page, its text and the network at the same time, in about four times that."""


class _SavedRecipe(TypedDict):
    """What the recipe of a page contains besides what it is made from."""

    model_bytes: int


@dataclass(frozen=True)
class WebPage(Result):
    """A detector in an HTML file.

    Attributes:
        path: The file.
        origin: Which detector it contains, and why this one.
        class_names: Names of its classes.
        half: Whether its weights are float16.
        model_bytes: Size of the network as an ONNX file.
        is_new: Whether this call wrote it; otherwise it was up to date.
    """

    path: Path
    origin: str
    class_names: tuple[str, ...]
    half: bool
    model_bytes: int
    is_new: bool = True

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        values = asdict(self)
        return {**values, "path": str(self.path), "bytes": self.path.stat().st_size}

    def __str__(self) -> str:
        size = format_bytes(self.path.stat().st_size)
        state = "" if self.is_new else " (up to date)"
        weights = "float16" if self.half else "float32"
        return (
            f"{self.path}: {size}, {pluralize(len(self.class_names), 'class')}, "
            f"weights in {weights}{state}\n"
            f"made from {self.origin}\n"
            "Open it in a browser; it needs no network, and it can be passed on."
        )


class _Options(TypedDict, total=False):
    """Options of ``export_web`` that do not change the type of its result."""

    run: str | None
    model: str | Path | None
    cfg: str | Path | None
    weights: str | Path | None
    names: str | Path | None
    half: bool
    runtime_path: str | Path | None
    out: str | Path | None


@overload
def export_web(
    project: ProjectLike = ..., *, dry_run: Literal[False] = ..., **options: Unpack[_Options]
) -> WebPage: ...


@overload
def export_web(
    project: ProjectLike = ..., *, dry_run: Literal[True], **options: Unpack[_Options]
) -> Plan: ...


@overload
def export_web(
    project: ProjectLike = ..., *, dry_run: bool, **options: Unpack[_Options]
) -> WebPage | Plan: ...


def export_web(
    project: ProjectLike = ".",
    *,
    run: str | None = None,
    model: str | Path | None = None,
    cfg: str | Path | None = None,
    weights: str | Path | None = None,
    names: str | Path | None = None,
    half: bool = False,
    runtime_path: str | Path | None = None,
    out: str | Path | None = None,
    dry_run: bool = False,
) -> WebPage | Plan:
    """Write a page that contains a detector and runs it on photographs, without a network.

    Args:
        project: An open project or its folder; not needed with ``model`` or ``cfg``.
        run: Name of a run; by default the newest finished one, else the one with the newest
            weights.
        model: An ONNX model that `oiyolo export onnx` wrote, in place of a run.
        cfg: Network file of any darknet detector, in place of a run.
        weights: Its weights file.
        names: Its names file, with a class per line.
        half: Whether to store the weights in float16, in half the space.
        runtime_path: A folder or an archive of onnxruntime-web's npm package; by default it is
            downloaded at the first use.
        out: The file, or a folder for it; by default ``runs/<run>/export/<run>.html``, or without a
            run the name of the weights or the model in the current folder.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There is no such run or file.
        InputFormError: The files do not belong together; a browser cannot run the network; or the
            runtime is incomplete or another version.
        UnavailableError: The runtime cannot be downloaded.
    """
    opened = open_or_default(project)
    source = _of_model(Path(model), names, run=run, cfg=cfg, weights=weights) if model else None
    if source is None:
        source = _of_files(choose(opened, run=run, cfg=cfg, weights=weights, names=names))
    path = exported_file.path_for(source.name, source.run, out, suffix=_SUFFIX, what="page")
    recipe = {
        **source.recipe,
        "half": half,
        "runtime": runtime.VERSION,
        "page": page.fingerprint(),
        "version": __version__,
    }
    saved = exported_file.find_saved(path, recipe, _SavedRecipe)
    is_new = isinstance(saved, str)
    if dry_run:
        urls = _missing(opened.cache_folder, runtime_path)
        return _plan(path, source, urls) if is_new else Plan(COMMAND, [], {"path": str(path)})
    if isinstance(saved, str):
        _log.info("export: writing %s (%s)", path, saved)
        engine = (
            runtime.download(opened.cache_folder)
            if runtime_path is None
            else runtime.read(Path(runtime_path))
        )
        model_bytes = _write(path, source, recipe, engine, half=half)
    else:
        _log.info("export: up to date")
        model_bytes = saved["model_bytes"]
    return WebPage(path, source.origin, source.facts.names, half, model_bytes, is_new)


@dataclass(frozen=True)
class _Source:
    """A detector to put into a page.

    Attributes:
        origin: Which detector it is, and why it was chosen, in words.
        name: A name for files that are made from it.
        facts: What is known about it.
        recipe: What the page is made from.
        made_at: When the weights were written.
        run: The run that trained it; ``None`` for files from elsewhere.
        to_onnx: Returns it as the content of an ONNX file.
    """

    origin: str
    name: str
    facts: ModelFacts
    recipe: dict[str, object]
    made_at: float
    run: Run | None
    to_onnx: Callable[[], bytes]


def _of_files(files_of: DetectorFiles) -> _Source:
    return _Source(
        files_of.origin,
        files_of.name,
        files_of.facts,
        {**exported_file.recipe_of(files_of), "scores": _scores(files_of.run)},
        files_of.weights_path.stat().st_mtime,
        files_of.run,
        lambda: to_onnx(files_of),
    )


def _of_model(path: Path, names: str | Path | None, **others: object) -> _Source:
    """Return a model in ONNX as a detector.

    Raises:
        UsageError: There is no such file, or another detector is named as well.
        InputFormError: It is damaged, or has another form than those that are exported here.
    """
    refuse_others("model", **others)
    session, facts = open_with_facts(path, names, device="cpu")
    if not session.is_plain:
        raise InputFormError(
            "the page cannot run this model",
            where=str(path),
            expected="one float32 image (1, 3, height, width); outputs boxes and scores",
            found=f"another input or other outputs (layout {session.layout})",
            remedy="Use a model that `oiyolo export onnx` wrote, or --run or --cfg and --weights",
        )
    recipe: dict[str, object] = {"model": files.sha256_of(path), "facts": asdict(facts)}
    made_at = path.stat().st_mtime
    return _Source(
        str(path), path.stem, facts, recipe, made_at, None, lambda: files.read_bytes(path)
    )


def _scores(run: Run | None) -> object:
    return None if run is None else staleness.fingerprint(files.read_json(run.evaluation_path))


def _missing(cache_folder: Path, runtime_path: str | Path | None) -> list[str]:
    """Return what must be downloaded; raises what reading the given runtime would raise."""
    if runtime_path is None:
        return runtime.missing(cache_folder)
    runtime.read(Path(runtime_path))
    return []


def _plan(path: Path, source: _Source, urls: list[str]) -> Plan:
    _check_size(source.to_onnx(), source)  # the errors that the command would raise
    actions = [f"download {url}" for url in urls]
    actions.append(f"write {path} from {source.origin}")
    return Plan(COMMAND, actions, {"path": str(path)})


def _write(
    path: Path,
    source: _Source,
    recipe: Mapping[str, object],
    engine: runtime.Runtime,
    *,
    half: bool,
) -> int:
    """Write the page and its recipe; return the size of the network in it."""
    model = source.to_onnx()
    _check_size(model, source)
    if half:
        model = with_half_weights(model)
    size_wh = open_model(model, device="cpu").size_wh  # fails if onnxruntime cannot load it
    card = card_of(source.facts, source.run, size_wh, made_at=source.made_at)
    remedy = "or choose a folder on a larger disk with --out"
    with (
        disks.convert_disk_full_error(path.parent, what="the page", remedy=remedy),
        files.atomic_write(path) as part,
        part.open("wb") as file,
    ):
        file.writelines(page.render(model, source.facts, size_wh, card, engine, half=half))
        exported_file.recipe_path(path).unlink(missing_ok=True)
    saved = {**recipe, "model_bytes": len(model)}
    staleness.write_recipe(exported_file.recipe_path(path), saved, artifacts=[path])
    return len(model)


def _check_size(model: bytes, source: _Source) -> None:
    if len(model) > _MAX_MODEL_BYTES:
        raise InputFormError(
            "the network is too large for a page",
            where=source.origin,
            expected=f"at most {format_bytes(_MAX_MODEL_BYTES)}",
            found=format_bytes(len(model)),
            remedy="Train a smaller network, such as yolov4-tiny",
        )
