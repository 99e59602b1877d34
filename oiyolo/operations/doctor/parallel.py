"""Run tasks in parallel threads with a common deadline."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from oiyolo.core.errors import OiyoloError
from oiyolo.net.retry import HttpFailureError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class NoAnswer(Exception):  # noqa: N818  (it is returned, not raised)
    """Stands in for the result of a task that failed or timed out; its text says why."""


def gather(tasks: Mapping[str, Callable[[], Any]], *, deadline_s: float) -> dict[str, Any]:
    """Run all tasks in parallel, each in its own thread.

    A thread that hangs is abandoned; it ends with the process, and so do programs it started.

    Args:
        tasks: Functions by name.
        deadline_s: Maximum time to wait for all of them.

    Returns:
        The results by name, in the order of the tasks; a ``NoAnswer`` for a task that failed or
        did not finish in time.
    """
    answers: dict[str, Any] = {}

    def execute(name: str, task: Callable[[], Any]) -> None:
        try:
            answers[name] = task()
        except (OiyoloError, HttpFailureError) as error:
            answers[name] = NoAnswer(str(error))
        except Exception as error:  # noqa: BLE001  (a failed task becomes a row of the table)
            answers[name] = NoAnswer(f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=execute, args=item, name=f"doctor: {item[0]}", daemon=True)
        for item in tasks.items()
    ]
    for thread in threads:
        thread.start()
    end_s = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    late = NoAnswer(f"no answer within {deadline_s:g} s")
    received = dict(answers)  # a late thread may still write
    return {name: received.get(name, late) for name in tasks}
