"""demo: run the complete pipeline on a small generated Open Images, served on this machine."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, overload

from oiyolo.core.results import Plan, Result, format_table
from oiyolo.demo_data.server import serve_mirror
from oiyolo.demo_data.writer import DEFAULT_SCENES
from oiyolo.operations.run import run
from oiyolo.project.config import FILE_NAME
from oiyolo.project.keywords import takes_keys
from oiyolo.project.project import create, open_project

if TYPE_CHECKING:
    import os
    from typing import Literal

    from typing_extensions import Unpack

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


@overload
def demo(
    folder: str | os.PathLike[str] = ...,
    *,
    seed: int = ...,
    scenes: int = ...,
    dry_run: Literal[False] = ...,
    **options: Unpack[TrainStageKeywords],
) -> Demonstrated: ...


@overload
def demo(
    folder: str | os.PathLike[str] = ...,
    *,
    seed: int = ...,
    scenes: int = ...,
    dry_run: Literal[True],
    **options: Unpack[TrainStageKeywords],
) -> Plan: ...


@overload
def demo(
    folder: str | os.PathLike[str] = ...,
    *,
    seed: int = ...,
    scenes: int = ...,
    dry_run: bool,
    **options: Unpack[TrainStageKeywords],
) -> Demonstrated | Plan: ...


@takes_keys("train", "darknet")
def demo(
    folder: str | os.PathLike[str] = FOLDER,
    *,
    seed: int = 0,
    scenes: int = DEFAULT_SCENES,
    dry_run: bool = False,
    **options: Unpack[TrainStageKeywords],
) -> Demonstrated | Plan:
    """Train a boat detector on drawn scenes, with the same stages as for real images.

    Writes a mirror in Open Images' official formats and serves it on this machine, so that only
    the URLs differ from the real ones. Calling it again resumes an interrupted demo.

    Args:
        folder: The project folder, which is created.
        seed: Seed of the generated scenes.
        scenes: Number of scenes in Open Images' train subset.
        dry_run: Whether to only report what would be done.
        **options: Keys to set differently, such as ``max_batches``.

    Raises:
        OiyoloError: A stage failed.
    """
    project_folder = Path(folder).absolute()
    if dry_run:
        return Plan(
            "demo", [f"draw {scenes} scenes in {project_folder}, serve them, and run all stages"]
        )
    started_s = time.monotonic()
    with serve_mirror(project_folder / "mirror", seed=seed, scenes=scenes) as mirror:
        urls = {"base_url": mirror.openimages_url, "mirror_url": mirror.images_url}
        _log.info("demo: a small Open Images at %s", mirror.base_url)
        if not (project_folder / FILE_NAME).is_file():
            create(project_folder, {**_OPTIONS, **urls})
        # The port may differ from that of the last call.
        project = open_project(project_folder, {**options, **urls})
        ran = run(project)
    return Demonstrated(project, ran, time.monotonic() - started_s)
