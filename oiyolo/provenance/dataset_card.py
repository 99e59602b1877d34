"""``DATASET.md``: what the dataset is, where it comes from, and what is known to be wrong with it.

The block at its beginning is metadata in the form that Hugging Face's hub reads from a README.md
(https://huggingface.co/docs/hub/datasets-cards).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.core.escaping import bullets, front_matter, in_markdown, one_line, table, web_url
from oiyolo.core.results import pluralize
from oiyolo.core.units import format_bytes
from oiyolo.project.ledger import SPLITS
from oiyolo.provenance.credits import CSV_NAME as CREDITS_CSV
from oiyolo.provenance.credits import MARKDOWN_NAME as CREDITS_MD
from oiyolo.provenance.credits import changes_in_words
from oiyolo.provenance.known_limits import (
    ANNOTATION,
    COLLECTION,
    PERSONAL,
    known_biases,
    known_limits,
)
from oiyolo.provenance.licences import licence_urls, licences_in_words, name_of
from oiyolo.provenance.selection_rules import selection_rules, split_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oiyolo.provenance.dataset import Dataset

NAME: Final = "DATASET.md"
_SIZES: Final = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
_LARGEST_SIZE: Final = "1M<n<10M"
_SHOWN_NAMES: Final = 3
_FILES: Final = (
    ("obj/<ImageID>.jpg, .txt", "an image and its labels, in YOLO's text format"),
    ("boxes.csv", "all boxes, also those that are not labels, with Open Images' attributes"),
    ("split.csv", "the split and the group of each image"),
    ("train.txt, valid.txt, test.txt, obj.names", "darknet's lists of images and class names"),
    (CREDITS_CSV, "authors, licences, sources and changes of the images"),
    ("croissant.json", "this description for programs (MLCommons Croissant)"),
)


def title_of(dataset: Dataset) -> str:
    """Return the dataset's title, from its classes."""
    names = [one_line(name) for name in dataset.class_names]
    shown, more = ", ".join(names[:_SHOWN_NAMES]), len(names) - _SHOWN_NAMES
    classes = f"{shown} and {more:,} more" if more > 0 else shown
    if not dataset.is_open_images:
        return f"{classes} dataset"
    imported = [one_line(name) for name in dataset.imported_names]
    return " and ".join([f"{classes} from Open Images", *imported])


def summary_of(dataset: Dataset) -> str:
    """Return a sentence about what the dataset contains."""
    images = pluralize(len(dataset.images), "image")
    boxes = pluralize(len(dataset.labels), "box")
    classes = pluralize(len(dataset.class_names), "class")
    places = [f"the import {one_line(name)}" for name in dataset.imported_names]
    if dataset.is_open_images:
        places.insert(0, f"Open Images {dataset.release.upper()}")
    elif places and dataset.tables:
        places.insert(0, "other tables")
    origin = f" from {' and '.join(places)}" if places else ""
    splits = ", ".join(f"{name} {count:,}" for name, count in dataset.image_counts.items())
    return (
        f"{images} with {boxes} of {classes}, selected{origin} and prepared to train and test "
        f"object detectors ({splits})."
    )


def render(dataset: Dataset) -> str:
    """Return ``DATASET.md``."""
    return "\n\n".join([_front_matter(dataset), *_sections(dataset)]) + "\n"


def _front_matter(dataset: Dataset) -> str:
    """Return the metadata in YAML."""
    count = len(dataset.images)
    size = next((text for limit, text in _SIZES.items() if count < limit), _LARGEST_SIZE)
    names = map(name_of, licence_urls(dataset))
    licences = [n.lower().replace(" ", "-") if n.startswith("CC") else "other" for n in names]
    fields = {
        "pretty_name": title_of(dataset),
        "license": list(dict.fromkeys(licences)) or ["unknown"],
        "task_categories": ["object-detection"],
        "size_categories": [size],
        "tags": ["open-images", "yolo"] if dataset.is_open_images else ["yolo"],
    }
    return front_matter(fields)


def _sections(dataset: Dataset) -> Iterator[str]:
    yield f"# {in_markdown(title_of(dataset))}"
    yield summary_of(dataset)
    yield _summary_table(dataset)
    yield f"## Classes\n\n{_class_table(dataset)}"
    yield f"## Selection\n\n{bullets(selection_rules(dataset.options))}"
    sources = [bullets(_dates(dataset)), *_source_tables(dataset)]
    yield "## Dates and sources\n\n" + "\n\n".join(sources)
    yield f"## Preparation\n\n{changes_in_words(dataset)}"
    yield f"## Splits\n\n{bullets(split_rules(dataset))}"
    yield f"## Images that are not used\n\n{_unused_table(dataset)}"
    collection = [COLLECTION, ANNOTATION] if dataset.is_open_images else []
    if limits := [*collection, *known_biases(dataset), *known_limits(dataset), PERSONAL]:
        yield f"## Known biases and limits\n\n{bullets(limits)}"
    yield (
        f"## Licences\n\n{licences_in_words(dataset)}\n\n"
        f"Whoever shows or passes on an image must name its author: [{CREDITS_MD}]"
        f"({CREDITS_MD}) says how, and names all of them."
    )
    yield f"## Files\n\n{table(('file', 'content'), [(f'`{f}`', text) for f, text in _FILES])}"
    yield (
        "## Withdraw an image\n\n"
        "Run `oiyolo withdraw <ImageID>` in the project: it removes the image from the dataset, "
        "never fetches it again, and lists the detectors that were trained on it."
    )


