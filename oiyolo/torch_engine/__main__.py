"""The engine as a program, called as darknet is."""

from __future__ import annotations

import logging
import os
import signal
import sys

from oiyolo.core.errors import OiyoloError
from oiyolo.torch_engine.allocation import keep_freed_memory
from oiyolo.torch_engine.companions import companions
from oiyolo.torch_engine.options import parse


def main(argv: list[str]) -> int:
    """Train; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(argv)
    keep_freed_memory()
    try:
        with companions(argv, options, _end) as meeting_path:
            from oiyolo.torch_engine.training import Training  # noqa: PLC0415  (takes seconds)

            write = _write if options.rank == 0 else _discard
            received = Training(options, write, meeting_path).run()
    except OiyoloError as error:
        _write(f"Error: {error}\n")
        return error.exit_code
    if received and options.rank == 0:  # end as a program does that does not handle the signal
        signal.signal(received, signal.SIG_DFL)
        signal.raise_signal(received)
    return 0


def _end(text: str, exit_code: int) -> None:
    """Write a text and end this process, whatever its threads wait for."""
    _write(text)
    os._exit(exit_code)


def _discard(_: str) -> None:
    """Write nothing: the first of several processes writes the log."""


def _write(text: str) -> None:
    """Write lines at once, so that they arrive in the order in which they were written."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
