"""Send runs to Weights & Biases, or write them into its folder of offline runs.

Its own variables apply: ``WANDB_MODE``, ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_NAME``,
``WANDB_TAGS``, ``WANDB_DIR``, ``WANDB_API_KEY``, ``WANDB_BASE_URL``. Without a project, it is named
after the oiyolo project. Offline runs are in the folder ``tracking/`` of the run.

A point is a step of the run's history, with the column ``iteration`` as the x axis of all charts:
W&B drops values for earlier steps, but scores of weights are known only later.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import wandb
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.tracking.outbox import Row
    from oiyolo.tracking.tracker import RunFacts, TrackerRecord

_X_AXIS: Final = "iteration"
_BEST: Final = {"valid_map50": "max", "map": "max", "valid_loss": "min"}
"""How the summary of a run is formed, where the last value is not the right one."""
_WITH_WEIGHTS: Final = ("network.cfg", "obj.names")
_FILE_HEAD_BYTES: Final = 7
_BLOCK_BYTES: Final = 32_768
_CHUNK_HEAD: Final = struct.Struct("<IHB")
_ENDS: Final = (1, 4)
"""Kinds of chunks that end a record: the whole record, its last part."""


class WandbTracker:
    """A client of Weights & Biases for one run."""

    batch_values = 10_000

    def __init__(self) -> None:
        self._run: Any = None

    def open(self, facts: RunFacts, status: TrackerRecord) -> int | None:
        """Create the run with the key as its id, or resume it."""
        folder = Path(os.environ.get("WANDB_DIR") or facts.folder / "tracking")
        folder.mkdir(parents=True, exist_ok=True)
        status.run_id = status.run_id or os.environ.get("WANDB_RUN_ID") or status.key
        has = _points_offline(folder, status.run_id)
        self._run = wandb.init(
            id=status.run_id,
            resume="allow",
            project=os.environ.get("WANDB_PROJECT") or facts.project,
            name=os.environ.get("WANDB_NAME") or facts.name,
            tags=None if os.environ.get("WANDB_TAGS") else list(facts.labels.values()),
            job_type="train",
            dir=str(folder),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric(_X_AXIS, hidden=True)
        self._run.define_metric("*", step_metric=_X_AXIS)
        for tag, summary in _BEST.items():
            self._run.define_metric(tag, step_metric=_X_AXIS, summary=summary)
        status.url = self._run.url or ""
        status.address = str(folder) if self._run.offline else status.url
        return has if self._run.offline else int(self._run.starting_step)

    def send_parameters(self, facts: RunFacts) -> None:
        """Set the configuration of the run."""
        self._run.config.update(dict(facts.parameters), allow_val_change=True)

    def send_points(self, rows: Sequence[Row], first: int, *, may_repeat: bool) -> None:  # noqa: ARG002  (W&B drops steps that it has)
        """Add each point as a step of the history, whose number is the point's."""
        for number, row in enumerate(rows, first):
            self._run.log({_X_AXIS: row.iteration, **row.values}, step=number, commit=True)

    def send_files(self, names: Sequence[str], facts: RunFacts) -> None:
        """Send weights, with what is needed to use them, as a model, and the rest as files."""
        weights = [name for name in facts.files if name.endswith(".weights")]
        if set(weights) & set(names):
            artifact = wandb.Artifact(f"run_{self._run.id}_model", type="model")
            for name in (*weights, *_WITH_WEIGHTS):
                path, file_name = str(facts.files[name]), name.rpartition("/")[2]
                artifact.add_file(path, name=file_name, skip_cache=True, policy="immutable")
            self._run.log_artifact(artifact, aliases=["latest", "best"])
        for name in names:
            if name not in weights:
                self._run.save(str(facts.files[name]), base_path=str(facts.folder), policy="now")

    def send_state(self, state: str) -> None:
        """Do nothing: closing the run sends its state."""

    def close(self, state: str) -> None:
        """End this session, after everything was received; a later one can resume the run."""
        if self._run is not None:
            self._run.finish(exit_code=0 if state == "finished" else 1)
            self._run = None


def _points_offline(folder: Path, run_id: str) -> int:
    """Return how many steps the offline runs in a folder have: a killed process may lose some."""
    paths = folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    steps = (step.step.num for path in paths for step in _history_in(path))
    return max(steps, default=-1) + 1


def _history_in(path: Path) -> Iterator[Any]:
    """Yield the steps of the history in a ``.wandb`` file."""
    for record in map(Record.FromString, _records(path.read_bytes())):
        if record.WhichOneof("record_type") == "history":
            yield record.history


def _records(content: bytes) -> Iterator[bytes]:
    """Yield the complete records in a ``.wandb`` file.

    It is a log of LevelDB (doc/log_format.md there): blocks of 32 KiB, in them chunks with a
    checksum, a length and a kind, after 7 bytes of W&B's own.
    """
    at, record = _FILE_HEAD_BYTES, b""
    while at + _CHUNK_HEAD.size <= len(content):
        rest = _BLOCK_BYTES - at % _BLOCK_BYTES
        if rest < _CHUNK_HEAD.size:
            at += rest
            continue
        _, length, kind = _CHUNK_HEAD.unpack_from(content, at)
        at += _CHUNK_HEAD.size
        if at + length > len(content):
            return
        record += content[at : at + length]
        at += length
        if kind in _ENDS:
            yield record
            record = b""
