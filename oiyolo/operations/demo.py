"""demo: the whole way once, on a small Open Images of our own, served on this machine."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.results import Plan, Result, columns
from oiyolo.demo_data.server import serve_mirror
from oiyolo.demo_data.writer import SCENES
from oiyolo.operations.run import run
from oiyolo.project.config import FILE_NAME
from oiyolo.project.project import create, open_project

if TYPE_CHECKING:
    import os

    from oiyolo.operations.run import Ran
    from oiyolo.project.project import Project

_log = logging.getLogger("oiyolo")

FOLDER: Final = "oiyolo-demo"
_OPTIONS: Final = {
    "classes": ("Boat",),
    "negatives": 0.05,
    "size": (96, 96),
    "network": "demo",
    "cache": "cache",
    "tolerance": 0.1,  # of few scenes, the handful that is lost on purpose is a large share
}


@dataclass(frozen=True)
class Demonstrated(Result):
    """What the demo made, and where it lies.

    Attributes:
        project: Its project.
        ran: The results of all stages.
        seconds: How long it took.
    """

    project: Project
    ran: Ran
    seconds: float

    @property
    def places(self) -> dict[str, Path]:
        """Where everything lies."""
        found = self.ran.results["train"].run  # type: ignore[attr-defined]  # train's result
        return {
            "report": found.folder / "report.html",
            "detections": found.panels_folder / "overview.png",
            "charts": found.charts_folder,
            "evaluation": found.evaluation_path,
            "weights": found.weights_folder,
            "log": found.log_path,
            "dataset": self.project.dataset_folder,
            "options": self.project.options_path,
        }

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        places = {name: str(path) for name, path in self.places.items()}
        return {"seconds": round(self.seconds, 1), "places": places, **self.ran.as_dict()}

    def __str__(self) -> str:
        rows = [(name, str(path)) for name, path in self.places.items()]
        return (
            f"{self.ran}\n\nThe demo took {self.seconds:.0f} s. Everything lies in "
            f"{self.project.folder}:\n{columns(rows, right=False)}\n\n"
            "Next, the real thing, in an empty folder:\n"
            "  oiyolo fetch --class Boat && oiyolo split && oiyolo train && oiyolo plot"
        )


def demo(
    folder: str | os.PathLike[str] = FOLDER,
    *,
    seed: int = 0,
    scenes: int = SCENES,
    dry_run: bool = False,
    **options: object,
) -> Demonstrated | Plan:
    """Make a detector of boats out of drawn scenes, by the very stages that the real site gets.

    A mirror in Open Images' official forms is written and served on this machine; from there on
    only its addresses differ from the real ones. A second run goes on where a first one ended.

    Args:
        folder: Where everything is made; it becomes a project.
        seed: Another seed draws other scenes.
        scenes: How many are drawn for train.
        dry_run: Only tell what would be done.
        **options: Keys to set differently, such as ``max_batches``.

    Raises:
        OiyoloError: What a stage raises.
    """
    place = Path(folder).absolute()
    if dry_run:
        return Plan("demo", [f"draw {scenes} scenes in {place}, serve them, and run all stages"])
    started_s = time.monotonic()
    with serve_mirror(place / "mirror", seed=seed, scenes=scenes) as mirror:
        urls = {"base_url": mirror.openimages_url, "mirror_url": mirror.images_url}
        _log.info("demo: a small Open Images at %s", mirror.base_url)
        if not (place / FILE_NAME).is_file():
            create(place, {**_OPTIONS, **urls})
        # The port may be another one than last time.
        project = open_project(place, {**options, **urls})
        ran = run(project)
    return Demonstrated(project, ran, time.monotonic() - started_s)  # type: ignore[arg-type]
