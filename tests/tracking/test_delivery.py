"""What a tracker has received after failures, kills and resumes."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oiyolo.core.errors import UsageError
from oiyolo.tracking.delivery import ServerDelivery, read_status
from oiyolo.tracking.outbox import Outbox
from oiyolo.tracking.tracker import RunFacts, check_installed
from oiyolo.trainlog.parse import parse_log
from oiyolo.trainlog.scores import CheckpointScore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.tracking.outbox import Row
    from oiyolo.tracking.tracker import TrackerRecord

AT_S = 1_700_000_000.0
START = "Learning Rate: 0.001, Momentum: 0.9, Decay: 0.0005\n"
MAP = " mean_average_precision (mAP@0.50) = 0.25\n"


def lines(first: int, last: int, *, loss: float = 1.5) -> str:
    return "".join(
        f"{i}: {loss:f}, {loss * 2:f} avg, 0.001000 rate, 2.0 seconds, {i * 64} images\n"
        for i in range(first, last + 1)
    )


class Server:
    """A tracker in memory, which may fail before or after it accepts something.

    Attributes:
        counts_points: Whether it numbers points, as W&B does, or only has their values.
        failures: When to fail next: "open", "before" or "after" points.
    """

    batch_values = 9

    def __init__(self, *, counts_points: bool = False) -> None:
        self.counts_points = counts_points
        self.runs: list[str] = []
        self.parameters: dict[str, object] = {}
        self.points: list[tuple[int, str, float]] = []
        self.rows = 0
        self.files: Counter[str] = Counter()
        self.states: list[str] = []
        self.failures: list[str] = []

    def _fail(self, when: str) -> None:
        if self.failures and self.failures[0] == when:
            self.failures.pop(0)
            raise ConnectionError(f"failed {when} on http://user:secret@host/\nsecond line")

    def open(self, facts: RunFacts, status: TrackerRecord) -> int | None:  # noqa: ARG002
        self._fail("open")
        if status.key not in self.runs:
            self.runs.append(status.key)
        status.run_id = status.key
        return self.rows if self.counts_points else None

    def send_parameters(self, facts: RunFacts) -> None:
        self.parameters |= facts.parameters

    def send_points(self, rows: Sequence[Row], first: int, *, may_repeat: bool) -> None:
        self._fail("before")
        for number, row in enumerate(rows, first):
            new = [(row.iteration, tag, value) for tag, value in row.values.items()]
            self.points += [p for p in new if not (may_repeat and p in self.points)]
            self.rows = number + 1
        self._fail("after")

    def send_files(self, names: Sequence[str], facts: RunFacts) -> None:  # noqa: ARG002
        self.files.update(names)

    def send_state(self, state: str) -> None:
        self.states.append(state)

    def close(self, state: str) -> None:
        pass


def facts(folder: Path, state: str = "running", **files: Path) -> RunFacts:
    return RunFacts("tiny-001", "boats", folder, state, {"batch": 64}, files=files)


def send(folder: Path, server: Server, text: str, run_facts: RunFacts | None = None) -> bool:
    """Send as a new process does that is killed afterwards."""
    delivery = ServerDelivery(folder, "mlflow", server)
    now = run_facts or facts(folder)
    return delivery.update(now, parse_log(text), written_at_s=AT_S, results={}, seen="x")


@settings(max_examples=12, deadline=None)
@given(
    counts_points=st.booleans(),
    steps=st.lists(
        st.tuples(st.integers(1, 20), st.sampled_from(["", "open", "before", "after"])),
        min_size=1,
        max_size=4,
    ),
)
def test_every_iteration_arrives_once_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, str]],
    *,
    counts_points: bool,
) -> None:
    folder, server, end = tmp_path_factory.mktemp("run"), Server(counts_points=counts_points), 0
    for count, failure in steps:
        end += count
        server.failures = [failure] if failure else []
        send(folder, server, START + lines(1, end))
    server.failures = []
    assert send(folder, server, START + lines(1, end))
    sent = Counter((iteration, tag) for iteration, tag, _ in server.points)
    tags = ("loss", "avg_loss", "rate", "images_per_s")
    assert sent == {(i, tag): 1 for i in range(1, end + 1) for tag in tags}
    assert len(server.runs) == 1


def test_iterations_that_a_resume_repeats_keep_their_first_values(tmp_path: Path) -> None:
    server = Server()
    first = START + lines(1, 100)
    send(tmp_path, server, first)
    send(tmp_path, server, first + START + lines(81, 110, loss=2.5))
    losses = [(iteration, value) for iteration, tag, value in server.points if tag == "loss"]
    assert losses == [(i, 1.5) for i in range(1, 101)] + [(i, 2.5) for i in range(101, 111)]


def test_what_is_measured_later_follows_and_new_scores_replace_old_ones(tmp_path: Path) -> None:
    def write(
        text: str, score: float | None = None, results: Mapping[str, Mapping[str, float]] = {}
    ) -> list[Any]:
        outbox = Outbox(tmp_path, "mlflow")
        scores = [] if score is None else [CheckpointScore(10, score, float("nan"), (0, 1))]
        before = len(list(outbox.rows(0)))
        log = parse_log(text).with_scores(scores)
        outbox.write(log, written_at_s=AT_S, results=results)
        return [(row.iteration, row.values) for row in outbox.rows(before)]

    text = START + lines(1, 20)
    assert len(write(text)) == 20
    assert write(text + MAP) == [(20, {"map": 0.25})]
    assert write(text + MAP, 0.5) == [(10, {"valid_map50": 0.5})]
    assert write(text + MAP, 0.5) == []
    assert write(text + MAP, 0.75, {"20": {"test_map50": 0.5}}) == [
        (10, {"valid_map50": 0.75}),
        (20, {"test_map50": 0.5}),
    ]


def test_a_failure_is_recorded_and_made_up_for(tmp_path: Path) -> None:
    server = Server()
    server.failures = ["open"]
    assert not send(tmp_path, server, lines(1, 5))
    status = read_status(tmp_path, "mlflow")
    assert status is not None
    assert (status.problem, status.seen) == ("ConnectionError: failed open on http://host/", "")
    assert send(tmp_path, server, lines(1, 5))
    status = read_status(tmp_path, "mlflow")
    assert status is not None
    assert (status.problem, status.sent, status.seen) == ("", 5, "x")
    assert server.parameters == {"batch": 64}


def test_files_are_sent_again_only_when_they_change(tmp_path: Path) -> None:
    path = tmp_path / "network.cfg"
    path.write_text("[net]")
    server, done = Server(), facts(tmp_path, "finished", cfg=path)
    send(tmp_path, server, lines(1, 5), done)
    send(tmp_path, server, lines(1, 5), done)
    assert (server.files, server.states) == ({"cfg": 1}, ["finished"])
    path.write_text("[net]\nbatch=64")
    send(tmp_path, server, lines(1, 5), done)
    assert server.files == {"cfg": 2}


def test_a_damaged_outbox_is_made_again(tmp_path: Path) -> None:
    server = Server()
    send(tmp_path, server, lines(1, 5))
    state = tmp_path / "tracking" / "mlflow-points.json"
    state.write_text(json.dumps({"head": 1}))
    send(tmp_path, server, lines(1, 8))
    assert [i for i, tag, _ in server.points if tag == "loss"] == list(range(1, 9))


def test_a_missing_library_or_server_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"wandb", "sqlalchemy"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else object()
    )
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check_installed([])
    for name, remedy in (("wandb", "oiyolo[wandb]"), ("mlflow", "mlflow server")):
        with pytest.raises(UsageError) as caught:
            check_installed([name])
        assert remedy in caught.value.remedy
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    check_installed(["mlflow"])
