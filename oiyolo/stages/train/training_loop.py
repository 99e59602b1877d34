"""Train a run to its end in as many attempts as it takes, each from the newest good weights."""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import disks, files, process
from oiyolo.core.errors import DarknetError, OiyoloError, UnavailableError
from oiyolo.darknet.gpus import gpus
from oiyolo.darknet.program import ENVIRONMENT, train_command
from oiyolo.networks.schedule import schedule_of
from oiyolo.project.value_types import AUTO
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages.evaluate.checkpoint_scorer import drop_later_scores
from oiyolo.stages.train.call_options import option_variables
from oiyolo.stages.train.inputs import initial_weights_of, write_inputs
from oiyolo.stages.train.record import RunRecord
from oiyolo.training import preflight
from oiyolo.training.backup import Backup
from oiyolo.training.checkpoints import CheckpointKeeper, Checkpoints
from oiyolo.training.exit_cause import died_measuring_map, find_cause
from oiyolo.training.history import TrainingHistory, scores_in
from oiyolo.training.live_reader import LiveReader
from oiyolo.training.monitors import (
    STOPPED_BY_USER,
    DiskFull,
    EarlyStopping,
    Explosion,
    NanLoss,
    OutOfMemory,
    Stall,
    StopReason,
    StopRequest,
    WarmUp,
)
from oiyolo.training.plan import gpu_indices
from oiyolo.training.recovery import (
    MAP_REMEDY,
    Abort,
    RecoveryState,
    adjust,
    choose_recovery,
    for_one_gpu,
    warm_up_iterations,
)
from oiyolo.training.run import FAILED, FINISHED, INTERRUPTED, event_message
from oiyolo.training.score_monitor import ScoreMonitor, map_text, scoring_process
from oiyolo.training.supervise import release_memory, supervise
from oiyolo.training.tracking import TrackingMonitor

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg
    from oiyolo.stages.train.inputs import TrainingTask
    from oiyolo.training.monitors import Monitor
    from oiyolo.training.recovery import Retry
    from oiyolo.training.run import Run
    from oiyolo.training.supervise import AttemptResult

_log = logging.getLogger("oiyolo")

_CPU_NETWORKS: Final = frozenset({"demo"})
_MAX_OUTPUT_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class _Attempt:
    """One start of darknet.

    Attributes:
        cfg: The network.
        cfg_path: Its file, relative to the run's folder.
        gpus: The GPUs to train on; empty for darknet's default.
        weights: The weights to start or resume from; ``None`` for random ones.
        start_iteration: Iterations of earlier attempts.
        warm_up: Last iteration of the warm-up, after which all GPUs take over; 0 for no warm-up.
    """

    cfg: Cfg
    cfg_path: str
    gpus: tuple[str, ...]
    weights: Path | None
    start_iteration: int
    warm_up: int


def is_final(run: Run, checkpoints: Checkpoints) -> bool:
    """Return whether valid weights of the last iteration exist."""
    iteration = checkpoints.iteration_of(checkpoints.final_path)
    if iteration is None:
        return False
    needed = schedule_of(checkpoints.cfg).max_batches
    early = run.record.get("stopped_early")
    return iteration >= (early["iteration"] if isinstance(early, dict) else needed)


