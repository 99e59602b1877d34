"""Planned against actual: what a plan said, beside what came of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oiyolo.core import files
from oiyolo.core.errors import OiyoloError
from oiyolo.core.results import columns
from oiyolo.planning.disks import used_bytes
from oiyolo.planning.estimates import total
from oiyolo.planning.run_plan import Price, plan_path
from oiyolo.planning.units import told_bytes, told_money, told_seconds
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
    """A plan and its outcome so far; ``None`` stands for what nobody knows, or was not begun.

    Attributes:
        at: When it was planned (ISO 8601, UTC).
        of_this_selection: What was planned is what is selected now.
        pairs: Planned and actual images, bytes (over the network), fetch seconds, bytes on the
            disk, iterations, training seconds and money.
        currency: What the money is in.
    """

    at: str
    of_this_selection: bool
    pairs: Mapping[str, _Pair]
    currency: str

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON knows it."""
        pairs = {
            name: {"planned": planned, "actual": actual}
            for name, (planned, actual) in self.pairs.items()
        }
        of = {"at": self.at, "of_this_selection": self.of_this_selection}
        return {**of, **pairs, "currency": self.currency}

    def __str__(self) -> str:
        rows = [("", "planned", "actual")]
        for name, (planned, actual) in self.pairs.items():
            if (planned, actual) != (None, None):
                told = self._told(name)
                rows.append((name.partition("_")[0], told(planned), told(actual)))
        note = "" if self.of_this_selection else ", of another selection than there is now"
        return f"plan of {self.at}{note}\n{columns(rows)}"

    def _told(self, name: str) -> Callable[[float | None], str]:
        if name == "money":
            return lambda value: told_money(value, self.currency)
        if name.endswith("seconds"):
            return told_seconds
        if name.startswith(("bytes", "disk")):
            return told_bytes
        return lambda value: "?" if value is None else f"{value:,.0f}"


def comparison(project: Project, ledger: Ledger) -> Comparison | None:
    """Compare the plan that lies there with what came of it; ``None`` without one."""
    path = plan_path(project)
    plan = files.read_json(path)
    if plan is None:
        return None
    try:
        return _compared(project, ledger, plan)
    except (KeyError, TypeError, AttributeError):
        _log.warning("%s is no plan; `oiyolo plan` writes it anew", path)
        return None


def _compared(project: Project, ledger: Ledger, plan: dict[str, Any]) -> Comparison:
    fetch, training, money = plan["fetch"], plan["training"], plan["money"] or {}
    effort = fetch_stage.effort(project)
    fetch_s = effort.seconds or None
    iterations, train_s = _trained(project, str(training["network"]))
    price = Price(money["price_per_hour"], money["currency"]) if money else None
    spent = [price.of(s) for s in (fetch_s, train_s) if s is not None] if price else []
    selection = select_stage.load(project)
    source_of, bytes_of = (ledger.facts(name, *STATES[1:]) for name in ("source", "bytes"))
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


def _trained(project: Project, network: str) -> tuple[int | None, float | None]:
    """Give iterations and seconds of the latest run of a network; ``None`` without one."""
    runs = [run for run in runs_in(project.runs_folder) if run.record.get("network") == network]
    if not runs:
        return None, None
    run, record = runs[-1], runs[-1].record
    whole_s = float(record.get("seconds") or 0.0)
    if record.get("state") == FINISHED and not record.get("resumed_at_iteration"):
        return int(record["max_batches"]), whole_s
    iterations, logged_s = _logged(run)
    # run.json keeps the time of the last attempt only, the log what darknet says of all.
    done = int(record["max_batches"]) if record.get("state") == FINISHED else iterations
    return done, max(whole_s, logged_s)


def _logged(run: Run) -> tuple[int, float]:
    try:
        metrics = read_log(run.log_path).metrics()
    except (OiyoloError, OSError):
        return 0, 0.0
    if metrics.empty:
        return 0, 0.0
    return int(metrics["iteration"].max()), float(metrics["seconds"].sum())
