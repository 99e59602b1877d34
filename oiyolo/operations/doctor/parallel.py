"""Asking many things at once, and waiting for none of them longer than is worth while."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from oiyolo.core.errors import OiyoloError
from oiyolo.net.download import HttpFailureError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Silent(Exception):  # noqa: N818  (nobody raises it)
    """What gave no answer; the text says why."""


def gather(tasks: Mapping[str, Callable[[], Any]], *, deadline_s: float) -> dict[str, Any]:
    """Do all of it at once, each in a thread of its own.

    A thread that hangs is left behind; it ends with the process, and so does what it started.

    Args:
        tasks: What to ask, by name.
        deadline_s: How long to wait for all of it.

    Returns:
        What each gave, by name, in the order of the tasks; a ``Silent`` where it failed, or had not
        ended by then.
    """
    answers: dict[str, Any] = {}

    def ask(name: str, task: Callable[[], Any]) -> None:
        try:
            answers[name] = task()
        except (OiyoloError, HttpFailureError) as error:
            answers[name] = Silent(str(error))
        except Exception as error:  # noqa: BLE001  (one thing that fails is a row, not the end)
            answers[name] = Silent(f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=ask, args=item, name=f"doctor: {item[0]}", daemon=True)
        for item in tasks.items()
    ]
    for thread in threads:
        thread.start()
    end_s = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    late = Silent(f"no answer within {deadline_s:g} s")
    came = dict(answers)  # a late thread may still write
    return {name: came.get(name, late) for name in tasks}
