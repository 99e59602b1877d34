"""Score one weights file in a process of its own, while its run is in training.

``training.score_monitor`` starts it in the lowest priority.
"""

from __future__ import annotations

from pathlib import Path

from oiyolo.core import progress
from oiyolo.core.output import to_json
from oiyolo.project.project import open_project
from oiyolo.stages.evaluate.checkpoint_scorer import add_score, score_checkpoint
from oiyolo.training.run import Run


def score(project_folder: str, run_name: str, weights_path: str, threads: str) -> str:
    """Add the scores of a weights file to the run's, and return the main ones as a line of JSON.

    Args:
        project_folder: The project.
        run_name: The run.
        weights_path: Complete weights of the run's network, which do not change.
        threads: Number of threads.

    Raises:
        OiyoloError: It cannot be scored.
    """
    progress.enabled.set(False)
    project = open_project(project_folder)
    run = Run(project.runs_folder / run_name)
    record = score_checkpoint(project, run, Path(weights_path), threads=int(threads))
    add_score(run, record)
    return to_json({"iteration": record.score.iteration, "valid_map50": record.score.valid_map50})
