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
    from oiyolo.core.results import Picture, Plan, Result
    from oiyolo.evaluation.plots import plot_confusion, plot_precision_recall
    from oiyolo.evaluation.summary import Evaluation
    from oiyolo.inference.detected import Detected
    from oiyolo.inference.detector import Detector
    from oiyolo.operations.classes import Classes, classes
    from oiyolo.operations.demo import Demonstrated, Served, demo
    from oiyolo.operations.detectors import load_detector
    from oiyolo.operations.doctor import Examination, doctor
    from oiyolo.operations.export import Exported, export_onnx
    from oiyolo.operations.export_dataset import (
        DatasetExported,
        export_coco,
        export_fiftyone,
        export_openimages,
        export_tfrecord,
        export_voc,
        export_yolo_yaml,
    )
    from oiyolo.operations.export_dataset.tfod import export_tfod
    from oiyolo.operations.export_web import WebPage, export_web
    from oiyolo.operations.freeze import Frozen, freeze
    from oiyolo.operations.import_data import import_images
    from oiyolo.operations.import_data.result import Imported
    from oiyolo.operations.init import Begun, init
    from oiyolo.operations.notebooks import NotebooksCopied, notebooks
    from oiyolo.operations.plan import plan
    from oiyolo.operations.predict import predict
    from oiyolo.operations.predict.result import Predicted
    from oiyolo.operations.pull import Pulled, pull
    from oiyolo.operations.push import Pushed, push
    from oiyolo.operations.refresh import Refreshed, refresh
    from oiyolo.operations.refresh.retrain import Retrained
    from oiyolo.operations.refresh.schedule import RefreshSchedule
    from oiyolo.operations.review import ReviewList, review
    from oiyolo.operations.run import Ran, run
    from oiyolo.operations.status import Status, status
    from oiyolo.operations.stop import Stopped, stop
    from oiyolo.operations.why import ImageHistory, why
    from oiyolo.operations.withdraw import Withdrawn, withdraw
    from oiyolo.planning.run_plan import RunPlan
    from oiyolo.project.project import Project, open_project
    from oiyolo.stages.build import Built, build
    from oiyolo.stages.evaluate import evaluate
    from oiyolo.stages.evaluate.baseline import Baseline
    from oiyolo.stages.evaluate.checkpoints import CheckpointsScored
    from oiyolo.stages.evaluate.compare import RunsCompared
    from oiyolo.stages.evaluate.run_scores import Evaluated
    from oiyolo.stages.fetch import Fetched, fetch
    from oiyolo.stages.fetch.shard_fetch import FetchedShard
    from oiyolo.stages.plot import plot
    from oiyolo.stages.plot.compare import Compared
    from oiyolo.stages.plot.outputs import Plotted
    from oiyolo.stages.prepare import Prepared, prepare
    from oiyolo.stages.report import report
    from oiyolo.stages.report.result import Report
    from oiyolo.stages.select import Selection, select
    from oiyolo.stages.split import Split, split
    from oiyolo.stages.split.check import Checked
    from oiyolo.stages.train import Trained, train
    from oiyolo.stages.train.background import Detached
    from oiyolo.trainlog.parse import read_log
    from oiyolo.trainlog.tables import TrainLog
    from oiyolo.trainlog.verdict import Verdict, verdict

