"""train: darknet learns from the train split, in a run folder that needs nothing else.

Leaves ``runs/<run>/{network.cfg, obj.data, obj.names, train.txt, valid.txt, train_log.txt,
weights/, run.json}``. An unfinished run of the same dataset and network is gone on with. Whether a
training succeeded is judged by the weights it wrote, never by darknet's exit code.
"""

from __future__ import annotations

import datetime as dt
import logging
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo import __version__, files, process, stamps
from oiyolo.darknet import lists
from oiyolo.darknet.lines import FINAL_WEIGHTS
from oiyolo.darknet.program import data_file, train_command
from oiyolo.errors import DarknetError, InputFormError, UsageError
from oiyolo.http import Web
from oiyolo.networks import builders
from oiyolo.networks.weights import PRETRAINED, check_weights, obtain
from oiyolo.progress import progress
from oiyolo.project import open_project
from oiyolo.results import Plan, Result, count
from oiyolo.stages import build as build_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import split as split_stage
from oiyolo.training import course as course_of
from oiyolo.training.course import NO_WEIGHTS
from oiyolo.training.run import (
    BASE,
    FAILED,
    FINISHED,
    INTERRUPTED,
    RUNNING,
    Run,
    ids_in,
    next_name,
    runs_in,
)
from oiyolo.training.supervise import supervise
from oiyolo.trainlog.parse import complaints, read_log

if TYPE_CHECKING:
    from oiyolo.darknet.program import Darknet
    from oiyolo.project import Project, ProjectLike
    from oiyolo.stages.split import Split
    from oiyolo.training.course import Course

_log = logging.getLogger("oiyolo")

STAGE: Final = "train"
_LAST_LINES: Final = 5
_FOR_A_CPU: Final = frozenset({"demo"})


