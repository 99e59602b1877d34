"""Keep trackers up to date with a run, in a process for each tracker.

The process follows the run's files, as ``oiyolo plot --follow`` does, so that no tracker can hold
up or stop a training; it ends with the training. What is missing then, and what is new later, is
sent by ``send_news``.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files, locks, process, staleness
from oiyolo.core.errors import LockedError, OiyoloError
from oiyolo.darknet.forks import FORKS
from oiyolo.evaluation.figures import SCORES
from oiyolo.networks import cfg as cfg_file
from oiyolo.networks.schedule import schedule_of
from oiyolo.tracking.delivery import FOLDER, fingerprint_of, read_status, status_path
from oiyolo.tracking.tracker import TITLES, RunFacts
from oiyolo.training.checkpoints import Checkpoints
from oiyolo.training.monitors import Monitor
from oiyolo.training.run import FINISHED, INTERRUPTED, RUNNING, Run
from oiyolo.trainlog.follow import LogFollower
from oiyolo.trainlog.scores import read_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oiyolo.core.process import ProcessResult
    from oiyolo.tracking.delivery import Delivery

_log = logging.getLogger("oiyolo")

_PROGRAM: Final = "from oiyolo.training.tracking import deliver; deliver(*sys.argv[1:])"
_ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_INTERVAL_S: Final = 10.0
_REST_RATIO: Final = 10.0
"""Time between two updates, in terms of the time that one takes: darknet needs the processors."""
_MAX_INTERVAL_S: Final = 300.0
"""Time between two attempts to reach a tracker that fails."""
_POLL_S: Final = 0.2
_CHECK_S: Final = 5.0
_RESTART_S: Final = 60.0
_FINISH_S: Final = 300.0
"""How long a finished training waits until its weights are uploaded."""
_STOP_S: Final = 10.0
"""How long an interrupted one does: a spot VM has 30 s to live."""
_FILES: Final = (
    *("network.cfg", "network.diff", "obj.names", "obj.data", "run.json"),
    *("metrics.csv", "metrics.json", "evaluation.json", "report.html"),
)
_PICTURES: Final = ("charts", "panels")
_NEXT: Final = "the next `oiyolo train`, `plot`, `evaluate` or `report` of this run sends the rest"
_PARAMETERS: Final = (
    *("network", "weights", "size_wh", "fit", "images_size_wh", "max_batches", "map"),
    *("classes", "dataset_fingerprint", "cfg_sha256", "host"),
)


def facts_of(run: Run) -> RunFacts:
    """Return what trackers receive about a run."""
    record = run.record
    darknet = record.get("darknet") or {}
    cfg = cfg_file.read(run.cfg_path)
    schedule = schedule_of(cfg)
    engine = str(darknet.get("engine") or "darknet")
    parameters = {name: record[name] for name in _PARAMETERS if record.get(name) is not None} | {
        "engine": engine,
        "fork": darknet.get("fork"),
        "batch": schedule.batch,
        "subdivisions": schedule.subdivisions,
        "learning_rate": schedule.learning_rate,
        "burn_in": schedule.burn_in,
        "balance": (record.get("balance") or {}).get("threshold", 0.0),
        "momentum": cfg.net.number("momentum", 0.9),
        "decay": cfg.net.number("decay", 0.0005),
        "gpus": [gpu["name"] for gpu in record.get("gpus") or []] if darknet.get("gpu") else [],
        "train_images": len(set(run.image_ids("train"))),
        "valid_images": len(set(run.image_ids("valid"))),
        "oiyolo": record.get("oiyolo"),
    }
    state = _state_of(run, record)
    return RunFacts(
        name=run.name,
        project=run.folder.absolute().parents[1].name,
        folder=run.folder,
        state=state,
        parameters={name: _plain(value) for name, value in parameters.items()},
        labels={"network": str(record.get("network")), "engine": engine},
        began_at_s=_seconds_at(record.get("began_at")),
        files={} if state == RUNNING else _files_of(run, record, state),
    )


def _seconds_at(time_text: object) -> float:
    """Return a time of ``run.json`` in seconds since 1970; 0 if it is unknown."""
    try:
        return dt.datetime.fromisoformat(str(time_text)).timestamp()
    except ValueError:
        return 0.0


def _plain(value: object) -> object:
    """Return a number or text for a value of ``run.json``: 416x416, Boat, Car."""
    if isinstance(value, list):
        are_sides = len(value) == 2 and all(isinstance(side, int) for side in value)  # noqa: PLR2004
        return ("x" if are_sides else ", ").join(map(str, value))
    return value if isinstance(value, (bool, int, float)) else str(value)


def _state_of(run: Run, record: Mapping[str, Any]) -> str:
    """Return the state: the recorded one, already before the process that trains has ended."""
    state = str(record.get("state") or "")
    return INTERRUPTED if state == RUNNING and not run.is_training else state


def _files_of(run: Run, record: Mapping[str, Any], state: str) -> dict[str, Path]:
    """Return the files of a run to send, by name; its weights only if it is finished."""
    found = [run.folder / name for name in _FILES]
    found += [path for name in _PICTURES for path in sorted((run.folder / name).glob("*.png"))]
    named = {str(path.relative_to(run.folder)): path for path in found if path.is_file()}
    if state == FINISHED:
        name = str((record.get("darknet") or {}).get("fork"))
        fork = next((fork for fork in FORKS.values() if fork.name == name), FORKS["alexeyab"])
        own_map = run.map_source() == "own"
        weights = Checkpoints(run, fork, cfg_file.read(run.cfg_path), own_map=own_map)
        named[f"weights/{weights.final_path.name}"] = weights.final_path
        if weights.best is not None:
            named[f"weights/{weights.best_name}"] = weights.best.path
    return named


def results_of(run: Run) -> dict[str, dict[str, float]]:
    """Return the results of a run by iteration and tag: the best mAP, and ``evaluation.json``."""
    results: dict[str, dict[str, float]] = {}
    best = run.record.get("best")
    if isinstance(best, dict) and run.record.get("state") == FINISHED:
        results[str(best["iteration"])] = {"best_map50": best["map"]}
    saved = files.read_json(run.evaluation_path)
    if isinstance(saved, dict) and isinstance(saved.get("weights"), dict):
        values = {f"{saved.get('split')}_{key}": saved.get(key) for key in SCORES}
        key = str(saved["weights"].get("iteration"))
        finite = {t: v for t, v in values.items() if isinstance(v, float) and math.isfinite(v)}
        if key.isdecimal():
            results[key] = results.get(key, {}) | finite
    return results


def _fingerprint(run: Run) -> str:
    """Return a text that changes when there is something new to send."""
    record = run.record
    state = _state_of(run, record)
    paths = [run.log_path, run.scores_path, run.evaluation_path, run.record_path]
    if state != RUNNING:
        paths += _files_of(run, record, state).values()
    return staleness.fingerprint([state, *(fingerprint_of(path) for path in paths)])


def deliver(run_folder: str, tracker: str) -> None:
    """Keep a tracker up to date with a run until its training ends; at once if it has ended."""
    run = Run(Path(run_folder))
    (run.folder / FOLDER).mkdir(exist_ok=True)
    lock = run.folder / FOLDER / f".{tracker}.lock"
    with locks.exclusive(lock, what=f"the record of {TITLES[tracker]}", operation="tracking"):
        delivery = _open_delivery(run, tracker)
        sender = Sender(run, delivery)
        wait_s = _INTERVAL_S
        while True:
            is_over = _state_of(run, run.record) != RUNNING  # before reading
            started_s = time.monotonic()
            is_sent = sender.update()
            if is_over:
                break
            work_s = time.monotonic() - started_s
            wait_s = _INTERVAL_S if is_sent else min(2 * wait_s, _MAX_INTERVAL_S)
            _wait(run, max(wait_s, _REST_RATIO * work_s))
        delivery.close()


def _wait(run: Run, seconds: float) -> None:
    """Wait; not longer than until the training ends."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and _state_of(run, run.record) == RUNNING:
        time.sleep(_POLL_S)


