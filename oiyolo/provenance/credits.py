"""``CREDITS.csv`` and ``CREDITS.md``: who made each image, under which licence, and our changes."""

from __future__ import annotations

import csv
import io
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from oiyolo.core.escaping import bullets, in_csv, in_markdown, link, one_line, web_url
from oiyolo.core.results import pluralize
from oiyolo.core.units import format_bytes
from oiyolo.provenance.dataset import NOT_STATED
from oiyolo.provenance.licences import (
    image_licences,
    licences_in_words,
    linked,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oiyolo.provenance.dataset import Dataset

CSV_NAME: Final = "CREDITS.csv"
MARKDOWN_NAME: Final = "CREDITS.md"
COLUMNS: Final = (
    *("file", "ImageID", "split", "Title", "Author", "AuthorProfileURL", "License"),
    *("OriginalLandingURL", "OriginalURL", "fetched_from", "rotation_degrees"),
    *("fetched_width_px", "fetched_height_px", "width_px", "height_px", "masked_regions"),
)
_MIRROR_SIDE_PX: Final = 1024


def render_csv(dataset: Dataset) -> str:
    """Return ``CREDITS.csv``: a row for each image of the dataset, in order of ids."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    names = ("ImageID", "split", "Author", "AuthorProfileURL", "License")
    urls = ("OriginalLandingURL", "OriginalURL")
    columns = (dataset.images[name].tolist() for name in (*names, *urls))
    rows = zip(*columns, strict=True)
    for rotation, title, row in zip(dataset.rotations, dataset.titles, rows, strict=True):
        image_id, split, author, profile, licence, landing, original = row
        credit = (in_csv(title), in_csv(author), web_url(profile))
        licence = web_url(licence) or in_csv(licence) or NOT_STATED
        sources = (web_url(landing), web_url(original), dataset.source_of(image_id))
        sizes = (
            *(dataset.fetched_size_wh.get(image_id) or ("", "")),
            *(dataset.prepared_size_wh(image_id) or ("", "")),
        )
        masked = dataset.masked_counts.get(image_id, 0)
        file = f"obj/{image_id}.jpg"
        writer.writerow(
            (file, image_id, split, *credit, licence, *sources, rotation, *sizes, masked)
        )
    return text.getvalue()


class _Credit(NamedTuple):
    """The credit of one image, in the order in which credits are listed."""

    licence: str
    author_key: str
    author: str
    profile: str
    title: str
    url: str


def render_markdown(dataset: Dataset) -> str:
    """Return ``CREDITS.md``: how to attribute the images, and their authors with all titles.

    All images of an author are on one line, so that the file stays short enough to be opened: about
    100 bytes for an image.
    """
    credits_list = _credits(dataset)
    authors = len({credit.profile or credit.author for credit in credits_list} - {""})
    by = f"by {pluralize(authors, 'author')}" if authors else "whose authors are not stated"
    sections = list(_sections(dataset, credits_list))
    body = "\n\n".join([*_introduction(dataset), *sections]) + "\n"
    head = (
        "# Credits\n\n"
        f"The {pluralize(len(credits_list), 'image')} of this dataset, {by}. This file has about "
        f"{format_bytes(round(len(body.encode()), -3))}; `{CSV_NAME}` has the same credits as a "
        "table, with the ImageID of each image, its split and what was changed.\n\n"
    )
    return head + body


def _credits(dataset: Dataset) -> list[_Credit]:
    """Return the credits of all images by licence (the most frequent first), author and title."""
    names = ("ImageID", "License", "AuthorProfileURL", "Author")
    urls = ("OriginalLandingURL", "OriginalURL")
    columns = (dataset.images[name].tolist() for name in (*names, *urls))
    credits_list = []
    rows = zip(*columns, strict=True)
    for title, row in zip(dataset.titles, rows, strict=True):
        image_id, licence, profile, author, landing, original = row
        name = one_line(author)
        key = f"{name.casefold()} {profile}"
        url = web_url(landing) or web_url(original)
        shown = one_line(title) or image_id
        credits_list.append(_Credit(licence.strip(), key, name, profile, shown, url))
    order = {licence: place for place, licence in enumerate(image_licences(dataset))}
    return sorted(credits_list, key=lambda credit: (order[credit.licence], *credit[1:]))


def _introduction(dataset: Dataset) -> Iterator[str]:
    yield (
        "## How to attribute\n\n"
        "If you show an image, name its title, author, source and licence next to it, and "
        f"what you changed:\n\n> {_example(dataset)}\n\n"
        f"If you pass on the dataset or a part of it, pass on this file and `{CSV_NAME}` with it. "
        "If you use an image in another way, read its licence first."
    )
    yield f"## Licences\n\n{licences_in_words(dataset)}"
    yield f"## What was changed\n\n{changes_in_words(dataset)}"
    yield "## Authors"


def _example(dataset: Dataset) -> str:
    if dataset.images.empty:
        return "*Title*, author, source, licence, changes"
    row = dataset.images.iloc[0]
    title = one_line(dataset.titles[0]) or row["ImageID"]
    url = web_url(row["OriginalLandingURL"]) or web_url(row["OriginalURL"])
    author = link(row["Author"], row["AuthorProfileURL"]) or f"author {NOT_STATED}"
    return f"{link(title, url)} by {author}, licence: {linked(row['License'].strip())}, resized"


def changes_in_words(dataset: Dataset) -> str:
    """Return what preparation did to the images, as a list in Markdown."""
    rotated = sum(turn != 0 for turn in dataset.rotations)
    masked = sum(image_id in dataset.masked_counts for image_id in dataset.images["ImageID"])
    sources = [dataset.source_of(image_id) for image_id in dataset.images["ImageID"]]
    lines = []
    if mirrored := sources.count("mirror"):
        lines.append(
            f"Images from a mirror, most of whose copies had been reduced to {_MIRROR_SIDE_PX:,} "
            f"pixels on the longest side: {mirrored:,}."
        )
    if thumbnails := sources.count("thumbnail"):
        lines.append(f"Images from thumbnails of the originals' site: {thumbnails:,}.")
    lines.append(f"Images that were turned upright, by 90, 180 or 270 degrees: {rotated:,}.")
    lines.append(_resizing_in_words(dataset))
    if masked:
        lines.append(
            f"Images in which boxes around groups of objects were filled with grey: {masked:,}."
        )
    lines.append("All images were encoded again as JPEG, without their EXIF data.")
    return bullets(lines)


def _resizing_in_words(dataset: Dataset) -> str:
    if dataset.size_wh is None:
        return "No image was resized."
    width, height = dataset.size_wh
    how = "with grey borders" if dataset.fit == "letterbox" else "without keeping the aspect ratio"
    return f"All images were resized to {width}x{height} pixels, {how}."


def _sections(dataset: Dataset, credits_list: Sequence[_Credit]) -> Iterator[str]:
    """Yield a section for each licence: its authors, each with their images on one line."""
    for licence, group in groupby(credits_list, key=lambda credit: credit.licence):
        lines = []
        for _, own in groupby(group, key=lambda credit: credit.author_key):
            works = list(own)
            author = link(works[0].author, works[0].profile) or f"Author {NOT_STATED}"
            lines.append(f"- {author}: " + ", ".join(link(w.title, w.url) for w in works))
        heading = f"### {in_markdown(name_of(licence))}"
        count = pluralize(image_licences(dataset)[licence], "image")
        yield f"{heading}\n\n{count}, licence: {linked(licence)}\n\n" + "\n".join(lines)