@dataclass(frozen=True)
class Trained(Result):
    """A finished training.

    Attributes:
        run: Its folder.
        weights: The weights of the last iteration.
        iterations: How many there were.
        avg_loss: The average loss at the end.
        seconds: How long this call trained; 0 when there was nothing to do.
    """

    run: Run
    weights: Path
    iterations: int
    avg_loss: float
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """See ``Result``."""
        return {
            "run": self.run.name,
            "folder": str(self.run.folder),
            "weights": str(self.weights),
            "iterations": self.iterations,
            "avg_loss": self.avg_loss,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        if not self.seconds:
            return f"train: nothing to do; {self.run.name} is finished ({self.weights})"
        return (
            f"trained {self.run.name}: {count(self.iterations, 'iteration')} in "
            f"{self.seconds:.0f} s, average loss {self.avg_loss:.3f} ({self.weights})"
        )


def train(
    project: ProjectLike = ".", *, again: bool = False, dry_run: bool = False, **options: object
) -> Trained | Plan:
    """Train a network, or go on with a training that did not end.

    Args:
        project: An open project or its folder.
        again: Begin a new run, though one of the same dataset and network is finished.
        dry_run: Only tell what would be done: the command, and how the network is changed.
        **options: Keys of ``[train]`` and ``[darknet]``.

    Raises:
        UsageError: The dataset was not split yet, or an option is wrong.
        InputFormError: The network file or the weights are not what they should be.
        UnavailableError: The pretrained weights cannot be fetched.
        DarknetError: No darknet, or it did not train to the end.
        LockedError: The run is being trained by another process.
    """
    opened = open_project(project, options)
    split = split_stage.load_or_complain(opened)
    if dry_run and (reason := build_stage.needs_building(opened)):
        return Plan("train", [f"build darknet first ({reason}), then train with it"])
    darknet = build_stage.run(opened).darknet
    course = _course(opened, split, darknet)
    made_from = _made_from(opened, split, course)
    run = None if again else _same_run(opened, made_from)
    if dry_run:
        return _as_plan(opened, darknet, course, run)
    for warning in course.warnings:
        _log.warning("%s", warning)
    if run is None:
        _start_weights(opened, course)  # before there is a run that would wait for them
        run = Run(opened.runs_folder / next_name(opened.runs_folder, course.network))
        run.folder.mkdir(parents=True, exist_ok=True)
    with run.lock(STAGE):
        return _train(_Task(opened, split, darknet, course, made_from), run)


@dataclass(frozen=True)
class _Task:
    """All that a training needs."""

    project: Project
    split: Split
    darknet: Darknet
    course: Course
    made_from: dict[str, object]


def _course(project: Project, split: Split, darknet: Darknet) -> Course:
    boxes = prepare_stage.boxes_table(project)
    trained_on = set(ids_in(split.list_path("train").read_text(encoding="utf-8")))
    if not trained_on:
        raise UsageError(
            "there is no image to train on", where=str(split.list_path("train")), expected="one"
        )
    used = boxes[boxes["used"] & boxes["ImageID"].isin(trained_on)]
    width, height = prepare_stage.prepared_as(project)["size"]
    widths, heights = used["XMax"] - used["XMin"], used["YMax"] - used["YMin"]
    return course_of.plan(
        project.config.train,
        base=project.folder,
        darknet=darknet,
        class_count=len(split.class_names),
        image_count=len(trained_on),
        images_size_wh=(width, height),
        box_wh=np.stack((widths, heights), axis=1),
    )


def _made_from(project: Project, split: Split, course: Course) -> dict[str, object]:
    """Give what identifies a training: the same again is the same run."""
    image_ids = {name: ids_in(_list_text(split, name)) for name in ("train", "valid")}
    weights: object = course.weights
    if course.weights not in {NO_WEIGHTS, *PRETRAINED}:
        path = project.folder / Path(course.weights).expanduser()
        check_weights(path)
        weights = {"path": str(path), "sha256": files.sha256_of(path)}
    return {
        "dataset": stamps.fingerprint(
            [image_ids, files.sha256_of(split.folder / "boxes.csv"), list(split.class_names)]
        ),
        "images": prepare_stage.prepared_as(project),
        "network": stamps.fingerprint(course.cfg.render()),
        "weights": weights,
    }


def _list_text(split: Split, name: str) -> str:
    return split.list_path(name).read_text(encoding="utf-8")


def _same_run(project: Project, made_from: dict[str, object]) -> Run | None:
    """Find the latest run of the same dataset and network; tell why the latest is another."""
    runs = runs_in(project.runs_folder)
    for run in reversed(runs):
        if run.record.get("made_from") == made_from:
            return run
    if runs:
        before = runs[-1].record.get("made_from", {})
        changed = [name for name, value in made_from.items() if before.get(name) != value]
        _log.info(
            "train: a new run, because %s changed since %s", " and ".join(changed), runs[-1].name
        )
    return None


def _as_plan(project: Project, darknet: Darknet, course: Course, run: Run | None) -> Plan:
    name = run.name if run else next_name(project.runs_folder, course.network)
    weights = None if course.weights == NO_WEIGHTS else course.weights
    argv = _command(project, darknet, weights, resume=False)
    if run is not None and run.record.get("state") == FINISHED:
        return Plan("train", [], {"run": name})
    changes = builders.diff(course.stock, course.cfg)
    actions = [
        f"{'go on with' if run else 'begin'} {name}: {course.told}",
        f"run {' '.join(argv)}",
        f"change the network so:\n{changes}" if changes else "use the network as it is",
    ]
    return Plan("train", actions, {"run": name, "command": list(argv), "cfg_diff": changes})


def _command(
    project: Project, darknet: Darknet, weights: str | None, *, resume: bool
) -> tuple[str, ...]:
    return train_command(
        darknet,
        data="obj.data",
        cfg=f"{BASE}.cfg",
        weights=weights,
        resume=resume,
        gpus=project.config.train.gpus,
        measure_map=True,
    )


def _train(task: _Task, run: Run) -> Trained:
    """Train in a run's folder whose lock the caller holds."""
    course = task.course
    max_batches = course.schedule.max_batches
    if run.record.get("state") == FINISHED and _is_final(run, course):
        return _trained(run, max_batches, seconds=0.0)
    _write_inputs(task, run)
    checkpoint, done = _checkpoint(run, task)
    resume = checkpoint is not None
    weights = checkpoint or _start_weights(task.project, course)
    argv = _command(
        task.project, task.darknet, None if weights is None else str(weights), resume=resume
    )
    run.write_record(
        name=run.name,
        state=RUNNING,
        made_from=task.made_from,
        network=course.network,
        max_batches=max_batches,
        weights=course.weights,
        command=list(argv),
        darknet=task.darknet.as_dict(),
        began_at=run.record.get("began_at") or _now(),
        resumed_at_iteration=done,
        host=platform.node(),
        oiyolo=__version__,
    )
    _log.info("train: %s %s: %s", "going on with" if resume else "begins", run.name, course.told)
    if not task.darknet.gpu and course.network not in _FOR_A_CPU:
        _log.warning(
            "train: this darknet computes on the CPU, where each of the %s iterations of %s takes "
            "seconds to minutes",
            f"{max_batches:,}",
            course.network,
        )
    started_s = time.monotonic()
    said_before = run.log_path.stat().st_size if run.log_path.is_file() else 0
    exit_code = 0
    if not _is_final(run, course):
        try:
            exit_code = supervise(
                argv, cwd=run.folder, log_path=run.log_path, total=max_batches, done=done
            )
        except KeyboardInterrupt:
            run.write_record(state=INTERRUPTED, ended_at=_now())
            raise
    seconds = time.monotonic() - started_s
    if not _is_final(run, course):
        run.write_record(state=FAILED, ended_at=_now())
        raise _failure(run, exit_code, max_batches, said_before)
    before = float(run.record.get("seconds", 0.0))
    run.write_record(state=FINISHED, ended_at=_now(), seconds=round(seconds + before, 1))
    return _trained(run, max_batches, seconds=max(seconds, 1e-3))


def _write_inputs(task: _Task, run: Run) -> None:
    """Give the run its own copies of all that darknet reads, but for the images."""
    split = task.split
    run.weights_folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "valid"):
        lines = _list_text(split, name).splitlines()
        lists.check(lines, split.list_path(name))
        files.write_text(run.folder / f"{name}.txt", "".join(f"{p}\n" for p in lists.padded(lines)))
    files.write_text(run.folder / "obj.names", "".join(f"{n}\n" for n in split.class_names))
    files.write_text(
        run.folder / "obj.data",
        data_file(
            class_count=len(split.class_names),
            train="train.txt",
            valid="valid.txt",
            names="obj.names",
            backup=run.weights_folder.name,
            results="results",
        ),
    )
    files.write_bytes(run.cfg_path, task.course.cfg.encode())