class TrainingLoop:
    """The attempts to train a run, whose lock the caller holds."""

    def __init__(self, task: TrainingTask, run: Run) -> None:
        self._task = task
        self._run = run
        self._options = task.project.config.train
        self._plan = task.plan
        self._max_batches = task.plan.schedule.max_batches
        self._map_source = run.map_source(self._options.map)
        self._checkpoints = Checkpoints(
            run,
            task.darknet.fork,
            task.plan.cfg,
            own_map=self._map_source == "own",
            engine=task.darknet.engine,
        )
        self._keeper = CheckpointKeeper(self._checkpoints)
        self._history = TrainingHistory(run.log_path)
        self._stop_message = ""
        run.stop_path.unlink(missing_ok=True)  # for an earlier process
        write_inputs(task, run)
        self._check_files()
        self._record = RunRecord(task, run)
        self._recovery_state = RecoveryState.of(run.record)
        self._scores = self._make_score_monitor()
        backup_to = self._options.backup_to
        self._backup = Backup(self._checkpoints, self._keeper, backup_to) if backup_to else None
        self._tracking = TrackingMonitor(run, self._options.log_to)

    def _check_files(self) -> None:
        """Check everything that darknet will read and write, and log the warnings."""
        fork = self._task.darknet.fork
        indices = gpu_indices(self._options.gpus)
        warnings = preflight.check(
            self._run.folder,
            cfg=self._plan.cfg,
            fork=fork,
            gpus=[gpu for gpu in gpus() if gpu.index in indices] if self._task.darknet.gpu else [],
            cudnn=self._task.darknet.cudnn,
            measures_map=self._map_source == "darknet" and bool(fork.map_flags),
            scores_weights=self._map_source == "own",
            engine=self._task.darknet.engine,
            image_bytes=prepare_stage.prepared_bytes(self._task.project),
            repeats=0 if self._task.balance is None else self._task.balance.repeat_count,
        )
        for warning in warnings:
            _log.warning("train: %s", warning)

    def _make_score_monitor(self) -> ScoreMonitor | None:
        """Return the monitor that scores new weights; ``None`` if mAP is not measured so."""
        project, run = self._task.project, self._run
        if self._map_source != "own" or not self._task.has_valid_images:
            return None
        return ScoreMonitor(
            self._checkpoints,
            self._keeper,
            scoring_process(project.folder, run, option_variables(project)),
            scored=[score.iteration for score in scores_in(self._run.scores_path)],
            on_score=self._record_best,
            on_end=partial(self._record.add_event, "scoring"),
        )

    def run_to_end(self) -> float:
        """Train the run to its end.

        Returns:
            The duration of this call in seconds.

        Raises:
            UnavailableError: The disk is full.
            DarknetError: Darknet did not train to the end.
        """
        try:
            scores = {score.iteration: score.map for score in scores_in(self._run.scores_path)}
            self._checkpoints.repair(
                scores if self._map_source == "own" else self._history.map_by_iteration()
            )
            self._run_attempts()
            self._score_final_weights()
        except KeyboardInterrupt:
            self._record_interruption()
            raise
        except OiyoloError as error:
            self._record.finish(FAILED, error.what)
            raise
        else:
            self._record_best()
            early = self._run.record.get("stopped_early")
            all_done = f"trained all {self._max_batches:,} iterations"
            self._record.finish(FINISHED, event_message(early) if early else all_done)
        finally:
            if self._scores is not None:
                self._scores.close()
            if self._backup is not None:
                self._backup.close()
            self._tracking.close()
        return self._record.seconds

    def _run_attempts(self) -> None:
        """Run attempts until the final weights exist, or raise if a retry would not help."""
        max_iteration: int | None = None
        self._log_start()
        while not is_final(self._run, self._checkpoints):
            attempt = self._next_attempt(max_iteration)
            log_start_byte = _file_size(self._run.log_path)
            result = self._run_attempt(attempt)
            max_iteration = None
            reason = self._stop_reason_of(result, log_start_byte)
            if reason is None:
                continue
            if reason.kind == "patience":
                self._stop_early(reason)
            elif reason.kind == "stop":
                self._stop_message = reason.message
                raise KeyboardInterrupt(reason.message)
            elif reason.kind == "warm-up":
                self._record.add_event("warm-up", reason.message, iteration=reason.iteration)
                _log.info("train: %s; resumes on all GPUs", reason.message)
            else:
                max_iteration = self._recover(reason, log_start_byte)

    def _score_final_weights(self) -> None:
        final, is_stopped = self._checkpoints.final_path, self._run.stop_path.exists
        iteration = self._checkpoints.iteration_of(final)
        if self._scores is None or iteration is None:
            return
        self._scores.finish(final, iteration, is_stopped)
        if is_stopped():
            self._stop_message = STOPPED_BY_USER
            raise KeyboardInterrupt(STOPPED_BY_USER)

    def _next_attempt(self, max_iteration: int | None) -> _Attempt:
        weights, start_iteration = self._checkpoints.newest(max_iteration)
        gpus = self._task.gpus
        # With the torch engine, several GPUs compute what one would.
        batches = len(gpus) if self._task.darknet.engine == "darknet" else 1
        one_gpu_cfg = for_one_gpu(self._plan.cfg, batches)
        warm_up = warm_up_iterations(one_gpu_cfg) if batches > 1 else 0
        warms_up = start_iteration < warm_up
        cfg = adjust(one_gpu_cfg if warms_up else self._plan.cfg, self._recovery_state)
        return _Attempt(
            cfg=cfg,
            cfg_path=self._write_cfg(cfg),
            gpus=gpus[:1] if warms_up else gpus,
            weights=weights or self._initial_weights(),
            start_iteration=start_iteration,
            warm_up=warm_up if warms_up else 0,
        )

    def _initial_weights(self) -> Path | None:
        start = initial_weights_of(self._task.project, self._plan)
        _log.info("train: %s", start.summary)
        if start.warning:
            _log.warning("train: %s", start.warning)
        self._record.write(start=dict(start.origin) or None)
        return start.path

    def _write_cfg(self, cfg: Cfg) -> str:
        """Return the relative path of the next attempt's network, written if not the run's own.

        It gets a folder of its own, because darknet names weights after the file's base name.
        """
        text = cfg.encode()
        if text == self._plan.cfg.encode():
            return self._run.cfg_path.name
        path = Path("attempts", str(self._attempt_count() + 1)) / self._run.cfg_path.name
        files.write_bytes(self._run.folder / path, text)
        return str(path)

    def _run_attempt(self, attempt: _Attempt) -> AttemptResult:
        fork = self._task.darknet.fork
        argv = train_command(
            self._task.darknet,
            data="obj.data",
            cfg=attempt.cfg_path,
            weights=None if attempt.weights is None else str(attempt.weights),
            resume=attempt.start_iteration > 0,
            gpus=",".join(attempt.gpus) or None,
            measure_map=self._measures_map,
            colours=self._options.colours,
        )
        schedule = schedule_of(attempt.cfg)
        self._record.start_attempt(
            argv,
            cfg=attempt.cfg_path,
            from_iteration=attempt.start_iteration,
            learning_rate=schedule.learning_rate,
            subdivisions=schedule.subdivisions,
            gpus=list(attempt.gpus),
        )
        monitors = self._make_monitors(attempt)
        release_memory()
        result = supervise(
            argv,
            cwd=self._run.folder,
            log_path=self._run.log_path,
            read=LiveReader(not_resumable=[fork.best_weights] if fork.best_weights else []),
            monitors=monitors,
            total=self._max_batches,
            start_iteration=attempt.start_iteration,
            environment=ENVIRONMENT,
            stdin_text=fork.confirmation,
        )
        self._keeper.copy_completed()
        self._record.end_attempt(
            exit=process.describe_exit(result.exit_code),
            to_iteration=result.last_iteration,
            iterations=result.iteration_count,
            verdict=result.stop_reason.kind if result.stop_reason else None,
        )
        self._record_best()
        return result

    def _make_monitors(self, attempt: _Attempt) -> list[Monitor]:
        stall_s = self._options.stall_s
        map_image_count = len(self._run.image_ids("valid")) if self._measures_map else 0
        explosion = Explosion(schedule_of(attempt.cfg).burn_in)
        explosion.replay(self._history.events(), attempt.start_iteration)
        monitors: list[Monitor] = [
            self._keeper,
            StopRequest(self._run.stop_path.exists),
            NanLoss(),
            explosion,
            OutOfMemory(),
            Stall(None if stall_s == AUTO else float(stall_s), map_image_count),
            DiskFull(self._checkpoints.needed_bytes, partial(disks.free_bytes, self._run.folder)),
        ]
        if self._scores is not None:
            self._scores.roll_back(attempt.start_iteration)
            monitors.insert(1, self._scores)
        drop_later_scores(self._run, attempt.start_iteration)
        if self._options.patience:
            monitors.append(self._make_early_stopping())
        if attempt.warm_up:
            monitors.append(WarmUp(attempt.warm_up))
        if self._backup is not None:
            monitors.append(self._backup)
        monitors.append(self._tracking)
        return monitors

    def _make_early_stopping(self) -> EarlyStopping:
        scores_weights = self._scores is not None and not self._scores.has_ended
        monitor = EarlyStopping(
            self._options.patience, measures_map=self._measures_map or scores_weights
        )
        monitor.replay(self._history.events())
        if scores_weights:
            monitor.replay(scores_in(self._run.scores_path))
        return monitor

    def _stop_reason_of(self, result: AttemptResult, log_start_byte: int) -> StopReason | None:
        """Return why an attempt stopped; ``None`` if it trained to the end.

        Raises:
            DarknetError: It ended too early, and a retry would not help.
        """
        if result.stop_reason is not None:
            return result.stop_reason
        if is_final(self._run, self._checkpoints):
            return None
        if self._has_diverged():
            message = "the final weights contain NaN: training has diverged"
            return StopReason("nan", message, result.last_iteration, result.last_iteration)
        output = self._output_since(log_start_byte)
        if self._measures_map and died_measuring_map(output, result.exit_code):
            how = process.describe_exit(result.exit_code)
            message = f"darknet died while it measured mAP ({how}): {output[-1].strip()[:200]}"
            return StopReason("map", message, result.last_iteration, result.last_iteration)
        raise self._failure_error(result, log_start_byte)

    @property
    def _measures_map(self) -> bool:
        """Whether darknet measures mAP."""
        return (
            self._map_source == "darknet"
            and bool(self._task.darknet.fork.map_flags)
            and self._recovery_state.measures_map
        )

    def _has_diverged(self) -> bool:
        """Return whether the final weights have the right size but contain NaN."""
        final = self._checkpoints.final_path
        return final.is_file() and (
            self._checkpoints.has_right_size(final)
            and self._checkpoints.iteration_of(final) is None
        )

    def _recover(self, reason: StopReason, log_start_byte: int) -> int | None:
        """Prepare a retry after a fault.

        Returns:
            The most iterations of the weights to resume from; ``None`` for the newest weights.

        Raises:
            OiyoloError: A retry would not help.
        """
        _log.warning("train: %s", reason.message)
        recovery = choose_recovery(
            reason, self._recovery_state, self._plan.schedule, self._options.max_rollbacks
        )
        evidence = None
        if reason.kind in {"nan", "explosion"}:
            good = self._checkpoints.newest(reason.last_good_iteration)[1]
            evidence = self._checkpoints.move_aside(good, f"{self._attempt_count():03}")
        event: dict[str, object] = {
            "iteration": reason.iteration,
            "evidence": str(evidence.relative_to(self._run.folder)) if evidence else None,
            "log_from_byte": log_start_byte,
        }
        if isinstance(recovery, Abort):
            self._record.add_event(reason.kind, reason.message, **event, done="gave up")
            self._record.write(tuning=asdict(replace(self._recovery_state, rollbacks=0)))
            raise self._abort_error(reason, recovery, log_start_byte)
        return self._retry(reason, recovery, event)

    def _retry(self, reason: StopReason, retry: Retry, event: dict[str, object]) -> int | None:
        self._recovery_state = retry.state
        back_to = self._checkpoints.newest(retry.max_iteration)[1]
        self._record.add_event(
            reason.kind, reason.message, **event, done=retry.action, back_to=back_to
        )
        self._record.write(tuning=asdict(self._recovery_state))
        _log.warning("train: resumes from iteration %s and %s", f"{back_to:,}", retry.action)
        return retry.max_iteration

    def _attempt_count(self) -> int:
        return len(self._run.record.get("attempts") or [])

    def _stop_early(self, reason: StopReason) -> None:
        """Copy the newest weights to the final file, unless the training has just finished."""
        if is_final(self._run, self._checkpoints):
            return
        path, iteration = self._checkpoints.newest()
        if path is None:
            raise DarknetError(
                "the training was stopped before it saved any weights",
                where=str(self._run.folder),
                found=reason.message,
                remedy="Set a larger [train] patience, then run the same command again",
            )
        with files.atomic_write(self._checkpoints.final_path) as part:
            shutil.copyfile(path, part)
        message = f"stopped early at iteration {iteration:,}: {reason.message}"
        self._record.write(stopped_early={"iteration": iteration, "message": message})
        self._record.add_event("patience", message, iteration=iteration)
        _log.info("train: %s", message)

    def _record_interruption(self) -> None:
        """Record how many iterations are lost: darknet saves no weights when it is terminated."""
        self._keeper.copy_completed()
        saved = self._checkpoints.newest()[1]
        reached = max(self._keeper.iteration, saved)
        lost = max(0, reached - saved)
        message = (
            f"{self._stop_message or 'interrupted'} after iteration {reached:,}; weights are saved "
            f"up to iteration {saved:,}"
        )
        if self._attempt_count():
            self._record.end_attempt(
                to_iteration=reached, verdict="interrupted", iterations_lost=lost
            )
        self._record.finish(INTERRUPTED, message)
        self._run.stop_path.unlink(missing_ok=True)
        # Last, because the terminal may be gone.
        _log.info("train: %s, so %s iterations will be trained again", message, f"{lost:,}")

    def _record_best(self) -> None:
        best = self._checkpoints.best
        if best is not None:
            self._record.write(best={"map": best.map, "iteration": best.iteration})

    def _log_start(self) -> None:
        done = self._checkpoints.newest()[1]
        name = self._run.name
        start = f"resuming {name} at iteration {done:,}" if done else f"starting {name}"
        _log.info("train: %s: %s", start, self._plan.summary)
        if self._task.balance is not None:
            _log.info("train: will %s", self._task.balance)
        if self._task.has_valid_images:  # otherwise the preflight checks have warned
            darknet = self._task.darknet
            text = map_text(self._map_source, darknet.fork, darknet.engine)
            _log.info("train: will %s", text)
        if self._map_source != self._options.map:
            _log.info("train: %s began with [train] map = %r and keeps it", name, self._map_source)
        if not self._recovery_state.measures_map:
            _log.warning(
                "train: mAP is not measured, because darknet crashed while measuring it: %s",
                MAP_REMEDY,
            )
        if not self._task.darknet.gpu and self._plan.network not in _CPU_NETWORKS:
            could_use_gpu = self._task.darknet.engine == "darknet" and gpus()
            _log.warning(
                "train: training on the CPU, where each of the %s iterations of %s takes seconds "
                "to minutes%s",
                f"{self._max_batches:,}",
                self._plan.network,
                "; `oiyolo build` builds a darknet that uses this machine's GPU"
                if could_use_gpu
                else "",
            )

    def _output_since(self, log_start_byte: int) -> list[str]:
        """Return the logged lines of an attempt; only the last 1 MiB if there are more."""
        if not self._run.log_path.is_file():
            return []
        with self._run.log_path.open("rb") as file:
            file.seek(max(log_start_byte, _file_size(self._run.log_path) - _MAX_OUTPUT_BYTES))
            return file.read().decode(errors="replace").strip().splitlines()

    def _failure_error(self, result: AttemptResult, log_start_byte: int) -> DarknetError:
        """Return an error that explains a failed attempt by darknet's own output."""
        cause = find_cause(
            self._output_since(log_start_byte),
            result.iteration_count,
            result.exit_code,
            is_built=self._task.darknet.is_built,
        )
        program = "darknet" if self._task.darknet.engine == "darknet" else "the torch engine"
        exit_text = f"{program} ended ({process.describe_exit(result.exit_code)})"
        return DarknetError(
            f"{exit_text} before the end of the training"
            + (f": {cause.name}" if cause.name else ""),
            where=str(self._run.log_path),
            expected=f"{self._run.weights_folder.name}/{self._checkpoints.final_path.name} after "
            f"{self._max_batches:,} iterations",
            found=cause.line or "no output",
            remedy=cause.remedy,
        )

    def _abort_error(self, reason: StopReason, abort: Abort, log_start_byte: int) -> OiyoloError:
        cause = find_cause(self._output_since(log_start_byte), 1)
        kind = UnavailableError if abort.is_disk_full else DarknetError
        return kind(
            f"the training was stopped: {reason.message}",
            where=str(self._run.log_path),
            found=cause.line or "no output",
            remedy=abort.remedy,
        )


def _file_size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