def _open_delivery(run: Run, tracker: str) -> Delivery:
    from oiyolo.tracking import delivery  # noqa: PLC0415  (each library only where it is used)

    if tracker == "tensorboard":
        from oiyolo.tracking.tensorboard import EventWriter  # noqa: PLC0415  (an extra)

        return delivery.FileDelivery(run.folder, tracker, EventWriter(run.folder))
    if tracker == "mlflow":
        from oiyolo.tracking.mlflow import MLflowTracker  # noqa: PLC0415  (an extra)

        return delivery.ServerDelivery(run.folder, tracker, MLflowTracker())
    from oiyolo.tracking.wandb import WandbTracker  # noqa: PLC0415  (an extra)

    return delivery.ServerDelivery(run.folder, tracker, WandbTracker())


class Sender:
    """Sends what is new in a run.

    Args:
        run: The run.
        delivery: The tracker.
    """

    def __init__(self, run: Run, delivery: Delivery) -> None:
        self._run = run
        self._delivery = delivery
        self._follower = LogFollower(run.log_path)

    def update(self) -> bool:
        """Send what is new since the last call, if anything; return whether that succeeded."""
        run, seen = self._run, _fingerprint(self._run)
        status = self._delivery.status
        if seen == status.seen and not status.problem:
            return True
        self._follower.update()
        log = self._follower.log.with_scores(read_scores(run.scores_path))
        return self._delivery.update(
            facts_of(run),
            log,
            written_at_s=run.log_path.stat().st_mtime if run.log_path.exists() else 0.0,
            results=results_of(run),
            seen=seen,
        )


