"""The model card of an exported detector: what it finds, how well, and what it was made from.

The block at its beginning is metadata in the form that Hugging Face's hub reads from a README.md
(https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo import __version__
from oiyolo.core import files, records
from oiyolo.core.errors import OiyoloError
from oiyolo.core.escaping import bullets, front_matter, in_markdown, link, one_line, table
from oiyolo.core.results import pluralize
from oiyolo.core.units import format_bytes
from oiyolo.darknet import lists
from oiyolo.evaluation.figures import (
    HEADLINES,
    format_figure,
    format_interval,
    from_json,
    interval_from_json,
)
from oiyolo.provenance.croissant import NAME as CROISSANT
from oiyolo.provenance.dataset import NOT_STATED
from oiyolo.provenance.licences import linked
from oiyolo.training.run import fingerprint_of_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from oiyolo.inference.facts import ModelFacts
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

SUFFIX: Final = ".md"
_MARK: Final = "# Written by oiyolo export; without this line, the file is yours and is kept.\n"
_LISTS: Final = ("train", "valid")


@dataclass(frozen=True)
class ModelCard:
    """What a model card is made from.

    Attributes:
        name: Name of the detector.
        model_path: The exported model.
        size_wh: Width and height of its input in pixels.
        form: Layout and precision of the model, in words.
        facts: What is known about the detector.
        network_sha256: SHA-256 of the network file, in hexadecimal.
        weights_sha256: SHA-256 of the weights.
        run: The run that trained it; ``None`` for files from elsewhere.
        dataset_folder: ``data/dataset`` of the run's project.
    """

    name: str
    model_path: Path
    size_wh: tuple[int, int]
    form: str
    facts: ModelFacts
    network_sha256: str
    weights_sha256: str
    run: Run | None = None
    dataset_folder: Path | None = None

    @property
    def path(self) -> Path:
        """The file of the card, next to the model."""
        return self.model_path.with_suffix(SUFFIX)

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of the run's ``run.json``; empty without a run."""
        return {} if self.run is None else self.run.record

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """The content of ``evaluation.json``; empty if it is not about these weights."""
        from oiyolo.evaluation.summary import with_current_keys  # noqa: PLC0415  (rarely needed)

        saved = None if self.run is None else files.read_json(self.run.evaluation_path)
        try:
            evaluation = with_current_keys(saved) if isinstance(saved, dict) else {}
        except ValueError:
            return {}
        scored = evaluation.get("weights", {}).get("sha256")
        return evaluation if scored == self.weights_sha256 else {}


def is_current(card: ModelCard) -> bool:
    """Return whether the card's file needs no change, also because the user has taken it over."""
    text = _read(card.path)
    return text is not None and (_MARK not in text or text == render(card))


def write(card: ModelCard) -> bool:
    """Write the card next to its model, unless ``is_current``; return whether it was written."""
    if is_current(card):
        if _MARK not in (_read(card.path) or ""):
            _log.warning("export: %s was not written by oiyolo, and is kept", card.path)
        return False
    files.write_text(card.path, render(card))
    return True