def _summary_table(dataset: Dataset) -> str:
    images = dataset.image_counts
    boxes = dataset.labels["split"].value_counts()
    rows: list[tuple[object, ...]] = [
        ("images", *(images[name] for name in SPLITS), sum(images.values())),
        ("boxes", *(int(boxes.get(name, 0)) for name in SPLITS), len(dataset.labels)),
    ]
    notes = []
    if dataset.size_bytes is not None:
        notes.append(f"Size of the images: {format_bytes(dataset.size_bytes)}.")
    if dataset.negative_count:
        notes.append(f"Images without boxes, as negatives: {dataset.negative_count:,}.")
    added, dropped = dataset.review_counts
    if added or dropped:
        notes.append(f"Boxes added by review: {added:,}; dropped by review: {dropped:,}.")
    return "\n\n".join([table(("", *SPLITS, "all"), rows), *([" ".join(notes)] if notes else [])])


def _class_table(dataset: Dataset) -> str:
    labels = dataset.labels
    boxes = labels.groupby(["class_id", "split"]).size().to_dict()
    pairs = labels.drop_duplicates(["ImageID", "class_id"])
    images = pairs.groupby(["class_id", "split"]).size().to_dict()
    rows: list[tuple[object, ...]] = []
    for class_id, name in enumerate(dataset.class_names):
        counts = [
            f"{int(images.get((class_id, s), 0)):,} / {int(boxes.get((class_id, s), 0)):,}"
            for s in SPLITS
        ]
        merged = ", ".join(dataset.summary["folded_in"].get(name, {})) or "-"
        mid = (dataset.mids.get(name) or ["-"])[0]
        rows.append((in_markdown(name), *counts, in_markdown(mid), in_markdown(merged)))
    header = ("class (images / boxes)", *SPLITS, "MID", "merged subclasses")
    return table(header, rows)


def _dates(dataset: Dataset) -> list[str]:
    days = {"Images were selected": dataset.selected_at, "Images were fetched": dataset.fetched_at}
    lines = [f"{what} {_period(dates)}." for what, dates in days.items() if dates]
    release = [f"Open Images {dataset.release.upper()}"] if dataset.is_open_images else []
    if dataset.tables and not release:
        release = ["other tables"]
    release += [
        f"the import {one_line(name)} ({dataset.imports[name].format})"
        for name in dataset.imported_names
    ]
    annotations = f"Annotations: {', '.join(release) or 'unknown'}."
    return [*lines, annotations, f"Written by oiyolo {dataset.version}."]


def _period(days: tuple[str, ...]) -> str:
    first, last = days[0], days[-1]
    return f"on {first}" if first == last else f"from {first} to {last}"


def _source_tables(dataset: Dataset) -> Iterator[str]:
    """Yield the tables of the imports' shares and classes, and of the official files."""
    if dataset.imported_names:
        yield _share_table(dataset)
    if classes := [
        row for name in dataset.imported_names for row in _class_map_rows(dataset, name)
    ]:
        yield table(("import", "its own name of the class", "class"), classes)
    if dataset.tables or not dataset.imports:
        yield _official_table(dataset)


def _share_table(dataset: Dataset) -> str:
    total = max(1, len(dataset.images))
    rows: list[tuple[object, ...]] = []
    for name, count in sorted(dataset.image_counts_by_import.items()):
        own = dataset.imports.get(name)
        shown = f"{in_markdown(name)} (imported, {own.format})" if own else "Open Images"
        if not (own or dataset.is_open_images):
            shown = "other tables"
        rows.append((shown, count, f"{count / total:.1%}", dataset.box_counts_by_import[name]))
    return table(("source", "images", "share", "boxes"), rows)


def _class_map_rows(dataset: Dataset, name: str) -> list[tuple[str, str, str]]:
    renamed = dataset.imports[name].class_map
    return [tuple(map(in_markdown, (name, *pair))) for pair in renamed.items()]  # type: ignore[misc]  # three texts


def _official_table(dataset: Dataset) -> str:
    rows = [(f"`{web_url(url)}`", f"`{in_markdown(md5)}`") for url, md5 in dataset.tables.items()]
    return table(("file", "MD5 of the version that was read"), rows)


def _unused_table(dataset: Dataset) -> str:
    reasons = {
        **{f"not selected: {reason}": n for reason, n in dataset.summary["excluded"].items()},
        **{f"selected: {reason}": n for reason, n in dataset.not_used.items()},
    }
    if not reasons:
        return "All images with the classes are used."
    return table(("reason", "images"), [(in_markdown(r), int(n)) for r, n in reasons.items()])
