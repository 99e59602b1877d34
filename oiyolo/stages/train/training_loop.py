"""Driving a run to its end: attempt after attempt, each from the newest good weights."""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core import files, process
from oiyolo.core.errors import DarknetError, OiyoloError, UnavailableError
from oiyolo.darknet.gpus import gpus
from oiyolo.darknet.program import ENVIRONMENT, train_command
from oiyolo.networks.schedule import schedule_of
from oiyolo.project.value_types import AUTO
from oiyolo.stages.train.inputs import start_of, write_inputs
from oiyolo.stages.train.record import Record
from oiyolo.training import preflight
from oiyolo.training.backup import Backup
from oiyolo.training.checkpoints import Checkpoints, Keeper
from oiyolo.training.exit_cause import cause_of
from oiyolo.training.history import facts_of, measured_in
from oiyolo.training.live_reader import Reader
from oiyolo.training.memory import release
from oiyolo.training.monitors import (
    DiskFull,
    Explosion,
    NotANumber,
    OutOfMemory,
    Patience,
    Stall,
    Verdict,
    WarmUp,
)
from oiyolo.training.recovery import GiveUp, Tuning, decide, fitted, for_one_gpu, warm_up_of
from oiyolo.training.run import FAILED, FINISHED, INTERRUPTED
from oiyolo.training.supervise import supervise

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg
    from oiyolo.stages.train.inputs import Task
    from oiyolo.training.monitors import Rule
    from oiyolo.training.recovery import Again
    from oiyolo.training.run import Run
    from oiyolo.training.supervise import Ended

_log = logging.getLogger("oiyolo")

_FOR_A_CPU: Final = frozenset({"demo"})
_SAID_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class _Attempt:
    """One start of darknet.

    Attributes:
        number: 1-based, over the whole run.
        cfg: The network's file.
        cfg_path: Where it stands, from the run's folder.
        gpus: The GPUs to train on; empty for darknet's own choice.
        weights: What it starts from or goes on with.
        done: Iterations that were done before.
        warm_up: Where it is to end at the next weights, to go on with all GPUs; 0 nowhere.
    """

    number: int
    cfg: Cfg
    cfg_path: str
    gpus: tuple[str, ...]
    weights: Path | None
    done: int
    warm_up: int


def drive(task: Task, run: Run) -> float:
    """Train a run, whose lock the caller holds, to its end.

    Returns:
        How many seconds that took.

    Raises:
        UnavailableError: The disk is full.
        DarknetError: It did not train to the end.
    """
    return _Drive(task, run).to_the_end()


def is_final(run: Run, checkpoints: Checkpoints) -> bool:
    """Tell whether the weights of the last iteration are there and sound."""
    iteration = checkpoints.iteration_of(checkpoints.final_path)
    if iteration is None:
        return False
    needed = schedule_of(checkpoints.cfg).max_batches
    early = run.record.get("stopped_early")
    return iteration >= (early["iteration"] if isinstance(early, dict) else needed)


