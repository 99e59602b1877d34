"""From a class name to a trained, evaluated, documented YOLO detector, out of Open Images.

Each command is a function of the same name, which takes the same options as keywords::

    import oiyolo

    oiyolo.fetch("boats", classes=["Boat"], limit=500)
    oiyolo.split("boats")
    oiyolo.train("boats")
    oiyolo.plot("boats")

A name is imported when it is first used, so that ``import oiyolo`` costs nothing.
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
    from oiyolo.evaluation.plots import plot_precision_recall
    from oiyolo.operations.classes import classes
    from oiyolo.operations.demo import demo
    from oiyolo.operations.doctor import doctor
    from oiyolo.operations.init import init
    from oiyolo.operations.plan import plan
    from oiyolo.operations.refresh import refresh
    from oiyolo.operations.run import run
    from oiyolo.operations.status import status
    from oiyolo.operations.why import why
    from oiyolo.project.project import Project, open_project
    from oiyolo.stages.build import build
    from oiyolo.stages.evaluate import evaluate
    from oiyolo.stages.fetch import fetch
    from oiyolo.stages.plot import plot
    from oiyolo.stages.prepare import prepare
    from oiyolo.stages.report import report
    from oiyolo.stages.select import select
    from oiyolo.stages.split import split
    from oiyolo.stages.train import train
    from oiyolo.trainlog.parse import read_log
    from oiyolo.trainlog.verdict import verdict

_PLACES = {
    "DarknetError": "core.errors",
    "InputFormError": "core.errors",
    "LockedError": "core.errors",
    "OiyoloError": "core.errors",
    "Project": "project.project",
    "UnavailableError": "core.errors",
    "UsageError": "core.errors",
    "build": "stages.build",
    "classes": "operations.classes",
    "demo": "operations.demo",
    "doctor": "operations.doctor",
    "evaluate": "stages.evaluate",
    "fetch": "stages.fetch",
    "init": "operations.init",
    "open_project": "project.project",
    "plan": "operations.plan",
    "plot": "stages.plot",
    "plot_iou": "charts.training",
    "plot_loss": "charts.training",
    "plot_map": "charts.training",
    "plot_precision_recall": "evaluation.plots",
    "prepare": "stages.prepare",
    "read_log": "trainlog.parse",
    "refresh": "operations.refresh",
    "report": "stages.report",
    "run": "operations.run",
    "select": "stages.select",
    "split": "stages.split",
    "status": "operations.status",
    "train": "stages.train",
    "verdict": "trainlog.verdict",
    "why": "operations.why",
}

__all__ = [  # noqa: RUF022  (in the order of the work)
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
    "open_project",
    "Project",
    "read_log",
    "plot_loss",
    "plot_iou",
    "plot_map",
    "verdict",
    "plot_precision_recall",
    "OiyoloError",
    "UsageError",
    "InputFormError",
    "UnavailableError",
    "DarknetError",
    "LockedError",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'oiyolo' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"oiyolo.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
