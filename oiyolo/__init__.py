"""Train, evaluate and document a YOLO detector for a class name, from Open Images.

Every command is a function of the same name, with the same options as keywords::

    import oiyolo

    oiyolo.fetch("boats", classes=["Boat"], limit=500)
    oiyolo.split("boats")
    oiyolo.train("boats")
    oiyolo.plot("boats")

Names are imported on first use, so that ``import oiyolo`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from oiyolo.charts.training import plot_iou, plot_loss, plot_map
    from oiyolo.core.errors import (
        DarknetError,
        InputFormError,
        LockedError,
        OiyoloError,
        UnavailableError,
        UsageError,
    )
    from oiyolo.core.results import Plan, Result
    from oiyolo.evaluation.plots import plot_precision_recall
    from oiyolo.evaluation.summary import Evaluation
    from oiyolo.operations.classes import Classes, classes
    from oiyolo.operations.demo import Demonstrated, demo
    from oiyolo.operations.doctor import Examination, doctor
    from oiyolo.operations.init import Begun, init
    from oiyolo.operations.plan import plan
    from oiyolo.operations.refresh import Refreshed, refresh
    from oiyolo.operations.run import Ran, run
    from oiyolo.operations.status import Status, status
    from oiyolo.operations.why import ImageHistory, why
    from oiyolo.planning.run_plan import RunPlan
    from oiyolo.project.project import Project, open_project
    from oiyolo.stages.build import Built, build
    from oiyolo.stages.evaluate import Evaluated, evaluate
    from oiyolo.stages.fetch import Fetched, fetch
    from oiyolo.stages.fetch.shard_fetch import FetchedShard
    from oiyolo.stages.plot import plot
    from oiyolo.stages.plot.compare import Compared
    from oiyolo.stages.plot.outputs import Plotted
    from oiyolo.stages.prepare import Prepared, prepare
    from oiyolo.stages.report import Report, report
    from oiyolo.stages.select import Selection, select
    from oiyolo.stages.split import Split, split
    from oiyolo.stages.split.check import Checked
    from oiyolo.stages.train import Trained, train
    from oiyolo.trainlog.parse import read_log
    from oiyolo.trainlog.tables import TrainLog
    from oiyolo.trainlog.verdict import Verdict, verdict

_MODULE_BY_NAME = {
    # the commands, in the order of the pipeline
    "init": "operations.init",
    "classes": "operations.classes",
    "plan": "operations.plan",
    "select": "stages.select",
    "fetch": "stages.fetch",
    "prepare": "stages.prepare",
    "split": "stages.split",
    "build": "stages.build",
    "train": "stages.train",
    "plot": "stages.plot",
    "evaluate": "stages.evaluate",
    "report": "stages.report",
    "run": "operations.run",
    "refresh": "operations.refresh",
    "status": "operations.status",
    "why": "operations.why",
    "doctor": "operations.doctor",
    "demo": "operations.demo",
    # projects, logs and charts
    "open_project": "project.project",
    "Project": "project.project",
    "read_log": "trainlog.parse",
    "verdict": "trainlog.verdict",
    "plot_loss": "charts.training",
    "plot_iou": "charts.training",
    "plot_map": "charts.training",
    "plot_precision_recall": "evaluation.plots",
    # results
    "Result": "core.results",
    "Plan": "core.results",
    "Begun": "operations.init",
    "Classes": "operations.classes",
    "RunPlan": "planning.run_plan",
    "Selection": "stages.select",
    "Fetched": "stages.fetch",
    "FetchedShard": "stages.fetch.shard_fetch",
    "Prepared": "stages.prepare",
    "Split": "stages.split",
    "Checked": "stages.split.check",
    "Built": "stages.build",
    "Trained": "stages.train",
    "Plotted": "stages.plot.outputs",
    "Compared": "stages.plot.compare",
    "Evaluated": "stages.evaluate",
    "Evaluation": "evaluation.summary",
    "Report": "stages.report",
    "Ran": "operations.run",
    "Refreshed": "operations.refresh",
    "Status": "operations.status",
    "ImageHistory": "operations.why",
    "Examination": "operations.doctor",
    "Demonstrated": "operations.demo",
    "TrainLog": "trainlog.tables",
    "Verdict": "trainlog.verdict",
    # errors
    "OiyoloError": "core.errors",
    "UsageError": "core.errors",
    "InputFormError": "core.errors",
    "UnavailableError": "core.errors",
    "DarknetError": "core.errors",
    "LockedError": "core.errors",
}
"""The module that defines each public name."""

__all__ = [  # noqa: RUF022  (in the order of use)
    # the commands, in the order of the pipeline
    "init",
    "classes",
    "plan",
    "select",
    "fetch",
    "prepare",
    "split",
    "build",
    "train",
    "plot",
    "evaluate",
    "report",
    "run",
    "refresh",
    "status",
    "why",
    "doctor",
    "demo",
    # projects, logs and charts
    "open_project",
    "Project",
    "read_log",
    "verdict",
    "plot_loss",
    "plot_iou",
    "plot_map",
    "plot_precision_recall",
    # results
    "Result",
    "Plan",
    "Begun",
    "Classes",
    "RunPlan",
    "Selection",
    "Fetched",
    "FetchedShard",
    "Prepared",
    "Split",
    "Checked",
    "Built",
    "Trained",
    "Plotted",
    "Compared",
    "Evaluated",
    "Evaluation",
    "Report",
    "Ran",
    "Refreshed",
    "Status",
    "ImageHistory",
    "Examination",
    "Demonstrated",
    "TrainLog",
    "Verdict",
    # errors
    "OiyoloError",
    "UsageError",
    "InputFormError",
    "UnavailableError",
    "DarknetError",
    "LockedError",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module 'oiyolo' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"oiyolo.{_MODULE_BY_NAME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
