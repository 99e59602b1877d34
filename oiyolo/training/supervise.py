"""Watching a program that trains: its log whole, its progress live. Knows nothing of its flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oiyolo import process
from oiyolo.progress import progress
from oiyolo.trainlog.parse import LogParser

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.trainlog.tables import Iteration


def supervise(
    argv: Sequence[str],
    *,
    cwd: Path,
    log_path: Path,
    total: int,
    done: int = 0,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a training to its end; append its lines to the log and show how it goes.

    Args:
        argv: The command.
        cwd: The folder it runs in.
        log_path: Both of its streams go there as whole lines, in the order they were written.
        total: Iterations in all.
        done: Iterations that were done before.
        environment: Variables to set beside ours.

    Returns:
        The program's exit code, which says little: judge it by what it wrote.
    """
    parser = LogParser()
    with (
        log_path.open("ab", buffering=0) as log,
        progress("train", total=total, unit="it", initial=done) as told,
    ):
        if log.tell() and not _ends_in_newline(log_path):
            log.write(b"\n")  # what a kill left of a line stays apart from what follows
        last = done

        def on_line(_: str, line: bytes) -> None:
            nonlocal last
            log.write(line + b"\n")
            for iteration in parser.feed_line(line.decode("utf-8", errors="replace")):
                told.tell(**_figures(iteration))
                told.advance(max(0, iteration.iteration - last))
                last = max(last, iteration.iteration)

        return process.stream(argv, on_line, cwd=cwd, environment=environment)


def _figures(iteration: Iteration) -> dict[str, object]:
    figures: dict[str, object] = {
        "loss": f"{iteration.loss:.3f}",
        "avg": f"{iteration.avg_loss:.3f}",
    }
    if iteration.iou == iteration.iou:
        figures["IOU"] = f"{iteration.iou:.2f}"
    figures["img/s"] = f"{iteration.images_per_s:.0f}"
    return figures


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
