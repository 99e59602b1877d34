"""demo: run the complete pipeline on a small generated Open Images, served on this machine."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.core.results import Plan, Result, format_table
from oiyolo.demo_data.server import HOST, serve_mirror
from oiyolo.demo_data.writer import DEFAULT_SCENES
from oiyolo.operations.run import run
from oiyolo.project.config import FILE_NAME
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import create, open_project

if TYPE_CHECKING:
    import os
    from typing import Literal

    from typing_extensions import Unpack

    from oiyolo.demo_data.writer import DemoMirror
    from oiyolo.operations.run import Ran
    from oiyolo.project.keywords import TrainStageKeywords
    from oiyolo.project.project import Project

_log = logging.getLogger("oiyolo")

FOLDER: Final = "oiyolo-demo"
_OPTIONS: Final = {
    "classes": ("Boat",),
    "negatives": 0.05,
    "size": (96, 96),
    "network": "demo",
    "cache": "cache",
    "tolerance": 0.1,  # a few scenes are missing on purpose, a large share of a small dataset
}


@dataclass(frozen=True)
class Demonstrated(Result):
    """The results of the demo.

    Attributes:
        project: Its project.
        ran: The results of all stages.
        seconds: Duration of the demo.
    """

    project: Project
    ran: Ran
    seconds: float

    @property
    def paths(self) -> dict[str, Path]:
        """Paths of the most important files and folders, by name."""
        training_run = self.ran.results["train"].run  # type: ignore[attr-defined]  # train's result
        return {
            "report": training_run.folder / "report.html",
            "detections": training_run.panels_folder / "overview.png",
            "charts": training_run.charts_folder,
            "evaluation": training_run.evaluation_path,
            "weights": training_run.weights_folder,
            "log": training_run.log_path,
            "dataset": self.project.dataset_folder,
            "options": self.project.options_path,
        }

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        paths = {name: str(path) for name, path in self.paths.items()}
        return {"seconds": round(self.seconds, 1), "places": paths, **self.ran.as_dict()}

    def __str__(self) -> str:
        rows = [(name, str(path)) for name, path in self.paths.items()]
        return (
            f"{self.ran}\n\nThe demo took {self.seconds:.0f} s. All files are in "
            f"{self.project.folder}:\n{format_table(rows, right=False)}\n\n"
            "Next, with real images, in an empty folder:\n"
            "  oiyolo fetch --class Boat && oiyolo split && oiyolo train && oiyolo plot"
        )


@dataclass(frozen=True)
class Served(Result):
    """A small Open Images that was served until Ctrl-C.

    Attributes:
        project: The project that reads it.
        url: Its base URL.
    """

    project: Project
    url: str

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {"project": str(self.project.folder), "url": self.url}

    def __str__(self) -> str:
        return (
            f"{self.url} is no longer served; `oiyolo demo {self.project.folder} --serve` "
            "serves it again"
        )


@overload
def demo(
    folder: str | os.PathLike[str] = ...,
    *,
    seed: int = ...,
    scenes: int = ...,
    serve: Literal[False] = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[TrainStageKeywords],
) -> Demonstrated: ...


@overload
def demo(
    folder: str | os.PathLike[str] = ...,
    *,
    seed: int = ...,
    scenes: int = ...,
    serve: Literal[True],
    dry_run: Literal[False] = ...,
    **options: Unpack[TrainStageKeywords],
) -> Served: ...


@overload
def demo(
    folder: str | os.PathLike[str] = ...,
    *,
    seed: int = ...,
    scenes: int = ...,
    serve: bool = ...,
    dry_run: Literal[True],
    **options: Unpack[TrainStageKeywords],
) -> Plan: ...


@overload
def demo(
    folder: str | os.PathLike[str] = ...,
    *,
    seed: int = ...,
    scenes: int = ...,
    serve: bool = ...,
    dry_run: bool = ...,
    **options: Unpack[TrainStageKeywords],
) -> Demonstrated | Served | Plan: ...


@takes_keys("train", "darknet")
def demo(
    folder: str | os.PathLike[str] = FOLDER,
    *,
    seed: int = 0,
    scenes: int = DEFAULT_SCENES,
    serve: bool = False,
    dry_run: bool = False,
    **options: Unpack[TrainStageKeywords],
) -> Demonstrated | Served | Plan:
    """Train a boat detector on drawn scenes, with the same stages as for real images.

    Writes a mirror in Open Images' official formats and serves it on this machine, so that only
    the URLs differ from the real ones. Calling it again resumes an interrupted demo.

    Args:
        folder: The project folder, which is created.
        seed: Seed of the generated scenes.
        scenes: Number of scenes in Open Images' train subset.
        serve: Whether to only create the project and serve its mirror until Ctrl-C, so that the
            stages can be run one by one.
        dry_run: Whether to only report what would be done.
        **options: Keys to set differently, such as ``max_batches``.

    Raises:
        OiyoloError: A stage failed.
        UsageError: ``serve`` is combined with keys, which belong to the stages.
    """
    project_folder = Path(folder).absolute()
    overrides = {name: value for name, value in options.items() if value is not None}
    if serve and overrides:
        raise UsageError(
            f"these options have no effect while serving: {', '.join(overrides)}",
            remedy=f"Set them in {project_folder / FILE_NAME}, or pass them to the stages",
        )
    if dry_run:
        then = "serve them until Ctrl-C" if serve else "serve them, and run all stages"
        return Plan("demo", [f"draw {scenes} scenes in {project_folder}, {then}"])
    started_s = time.monotonic()
    with serve_mirror(project_folder / "mirror", seed=seed, scenes=scenes) as mirror:
        _log.info("demo: a small Open Images at %s", mirror.base_url)
        _write_options(project_folder, mirror)
        project = open_project(project_folder, options)
        if serve:
            _log.info(
                "demo: run the stages in another terminal: cd %s && oiyolo fetch", project_folder
            )
            _log.info("demo: serving until Ctrl-C")
            _wait_for_interrupt()
            return Served(project, mirror.base_url)
        ran = run(project)
    return Demonstrated(project, ran, time.monotonic() - started_s)


def _write_options(folder: Path, mirror: DemoMirror) -> None:
    """Create the project, or write the mirror's URLs again if it is served at another port."""
    path = folder / FILE_NAME
    if not path.is_file():
        urls = {"base_url": mirror.openimages_url, "mirror_url": mirror.images_url}
        create(folder, {**_OPTIONS, **urls})
        return
    text = path.read_text(encoding="utf-8")
    current = re.sub(rf"http://{re.escape(HOST)}:\d+", mirror.base_url, text)
    if current != text:
        files.write_text(path, current)


def _wait_for_interrupt() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
