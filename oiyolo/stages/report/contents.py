"""What a report shows about a run, read from the run's folder and the project."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo.core import files, records
from oiyolo.core.errors import OiyoloError
from oiyolo.core.escaping import one_line
from oiyolo.core.results import data_url
from oiyolo.darknet.forks import FORKS
from oiyolo.evaluation import panel_files
from oiyolo.evaluation.figures import HEADLINES
from oiyolo.evaluation.summary import Evaluation, with_current_keys
from oiyolo.label_errors import decisions, summary
from oiyolo.label_errors.candidates import KIND_WORDS
from oiyolo.net.urls import without_secrets
from oiyolo.pages.gallery import ImageCredit, Item, Overlay
from oiyolo.pages.template import MISSING, format_percent
from oiyolo.project.ledger import SPLITS
from oiyolo.provenance.licences import name_of
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage
from oiyolo.stages.plan_comparison import comparison
from oiyolo.stages.report.verdict import TrainingFacts, judge
from oiyolo.stages.split.check import check_split
from oiyolo.training.run import FINISHED, runs_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oiyolo.project.ledger import Counts
    from oiyolo.project.project import Project
    from oiyolo.stages.report.verdict import DetectorVerdict
    from oiyolo.stages.split import Split
    from oiyolo.stages.split.check import Checked
    from oiyolo.training.run import Run

_LABELS: Final = {
    "map50": "mAP@0.5",
    "map50_95": "mAP@0.5:0.95",
    "openimages_map": "Open Images mAP",
}
_MAX_SUSPECTED: Final = 20
_MAX_SUSPECTED_BYTES: Final = 300_000
"""Of the pictures of suspected errors, so that a report stays below 10 MB."""
_MAX_SHEETS_BYTES: Final = 1_200_000
"""Size of the contact sheets that a report contains, in all."""
_FIRST_ERRORS: Final = ("fp", "fn")


class _Scores(TypedDict):
    """What the page shows of ``evaluation.json``, apart from the figures."""

    split: str


class _Sentence(TypedDict):
    sentence: str


class _LossVerdict(_Sentence, total=False):
    trend: str  # older versions did not write it


class _Metrics(TypedDict):
    """What the page shows of ``metrics.json``."""

    verdict: _LossVerdict


@dataclass(frozen=True)
class Headline:
    """A score at the top of a page.

    Attributes:
        label: Its name.
        value: The score; ``None`` if it is not defined.
        interval: The bounds of its 95 % interval; ``None`` if there is none.
        baseline: The score of a detector that was not trained for this task; ``None`` without one.
    """

    label: str
    value: float | None
    interval: Sequence[float] | None
    baseline: float | None


def find_evaluation(run: Run) -> dict[str, Any] | None:
    """Return the content of the run's ``evaluation.json``; ``None`` if there is none.

    Raises:
        InputFormError: It is damaged.
    """
    remedy = f"Run `oiyolo evaluate --run {run.name}`, which writes it again"
    content = records.find(run.evaluation_path, _Scores, remedy=remedy)
    if content is None:
        return None
    with records.convert_damage(run.evaluation_path, remedy):
        return with_current_keys(content)


def headlines(evaluation: Mapping[str, Any]) -> list[Headline]:
    """Return the three headline scores."""
    baseline = evaluation["baseline"] or {}
    return [
        Headline(_LABELS[key], evaluation[key], evaluation[f"{key}_interval"], baseline.get(key))
        for _, key in HEADLINES
    ]


def loss_verdict(run: Run) -> _LossVerdict | None:
    """Return how the training went, from ``metrics.json``; ``None`` if there are no figures."""
    numbers = records.find_intact(run.folder / "metrics.json", _Metrics)
    verdict: _LossVerdict | None = None if numbers is None else numbers["verdict"]
    return verdict


def verdict(run: Run, evaluation: Mapping[str, Any] | None) -> DetectorVerdict:
    """Return how good the run's detector is."""
    loss = loss_verdict(run)
    best = run.record.get("best") or {}
    training = TrainingFacts(
        images=_train_images(run),
        is_finished=run.state == FINISHED,
        trend="" if loss is None else loss.get("trend", ""),
        best_valid_map50=best.get("map"),
    )
    scores = None if evaluation is None else Evaluation.from_json(evaluation)
    return judge(scores, training, None if evaluation is None else _baseline(evaluation))


