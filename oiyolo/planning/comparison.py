"""Compare a plan with the actual outcome."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oiyolo.core import files
from oiyolo.core.errors import OiyoloError
from oiyolo.core.results import format_table
from oiyolo.planning.disks import used_bytes
from oiyolo.planning.estimates import total
from oiyolo.planning.run_plan import Price, plan_path
from oiyolo.planning.units import format_bytes, format_duration, format_money
from oiyolo.project.ledger import STATES
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import select as select_stage
from oiyolo.training.run import FINISHED, runs_in
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

_Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class Comparison:
    """A plan and the outcome so far.

    Attributes:
        at: Time of the plan (ISO 8601, UTC).
        of_this_selection: Whether the plan was made for the current selection.
        pairs: Planned and actual number of images, network bytes, fetch seconds, bytes on disk,
            iterations, training seconds and money; ``None`` where unknown or not started yet.
        currency: Currency of the money; may be empty.
    """

    at: str
    of_this_selection: bool
    pairs: Mapping[str, _Pair]
    currency: str

    def as_dict(self) -> dict[str, object]:
        """Return the comparison as JSON-compatible values."""
        pairs = {
            name: {"planned": planned, "actual": actual}
            for name, (planned, actual) in self.pairs.items()
        }
        header = {"at": self.at, "of_this_selection": self.of_this_selection}
        return {**header, **pairs, "currency": self.currency}

    def __str__(self) -> str:
        rows = [("", "planned", "actual")]
        for name, (planned, actual) in self.pairs.items():
            if (planned, actual) != (None, None):
                format_value = self._formatter(name)
                rows.append((name.partition("_")[0], format_value(planned), format_value(actual)))
        note = "" if self.of_this_selection else ", for a different selection than the current one"
        return f"plan of {self.at}{note}\n{format_table(rows)}"

    def _formatter(self, name: str) -> Callable[[float | None], str]:
        if name == "money":
            return lambda value: format_money(value, self.currency)
        if name.endswith("seconds"):
            return format_duration
        if name.startswith(("bytes", "disk")):
            return format_bytes
        return lambda value: "?" if value is None else f"{value:,.0f}"


def comparison(project: Project, ledger: Ledger) -> Comparison | None:
    """Return the comparison of the project's plan with the outcome; ``None`` without a plan."""
    path = plan_path(project)
    plan = files.read_json(path)
    if plan is None:
        return None
    try:
        return _compare(project, ledger, plan)
    except (KeyError, TypeError, AttributeError):
        _log.warning("%s is not a valid plan; `oiyolo plan` writes a new one", path)
        return None


def _compare(project: Project, ledger: Ledger, plan: dict[str, Any]) -> Comparison:
    fetch, training, money = plan["fetch"], plan["training"], plan["money"] or {}
    stats = fetch_stage.read_stats(project)
    fetch_s = stats.seconds or None
    iterations, train_s = _latest_training(project, str(training["network"]))
    price = Price(money["price_per_hour"], money["currency"]) if money else None
    spent = [price.cost(s) for s in (fetch_s, train_s) if s is not None] if price else []
    selection = select_stage.find(project)
    source_of, bytes_of = (ledger.column(name, *STATES[1:]) for name in ("source", "bytes"))
    return Comparison(
        at=plan["at"],
        of_this_selection=selection is not None and selection.fingerprint == plan["selection"],
        pairs={
            "images": (fetch["images"], len(source_of)),
            "bytes": (fetch["bytes"], _network_bytes(source_of, bytes_of)),
            "fetch_seconds": (fetch["seconds"], fetch_s),
            "disk_bytes": (
                plan["final_bytes"],
                used_bytes(project.data_folder) + used_bytes(project.runs_folder),
            ),
            "iterations": (training["iterations"], iterations),
            "training_seconds": (training["seconds"], train_s),
            "money": (money.get("total"), total(spent) if spent else None),
        },
        currency=money.get("currency", ""),
    )


def _network_bytes(source_of: Mapping[str, object], bytes_of: Mapping[str, object]) -> int:
    sizes = [
        size
        for image_id, size in bytes_of.items()
        if isinstance(size, int) and not Path(str(source_of[image_id])).is_absolute()
    ]
    return sum(sizes)


def _latest_training(project: Project, network: str) -> tuple[int | None, float | None]:
    """Return the iterations and seconds of a network's latest run; ``None`` without a run."""
    runs = [run for run in runs_in(project.runs_folder) if run.record.get("network") == network]
    if not runs:
        return None, None
    run, record = runs[-1], runs[-1].record
    recorded_s = float(record.get("seconds") or 0.0)
    if record.get("state") == FINISHED and not record.get("resumed_at_iteration"):
        return int(record["max_batches"]), recorded_s
    iterations, logged_s = _logged(run)
    # run.json has the time of the last attempt only; the log has darknet's times of all attempts.
    done = int(record["max_batches"]) if record.get("state") == FINISHED else iterations
    return done, max(recorded_s, logged_s)


def _logged(run: Run) -> tuple[int, float]:
    """Return the last iteration and the total seconds in a run's log; zeros without a log."""
    try:
        metrics = read_log(run.log_path).metrics()
    except (OiyoloError, OSError):
        return 0, 0.0
    if metrics.empty:
        return 0, 0.0
    return int(metrics["iteration"].max()), float(metrics["seconds"].sum())
