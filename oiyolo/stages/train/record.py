"""Write ``run.json`` while a run is trained: attempts, events, time and cost."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING, Any, Final

from oiyolo import __version__
from oiyolo.core.clock import utc_now
from oiyolo.darknet.gpus import gpus
from oiyolo.stages.train.call_options import option_words
from oiyolo.stages.train.inputs import record_fields
from oiyolo.training.run import RUNNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.stages.train.inputs import TrainingTask
    from oiyolo.training.run import Run

_HOUR_S: Final = 3600.0


class RunRecord:
    """The record of a run, ``run.json``; every change is written to the disk at once."""

    def __init__(self, task: TrainingTask, run: Run) -> None:
        """Record that a run, whose lock the caller holds, starts or resumes."""
        self._run = run
        self._options = task.project.config.train
        before = run.record
        self._seconds_before = float(before.get("seconds", 0.0))
        self._start_s = time.monotonic()
        run.write_record(
            name=run.name,
            state=RUNNING,
            made_from=task.recipe,
            map=run.map_source(self._options.map),
            options=option_words(task.project),
            **record_fields(task),
            darknet={**task.darknet.as_dict(), "revision": task.revision},
            gpus=[
                {"index": gpu.index, "name": gpu.name, "memory_bytes": gpu.memory_bytes}
                for gpu in gpus()
            ],
            began_at=before.get("began_at") or utc_now(),
            ended_at=None,
            outcome=None,
            host=platform.node(),
            process=os.getpid(),
            oiyolo=__version__,
        )

    @property
    def seconds(self) -> float:
        """Seconds since this call started to train."""
        return time.monotonic() - self._start_s

    def start_attempt(self, command: Sequence[str], **fields: object) -> None:
        """Record the start of an attempt."""
        attempt = {
            "command": list(command),
            "began_at": utc_now(),
            "host": platform.node(),
            **fields,
        }
        self._run.write_record(
            command=list(command),
            resumed_at_iteration=fields.get("from_iteration", 0),
            attempts=[*self._items("attempts"), attempt],
        )

    def end_attempt(self, **fields: object) -> None:
        """Record how the latest attempt ended."""
        *earlier, latest = self._items("attempts")
        self._run.write_record(attempts=[*earlier, {**latest, "ended_at": utc_now(), **fields}])
        self.write()

    def add_event(self, kind: str, message: str, **fields: object) -> None:
        """Record an event."""
        event = {"at": utc_now(), "kind": kind, "message": message, **fields}
        self._run.write_record(events=[*self._items("events"), event])

    def write(self, **changes: object) -> None:
        """Change the given keys, and update time and cost."""
        seconds = round(self._seconds_before + self.seconds, 1)
        self._run.write_record(**changes, seconds=seconds, **self._cost(seconds))

    def finish(self, state: str, outcome: str) -> None:
        """Record the end of this call: the run's state and the outcome in words."""
        self.write(state=state, outcome=outcome, ended_at=utc_now())

    def _cost(self, seconds: float) -> dict[str, object]:
        price = self._options.price_per_hour
        if price is None:
            return {}
        amount = round(seconds / _HOUR_S * price, 4)
        currency = self._options.currency or ""
        return {"cost": {"price_per_hour": price, "currency": currency, "amount": amount}}

    def _items(self, name: str) -> list[dict[str, Any]]:
        items = self._run.record.get(name)
        return items if isinstance(items, list) else []