def _checkpoint(run: Run, task: _Task) -> tuple[Path | None, int]:
    """Find the sound weights with the most iterations; ``None`` and 0 if there are none."""
    best: tuple[Path | None, int] = (None, 0)
    line = task.darknet.line
    last = run.weights_folder / f"{BASE}{line.last_weights}"
    for path in [last, *sorted(run.weights_folder.glob(f"{BASE}_*.weights"))]:
        if line.best_weights and path.name.endswith(line.best_weights):
            continue
        iteration = _iteration_of(path, task.course)
        if iteration is not None and iteration > best[1]:
            best = (path, iteration)
    return best


def _iteration_of(path: Path, course: Course) -> int | None:
    """Give how many iterations weights have seen; ``None`` if they are not sound."""
    if not path.is_file():
        return None
    try:
        report = check_weights(path, course.cfg)
    except InputFormError as error:
        _log.warning("train: %s", error)
        return None
    return report.header.iteration(course.schedule.batch) if report.whole else None


def _is_final(run: Run, course: Course) -> bool:
    iteration = _iteration_of(run.weights_folder / f"{BASE}{FINAL_WEIGHTS}", course)
    return iteration is not None and iteration >= course.schedule.max_batches


def _start_weights(project: Project, course: Course) -> Path | None:
    if course.weights == NO_WEIGHTS:
        return None
    if course.weights not in PRETRAINED:
        return (project.folder / Path(course.weights).expanduser()).absolute()
    web = Web()
    size_bytes = PRETRAINED[course.weights].size_bytes

    def download(url: str, part: Path) -> None:
        with progress(course.weights, total=size_bytes, unit="B") as told:
            web.download(url, part, headers={}, told=told)

    try:
        return obtain(course.weights, cache=project.cache_folder / "weights", download=download)
    finally:
        web.close()


def _failure(run: Run, exit_code: int, max_batches: int, said_before: int) -> DarknetError:
    """Explain a failed attempt by what it said itself, after ``said_before`` bytes of the log."""
    with run.log_path.open("rb") as file:
        file.seek(said_before)
        log = file.read().decode(errors="replace").strip().splitlines()
    said = "\n".join(complaints(log) or log[-_LAST_LINES:])
    return DarknetError(
        f"darknet ended ({process.how_ended(exit_code)}) without having trained to the end",
        where=str(run.log_path),
        expected=f"{run.weights_folder.name}/{BASE}{FINAL_WEIGHTS} after {max_batches:,} "
        "iterations",
        found=f"darknet's words:\n{said or 'nothing'}\n",
        remedy="Mend the cause, then `oiyolo train` goes on from the last weights it saved",
    )


def _trained(run: Run, max_batches: int, *, seconds: float) -> Trained:
    latest = read_log(run.log_path).latest if run.log_path.is_file() else None
    return Trained(
        run=run,
        weights=run.weights_folder / f"{BASE}{FINAL_WEIGHTS}",
        iterations=max_batches,
        avg_loss=latest.avg_loss if latest else float("nan"),
        seconds=seconds,
    )


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
