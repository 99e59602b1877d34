"""Check, before training starts, everything that darknet will read and write.

Darknet notices a problem only when it gets there. A missing label ends the run or, in
AlexeyAB's fork, makes the image a negative example. A missing folder ends the run at the hundredth
iteration, and a full disk in the middle of a file. The checks here take seconds and apply
darknet's own rules to the files in the run's folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.disks import check_free_space
from oiyolo.core.errors import InputFormError
from oiyolo.core.progress import progress
from oiyolo.core.results import pluralize
from oiyolo.core.units import format_bytes
from oiyolo.darknet.lists import MIN_IMAGES, REPAIR, ImageCheck
from oiyolo.networks import lint, memory
from oiyolo.networks.layers import expected_weight_bytes
from oiyolo.networks.schedule import schedule_of
from oiyolo.training.checkpoints import state_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.darknet.forks import Fork
    from oiyolo.darknet.gpus import Gpu
    from oiyolo.darknet.program import Engine
    from oiyolo.networks.cfg import Cfg

_MAX_EXAMPLES: Final = 5
_KEPT_COPIES: Final = 3
"""Copies of weights kept in addition to darknet's own files: two last ones and the best."""
_SCORING_COPIES: Final = {True: 1, False: 2}
"""Copies of weights that are being scored and will be next, with and without hard links: with them,
the next ones are a second name of a kept copy, as are those that are being scored at first."""

_LOG_BYTES_PER_ITERATION: Final = 1000
_GIB: Final = 1 << 30


@dataclass
class _RunFiles:
    """The files of a run that are checked, the count of problems in them, and the first few."""

    folder: Path
    options: Mapping[str, str]
    cfg: Cfg
    fork: Fork
    measures_map: bool
    scores_weights: bool
    engine: Engine
    examples: list[str] = field(default_factory=list)
    problem_count: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def class_count(self) -> int:
        classes = self.options.get("classes", "0")
        return int(classes) if classes.isdecimal() else 0

    def path(self, option: str) -> Path:
        return self.folder / self.options.get(option, "")

    def add(self, problem: str) -> None:
        self.problem_count += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(problem)


def check(
    folder: Path,
    *,
    cfg: Cfg,
    fork: Fork,
    data: str = "obj.data",
    gpus: Sequence[Gpu] = (),
    cudnn: bool = False,
    measures_map: bool = False,
    scores_weights: bool = False,
    engine: Engine = "darknet",
    image_bytes: Mapping[str, int] | None = None,
    repeats: int = 0,
) -> list[str]:
    """Check everything that darknet will read and write during a run.

    Args:
        folder: The run's folder, in which darknet will run, with all its files in place.
        cfg: The network.
        fork: The fork of darknet that will train the network.
        data: The name of the ``.data`` file.
        gpus: The GPUs to train on; empty for the CPU.
        cudnn: Whether darknet uses cuDNN.
        measures_map: Whether darknet measures mAP on the valid list.
        scores_weights: Whether oiyolo scores new weights on the valid list.
        engine: The engine that trains.
        image_bytes: Size of each image when it was prepared, by id; images may be missing.
        repeats: Number of lines at the end of the train list that repeat earlier ones.

    Returns:
        The warnings, one sentence each.

    Raises:
        InputFormError: There are problems in the lists, labels, names, folders or the network; the
            error has their count and the first few.
        UnavailableError: The weights will not fit on the disk.
    """
    options = _data_options(folder / data)
    run = _RunFiles(folder, options, cfg, fork, measures_map, scores_weights, engine)
    _check_network(run)
    _check_names(run)
    _check_lists(run, image_bytes or {}, repeats)
    _check_writable(run, folder)
    if _check_writable(run, run.path("backup")):
        _check_disk_space(run)
    _check_memory(run, gpus, cudnn=cudnn)
    if run.problem_count:
        count, more = run.problem_count, run.problem_count - len(run.examples)
        problems = "there is 1 problem" if count == 1 else f"there are {count:,} problems"
        raise InputFormError(
            f"training cannot start: {problems}",
            where=str(folder),
            found="; ".join(run.examples) + (f"; and {more:,} more" if more else ""),
            remedy=f"{REPAIR}; then run the same command again",
        )
    return run.warnings


def _data_options(path: Path) -> dict[str, str]:
    """Return the options in a ``.data`` file, without any blanks, as ``read_data_cfg`` does."""
    try:
        text = files.read_text(path, errors="surrogateescape")
    except FileNotFoundError:
        raise InputFormError("the run has no .data file", where=str(path)) from None
    rows = ("".join(row.split()) for row in text.splitlines())
    pairs = (row.partition("=") for row in rows if row and row[0] not in "#;")
    options: dict[str, str] = {}
    for key, _, value in pairs:
        options.setdefault(key, value)
    return options


def _check_network(run: _RunFiles) -> None:
    for finding in lint.lint(run.cfg, class_count=run.class_count, fork=run.fork.name):
        if finding.level == "error":
            run.add(f"{run.cfg.path}, {finding}")


def _check_names(run: _RunFiles) -> None:
    """Check that there is a name for each class; darknet counts a blank line as a name."""
    path = run.path("names")
    try:
        names = files.read_text(path, errors="surrogateescape").splitlines()
    except OSError as error:
        run.add(f"the names of the classes cannot be read: {path} ({error.strerror})")
        return
    if len(names) != run.class_count:
        run.add(
            f"{path} has {pluralize(len(names), 'name')} for {pluralize(run.class_count, 'class')}"
        )
    if any(not name.strip() for name in names):
        run.add(f"{path} has an empty line, which darknet reads as a class")