class Sending:  # a BackgroundProcess with its tracker
    """A process that keeps a tracker up to date.

    Args:
        run: The run.
        tracker: Name of the tracker.
    """

    def __init__(self, run: Run, tracker: str) -> None:
        self.tracker = tracker
        self._run = run
        self._process = process.BackgroundProcess(
            [*process.python_command(_PROGRAM), str(run.folder), tracker],
            environment=_ENVIRONMENT,
            is_idle=False,
        )

    @property
    def problem(self) -> str:
        """Why the tracker does not receive anything, as far as known; empty if it does."""
        try:
            status = read_status(self._run.folder, self.tracker)
        except OSError as error:
            return str(error)
        if status is not None and status.problem:
            return status.problem
        result = self.poll()
        if result is None or not result.exit_code or LockedError.__name__ in result.output:
            return ""
        return result.output.strip().rpartition("\n")[2] or result.exit_description

    def poll(self) -> ProcessResult | None:
        """Return how it ended; ``None`` while it runs."""
        return self._process.poll()

    def end(self, limit_s: float) -> None:
        """Wait until it has sent everything, for at most ``limit_s``; warn of what is missing."""
        end_s = time.monotonic() + limit_s
        title = TITLES[self.tracker]
        try:
            while (result := self.poll()) is None and time.monotonic() < end_s:
                time.sleep(_POLL_S)
            found = self.problem or (
                "" if result else f"not everything was sent in {limit_s:.0f} s"
            )
            if found:
                _log.warning("%s: %s; %s", title, found, _NEXT)
        finally:
            self._process.kill()


class TrackingMonitor(Monitor):
    """A monitor that keeps the processes running which send to trackers; it never stops a run.

    Args:
        run: The run, in training.
        trackers: Names of the trackers.
        start: Function that starts a process.
    """

    def __init__(
        self, run: Run, trackers: Sequence[str], start: Callable[[Run, str], Sending] = Sending
    ) -> None:
        self._run = run
        self._start = start
        self._next_s = 0.0
        self._restart_s: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        self._sending: dict[str, Sending] = {}
        for tracker in trackers:
            self._begin(tracker)

    def _begin(self, tracker: str) -> None:
        try:
            self._sending[tracker] = self._start(self._run, tracker)
        except OSError as error:  # too many processes, for example
            _log.warning("train: cannot log to %s: %s; %s", TITLES[tracker], error, _NEXT)

    def on_tick(self, at_s: float, quiet_s: float) -> None:  # noqa: ARG002  (silence does not matter)
        """Warn of new problems, and start a process again that has ended."""
        if at_s < self._next_s:
            return
        self._next_s = at_s + _CHECK_S
        for tracker, sending in list(self._sending.items()):
            self._report(tracker, sending.problem)
            if sending.poll() is not None:
                due_s = self._restart_s.setdefault(tracker, at_s + _RESTART_S)
                if at_s >= due_s:
                    del self._restart_s[tracker], self._sending[tracker]
                    sending.end(0)
                    self._begin(tracker)

    def _report(self, tracker: str, problem: str) -> None:
        if problem == self._problems.get(tracker, ""):
            return
        self._problems[tracker] = problem
        if problem:
            message = "train: %s: %s; the training continues, and this is sent later"
            _log.warning(message, TITLES[tracker], problem)
        else:
            _log.info("train: %s receives the training again", TITLES[tracker])

    def close(self) -> None:
        """Wait until the end of the training has been sent; not long if it was interrupted."""
        is_finished = self._run.record.get("state") == FINISHED
        for sending in self._sending.values():
            sending.end(_FINISH_S if is_finished else _STOP_S)


def trackers_of(run: Run) -> list[str]:
    """Return the names of the trackers that a run was logged to."""
    return [name for name in TITLES if status_path(run.folder, name).is_file()]


def _is_current(run: Run, tracker: str) -> bool:
    """Return whether a tracker has everything."""
    try:
        status = read_status(run.folder, tracker)
        return status is not None and not status.problem and status.seen == _fingerprint(run)
    except (OiyoloError, OSError):  # the process that sends says what is wrong
        return False


def send_news(run: Run, trackers: Sequence[str] = ()) -> None:
    """Send what is new in a run, and what is missing, to its trackers.

    Nothing is sent while it is in training: another process does that.

    Args:
        run: The run.
        trackers: Names of further trackers.
    """
    if run.is_training:
        return
    for name in dict.fromkeys((*trackers_of(run), *trackers)):
        if _is_current(run, name):
            continue
        if importlib.util.find_spec(name) is None:
            _log.warning("%s is not installed, so it receives nothing new", TITLES[name])
            continue
        _log.info("sending %s to %s", run.name, TITLES[name])
        Sending(run, name).end(_FINISH_S)