class _Drive:
    def __init__(self, task: Task, run: Run) -> None:
        self._task = task
        self._run = run
        self._options = task.project.config.train
        self._course = task.course
        self._max_batches = task.course.schedule.max_batches
        self._checkpoints = Checkpoints(run, task.darknet.line, task.course.cfg)
        self._keeper = Keeper(self._checkpoints)
        write_inputs(task, run)
        self._check()
        self._record = Record(task, run)
        self._tuning = Tuning.of(run.record)
        self._backup = self._made_backup()

    def _check(self) -> None:
        """Look at all that darknet will read and write, before it does."""
        line = self._task.darknet.line
        chosen = {int(number) for number in self._task.gpus or ("0",) if number.isdecimal()}
        warnings = preflight.check(
            self._run.folder,
            cfg=self._course.cfg,
            line=line,
            gpus=[gpu for gpu in gpus() if gpu.index in chosen] if self._task.darknet.gpu else [],
            cudnn=self._task.darknet.cudnn,
            measures_map=bool(line.map_flags),
        )
        for warning in warnings:
            _log.warning("train: %s", warning)

    def to_the_end(self) -> float:
        try:
            self._checkpoints.mend(measured_in(self._run.log_path))
            self._attempts()
        except KeyboardInterrupt:
            self._interrupted()
            raise
        except OiyoloError as error:
            self._record.close(FAILED, error.what)
            raise
        else:
            self._note_best()
            self._record.close(FINISHED, self._told_end())
        finally:
            if self._backup is not None:
                self._backup.close()
        return self._record.seconds

    def _attempts(self) -> None:
        """Start darknet until there are final weights, or it cannot be mended."""
        until: int | None = None
        self._say_how_it_begins()
        while not is_final(self._run, self._checkpoints):
            attempt = self._next(until)
            said_before = _size_of(self._run.log_path)
            ended = self._try(attempt)
            until = None
            verdict = self._verdict_on(ended, said_before)
            if verdict is None:
                continue
            if verdict.kind == "patience":
                self._stop_early(verdict)
            elif verdict.kind == "warm-up":
                self._record.event("warm-up", verdict.sentence, iteration=verdict.iteration)
                _log.info("train: %s; goes on with all GPUs", verdict.sentence)
            else:
                until = self._mend(verdict, said_before)

    def _next(self, until: int | None) -> _Attempt:
        number = len(self._run.record.get("attempts") or []) + 1
        weights, done = self._checkpoints.newest(until)
        gpus = self._task.gpus
        alone = for_one_gpu(self._course.cfg, len(gpus))
        warm_up = warm_up_of(alone) if len(gpus) > 1 else 0
        warms_up = done < warm_up
        cfg = fitted(alone if warms_up else self._course.cfg, self._tuning)
        return _Attempt(
            number=number,
            cfg=cfg,
            cfg_path=self._write_cfg(cfg, number),
            gpus=gpus[:1] if warms_up else gpus,
            weights=weights or self._started_from(),
            done=done,
            warm_up=warm_up if warms_up else 0,
        )

    def _started_from(self) -> Path | None:
        start = start_of(self._task.project, self._course)
        _log.info("train: %s", start.told)
        self._record.write(start=dict(start.origin) or None)
        return start.path

    def _write_cfg(self, cfg: Cfg, number: int) -> str:
        """Write an attempt's own network where it is not the course's.

        In a folder of its own, because darknet names weights by the base name.
        """
        text = cfg.encode()
        if text == self._course.cfg.encode():
            return self._run.cfg_path.name
        path = Path("attempts") / str(number) / self._run.cfg_path.name
        files.write_bytes(self._run.folder / path, text)
        return str(path)

    def _try(self, attempt: _Attempt) -> Ended:
        line = self._task.darknet.line
        argv = train_command(
            self._task.darknet,
            data="obj.data",
            cfg=attempt.cfg_path,
            weights=None if attempt.weights is None else str(attempt.weights),
            resume=attempt.done > 0,
            gpus=",".join(attempt.gpus) or None,
            measure_map=True,
            colours=self._options.colours,
        )
        schedule = schedule_of(attempt.cfg)
        self._record.begin(
            argv,
            cfg=attempt.cfg_path,
            from_iteration=attempt.done,
            learning_rate=schedule.learning_rate,
            subdivisions=schedule.subdivisions,
            gpus=list(attempt.gpus),
        )
        rules = self._rules(attempt)
        release()
        ended = supervise(
            argv,
            cwd=self._run.folder,
            log_path=self._run.log_path,
            read=Reader(not_to_go_on=[line.best_weights] if line.best_weights else []),
            rules=rules,
            total=self._max_batches,
            done=attempt.done,
            environment=ENVIRONMENT,
            typed=line.typed,
        )
        self._keeper.settle()
        self._record.end(
            exit=process.how_ended(ended.exit_code),
            to_iteration=ended.iteration,
            iterations=ended.iterations,
            verdict=ended.verdict.kind if ended.verdict else None,
        )
        self._note_best()
        return ended

    def _rules(self, attempt: _Attempt) -> list[Rule]:
        stall_s = self._options.stall_s
        measures_map = bool(self._task.darknet.line.map_flags)
        quiet_images = len(self._run.image_ids("valid")) if measures_map else 0
        explosion = Explosion(schedule_of(attempt.cfg).burn_in)
        explosion.replay(facts_of(self._run.log_path), attempt.done)
        rules: list[Rule] = [
            self._keeper,
            NotANumber(),
            explosion,
            OutOfMemory(),
            Stall(None if stall_s == AUTO else float(stall_s), quiet_images),
            DiskFull(self._checkpoints.needed_bytes, self._free_bytes),
        ]
        if self._options.patience:
            patience = Patience(self._options.patience, measures_map=measures_map)
            patience.replay(facts_of(self._run.log_path))
            rules.append(patience)
        if attempt.warm_up:
            rules.append(WarmUp(attempt.warm_up))
        if self._backup is not None:
            rules.append(self._backup)
        return rules

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._run.folder).free

    def _verdict_on(self, ended: Ended, said_before: int) -> Verdict | None:
        """Judge an attempt by what it left; ``None`` for one that trained to the end.

        Raises:
            DarknetError: It ended too early, and trying again would not help.
        """
        if ended.verdict is not None:
            return ended.verdict
        if is_final(self._run, self._checkpoints):
            return None
        if self._is_lost():
            told = "the weights that it left are no numbers: the training has diverged"
            return Verdict("nan", told, ended.iteration, ended.iteration)
        raise self._failure(ended, said_before)

    def _is_lost(self) -> bool:
        """Tell whether there are final weights of the right size that are no numbers."""
        final = self._checkpoints.final_path
        return final.is_file() and (
            self._checkpoints.has_right_size(final)
            and self._checkpoints.iteration_of(final) is None
        )

    def _mend(self, verdict: Verdict, said_before: int) -> int | None:
        """Take the training back from where it went wrong, or give up.

        Returns:
            Go on from weights with at most so many iterations; ``None`` for the newest.
        """
        _log.warning("train: %s", verdict.sentence)
        chosen = decide(
            verdict, self._tuning, schedule_of(self._fitted()), self._options.max_rollbacks
        )
        evidence = None
        if verdict.kind in {"nan", "explosion"}:
            good = self._checkpoints.newest(verdict.good_until)[1]
            evidence = self._checkpoints.move_aside(good, f"{self._attempt_count():03}")
        event: dict[str, object] = {
            "iteration": verdict.iteration,
            "evidence": str(evidence.relative_to(self._run.folder)) if evidence else None,
            "log_from_byte": said_before,
        }
        if isinstance(chosen, GiveUp):
            self._record.event(verdict.kind, verdict.sentence, **event, done="gave up")
            self._record.write(tuning=asdict(replace(self._tuning, rollbacks=0)))
            raise self._given_up(verdict, chosen, said_before)
        return self._again(verdict, chosen, event)

    def _again(self, verdict: Verdict, chosen: Again, event: dict[str, object]) -> int | None:
        self._tuning = chosen.tuning
        back_to = self._checkpoints.newest(chosen.until)[1]
        self._record.event(
            verdict.kind, verdict.sentence, **event, done=chosen.told, back_to=back_to
        )
        self._record.write(tuning=asdict(self._tuning))
        _log.warning("train: goes on from iteration %s and %s", f"{back_to:,}", chosen.told)
        return chosen.until

    def _fitted(self) -> Cfg:
        return fitted(self._course.cfg, replace(self._tuning, rate_factor=1.0))

    def _attempt_count(self) -> int:
        return len(self._run.record.get("attempts") or [])

    def _stop_early(self, verdict: Verdict) -> None:
        """Take the newest weights for the final ones, unless it came to its end meanwhile."""
        if is_final(self._run, self._checkpoints):
            return
        path, iteration = self._checkpoints.newest()
        if path is None:
            raise DarknetError(
                "a training without weights was stopped", where=str(self._run.folder)
            )
        with files.whole_file(self._checkpoints.final_path) as part:
            shutil.copyfile(path, part)
        told = f"stopped early at iteration {iteration:,}: {verdict.sentence}"
        self._record.write(stopped_early={"iteration": iteration, "told": told})
        self._record.event("patience", told, iteration=iteration)
        _log.info("train: %s", told)

    def _interrupted(self) -> None:
        """Tell what is lost: darknet saves nothing when it is asked to end."""
        self._keeper.settle()
        reached = max(self._keeper.iteration, 0)
        saved = self._checkpoints.newest()[1]
        lost = max(0, reached - saved)
        told = f"interrupted after iteration {reached:,}; the weights of {saved:,} are saved"
        _log.info("train: %s, so %s will be trained again", told, f"{lost:,} iterations")
        if self._attempt_count():
            self._record.end(to_iteration=reached, verdict="interrupted", iterations_lost=lost)
        self._record.close(INTERRUPTED, told)

    def _note_best(self) -> None:
        best = self._checkpoints.best
        if best is not None:
            self._record.write(best={"map": best.map, "iteration": best.iteration})

    def _told_end(self) -> str:
        early = self._run.record.get("stopped_early")
        if isinstance(early, dict):
            return str(early["told"])
        return f"trained all {self._max_batches:,} iterations"

    def _say_how_it_begins(self) -> None:
        done = self._checkpoints.newest()[1]
        _log.info(
            "train: %s: %s",
            f"going on with {self._run.name} at iteration {done:,}"
            if done
            else f"begins {self._run.name}",
            self._course.told,
        )
        if not self._task.darknet.gpu and self._course.network not in _FOR_A_CPU:
            _log.warning(
                "train: this darknet computes on the CPU, where each of the %s iterations of %s "
                "takes seconds to minutes",
                f"{self._max_batches:,}",
                self._course.network,
            )

    def _made_backup(self) -> Backup | None:
        place = self._options.backup_to
        if place is None:
            return None
        return Backup(self._run, self._checkpoints, self._keeper, place=place)

    def _said_since(self, said_before: int) -> list[str]:
        """Give the lines of an attempt; of a long one the last, which tell why it ended."""
        if not self._run.log_path.is_file():
            return []
        with self._run.log_path.open("rb") as file:
            file.seek(max(said_before, _size_of(self._run.log_path) - _SAID_BYTES))
            return file.read().decode(errors="replace").strip().splitlines()

    def _failure(self, ended: Ended, said_before: int) -> DarknetError:
        """Explain a failed attempt by what it said itself."""
        cause = cause_of(self._said_since(said_before), ended.iterations)
        how = f"darknet ended ({process.how_ended(ended.exit_code)})"
        return DarknetError(
            f"{how} without having trained to the end" + (f": {cause.name}" if cause.name else ""),
            where=str(self._run.log_path),
            expected=f"{self._run.weights_folder.name}/{self._checkpoints.final_path.name} after "
            f"{self._max_batches:,} iterations",
            found=f"darknet's words:\n{cause.words or 'nothing'}\n",
            remedy=cause.remedy,
        )

    def _given_up(self, verdict: Verdict, chosen: GiveUp, said_before: int) -> OiyoloError:
        cause = cause_of(self._said_since(said_before), 1)
        kind = UnavailableError if chosen.is_disk else DarknetError
        return kind(
            f"the training was stopped: {verdict.sentence}",
            where=str(self._run.log_path),
            found=f"darknet's words:\n{cause.words or 'nothing'}\n",
            remedy=chosen.remedy,
        )


def _size_of(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
