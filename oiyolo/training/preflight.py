"""What a training would die of in an hour, or learn nothing by, found in seconds before it starts.

Darknet asks for nothing until it needs it: a label that is gone ends it, or, in AlexeyAB's line,
teaches it that there is nothing to see; a folder that is missing, at the hundredth iteration; a
full disk, in the middle of a file. So everything that it will read is looked at here, in its own
words and by its own rules, out of the run's folder as it stands.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.core.errors import InputFormError, UnavailableError
from oiyolo.core.progress import progress
from oiyolo.networks import lint, memory
from oiyolo.networks.layers import expected_weight_bytes
from oiyolo.networks.schedule import schedule_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from oiyolo.core.progress import Progress
    from oiyolo.darknet.forks import Line
    from oiyolo.darknet.gpus import Gpu
    from oiyolo.networks.cfg import Cfg

_SHOWN: Final = 5
_LABELS_AT_ONCE: Final = 2000
_FIELDS: Final = 5
_FEWEST_VALID: Final = 4
"""Darknet's valid loads its first four images without asking whether there are so many
(examples/detector.c, validate_detector)."""

_KEPT_FILES: Final = 3
"""Copies of weights that are kept beside darknet's own: the last two, and the best."""

_LOG_BYTES_PER_ITERATION: Final = 1000
_GIB: Final = 1 << 30


@dataclass
class _Findings:
    """What was found: the first few in words, all of them counted."""

    shown: list[str] = field(default_factory=list)
    count: int = 0
    warnings: list[str] = field(default_factory=list)

    def add(self, what: str) -> None:
        self.count += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(what)


@dataclass(frozen=True)
class _Run:
    """What is looked at, and what was found."""

    folder: Path
    options: Mapping[str, str]
    cfg: Cfg
    line: Line
    class_count: int
    measures_map: bool
    found: _Findings = field(default_factory=_Findings)

    def path(self, option: str) -> Path:
        return self.folder / self.options.get(option, "")


def check(
    folder: Path,
    *,
    cfg: Cfg,
    line: Line,
    data: str = "obj.data",
    gpus: Sequence[Gpu] = (),
    cudnn: bool = False,
    measures_map: bool = False,
) -> list[str]:
    """Look at everything that a training will read and write.

    Args:
        folder: The run's folder, in which darknet will run, with all its files written.
        cfg: The network.
        line: The line of darknet that will train it.
        data: The name of the ``.data`` file.
        gpus: The GPUs that will train; none for a CPU.
        cudnn: They will by cuDNN.
        measures_map: It will measure mAP on the valid list.

    Returns:
        What is doubtful, a sentence each.

    Raises:
        InputFormError: Something is wrong in the lists, labels, names, folders or the network; it
            tells the first few things, and how many there are.
        UnavailableError: The weights will not fit on the disk.
    """
    options = _data_options(folder / data)
    told = options.get("classes", "0")
    run = _Run(folder, options, cfg, line, int(told) if told.isdecimal() else 0, measures_map)
    found = run.found
    _check_network(run)
    _check_names(run)
    _check_lists(run)
    _check_writable(folder, found)
    if _check_writable(run.path("backup"), found):
        _check_room(run)
    _check_memory(run, gpus, cudnn=cudnn)
    if found.count:
        more = found.count - len(found.shown)
        raise InputFormError(
            "this training cannot begin: "
            + (
                "there is something wrong"
                if found.count == 1
                else f"{found.count:,} things are wrong"
            ),
            where=str(folder),
            found="; ".join(found.shown) + (f"; and {more:,} more" if more else ""),
            remedy="If it is about images or labels, run `oiyolo prepare` and `oiyolo split`; "
            "then `oiyolo train` again",
        )
    return found.warnings


