"""Compare a plan with the actual outcome."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from oiyolo.core import records
from oiyolo.core.disks import used_bytes
from oiyolo.core.errors import OiyoloError
from oiyolo.core.results import format_table, table_html, text_html
from oiyolo.core.units import cost, format_bytes, format_duration, format_money
from oiyolo.project.ledger import STATES
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import select as select_stage
from oiyolo.training.run import FINISHED
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.training.run import Run

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
        return f"{self.headline}\n{format_table(self.rows())}"

    def _repr_html_(self) -> str:
        return text_html(self.headline) + table_html(self.rows())

    @property
    def headline(self) -> str:
        """When the plan was made, and whether for another selection."""
        note = "" if self.of_this_selection else ", for a different selection than the current one"
        return f"plan of {self.at}{note}"

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the heading of a table, and a row for each figure that is known."""
        rows = [("", "planned", "actual")]
        for name, pair in self.pairs.items():
            if pair != (None, None):
                planned, actual = (self._text(name, value) for value in pair)
                rows.append((name.partition("_")[0], planned, actual))
        return rows

    def _text(self, name: str, value: float | None) -> str:
        if name == "money":
            return format_money(value, self.currency)
        if name.endswith("seconds"):
            return format_duration(value)
        if name.endswith("bytes"):
            return format_bytes(value)
        return "?" if value is None else f"{value:,.0f}"


class _Fetch(TypedDict):
    images: float
    bytes: float
    seconds: float | None


class _Training(TypedDict):
    network: str
    iterations: int
    seconds: float | None


class _Money(TypedDict):
    price_per_hour: float
    currency: str
    total: float | None


class _Plan(TypedDict):
    """The parts of ``plan.json`` that are compared."""

    at: str
    selection: str
    fetch: _Fetch
    training: _Training
    money: _Money | None
    final_bytes: float


def comparison(project: Project, ledger: Ledger, runs: Sequence[Run]) -> Comparison | None:
    """Return the comparison of the project's plan with the outcome; ``None`` without a plan.

    Args:
        project: The project.
        ledger: Its ledger.
        runs: Its runs, the oldest first.

    Raises:
        InputFormError: ``plan.json`` or ``selection.json`` is damaged.
    """
    remedy = "Run `oiyolo plan`, which writes it again"
    plan = records.find(project.plan_path, _Plan, remedy=remedy)
    return None if plan is None else _compare(project, ledger, plan, runs)


def _compare(
    project: Project, ledger: Ledger, plan: dict[str, Any], runs: Sequence[Run]
) -> Comparison:
    fetch, training, money = plan["fetch"], plan["training"], plan["money"] or {}
    fetch_s = fetch_stage.read_stats(project).seconds or None
    iterations, training_s = _latest_training(runs, training["network"])
    known_s = [seconds for seconds in (fetch_s, training_s) if seconds is not None]
    spent = cost(sum(known_s), money["price_per_hour"]) if money and known_s else None
    selection = select_stage.find(project)
    source_of, bytes_of = (ledger.column(name, *STATES[1:]) for name in ("source", "bytes"))
    network_bytes = sum(
        size
        for image_id, size in bytes_of.items()
        if isinstance(size, int) and not Path(str(source_of[image_id])).is_absolute()
    )
    disk_bytes = used_bytes(project.data_folder) + used_bytes(project.runs_folder)
    return Comparison(
        at=plan["at"],
        of_this_selection=selection is not None and selection.fingerprint == plan["selection"],
        pairs={
            "images": (fetch["images"], len(source_of)),
            "bytes": (fetch["bytes"], network_bytes),
            "fetch_seconds": (fetch["seconds"], fetch_s),
            "disk_bytes": (plan["final_bytes"], disk_bytes),
            "iterations": (training["iterations"], iterations),
            "training_seconds": (training["seconds"], training_s),
            "money": (money.get("total"), spent),
        },
        currency=money.get("currency", ""),
    )


def _latest_training(all_runs: Sequence[Run], network: str) -> tuple[int | None, float | None]:
    """Return the iterations and seconds of a network's latest run; ``None`` without a run."""
    runs = [run for run in all_runs if run.record.get("network") == network]
    if not runs:
        return None, None
    run, record = runs[-1], runs[-1].started_record
    is_finished = record.get("state") == FINISHED
    recorded_s = float(record.get("seconds") or 0.0)
    if is_finished and not record.get("resumed_at_iteration"):
        return int(record["max_batches"]), recorded_s
    # run.json has the time of the last attempt only; the log has darknet's times of all attempts.
    iterations, logged_s = 0, 0.0
    with contextlib.suppress(OiyoloError, OSError):
        metrics = read_log(run.log_path).metrics()
        if not metrics.empty:
            iterations, logged_s = int(metrics["iteration"].max()), float(metrics["seconds"].sum())
    return int(record["max_batches"]) if is_finished else iterations, max(recorded_s, logged_s)
