"""The engine as a program, called as darknet is."""

from __future__ import annotations

import logging
import signal
import sys

from oiyolo.core.errors import OiyoloError
from oiyolo.torch_engine.allocation import keep_freed_memory
from oiyolo.torch_engine.options import parse


def main(argv: list[str]) -> int:
    """Train; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse(argv)
    keep_freed_memory()
    try:
        from oiyolo.torch_engine.training import Training  # noqa: PLC0415  (torch takes seconds)

        received = Training(options, _write).run()
    except OiyoloError as error:
        _write(f"Error: {error}\n")
        return error.exit_code
    if received:  # end as a program does that does not handle the signal
        signal.signal(received, signal.SIG_DFL)
        signal.raise_signal(received)
    return 0


def _write(text: str) -> None:
    """Write lines at once, so that they arrive in the order in which they were written."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
