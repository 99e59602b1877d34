"""evaluate --all-checkpoints: score every saved checkpoint of a run, and choose the best.

Each checkpoint is scored on the run's own valid list and on a sample of its train list. Only the
chosen one is scored on test, once: a choice on test would make its score too good.
"""

from __future__ import annotations

import logging
import math
import textwrap
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from oiyolo import __version__
from oiyolo.core import files, staleness
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.core.results import TERMINAL_WIDTH, Plan, Result, format_table, images_html, pluralize
from oiyolo.evaluation.comparison import (
    Difference,
    ResampledScore,
    compare_scores,
    widen_for_choice,
)
from oiyolo.evaluation.figures import format_figure, format_interval, interval_from_json
from oiyolo.networks import cfg as cfg_file
from oiyolo.networks.weights import read_header
from oiyolo.stages.evaluate.checkpoint_scorer import (
    CheckpointScorer,
    add_comparison,
    add_score,
    read_scores,
)
from oiyolo.training.run import BASE_NAME
from oiyolo.trainlog.overfitting import find_overfitting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.core.errors import OiyoloError
    from oiyolo.evaluation.tables import Floats
    from oiyolo.project.project import Project
    from oiyolo.stages.evaluate.checkpoint_scorer import (
        CheckedWeights,
        ScoredCheckpoint,
        ScoreRecord,
    )
    from oiyolo.training.run import Run
    from oiyolo.trainlog.overfitting import Overfitting

_log = logging.getLogger("oiyolo")

REASON: Final = "the best checkpoint on the valid split"
"""Why the weights that are scored on test were chosen."""
_RECIPE_NAME: Final = ".checkpoints-made-from.json"
_MAX_ROWS: Final = 30


