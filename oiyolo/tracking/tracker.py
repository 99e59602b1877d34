"""What a tracker receives about a run, and the interface of the trackers that are servers."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from oiyolo.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.tracking.outbox import Row

TITLES: Final = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "Weights & Biases"}
"""The trackers, each also the name of its extra and of its library, by their names for people."""


@dataclass(frozen=True)
class RunFacts:
    """What is known about a run now.

    Attributes:
        name: Its name.
        project: The name of its project.
        folder: Its folder.
        state: Its state, as in ``run.json``.
        parameters: What it was configured with: texts and numbers.
        labels: Short words to find it by: its network and engine.
        began_at_s: When it began, in seconds since 1970; 0 if unknown.
        files: The files that are sent, by name, which is mostly the path in the run's folder.
    """

    name: str
    project: str
    folder: Path
    state: str
    parameters: Mapping[str, object]
    labels: Mapping[str, str] = field(default_factory=dict)
    began_at_s: float = 0.0
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass
class TrackerRecord:
    """What a tracker has of a run: ``tracking/<tracker>.json`` in the run's folder.

    Attributes:
        key: An identifier that is chosen before the run exists in the tracker, which makes it
            possible to find it again.
        run_id: The tracker's id of the run; empty if it does not exist yet.
        address: Where the tracker stores it, without secrets.
        url: The run's page; empty if unknown.
        sent: Number of points that were sent.
        sending: Number of points sent if the last request succeeded, whose response is unknown
            while this is more than ``sent``.
        has_parameters: Whether the parameters were sent.
        state: The state that was sent.
        files: Fingerprints of the files that were sent, by name.
        seen: Fingerprint of everything that the last complete update sent.
        problem: Why the last update failed; empty if it did not.
    """

    key: str = ""
    run_id: str = ""
    address: str = ""
    url: str = ""
    sent: int = 0
    sending: int = 0
    has_parameters: bool = False
    state: str = ""
    files: dict[str, str] = field(default_factory=dict)
    seen: str = ""
    problem: str = ""


class Tracker(Protocol):
    """A client of a tracker that is a server; its methods raise any error."""

    batch_values: int
    """How many values to send at once."""

    def open(self, facts: RunFacts, status: TrackerRecord) -> int | None:
        """Create the run or open it again, and set its id, address and URL in the status.

        Returns:
            How many points the tracker has; ``None`` if only the status says that.
        """

    def send_parameters(self, facts: RunFacts) -> None:
        """Send the parameters; the tracker may have them already."""

    def send_points(self, rows: Sequence[Row], first: int, *, may_repeat: bool) -> None:
        """Send points.

        Args:
            rows: The points.
            first: Number of the first, counted from 0.
            may_repeat: Whether the tracker may have some of them.
        """

    def send_files(self, names: Sequence[str], facts: RunFacts) -> None:
        """Send those of the run's files that have these names, in place of older ones."""

    def send_state(self, state: str) -> None:
        """Send the run's state, of those in ``run.json``."""

    def close(self, state: str) -> None:
        """Disconnect; return when everything has been received."""


def check_installed(names: Sequence[str]) -> None:
    """Raise UsageError if the library of a tracker is missing, or has no place to log to."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"[train] log_to: {TITLES[name]} is not installed",
                found=name,
                remedy=f"Install it: pip install 'oiyolo[{name}]'",
            )
    has_uri = os.environ.get("MLFLOW_TRACKING_URI")
    # Without a server, MLflow itself logs to a database in the current folder.
    if "mlflow" in names and not has_uri and importlib.util.find_spec("sqlalchemy") is None:
        raise UsageError(
            "[train] log_to: MLflow needs the address of its server",
            expected="the environment variable MLFLOW_TRACKING_URI",
            found="no such variable",
            remedy="Set it, for example to http://127.0.0.1:5000, where `mlflow server` listens",
        )