def _data_options(path: Path) -> dict[str, str]:
    """Read a ``.data`` file as darknet's ``read_data_cfg`` does, all blanks taken out."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise InputFormError("the run has no data file", where=str(path)) from None
    rows = ("".join(row.split()) for row in text.splitlines())
    pairs = (row.partition("=") for row in rows if row and row[0] not in "#;")
    options: dict[str, str] = {}
    for key, _, value in pairs:
        options.setdefault(key, value)
    return options


def _check_network(run: _Run) -> None:
    for finding in lint.lint(run.cfg, class_count=run.class_count, line=run.line.name):
        if finding.level == "error":
            run.found.add(f"{run.cfg.path}, {finding}")


def _check_names(run: _Run) -> None:
    """Compare the names' count with the classes'; a blank line is a name to darknet."""
    path = run.path("names")
    try:
        names = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        run.found.add(f"the names of the classes cannot be read: {path} ({error.strerror})")
        return
    if len(names) != run.class_count:
        run.found.add(f"{path} has {len(names)} names for {run.class_count} classes")
    if any(not name.strip() for name in names):
        run.found.add(f"{path} has an empty line, which darknet takes for a class")


def _check_lists(run: _Run) -> None:
    for name in ("train", "valid"):
        path = run.path(name)
        try:
            image_count = _count_lines(path)
        except OSError as error:
            run.found.add(f"the list of images to {name} cannot be read: {path} ({error.strerror})")
            continue
        _check_length(run, name, image_count)
        look = _Look(run, path)
        with progress(f"check {name}", total=image_count, unit="img") as told:
            boxes = look.at_all(told)
        if name == "train" and image_count and not boxes and not run.found.count:
            run.found.add(f"no image of {path} has a box: there is nothing to learn")


def _check_length(run: _Run, name: str, image_count: int) -> None:
    """Judge how many images a list has."""
    path, found = run.path(name), run.found
    if not image_count:
        if name == "train" or run.measures_map:
            found.add(f"{path} lists no image")
        else:
            found.warnings.append(f"{path} lists no image to judge the training by")
    elif name == "valid" and image_count < _FEWEST_VALID:
        found.add(f"{path} lists {image_count} images; darknet reads {_FEWEST_VALID} at least")
    elif name == "train" and image_count < (batch := schedule_of(run.cfg).batch):
        found.warnings.append(
            f"{path} lists {image_count} images, fewer than a batch of {batch}: each iteration "
            "sees some of them more than once"
        )


def _count_lines(path: Path) -> int:
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + (last != b"\n")


@dataclass(frozen=True)
class _Look:
    """A look at the images of a list and their labels."""

    run: _Run
    list_path: Path

    def at_all(self, told: Progress) -> int:
        """Look at each; give how many boxes there are."""
        boxes = 0
        # As darknet splits it: at line feeds only, and a carriage return is part of the path.
        with self.list_path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            remaining = enumerate((line.removesuffix("\n") for line in file), start=1)
            while block := list(islice(remaining, _LABELS_AT_ONCE)):
                boxes += self._at_some(block)
                told.advance(len(block))
        return boxes

    def _at_some(self, block: Sequence[tuple[int, str]]) -> int:
        read: list[tuple[str, bytes]] = []
        base = f"{self.run.folder}/"
        for number, image in block:
            # Joined as text and opened as numbers: this is done for each of a million images.
            path = image if image.startswith("/") else base + image
            if not _has_content(path):
                self._say(number, f"{image!r} is no image file" if image else "an empty line")
                continue
            label = self.run.line.label_of(path)
            content = _content(label)
            if content is None:
                beside = path.rpartition(".")[0] + ".txt"
                moved = ", where darknet looks for it by the words in the path"
                why = moved if label != beside else ""
                self._say(number, f"{image!r} has no label at {label}{why}")
            else:
                read.append((label, content))
        return self._boxes(read)

    def _say(self, number: int, what: str) -> None:
        self.run.found.add(f"{self.list_path}:{number}: {what}")

    def _boxes(self, read: Sequence[tuple[str, bytes]]) -> int:
        """Count the boxes of some labels, all at once where nothing is wrong with any."""
        words = b"\n".join(content for _, content in read).split()
        try:
            rows = np.array(words, dtype="S").astype(np.float64).reshape(-1, _FIELDS)
        except ValueError:
            rows = None
        if rows is not None and not _wrong(rows, self.run.class_count).any():
            return len(rows)
        for label, content in read:
            for what in _faults(content, self.run.class_count):
                self.run.found.add(f"{label}{what}")
        return 0 if rows is None else len(rows)


def _has_content(path: str) -> bool:
    try:
        found = os.stat(path)  # noqa: PTH116  (called for each image; half the time)
    except (OSError, ValueError):
        return False
    return found.st_size > 0 and stat.S_ISREG(found.st_mode)


def _content(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (OSError, ValueError):
        return None
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return b"".join(parts)


def _wrong(rows: npt.NDArray[np.float64], class_count: int) -> npt.NDArray[np.bool_]:
    """Tell which rows darknet would read another way than it was meant, or leave out."""
    ids, centres, sides = rows[:, 0], rows[:, 1:3], rows[:, 3:]
    with np.errstate(invalid="ignore"):
        good = (ids == np.floor(ids)) & (ids >= 0) & (ids < class_count)
        good &= ((centres >= 0) & (centres <= 1)).all(axis=1)
        good &= ((sides > 0) & (sides <= 1)).all(axis=1)
    return np.asarray(~good)


def _faults(content: bytes, class_count: int) -> Iterator[str]:
    """Name what is wrong in one label, with its line."""
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            row = np.array([float(word) for word in words]).reshape(1, _FIELDS)
        except ValueError:
            yield f":{number}: {line[:60]!r} is no class_id cx cy w h"
            continue
        if not _wrong(row, class_count)[0]:
            continue
        class_id = row[0, 0]
        if not 0 <= class_id < class_count or class_id != int(class_id):
            yield f":{number}: class {words[0]} of {class_count} (they count from 0)"
        else:
            yield f":{number}: a box outside of its image, {' '.join(words[1:])}"


def _check_writable(folder: Path, found: _Findings) -> bool:
    """Write into a folder, which is the only test of rights, quotas and mounts that holds."""
    probe = folder / f".writable-{os.getpid()}"
    try:
        probe.write_bytes(b"oiyolo")
        probe.unlink()
    except OSError as error:
        found.add(f"nothing can be written into {folder} ({error.strerror})")
        return False
    return True


def _check_room(run: _Run) -> None:
    """Refuse a training whose weights and log will not all find room."""
    backup, line = run.path("backup"), run.line
    iterations = schedule_of(run.cfg).max_batches
    count = len(line.numbered(iterations)) + 2 + bool(line.best_weights and run.measures_map)
    one_bytes = expected_weight_bytes(run.cfg)
    here_bytes = sum(path.stat().st_size for path in backup.rglob("*.weights"))
    here_bytes += sum(path.stat().st_size for path in backup.glob("*.backup"))
    log_bytes = iterations * _LOG_BYTES_PER_ITERATION
    needed_bytes = (count + _KEPT_FILES) * one_bytes + log_bytes
    left_bytes = max(one_bytes, needed_bytes - here_bytes)
    free_bytes = shutil.disk_usage(backup).free
    if left_bytes > free_bytes:
        raise UnavailableError(
            "the weights of this training will not fit on the disk",
            where=str(backup),
            expected=f"{left_bytes / 1e9:.1f} GB for up to {count + _KEPT_FILES} files of "
            f"{one_bytes / 1e6:.0f} MB, and the log",
            found=f"{free_bytes / 1e9:.1f} GB free",
            remedy="Make room, or train with fewer max_batches",
        )


def _check_memory(run: _Run, gpus: Sequence[Gpu], *, cudnn: bool) -> None:
    """Warn of GPUs with too little free memory; what it takes is an estimate."""
    schedule = schedule_of(run.cfg)
    needed = memory.need(run.cfg, line=run.line.name, cudnn=cudnn)
    images = schedule.batch // schedule.subdivisions
    for gpu in gpus:
        if needed.bytes_for(images) <= gpu.free_bytes:
            continue
        width, height = needed.size_wh
        advice = (
            "more subdivisions would help"
            if needed.bytes_for(1) <= gpu.free_bytes
            else "even one image at a time is too much"
        )
        run.found.warnings.append(
            f"GPU {gpu.index} ({gpu.name}) has {gpu.free_bytes / _GIB:.1f} GiB free, and {images} "
            f"at once of {width}x{height} take about {needed.bytes_for(images) / _GIB:.1f}: "
            f"{advice}"
        )
