"""``oiyolo`` and ``python -m oiyolo``."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO


def main() -> None:
    """Run the command line and exit with its code."""
    _replace_closed_streams()
    os.environ.pop("MPLBACKEND", None)  # charts need no window, and matplotlib rejects bad names
    from oiyolo.cli import main as run  # noqa: PLC0415  (keeps ``import oiyolo.__main__`` free)

    exit_code = run()
    _discard_unwritable()
    gc.freeze()  # Python looks for cycles several times as it ends; all is given back anyhow
    sys.exit(exit_code)


def _replace_closed_streams() -> None:
    """Open the standard streams that were closed when Python started.

    Otherwise the next file that is opened would get the number of such a stream, and be written to
    by any program that prints. A closed stdout is opened for reading, so that writing to it fails:
    a result that nobody receives is an error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            flags = os.O_WRONLY if name == "stderr" else os.O_RDONLY
            os.dup2(os.open(os.devnull, flags), number)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


def _discard_unwritable() -> None:
    """Discard what cannot be written, about which Python would complain as it ends."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # it is closed
            if not _is_flushed(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_flushed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
