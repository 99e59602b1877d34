"""What ``run.json`` says of a training: its attempts, what happened, what it took and cost."""

from __future__ import annotations

import datetime as dt
import platform
import time
from typing import TYPE_CHECKING, Any, Final

from oiyolo import __version__
from oiyolo.darknet.gpus import gpus
from oiyolo.darknet.program import revision
from oiyolo.stages.train.inputs import facts
from oiyolo.training.run import RUNNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.darknet.program import Darknet
    from oiyolo.stages.train.inputs import Task
    from oiyolo.training.run import Run

_HOUR_S: Final = 3600.0


class Record:
    """Keeps ``run.json`` up to date; every change is on the disk at once."""

    def __init__(self, task: Task, run: Run) -> None:
        """Note that a run begins, or goes on.

        Args:
            task: What it is.
            run: The run, whose lock the caller holds.
        """
        self._run = run
        self._options = task.project.config.train
        before = run.record
        self._seconds_before = float(before.get("seconds", 0.0))
        self._began_s = time.monotonic()
        run.write_record(
            name=run.name,
            state=RUNNING,
            made_from=task.made_from,
            **facts(task),
            darknet=_told(task.darknet),
            gpus=[
                {"index": gpu.index, "name": gpu.name, "memory_bytes": gpu.memory_bytes}
                for gpu in gpus()
            ],
            began_at=before.get("began_at") or now(),
            ended_at=None,
            outcome=None,
            host=platform.node(),
            oiyolo=__version__,
        )

    @property
    def seconds(self) -> float:
        """How long this call has trained."""
        return time.monotonic() - self._began_s

    def begin(self, command: Sequence[str], **more: object) -> None:
        """Note an attempt."""
        attempt = {"command": list(command), "began_at": now(), "host": platform.node(), **more}
        self._run.write_record(
            command=list(command),
            resumed_at_iteration=more.get("from_iteration", 0),
            attempts=[*self._list("attempts"), attempt],
        )

    def end(self, **more: object) -> None:
        """Note how the attempt ended."""
        *earlier, latest = self._list("attempts")
        self._run.write_record(attempts=[*earlier, {**latest, "ended_at": now(), **more}])
        self.write()

    def event(self, kind: str, told: str, **more: object) -> None:
        """Note what happened."""
        happened = {"at": now(), "kind": kind, "told": told, **more}
        self._run.write_record(events=[*self._list("events"), happened])

    def write(self, **changes: object) -> None:
        """Change some of it, with what it took and cost until now."""
        seconds = round(self._seconds_before + self.seconds, 1)
        self._run.write_record(**changes, seconds=seconds, **self._cost(seconds))

    def close(self, state: str, outcome: str) -> None:
        """Note the end."""
        self.write(state=state, outcome=outcome, ended_at=now())

    def _cost(self, seconds: float) -> dict[str, object]:
        price = self._options.price_per_hour
        if price is None:
            return {}
        amount = round(seconds / _HOUR_S * price, 4)
        currency = self._options.currency or ""
        return {"cost": {"price_per_hour": price, "currency": currency, "amount": amount}}

    def _list(self, name: str) -> list[dict[str, Any]]:
        found = self._run.record.get(name)
        return found if isinstance(found, list) else []


def _told(darknet: Darknet) -> dict[str, object]:
    return {**darknet.as_dict(), "revision": revision(darknet)}


def now() -> str:
    """Give the time as run.json has it."""
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