def _train_images(run: Run) -> int | None:
    try:
        return len(run.image_ids("train"))
    except OiyoloError:
        return None


def _baseline(evaluation: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the baseline's score and the interval of the difference; ``None`` without both."""
    baseline = evaluation["baseline"]
    if not baseline or baseline["map50"] is None or not baseline["difference"]["interval"]:
        return None
    low, high = baseline["difference"]["interval"]
    return {"map50": baseline["map50"], "low": low, "high": high}


def class_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table of scores by class, with its heading."""
    heading = (
        *("class", "AP@0.5", "95 % interval", "AP@0.5:0.95", "images", "boxes"),
        *("true positives", "false positives", "false negatives"),
        *("precision", "recall", "F1", "threshold"),
    )
    rows = [
        (
            name,
            format_percent(row["map50"]),
            _interval(row["map50_interval"]),
            format_percent(row["map50_95"]),
            *(f"{row[key]:,}" for key in ("images", "boxes")),
            *(f"{row[f'{kind}s']:,}" for kind in ("true_positive", "false_positive")),
            f"{row['false_negatives']:,}",
            *(format_percent(row[key]) for key in ("precision", "recall", "f1")),
            MISSING if row["score_threshold"] is None else f"{row['score_threshold']:.2f}",
        )
        for name, row in evaluation["classes"].items()
    ]
    return [heading, *rows]


def part_rows(parts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table of scores by size or attribute, with its heading."""
    rows = [
        (
            name.replace("_", "-"),
            f"{part['boxes']:,}",
            format_percent(part["map50"]),
            format_percent(part["recall"]),
        )
        for name, part in parts.items()
        if part["boxes"]
    ]
    return [("boxes", "number", "mAP@0.5", "recall"), *rows]


def error_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what each kind of error costs in mAP@0.5, the most expensive first."""
    costs = {kind: cost for kind, cost in evaluation["errors"].items() if cost is not None}
    return [
        (kind, format_percent(costs[kind])) for kind in sorted(costs, key=lambda kind: -costs[kind])
    ]


def _interval(bounds: Sequence[float] | None) -> str:
    return MISSING if bounds is None else f"{bounds[0]:.1%} to {bounds[1]:.1%}"


def gallery(project: Project, run: Run) -> list[Item]:
    """Return the pictures of the run's panels, with credits and histories."""
    content = panel_files.find(run.panels_folder)
    if content is None:
        return []
    ids = list(content["images"])
    credit_by_id, histories = _credits(project, ids), _histories(project, ids)
    panels_of: dict[str, list[str]] = {}
    for panel in content["panels"]:
        if not panel["name"].startswith(("class-", "attribute-")):  # filters of their own
            for image_id in panel["images"]:
                panels_of.setdefault(image_id, []).append(panel["name"])
    items = []
    for image_id, image in content["images"].items():
        boxes = [
            Overlay(box["kind"], one_line(box["label"]), (left, top, right, bottom))
            for box in image["boxes"]
            for left, top, right, bottom in [box["xyxy"]]
        ]
        tags = {
            "panel": panels_of.get(image_id, []),
            "class": image["classes"],
            "errors": _errors({box.kind for box in boxes}),
            "size": image["sizes"],
            "attribute": image["attributes"],
            "split": [image["split"]],
        }
        width, height = image["size_wh"]
        items.append(
            Item(
                image_id,
                data_url(run.panels_folder / image["file"]),
                (width, height),
                image["caption"],
                boxes,
                tags,
                credit_by_id.get(image_id, ImageCredit()),
                histories.get(image_id, ()),
            )
        )
    return sorted(items, key=lambda item: -sum(o.kind in _FIRST_ERRORS for o in item.overlays))


def _errors(kinds: set[str]) -> list[str]:
    names = {"fp": "false positive", "fn": "false negative"}
    return [name for kind, name in names.items() if kind in kinds] or ["none"]


def _credits(project: Project, ids: Sequence[str]) -> dict[str, ImageCredit]:
    """Return whom some images are from; those that are no longer selected are missing."""
    selection = select_stage.find(project)
    if selection is None:
        return {}
    images = selection.images
    images = images[images["ImageID"].isin(ids)]
    names = ("ImageID", "Author", "License", "OriginalLandingURL")
    columns = (images[name].fillna("").tolist() for name in names)
    return {
        image_id: ImageCredit(
            one_line(author), name_of(licence) if licence else "", licence, page_url
        )
        for image_id, author, licence, page_url in zip(*columns, strict=True)
    }


def _histories(project: Project, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return what `oiyolo why` prints about some images, line by line."""
    if not project.ledger_path.is_file():
        return {}
    with project.ledger(read_only=True) as ledger:
        return {
            image_id: [
                without_secrets(f"{at[:10]} {stage}: {what}")
                for at, stage, what in ledger.events(image_id)
            ]
            for image_id in ids
        }


@dataclass(frozen=True)
class DatasetFacts:
    """The figures of a dataset.

    Attributes:
        split: Its splits.
        counts: The states of the selected images.
        check: The check of its splits.
        sheets: The contact sheets to show, by split.
    """

    split: Split
    counts: Counts
    check: Checked
    sheets: Mapping[str, Path]

    @property
    def rows(self) -> list[list[str]]:
        """The images and objects of each split."""
        numbers = {
            "images": self.split.images,
            **{f"images: {name}": counted for name, counted in self.split.images_of.items()},
            **{f"objects: {name}": counted for name, counted in self.split.objects.items()},
        }
        return [[name, *(f"{own[part]:,}" for part in SPLITS)] for name, own in numbers.items()]

    @property
    def totals(self) -> list[tuple[str, str]]:
        """The states of the selected images, which add up to the last row."""
        states = self.counts.states.items()
        rows = [(state, f"{number:,}") for state, number in states if number]
        excluded = self.counts.excluded.items()
        rows += [(f"excluded: {reason}", f"{number:,}") for reason, number in excluded]
        return [*rows, ("selected, in all", f"{self.counts.selected:,}")]

    @property
    def findings(self) -> list[tuple[str, str, str]]:
        """What the check found: rule, outcome and explanation."""
        return [(found.name, found.outcome, found.message) for found in self.check.findings]


@dataclass(frozen=True)
class SuspectedErrors:
    """The first suspected label errors.

    Attributes:
        rows: Rows of the file, with a heading.
        searched: Which images were searched, and who judged them, in words; empty if unknown.
        first: Pictures of the most certain errors, as far as their images are there; the URLs are
            names of files in ``data/dataset/obj``.
    """

    rows: Sequence[tuple[str, ...]]
    searched: str
    first: Sequence[Item]


@dataclass(frozen=True)
class ProjectFacts:
    """What a report shows of the project that its run belongs to.

    Attributes:
        dataset: The figures of the dataset; ``None`` if it is missing.
        suspected: The suspected label errors; ``None`` without any.
        planned: The headline of the plan, and a table of plan and outcome; ``None`` without a plan.
        options_text: ``oiyolo.toml`` without credentials; empty if it cannot be read.
    """

    dataset: DatasetFacts | None
    suspected: SuspectedErrors | None
    planned: tuple[str, Sequence[tuple[str, str, str]]] | None
    options_text: str


def project_facts(project: Project) -> ProjectFacts:
    """Return what a report shows of a project.

    Raises:
        InputFormError: ``data/review.csv`` is damaged.
    """
    return ProjectFacts(
        _dataset(project),
        _suspected(project),
        _plan_rows(project),
        _options_text(project),
    )


def _dataset(project: Project) -> DatasetFacts | None:
    split = split_stage.find(project) if project.ledger_path.is_file() else None
    if split is None:
        return None
    with project.ledger(read_only=True) as ledger:
        counts = ledger.counts()
    sheets = _sheets(project.dataset_folder / "look")
    return DatasetFacts(split, counts, check_split(project), sheets)


def _sheets(folder: Path) -> dict[str, Path]:
    """Return the contact sheets by split, as many as there is room for."""
    sheets, total_bytes = {}, 0
    for name in SPLITS:
        path = folder / f"{name}.jpg"
        if path.is_file() and total_bytes + path.stat().st_size <= _MAX_SHEETS_BYTES:
            total_bytes += path.stat().st_size
            sheets[name] = path
    return sheets


def _suspected(project: Project) -> SuspectedErrors | None:
    rows = _suspected_rows(project)
    if not rows:
        return None
    found = summary.read(project.review_folder / summary.NAME)
    first, total_bytes = [], 0
    for item in found.first:
        path = project.objects_folder / item.url
        if path.is_file() and total_bytes + path.stat().st_size <= _MAX_SUSPECTED_BYTES:
            total_bytes += path.stat().st_size
            first.append(item)
    return SuspectedErrors(rows, "; ".join(summary.describe(found.searched)), first)


def suspected_items(project: Project, suspected: SuspectedErrors | None) -> list[Item]:
    """Return the pictures of suspected errors with their images, credits and histories."""
    first = suspected.first if suspected else ()
    ids = [item.image_id for item in first]
    credit_by_id, histories = _credits(project, ids), _histories(project, ids)
    return [
        replace(
            item,
            url=data_url(project.objects_folder / item.url),
            credit=credit_by_id.get(item.image_id, ImageCredit()),
            history=histories.get(item.image_id, ()),
        )
        for item in first
    ]


def _suspected_rows(project: Project) -> list[tuple[str, ...]]:
    rows = [row for row in decisions.read(project.review_path) if row.kind]
    if not rows:
        return []
    shown = [
        (
            row.image_id,
            row.class_name,
            KIND_WORDS.get(row.kind, row.kind),
            f"{row.score:.2f}",
            row.reason,
            row.decision.replace("_", " ") or "none",
        )
        for row in rows[:_MAX_SUSPECTED]
    ]
    return [("image", "class", "kind", "score", "reason", "decision"), *shown]


def _plan_rows(project: Project) -> tuple[str, list[tuple[str, str, str]]] | None:
    if not project.ledger_path.is_file():
        return None
    try:
        with project.ledger(read_only=True) as ledger:
            compared = comparison(project, ledger, runs_in(project.runs_folder))
    except OiyoloError:
        return None
    if compared is None:
        return None
    _, *rows = compared.rows()
    return compared.headline, [("quantity", "planned", "actual"), *rows]


def _options_text(project: Project) -> str:
    try:
        return without_secrets(files.read_text(project.options_path).strip())
    except (OSError, UnicodeDecodeError):
        return ""


def program_text(program: Mapping[str, Any]) -> str:
    """Return the training program in a run's record, in words that follow "with"."""
    name: Any = program.get("fork") or program.get("line")
    title = f"{name}'s fork of darknet" if name else "an unknown fork of darknet"
    if name in FORKS:
        title = FORKS[name].title
    where = "GPU" if program.get("gpu") else "CPU"
    if program.get("engine") == "torch":
        return f"PyTorch (rules of {title}; {where})"
    return f"{title} ({where})"


def version_rows(run: Run, evaluation: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return what the detector was made with and from: versions and checksums."""
    record = run.started_record
    program = record["darknet"]
    revision = " ".join(str(program.get(key) or "") for key in ("fork", "revision")).strip()
    weights = {} if evaluation is None else evaluation["weights"]
    sources = record.get("data_sources") or {}
    imports = ", ".join(sources.get("imports", {}))
    rows = [
        ("oiyolo", str(record.get("oiyolo") or "")),
        ("training program", f"{program.get('engine', 'darknet')} {revision}".strip()),
        ("network", f"{record['network']}, SHA-256 {record.get('cfg_sha256', 'not recorded')}"),
        ("initial weights", str(record.get("weights") or "none")),
        ("dataset", f"fingerprint {record.get('dataset_fingerprint', 'not recorded')}"),
        ("imports", imports),
        ("scored weights", str(weights.get("path") or "")),
        ("SHA-256 of the scored weights", str(weights.get("sha256") or "")),
        ("training seed", str(record.get("train_seed") or "")),
    ]
    return [(name, value) for name, value in rows if value]