def _read(path: Path) -> str | None:
    try:
        return files.read_text(path, errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def render(card: ModelCard) -> str:
    """Return the card of an existing model."""
    sections = {
        "Classes": [_classes(card.facts.names)],
        "How to run it": _usage(card),
        "Training": [bullets(_training(card))],
        "Scores": _scores(card.evaluation),
        "Limits": [bullets(_limits(card))],
        "Licences and attribution": [bullets(_licences(card))],
        "Versions": [_versions(card)],
    }
    parts = [_front_matter(card), f"# {in_markdown(card.name)}"]
    if card.facts.description:
        parts.append(f"{in_markdown(card.facts.description)}.")
    for title, paragraphs in sections.items():
        parts += [f"## {title}", *paragraphs]
    return "\n\n".join(parts) + "\n"


def _front_matter(card: ModelCard) -> str:
    """Return the metadata in YAML."""
    fields = {
        "model_name": one_line(card.name),
        "license": "other",
        "pipeline_tag": "object-detection",
        "library_name": "onnx",
        "tags": ["yolo", "darknet"],
    }
    return front_matter(fields, _MARK.rstrip())


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(f"{class_id} {in_markdown(name)}" for class_id, name in enumerate(names))
    return f"{pluralize(len(names), 'class')}, each after its class id: {shown}."


def _usage(card: ModelCard) -> list[str]:
    width, height = card.size_wh
    fit = {
        "stretch": "stretched to it",
        "letterbox": "scaled to it with their aspect ratio, and padded with grey",
    }[card.facts.fit]
    threshold = card.facts.threshold
    chosen = (
        "No score threshold was chosen for it; oiyolo uses 0.25."
        if threshold is None
        else f"Score threshold, chosen on the valid split: {threshold:.3g}."
    )
    command = f"oiyolo predict --model '{_word(card.model_path)}' photo.jpg"
    others = (
        f"Other programs: the input `images` is float32 (batch, 3, {height}, {width}), RGB from 0 "
        f"to 1; images are {fit}. {card.form}. {chosen} The rule of non-maximum suppression is "
        f"{card.facts.nms_kind} with IoU {card.facts.nms_iou:g}; the file's metadata repeats all "
        "of this."
    )
    return [f"```sh\n{command}\n```", others]


def _word(path: Path) -> str:
    """Return a file's name for a shell's single quotes, on one line of a code block."""
    return "".join(c if c.isprintable() else "?" for c in path.name).replace("'", "'\\''")


class _DatasetFields(TypedDict):
    """The fields of ``croissant.json`` that a card repeats."""

    name: str
    description: str
    license: list[str] | str


def _find_dataset(card: ModelCard) -> dict[str, Any] | None:
    """Return the description of the run's dataset; ``None`` if the project has another one now."""
    if card.run is None or card.dataset_folder is None:
        return None
    try:
        for name in _LISTS:
            now = fingerprint_of_images(lists.read_ids(card.dataset_folder / f"{name}.txt"))
            if now != fingerprint_of_images(card.run.image_ids(name)):
                return None
        return records.find_intact(card.dataset_folder / CROISSANT, _DatasetFields)
    except (OiyoloError, OSError):
        return None


def _training(card: ModelCard) -> Iterator[str]:
    if card.run is None:
        yield "Not stated: the network and its weights come from elsewhere."
        return
    yield from _training_data(card.run, _find_dataset(card))
    record = card.record
    yield f"Initial weights: {_initial_weights(record)}."
    if record.get("outcome"):
        yield f"Outcome: {in_markdown(str(record['outcome']))}."
    if record.get("ended_at"):
        yield f"Started on {_day(record.get('began_at'))}, ended on {_day(record['ended_at'])}."


def trained_on(run: Run) -> str:
    """Return on how many images a run was trained, in a sentence."""
    try:
        train, valid = (len(set(run.image_ids(name))) for name in _LISTS)
    except (OiyoloError, OSError):
        return "Training images: the run's lists of them are missing or damaged."
    images = pluralize(train, "image")
    return f"Trained on {images}; weights and thresholds were chosen on {valid:,} others."


def _training_data(run: Run, dataset: Mapping[str, Any] | None) -> Iterator[str]:
    yield trained_on(run)
    if dataset is None:
        yield "The project's dataset has changed since the training, so its card is not repeated."
    else:
        yield (
            f"Dataset: {in_markdown(dataset['name'])}. {in_markdown(dataset['description'])} "
            "`DATASET.md` in the project describes it; `CREDITS.md` names the authors."
        )


def _initial_weights(record: Mapping[str, Any]) -> str:
    """Return what the training started from, in Markdown."""
    start = record.get("start")
    if not isinstance(start, dict) or not start:
        is_random = record.get("weights") == "none"
        return "none (random)" if is_random else "not recorded"
    url, sha256 = str(start.get("url") or ""), str(start.get("sha256") or "")
    file = (url or str(start.get("path") or "")).rpartition("/")[2]
    checksum = f", SHA-256 {in_markdown(sha256)}" if sha256 else ""
    return f"{link(file or 'a file', url)}{checksum}"


def _day(time: object) -> str:
    return in_markdown(str(time or "an unknown day").partition("T")[0])


def _scores(evaluation: Mapping[str, Any]) -> list[str]:
    if not evaluation:
        return ["These weights have no scores: `oiyolo evaluate` had not scored them."]
    images, boxes = pluralize(evaluation["images"], "image"), pluralize(evaluation["boxes"], "box")
    headlines = [
        (label, _figure(evaluation[key]), _interval(evaluation[f"{key}_interval"]))
        for label, key in HEADLINES
    ]
    keys = ("map50", "score_threshold", "precision", "recall")
    rows = [
        (in_markdown(name), row["images"], row["boxes"], *(_figure(row[key]) for key in keys))
        for name, row in evaluation["classes"].items()
    ]
    split, thresholds = evaluation["split"], evaluation.get("thresholds_from")
    measured = f"Measured on {images} with {boxes} of the {in_markdown(str(split))} split."
    if thresholds:
        measured += f" Score thresholds were chosen on {in_markdown(str(thresholds))}."
    header = ("class", "images", "boxes", "AP@0.5", "threshold", "precision", "recall")
    return [
        measured,
        table(("score", "estimate", "95 % interval"), headlines),
        table(header, rows),
    ]


def _figure(value: float | None) -> str:
    return format_figure(float(from_json(value)))


def _interval(bounds: Sequence[float] | None) -> str:
    return format_interval(interval_from_json(bounds))


def _limits(card: ModelCard) -> Iterator[str]:
    yield "It finds only the classes above, and objects of a similar size and kind as in training."
    width, height = card.size_wh
    yield f"Images are reduced to {width}x{height} pixels, so small objects may be missed."
    evaluation = card.evaluation
    if evaluation:
        yield (
            "The scores hold for photographs from the same source as the training images. They say "
            "nothing about other cameras, places or times."
        )
        if more := evaluation.get("images_to_halve_intervals"):
            yield f"Few test images or boxes: {more:,} more images would halve the intervals."
    if card.run is not None:
        yield "`DATASET.md` in the project lists the known biases and limits of the training data."


def _licences(card: ModelCard) -> Iterator[str]:
    dataset = _find_dataset(card)
    if dataset is None:
        yield f"Licence of the weights: {in_markdown(card.facts.licence or NOT_STATED)}."
    else:
        yield f"Licence of the weights: {NOT_STATED}."
        names = dataset["license"]
        shown = [linked(name) for name in (names if isinstance(names, list) else [names])]
        yield f"Licences of the training data: {', '.join(shown)}."
    if card.record.get("start"):
        yield (
            "The weights are derived from the initial weights above. Their authors, and those of "
            "the data that these were trained on, have terms of their own."
        )


def _versions(card: ModelCard) -> str:
    darknet = card.record.get("darknet", {})
    program = " ".join(str(darknet[key]) for key in ("fork", "revision") if darknet.get(key))
    size = format_bytes(card.model_path.stat().st_size)
    rows = [
        ("model", f"{in_markdown(card.model_path.name)}, {size}"),
        ("SHA-256 of the model", f"`{files.sha256_of(card.model_path)}`"),
        ("SHA-256 of the weights", f"`{card.weights_sha256}`"),
        ("SHA-256 of the network", f"`{card.network_sha256}`"),
        ("trained by", in_markdown(program) or NOT_STATED),
        ("exported by", f"oiyolo {in_markdown(__version__)}"),
    ]
    return table(("item", "value"), rows)
