"""Names of licences, and what is said about those of images, annotations and weights."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from oiyolo.core.escaping import in_markdown, link, one_line, table, web_url
from oiyolo.provenance.dataset import NOT_STATED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oiyolo.provenance.dataset import Dataset

ANNOTATIONS: Final = "https://creativecommons.org/licenses/by/4.0/"
"""Licence of Open Images' annotations
(https://storage.googleapis.com/openimages/web/factsfigures_v7.html)."""
NO_WARRANTY: Final = (
    "Open Images states that its images are listed as having a CC BY 2.0 license, makes no "
    "representations or warranties about the license status of any image, and asks its users to "
    "verify it for each image."
)
_CREATIVE_COMMONS: Final = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/(\d\.\d)\b.*"
)
_PUBLIC_DOMAIN: Final = {"zero": "CC0", "mark": "Public Domain Mark"}


def name_of(licence: str) -> str:
    """Return the usual name of a licence, such as "CC BY 2.0", from its URL.

    Args:
        licence: The licence as an image list has it: a URL or a text; empty if there is none.
    """
    match = _CREATIVE_COMMONS.fullmatch(licence.strip())
    if match is None:
        return one_line(licence) or NOT_STATED
    kind, version = match.groups()
    return f"{_PUBLIC_DOMAIN.get(kind) or f'CC {kind.upper()}'} {version}"


def linked(licence: str) -> str:
    """Return a licence's name in Markdown, with a link to its text if it is a URL."""
    return link(name_of(licence), licence)


def image_licences(dataset: Dataset) -> Mapping[str, int]:
    """Return the number of images by licence as listed, the most frequent first; "" for none."""
    counts = Counter(text.strip() for text in dataset.images["License"].tolist())
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def licence_urls(dataset: Dataset) -> list[str]:
    """Return the URLs of the licences of annotations and images, as far as they are stated."""
    urls = [ANNOTATIONS] if dataset.is_open_images else []
    return urls + [url for licence in image_licences(dataset) if (url := web_url(licence))]


def licences_in_words(dataset: Dataset) -> str:
    """Return what is known about the licences of annotations and images, in Markdown."""
    parts = [_annotations_in_words(dataset)]
    counts = image_licences(dataset)
    if any(counts):
        rows = [(linked(licence), count) for licence, count in counts.items()]
        stated = "licence, as the image list states it"
        if dataset.imported_names:
            stated = "licence, as the image list or whoever imported the images states it"
        parts.append(table((stated, "images"), rows))
    else:
        parts.append(
            f"The licences of the images are {NOT_STATED}"
            f"{' in the image list' if dataset.tables else ''}. Ask their owners "
            "before you publish them."
        )
    return "\n\n".join([*parts, NO_WARRANTY] if dataset.is_open_images else parts)


def _annotations_in_words(dataset: Dataset) -> str:
    names = ", ".join(in_markdown(name) for name in dataset.imported_names)
    imported = f"The licence of the imported annotations ({names}) is {NOT_STATED}."
    if names and not dataset.tables:
        return imported
    official = _official_annotations_in_words(dataset)
    return f"{official} {imported}" if names else official


def _official_annotations_in_words(dataset: Dataset) -> str:
    if dataset.is_open_images:
        which = "The annotations of Open Images" if dataset.imports else "The annotations"
        return f"{which} are licensed by Google LLC under {linked(ANNOTATIONS)}."
    hosts = sorted({"/".join(url.split("/")[:3]) for url in dataset.tables})
    origin = ", ".join(f"`{web_url(host)}`" for host in hosts) or "an unknown place"
    return (
        f"The licence of the annotations is {NOT_STATED}: they were read from {origin}, "
        "not from Open Images' site."
    )