@dataclass(frozen=True)
class CheckpointsScored(Result):
    """The scores of a run's checkpoints, and the one that was chosen.

    Attributes:
        run: The run.
        scores: The scores, by iteration.
        best: The saved checkpoint with the highest mAP@0.5 on valid.
        last: The saved checkpoint of the highest iteration.
        difference: By how much ``best`` exceeds ``last``, with an interval that allows for the
            choice; ``None`` if they are the same.
        candidates: Number of checkpoints that could have been the best one by chance, without
            ``last``.
        images: Number of images of valid and of the sample of train.
        paths: The weights of each iteration that are still there.
        chart: Chart of the scores.
        skipped: Why a file could not be scored, by its path.
        test: The score of ``best`` on test; ``None`` without test images.
    """

    run: Run
    scores: Sequence[ScoredCheckpoint]
    best: ScoredCheckpoint
    last: ScoredCheckpoint
    difference: Difference | None
    candidates: int
    images: tuple[int, int]
    paths: Mapping[int, Path]
    chart: Path
    skipped: Mapping[str, str] = field(default_factory=dict)
    test: Result | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the scores, the choice and its score on test as JSON-compatible values."""
        return {
            "run": self.run.name,
            "valid_images": self.images[0],
            "train_images": self.images[1],
            "checkpoints": [self._entry(score) for score in self.scores],
            "best": self._entry(self.best),
            "last": self._entry(self.last),
            "overfitting": None if self.overfitting is None else self.overfitting._asdict(),
            "candidates": self.candidates,
            "difference": self._difference_entry(),
            "skipped": dict(self.skipped),
            "chart": str(self.chart),
            "test": None if self.test is None else self.test.as_dict(),
        }

    def _entry(self, score: ScoredCheckpoint) -> dict[str, object]:
        path = self.paths.get(score.iteration)
        return {**score.to_json(), "path": None if path is None else str(path)}

    @property
    def overfitting(self) -> Overfitting | None:
        """Since when valid falls while train does not; ``None`` if it does not, or too little."""
        return find_overfitting([score.plotted for score in self.scores])

    def _difference_entry(self) -> dict[str, object] | None:
        if self.difference is None:
            return None
        entry = self.difference.to_json()
        return {
            "map50": entry["difference"],
            "map50_interval": entry["interval"],
            "beyond_chance": entry["beyond_chance"],
        }

    @property
    def verdict(self) -> str:
        """Which checkpoint is best, and whether that is beyond chance."""
        best, last = self.best, self.last
        if self.difference is None:
            return (
                f"The last checkpoint, of iteration {last.iteration:,}, is the best: mAP@0.5 "
                f"{best.valid_map50:.3f} on valid."
            )
        low, high = self.difference.interval
        text = (
            f"The best checkpoint is that of iteration {best.iteration:,}: mAP@0.5 "
            f"{best.valid_map50:.3f} on valid, {self.difference.value:.3f} more than the last one, "
            f"of iteration {last.iteration:,}"
        )
        if math.isnan(low):
            return f"{text}. There are too few images to say whether that is beyond chance."
        choice = f", for a choice among {self.candidates}" if self.candidates > 1 else ""
        text = f"{text} (95 % interval {low:.3f} to {high:.3f}{choice}), which is"
        if self.difference.is_beyond_chance:
            return f"{text} beyond chance."
        further = self.difference.further_images(self.images[0])
        advice = f": about {further:,} further images of valid would show it" if further else ""
        return f"{text} not beyond chance{advice}."

    def __str__(self) -> str:
        valid, train = (pluralize(count, "image") for count in self.images)
        parts = [
            (
                f"{self.run.name}: mAP@0.5 of {pluralize(len(self.scores), 'checkpoint')} on "
                f"{valid} of valid and {train} of train"
            ),
            self._table(),
            str(self.overfitting or ""),
            textwrap.fill(self.verdict, TERMINAL_WIDTH),
            *self._skipped_lines(),
            f"best weights: {self.paths[self.best.iteration]}",
            f"see {self.chart}, {self.run.scores_path}",
            "" if self.test is not None else "not scored on test, which has no images",
        ]
        text = "\n".join(part for part in parts if part)
        return text if self.test is None else f"{text}\n\n{self.test}"

    def _table(self) -> str:
        shown = _thinned(self.scores, {self.best.iteration, self.last.iteration})
        rows: list[tuple[str, ...]] = [("iteration", "train", "valid", "95 % interval", "")]
        width = max(len(rows[0][0]), len(f"{self.scores[-1].iteration:,}"))
        for score in shown:
            bounds = format_interval(score.valid_map50_interval)
            figures = (format_figure(score.train_map50), format_figure(score.valid_map50), bounds)
            rows.append((f"{score.iteration:{width},}", *figures, self._mark(score)))
        left_out = len(self.scores) - len(shown)
        return format_table(rows) + (f"\nand {left_out} more" if left_out else "")

    def _mark(self, score: ScoredCheckpoint) -> str:
        marks = {
            "best": score is self.best,
            "last": score is self.last,
            "removed": score.iteration not in self.paths,
        }
        return ", ".join(mark for mark, applies in marks.items() if applies)

    def _skipped_lines(self) -> Iterator[str]:
        if self.skipped:
            yield f"{pluralize(len(self.skipped), 'file')} could not be scored:"
        for path, reason in self.skipped.items():
            yield f"  {path}: {reason}"

    def _repr_html_(self) -> str:
        return super()._repr_html_() + images_html([self.chart])


def _thinned(scores: Sequence[ScoredCheckpoint], always: set[int]) -> Sequence[ScoredCheckpoint]:
    """Return about as many scores as a table shows, evenly, and some iterations in any case."""
    step = -(-len(scores) // _MAX_ROWS)
    return [
        score
        for position, score in enumerate(scores)
        if position % step == 0 or score.iteration in always
    ]


@dataclass
class _SavedFiles:
    """The weights files of a run.

    Attributes:
        by_iteration: Files of each iteration, the preferred one first.
        skipped: Why a file could not be scored, by its path.
        digests: SHA-256 of the files that were read.
    """

    by_iteration: dict[int, list[Path]]
    skipped: dict[Path, str] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)

    def add(self, path: Path, batch: int) -> None:
        """Add a file by the iteration in its header, or skip it."""
        try:
            iteration = read_header(path).iteration(batch)
        except (InputFormError, UsageError, OSError) as error:
            self.skip(path, error)
        else:
            self.by_iteration.setdefault(iteration, []).append(path)

    def skip(self, path: Path, error: OiyoloError | OSError) -> None:
        """Note why a file cannot be scored, and warn of it."""
        if isinstance(error, OSError):
            self.skipped[path] = error.strerror or str(error)
        else:
            self.skipped[path] = f"{error.found or error.what}, expected {error.expected}"
        _log.warning("evaluate: %s is skipped: %s", path, self.skipped[path])

    def note_scored(self, path: Path, score: ScoredCheckpoint) -> None:
        """Note what was scored: the file may have been written to since it was found."""
        self.digests[path] = score.sha256
        if path not in (paths := self.by_iteration.setdefault(score.iteration, [])):
            paths.append(path)

    def digest_of(self, path: Path) -> str:
        """Return the SHA-256 of a file; empty if it was removed."""
        if path not in self.digests:
            try:
                self.digests[path] = files.sha256_of(path)
            except OSError:
                return ""
        return self.digests[path]

    def file_of(self, score: ScoredCheckpoint) -> Path | None:
        """Return the file of a scored checkpoint; ``None`` if it is not there any more."""
        candidates = self.by_iteration.get(score.iteration, ())
        return next((path for path in candidates if self.digest_of(path) == score.sha256), None)

    def without_score(self, scores: Sequence[ScoredCheckpoint]) -> list[int]:
        """Return the iterations of which no file has a score, ascending."""
        scored = {score.iteration for score in scores if self.file_of(score) is not None}
        return sorted(self.by_iteration.keys() - scored)


def find_files(run: Run) -> _SavedFiles:
    """Return the weights files of a run: of several of one iteration, those that last first.

    Darknet does not write into final and numbered weights again, nor into the copies; the copies
    are removed some time.
    """
    folder = run.weights_folder
    final = run.final_weights_path
    # Links to weights that a training is having scored do not stay.
    kept = {*folder.glob("kept/*.weights")} - {*folder.glob("kept/scoring-*")}
    own = {*folder.glob(f"{BASE_NAME}*.weights"), *folder.glob(f"{BASE_NAME}.backup")}
    numbered = sorted(path for path in own if path.stem[-1].isdigit())
    overwritten = sorted(own - {final, *numbered})
    saved = _SavedFiles({})
    batch = cfg_file.read(run.cfg_path).net.integer("batch", 1)
    for path in (*(own & {final}), *numbered, *sorted(kept), *overwritten):
        saved.add(path, batch)
    return saved


def score_all(
    project: Project,
    run: Run,
    *,
    test_images: int,
    evaluate_on_test: Callable[[Path], Result],
    dry_run: bool = False,
) -> CheckpointsScored | Plan:
    """Score all saved checkpoints of a run that have no score yet, and the best of them on test.

    Nothing is locked: the run may be training, and another process may add scores. Each score is
    saved at once, so that the next call resumes one that was killed.

    Args:
        project: The project.
        run: The run.
        test_images: Number of images of test; without any, nothing is scored on it.
        evaluate_on_test: Function that scores a weights file on test; in a dry run, it returns a
            plan instead.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There are no weights.
        InputFormError: The valid list is empty, images are missing, or no checkpoint is valid.
    """
    saved = find_files(run)
    if not (saved.by_iteration or saved.skipped):
        raise UsageError(
            f"the run {run.name} has no weights to evaluate",
            where=str(run.weights_folder),
            remedy=f"Run `{run.train_command}`, which resumes the run",
        )
    scorer = CheckpointScorer(project, run)
    pending = saved.without_score(scorer.saved_scores)
    if dry_run:
        actions = _actions(saved, pending, scorer)
        present = _present(scorer.saved_scores, saved)
        if not (actions or present):
            raise _unusable_error(run, saved)
        if test_images and actions:
            actions.append(
                f"score the best checkpoint on {pluralize(test_images, 'image')} of test"
            )
        elif test_images:
            actions += _actions_of(evaluate_on_test(present[_best_of(present)]))
        return Plan("evaluate", actions)
    files.remove_abandoned_parts(run.folder, run.scores_path.name)
    files.remove_abandoned_parts(run.charts_folder)
    resampled = _score_pending(run, scorer, saved, pending)
    result = _choose(run, scorer, saved, resampled)
    _draw(result)
    if not test_images:
        return result
    return replace(result, test=evaluate_on_test(result.paths[result.best.iteration]))


def _actions(saved: _SavedFiles, pending: Sequence[int], scorer: CheckpointScorer) -> list[str]:
    """Return which checkpoints would be scored, in words; those that are invalid are skipped."""
    valid, train = (pluralize(count, "image") for count in scorer.image_counts)
    checked = (_first_valid(scorer, saved, saved.by_iteration[iteration]) for iteration in pending)
    return [
        f"score {weights.path} (iteration {weights.iteration:,}) on {valid} of valid and {train} "
        "of train"
        for weights in checked
        if weights is not None
    ]


def _actions_of(result: Result) -> Sequence[str]:
    return result.actions if isinstance(result, Plan) else []


def _score_pending(
    run: Run, scorer: CheckpointScorer, saved: _SavedFiles, pending: Sequence[int]
) -> dict[str, Floats]:
    """Score checkpoints and save each score at once; return their resampled scores by SHA-256."""
    resampled: dict[str, Floats] = {}
    for number, iteration in enumerate(pending, start=1):
        # Another process may have scored it since.
        if iteration in saved.without_score(scorer.saved_scores):
            what = f"iteration {iteration:,} ({number} of {len(pending)})"
            scored = _score_first(scorer, saved, saved.by_iteration[iteration], what)
            if scored is not None:
                record, values = scored
                add_score(run, record)
                resampled[record.score.sha256] = values
    return resampled


def _score_first(
    scorer: CheckpointScorer, saved: _SavedFiles, paths: Sequence[Path], what: str
) -> tuple[ScoreRecord, Floats] | None:
    """Score the first valid file of an iteration; note why the ones before are not."""
    remaining = [*paths]
    while (weights := _first_valid(scorer, saved, remaining)) is not None:
        remaining = remaining[remaining.index(weights.path) + 1 :]
        try:
            record, values = scorer.score(weights, what=what)
        except OSError as error:
            saved.skip(weights.path, error)
        else:
            saved.note_scored(weights.path, record.score)
            return record, values
    return None


def _first_valid(
    scorer: CheckpointScorer, saved: _SavedFiles, paths: Sequence[Path]
) -> CheckedWeights | None:
    """Return the first valid weights; note why the ones before are not."""
    checked = (_check(scorer, saved, path) for path in paths)
    return next((weights for weights in checked if weights is not None), None)


def _check(scorer: CheckpointScorer, saved: _SavedFiles, path: Path) -> CheckedWeights | None:
    try:
        return scorer.check(path)
    except (InputFormError, UsageError, OSError) as error:
        saved.skip(path, error)
        return None


def _choose(
    run: Run, scorer: CheckpointScorer, saved: _SavedFiles, resampled: Mapping[str, Floats]
) -> CheckpointsScored:
    """Return the scores with the best checkpoint, and how it compares with the last.

    Raises:
        InputFormError: No file has a score.
    """
    scores = scorer.saved_scores
    present = _present(scores, saved)
    if not present:
        raise _unusable_error(run, saved)
    best, last = _best_of(present), [*present][-1]

    def values_of(score: ScoredCheckpoint) -> Floats:
        values = resampled.get(score.sha256)
        return scorer.resample(present[score]) if values is None else values

    difference, candidates = None, _candidates(present, best, last)
    if best is not last:
        plain = _compare(run, scorer, best, last, values_of)
        difference = widen_for_choice(plain, candidates)
    return CheckpointsScored(
        run=run,
        scores=scores,
        best=best,
        last=last,
        difference=difference,
        candidates=candidates,
        images=scorer.image_counts,
        paths={score.iteration: path for score, path in present.items()},
        chart=run.charts_folder / "checkpoints.png",
        skipped={scorer.shown_path(path): why for path, why in saved.skipped.items()},
    )


def _unusable_error(run: Run, saved: _SavedFiles) -> InputFormError:
    return InputFormError(
        f"no checkpoint of the run {run.name} can be scored",
        where=str(run.weights_folder),
        expected="complete, finite weights of the run's network",
        found="; ".join(f"{path.name}: {why}" for path, why in saved.skipped.items()),
        remedy=f"Run `{run.train_command}`, which resumes the run, or train a new one",
    )


def _present(
    scores: Sequence[ScoredCheckpoint], saved: _SavedFiles
) -> dict[ScoredCheckpoint, Path]:
    """Return the scored checkpoints that still exist, by iteration, with their files."""
    return {score: path for score in scores if (path := saved.file_of(score)) is not None}


def _best_of(scores: Iterable[ScoredCheckpoint]) -> ScoredCheckpoint:
    """Return the best checkpoint; of several with the same score the last."""
    return max(scores, key=lambda score: (score.valid_map50, score.iteration))


def _candidates(
    scores: Iterable[ScoredCheckpoint], best: ScoredCheckpoint, last: ScoredCheckpoint
) -> int:
    """Return how many checkpoints besides the last have an interval that reaches the best score."""
    return sum(
        score is best or score.valid_map50_interval[1] >= best.valid_map50
        for score in scores
        if score is not last
    )


def _compare(
    run: Run,
    scorer: CheckpointScorer,
    best: ScoredCheckpoint,
    last: ScoredCheckpoint,
    values_of: Callable[[ScoredCheckpoint], Floats],
) -> Difference:
    """Return by how much the best checkpoint exceeds the last; compute and save it if need be."""
    saved = (read_scores(run, scorer.made_from) or {}).get("best_against_last")
    if saved is not None and (saved["best"], saved["last"]) == (best.sha256, last.sha256):
        bounds = interval_from_json(saved["interval"])
        return Difference(last.valid_map50, best.valid_map50, bounds)
    scores = (ResampledScore(score.valid_map50, values_of(score)) for score in (last, best))
    difference = compare_scores(*scores, images=scorer.images_with_boxes)
    bounds = difference.to_json()["interval"]
    add_comparison(
        run,
        scorer.made_from,
        {"best": best.sha256, "last": last.sha256, "interval": bounds},
    )
    return difference


def _draw(result: CheckpointsScored) -> None:
    """Draw the chart of the scores, unless it exists."""
    recipe = {
        "scores": staleness.fingerprint([score.to_json() for score in result.scores]),
        "best": result.best.iteration,
        "verdict": result.verdict,
        "version": __version__,
    }
    recipe_path = result.run.charts_folder / _RECIPE_NAME
    is_current = staleness.stale_reason(recipe_path, recipe) is None and result.chart.is_file()
    if is_current:
        return
    from oiyolo.charts.checkpoints import save_checkpoints  # noqa: PLC0415  (slow to import)

    save_checkpoints(
        [score.plotted for score in result.scores],
        result.best.plotted,
        result.run.charts_folder,
        title=f"{result.run.name}: checkpoints",
        summary=result.verdict.replace("95 %", "95\N{NO-BREAK SPACE}%"),
    )
    staleness.write_recipe(recipe_path, recipe)