_NAMES_BY_MODULE = {
    "charts.training": ("plot_loss", "plot_iou", "plot_map"),
    "core.errors": (
        *("OiyoloError", "UsageError", "InputFormError"),
        *("UnavailableError", "DarknetError", "LockedError"),
    ),
    "core.results": ("Result", "Plan", "Picture"),
    "evaluation.plots": ("plot_confusion", "plot_precision_recall"),
    "evaluation.summary": ("Evaluation",),
    "inference.detected": ("Detected",),
    "inference.detector": ("Detector",),
    "operations.classes": ("classes", "Classes"),
    "operations.demo": ("demo", "Demonstrated", "Served"),
    "operations.detectors": ("load_detector",),
    "operations.doctor": ("doctor", "Examination"),
    "operations.export": ("export_onnx", "Exported"),
    "operations.export_dataset": (
        *("export_coco", "export_voc", "export_yolo_yaml", "export_openimages"),
        *("export_fiftyone", "export_tfrecord", "DatasetExported"),
    ),
    "operations.export_dataset.tfod": ("export_tfod",),
    "operations.export_web": ("export_web", "WebPage"),
    "operations.freeze": ("freeze", "Frozen"),
    "operations.import_data": ("import_images",),
    "operations.import_data.result": ("Imported",),
    "operations.init": ("init", "Begun"),
    "operations.notebooks": ("notebooks", "NotebooksCopied"),
    "operations.plan": ("plan",),
    "operations.predict": ("predict",),
    "operations.predict.result": ("Predicted",),
    "operations.pull": ("pull", "Pulled"),
    "operations.push": ("push", "Pushed"),
    "operations.refresh": ("refresh", "Refreshed"),
    "operations.refresh.retrain": ("Retrained",),
    "operations.refresh.schedule": ("RefreshSchedule",),
    "operations.review": ("review", "ReviewList"),
    "operations.run": ("run", "Ran"),
    "operations.status": ("status", "Status"),
    "operations.stop": ("stop", "Stopped"),
    "operations.why": ("why", "ImageHistory"),
    "operations.withdraw": ("withdraw", "Withdrawn"),
    "planning.run_plan": ("RunPlan",),
    "project.project": ("open_project", "Project"),
    "stages.build": ("build", "Built"),
    "stages.evaluate": ("evaluate",),
    "stages.evaluate.baseline": ("Baseline",),
    "stages.evaluate.checkpoints": ("CheckpointsScored",),
    "stages.evaluate.compare": ("RunsCompared",),
    "stages.evaluate.run_scores": ("Evaluated",),
    "stages.fetch": ("fetch", "Fetched"),
    "stages.fetch.shard_fetch": ("FetchedShard",),
    "stages.plot": ("plot",),
    "stages.plot.compare": ("Compared",),
    "stages.plot.outputs": ("Plotted",),
    "stages.prepare": ("prepare", "Prepared"),
    "stages.report": ("report",),
    "stages.report.result": ("Report",),
    "stages.select": ("select", "Selection"),
    "stages.split": ("split", "Split"),
    "stages.split.check": ("Checked",),
    "stages.train": ("train", "Trained"),
    "stages.train.background": ("Detached",),
    "trainlog.parse": ("read_log",),
    "trainlog.tables": ("TrainLog",),
    "trainlog.verdict": ("verdict", "Verdict"),
}
"""The public names that each module defines."""
_MODULE_BY_NAME = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = [  # noqa: RUF022  (in the order of use)
    # the commands, in the order of the pipeline
    "init",
    "classes",
    "plan",
    "select",
    "fetch",
    "import_images",
    "prepare",
    "split",
    "build",
    "train",
    "plot",
    "evaluate",
    "report",
    "review",
    "predict",
    "export_onnx",
    "export_web",
    "export_coco",
    "export_voc",
    "export_yolo_yaml",
    "export_openimages",
    "export_fiftyone",
    "export_tfrecord",
    "export_tfod",
    "run",
    "freeze",
    "refresh",
    "push",
    "pull",
    "status",
    "stop",
    "withdraw",
    "why",
    "doctor",
    "notebooks",
    "demo",
    # projects, detectors, logs and charts
    "open_project",
    "Project",
    "load_detector",
    "Detector",
    "read_log",
    "verdict",
    "plot_loss",
    "plot_iou",
    "plot_map",
    "plot_precision_recall",
    "plot_confusion",
    # results
    "Result",
    "Plan",
    "Picture",
    "Begun",
    "Classes",
    "RunPlan",
    "Selection",
    "Fetched",
    "FetchedShard",
    "Imported",
    "Prepared",
    "Split",
    "Checked",
    "Built",
    "Trained",
    "Detached",
    "Plotted",
    "Compared",
    "Evaluated",
    "Evaluation",
    "Baseline",
    "CheckpointsScored",
    "RunsCompared",
    "Report",
    "ReviewList",
    "Predicted",
    "Detected",
    "Exported",
    "WebPage",
    "DatasetExported",
    "Ran",
    "RefreshSchedule",
    "Refreshed",
    "Retrained",
    "Pushed",
    "Pulled",
    "Status",
    "Stopped",
    "ImageHistory",
    "Withdrawn",
    "Frozen",
    "Examination",
    "NotebooksCopied",
    "Demonstrated",
    "Served",
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
