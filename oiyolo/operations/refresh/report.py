"""Keep a log of all refreshes in ``data/refresh.log``, and call ``[refresh] on_failure``."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import socket
import time
import traceback
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, output
from oiyolo.core.clock import utc_now
from oiyolo.core.errors import LockedError, OiyoloError, UnavailableError
from oiyolo.operations.refresh.hooks import call_hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeVar

    from oiyolo.core.results import Result
    from oiyolo.project.project import Project

    Done = TypeVar("Done", bound=Result)

_log = logging.getLogger("oiyolo")

NAME: Final = "refresh.log"
MAX_BYTES: Final = 1_000_000
"""Size above which the log is renamed to ``refresh.log.1``."""
OLD_FILES: Final = 3
_INDENT: Final = "    "


def with_report(project: Project, operation: Callable[[], Done]) -> Done:
    """Run a refresh, and log how it ended; if it fails, call ``[refresh] on_failure`` as well.

    An interruption is logged, but no failure.

    Args:
        project: The project.
        operation: Function that refreshes it.

    Returns:
        What the function returns.
    """
    started_s = time.monotonic()
    with _warnings() as warnings:
        try:
            done = operation()
        except KeyboardInterrupt:
            _write(project, f"interrupted after {_since(started_s)}", warnings)
            raise
        except Exception as error:
            exit_code, duration = _exit_code(error), _since(started_s)
            if (target := project.config.refresh.on_failure) is not None:
                call_hook(target, _facts(project, error, exit_code))
            details = [] if isinstance(error, OiyoloError) else traceback.format_exception(error)
            line = f"failed after {duration}, exit code {exit_code}: {_message(error)}"
            _write(project, line, [*warnings, *details], rotates=not isinstance(error, LockedError))
            raise
        _write(project, f"done after {_since(started_s)}: {done}", warnings)
    return done


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, OiyoloError) else f"{type(error).__name__}: {error}"


def _exit_code(error: Exception) -> int:
    """Return the exit code that an error causes."""
    if isinstance(error, OiyoloError):
        return error.exit_code
    return (UnavailableError if isinstance(error, OSError) else OiyoloError).exit_code


def _facts(project: Project, error: Exception, exit_code: int) -> dict[str, object]:
    message = _message(error)
    return {
        "event": "failure",
        "text": f"oiyolo refresh failed in {project.folder}: {message}",
        "project": str(project.folder),
        "host": socket.gethostname(),
        "at": utc_now(),
        "exit_code": exit_code,
        "error": message,
    }


class _Warnings(logging.Handler):
    """Collects warnings, which may not reach the terminal."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Collect one warning."""
        self.lines.append(f"{record.levelname.lower()}: {record.getMessage()}")


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Yield the list to which the warnings of the block are appended."""
    handler = _Warnings()
    _log.addHandler(handler)
    try:
        yield handler.lines
    finally:
        _log.removeHandler(handler)


def _since(started_s: float) -> str:
    return f"{dt.timedelta(seconds=round(time.monotonic() - started_s))}"


def _write(project: Project, line: str, details: Sequence[str], *, rotates: bool = True) -> None:
    """Append a line to the log, and details below it; a log that cannot be written is no failure.

    All of it is written at once, so that another refresh, which finds the dataset locked, does not
    mix its line with it.

    Args:
        project: The project.
        line: How the refresh ended.
        details: Texts that explain it.
        rotates: Whether to rename a log that is too large; the holder of the lock does that.
    """
    path = project.data_folder / NAME
    rows = [row for text in details for row in text.splitlines()]
    text = "".join(f"{row}\n" for row in (f"{utc_now()} {line}", *(_INDENT + row for row in rows)))
    with contextlib.suppress(OSError):
        if rotates:
            _rotate(path)
        descriptor = files.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(descriptor, output.printable(text).encode())
        finally:
            os.close(descriptor)


def _rotate(path: Path) -> None:
    """Rename a log that is too large, and the older ones; the oldest is replaced."""
    if not path.is_file() or path.stat().st_size < MAX_BYTES:
        return
    for number in range(OLD_FILES, 0, -1):
        source = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        with contextlib.suppress(FileNotFoundError):
            source.replace(path.with_name(f"{path.name}.{number}"))
