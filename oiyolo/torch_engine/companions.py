"""The other processes of a training on several GPUs: started, watched and ended by the first."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oiyolo.torch_engine.options import Options

_PROGRAM: Final = "from oiyolo.torch_engine.__main__ import main; sys.exit(main(sys.argv[1:]))"
_POLL_S: Final = 0.5
_END_S: Final = 10.0
"""How long the others may take to end."""
_REPORT_S: Final = 3.0
"""How long they may take to report a failure that this process noticed."""


@contextlib.contextmanager
def companions(
    argv: Sequence[str], options: Options, on_failure: Callable[[str, int], None]
) -> Iterator[Path]:
    """Start the other processes of a team, one for each further GPU, and end them at the end.

    Args:
        argv: The words of this program's command line.
        options: The same, parsed.
        on_failure: Called from another thread as soon as one of them fails, with what it printed
            and its exit code. This process might wait for that one forever, so it must end.

    Yields:
        The file through which the processes find each other.
    """
    if options.rank or len(options.gpus) < 2:  # noqa: PLR2004  (one process needs no others)
        yield options.meeting_path or Path()
        return
    with tempfile.TemporaryDirectory(prefix="oiyolo-") as folder:
        path = Path(folder, "meeting")
        command = [*process.python_command(_PROGRAM), *argv, "--meeting", str(path), "--rank"]
        others = [
            process.BackgroundProcess([*command, str(rank)], environment={}, is_idle=False)
            for rank in range(1, len(options.gpus))
        ]
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(others, ended, on_failure), daemon=True)
        watcher.start()
        try:
            yield path
            _await(others)
        except BaseException:
            watcher.join(_REPORT_S)  # the cause may be the failure of another process
            raise
        finally:
            ended.set()
            for other in others:
                other.kill()


def _watch(
    others: Sequence[process.BackgroundProcess],
    ended: threading.Event,
    on_failure: Callable[[str, int], None],
) -> None:
    while not ended.wait(_POLL_S):
        for rank, other in enumerate(others, start=1):
            result = other.poll()
            if result is not None and result.exit_code:
                end = f"process {rank} of the training ended with {result.exit_description}"
                on_failure(f"{result.output}{end}\n", max(1, result.exit_code))
                return


def _await(others: Sequence[process.BackgroundProcess]) -> None:
    end_s = time.monotonic() + _END_S
    while time.monotonic() < end_s and any(other.poll() is None for other in others):
        time.sleep(_POLL_S / 10)