def _check_lists(run: _RunFiles, image_bytes: Mapping[str, int], repeats: int) -> None:
    image_check = ImageCheck(run.class_count, run.fork.label_path, image_bytes)
    for name in ("train", "valid"):
        path = run.path(name)
        try:
            image_count = _count_lines(path) - (repeats if name == "train" else 0)
        except OSError as error:
            run.add(f"the {name} list cannot be read: {path} ({error.strerror})")
            continue
        _check_length(run, name, image_count)
        boxes = 0
        with progress(f"check {name}", total=image_count, unit="img") as bar:
            for block in image_check.check(islice(_paths(run, path), image_count), path.name):
                boxes += block.boxes
                for problem in block.problems:
                    run.add(problem)
                bar.advance(block.images)
        if name == "train" and image_count and not boxes and not run.problem_count:
            run.add(f"no image of {path} has a box, so there is nothing to learn")


def _check_length(run: _RunFiles, name: str, image_count: int) -> None:
    """Check whether a list has enough images."""
    path, listed = run.path(name), pluralize(image_count, "image")
    if not image_count:
        if name == "train" or run.measures_map:
            run.add(f"{path} lists no images")
        else:
            run.warnings.append(f"{path} lists no images to measure mAP on")
    elif name == "valid" and image_count < MIN_IMAGES:
        run.add(f"{path} lists {listed}; darknet needs at least {MIN_IMAGES}")
    elif name == "train" and image_count < (batch := schedule_of(run.cfg).batch):
        run.warnings.append(
            f"{path} lists {listed}, fewer than a batch of {batch}: an iteration sees the same "
            "image more than once"
        )


def _count_lines(path: Path) -> int:
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


def _paths(run: _RunFiles, list_path: Path) -> Iterator[str]:
    """Yield the images of a list; relative paths start from the folder in which darknet runs."""
    # Darknet splits at line feeds only: a carriage return is part of the path.
    with list_path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            path = line.removesuffix("\n")
            yield path if path.startswith("/") or not path else f"{run.folder}/{path}"


def _check_writable(run: _RunFiles, folder: Path) -> bool:
    """Return whether a file can be written to a folder; only writing one proves that."""
    probe = folder / f".writable-{os.getpid()}"
    try:
        probe.write_bytes(b"oiyolo")
        probe.unlink()
    except OSError as error:
        run.add(f"cannot write to {folder} ({error.strerror})")
        return False
    return True


def _check_disk_space(run: _RunFiles) -> None:
    """Raise if the weights and the log will not fit on the disk."""
    backup, fork = run.path("backup"), run.fork
    iterations = schedule_of(run.cfg).max_batches
    count = (
        len(fork.checkpoint_iterations(iterations))
        + 2
        + bool(fork.best_weights and run.measures_map)
    )
    one_bytes = expected_weight_bytes(run.cfg)
    existing_bytes = sum(path.stat().st_size for path in backup.rglob("*.weights"))
    existing_bytes += sum(path.stat().st_size for path in backup.glob("*.backup"))
    log_bytes = iterations * _LOG_BYTES_PER_ITERATION
    count += _KEPT_COPIES
    if run.scores_weights:
        count += _SCORING_COPIES[_has_hard_links(backup)]
    # While a new state is written, the one before it is there, too.
    all_states_bytes = 2 * state_bytes(run.cfg, run.engine)
    existing_bytes += sum(path.stat().st_size for path in backup.glob("*.state"))
    needed_bytes = count * one_bytes + all_states_bytes + log_bytes
    remaining_bytes = max(one_bytes, needed_bytes - existing_bytes)
    check_free_space(
        backup,
        remaining_bytes,
        what="the weights of this run",
        parts=f"up to {count} files of {format_bytes(one_bytes)}, and the log"
        + (f"; {format_bytes(all_states_bytes)} for momentum" if all_states_bytes else ""),
        remedy="or train with fewer max_batches",
    )


def _has_hard_links(folder: Path) -> bool:
    """Return whether the folder's file system has hard links; only making one proves that."""
    with files.part_path(folder / "probe") as probe, files.part_path(folder / "link") as link:
        try:
            probe.touch()
            os.link(probe, link)
        except OSError:
            return False
    return True


def _check_memory(run: _RunFiles, gpus: Sequence[Gpu], *, cudnn: bool) -> None:
    """Add a warning for each GPU with less free memory than the estimate."""
    schedule = schedule_of(run.cfg)
    needed = memory.estimate_memory(
        run.cfg, fork=run.fork.name, cudnn=cudnn, torch=run.engine == "torch"
    )
    images = schedule.batch // schedule.subdivisions
    for gpu in gpus:
        if needed.bytes_for(images) <= gpu.free_bytes:
            continue
        width, height = needed.size_wh
        advice = (
            "use more subdivisions"
            if needed.bytes_for(1) <= gpu.free_bytes
            else "even one image at a time is too much"
        )
        run.warnings.append(
            f"GPU {gpu.index} ({gpu.name}) has {gpu.free_bytes / _GIB:.1f} GiB free, but a "
            f"mini-batch of {images} at {width}x{height} takes about "
            f"{needed.bytes_for(images) / _GIB:.1f} GiB: {advice}"
        )
