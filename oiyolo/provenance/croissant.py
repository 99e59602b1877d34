"""``croissant.json``: the dataset in MLCommons' Croissant format 1.0, with its RAI vocabulary 1.0.

- https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html
- https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html

The images are a record set of their own, without a join: mlcroissant keeps all tables that it joins
in memory, with the pixels of every image.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files
from oiyolo.core.escaping import one_line
from oiyolo.project.ledger import SPLITS
from oiyolo.provenance.credits import CSV_NAME as CREDITS_CSV
from oiyolo.provenance.dataset import NOT_STATED
from oiyolo.provenance.dataset_card import NAME as CARD_NAME
from oiyolo.provenance.dataset_card import summary_of, title_of
from oiyolo.provenance.known_limits import (
    ANNOTATION,
    CITE_AS,
    COLLECTION,
    PERSONAL,
    known_biases,
    known_limits,
)
from oiyolo.provenance.licences import licence_urls
from oiyolo.provenance.selection_rules import selection_rules, split_rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oiyolo.provenance.dataset import Dataset

NAME: Final = "croissant.json"
_CONFORMS_TO: Final = (
    "http://mlcommons.org/croissant/1.0",
    "http://mlcommons.org/croissant/RAI/1.0",
)
_PREFIXED: Final = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty"),
    *("fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField"),
    *("path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
    *("separator", "source", "subField", "transform"),
)
_CONTEXT: Final[Mapping[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _PREFIXED},
}
_SPLIT_TERMS: Final = dict(
    zip(SPLITS, ("TrainingSplit", "ValidationSplit", "TestSplit"), strict=True)
)
_IMAGE_FILES: Final = "image-files"
_BOXES: Final = "boxes.csv"
_OPEN_IMAGES: Final = "https://storage.googleapis.com/openimages/web/index.html"


def render(dataset: Dataset, credits_csv: str) -> str:
    """Return ``croissant.json``.

    Args:
        dataset: The dataset; its files ``boxes.csv``, ``split.csv`` and ``obj.names`` exist.
        credits_csv: Content of ``CREDITS.csv``.
    """
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS_TO,
        "name": title_of(dataset),
        "description": summary_of(dataset),
        "url": CARD_NAME,
        "version": "1.0.0",
        **_origin(dataset),
        **_responsible_ai(dataset),
        "distribution": _distribution(dataset, credits_csv),
        "recordSet": _record_sets(dataset),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _origin(dataset: Dataset) -> dict[str, Any]:
    """Return who made the dataset, when, and under which licences."""
    days = (*dataset.selected_at, *dataset.fetched_at)
    origin: dict[str, Any] = {
        "license": licence_urls(dataset) or NOT_STATED,
        "keywords": ["object detection", *(one_line(name) for name in dataset.class_names)],
        "creator": {"@type": "sc:Organization", "name": f"Authors listed in {CREDITS_CSV}"},
    }
    if days:
        origin["datePublished"] = max(days)
    if dataset.is_open_images:
        google = {"@type": "sc:Organization", "name": "Google LLC", "url": _OPEN_IMAGES}
        origin |= {"isBasedOn": _OPEN_IMAGES, "citeAs": CITE_AS}
        origin["creator"] = [google, origin["creator"]]
    return origin


def _responsible_ai(dataset: Dataset) -> dict[str, Any]:
    """Return the properties of the RAI vocabulary; what is unknown is left out."""
    fields: dict[str, Any] = {
        "rai:dataCollection": " ".join(selection_rules(dataset.options)),
        "rai:dataPreprocessingProtocol": split_rules(dataset),
        "rai:dataBiases": known_biases(dataset),
        "rai:dataLimitations": known_limits(dataset),
        "rai:personalSensitiveInformation": [PERSONAL],
        "rai:dataUseCases": ["Training, validation and testing of object detectors"],
        "rai:dataCollectionTimeframe": list(dataset.fetched_at),
    }
    if dataset.is_open_images:
        fields |= {
            "rai:dataCollectionType": ["Secondary Data analysis", "User-generated content data"],
            "rai:dataCollectionRawData": COLLECTION,
            "rai:dataAnnotationProtocol": [ANNOTATION],
            "rai:dataReleaseMaintenancePlan": (
                "oiyolo refresh follows Open Images and drops what it withdrew; oiyolo withdraw "
                "removes an image that its author wants to be removed."
            ),
        }
    return {name: value for name, value in fields.items() if value}


def _distribution(dataset: Dataset, credits_csv: str) -> list[dict[str, Any]]:
    """Return the files; darknet's lists are left out, because they contain absolute paths."""
    contents = {CREDITS_CSV: credits_csv.encode()}
    for name in (_BOXES, "split.csv", "obj.names"):
        contents[name] = files.read_bytes(dataset.folder / name)
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "contentSize": f"{len(content)} B",
            "encodingFormat": "text/csv" if name.endswith(".csv") else "text/plain",
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        for name, content in contents.items()
    ]
    images = {
        "@type": "cr:FileSet",
        "@id": _IMAGE_FILES,
        "name": _IMAGE_FILES,
        "description": "The prepared images: upright, resized, without EXIF data.",
        "encodingFormat": "image/jpeg",
        "includes": "obj/*.jpg",
    }
    return [*objects, images]


def _record_sets(dataset: Dataset) -> list[dict[str, Any]]:
    return [_splits(), _classes(dataset), _images(), _pixels(), _labels()]


def _splits() -> dict[str, Any]:
    fields = [_field("splits", "name", "sc:Text"), _field("splits", "url", "sc:URL")]
    rows = [
        {"splits/name": name, "splits/url": f"cr:{term}"} for name, term in _SPLIT_TERMS.items()
    ]
    return {**_record_set("splits", "The splits.", "name", fields), **_typed("cr:Split", rows)}


def _classes(dataset: Dataset) -> dict[str, Any]:
    kinds = {"name": "sc:Text", "class_id": "sc:Integer", "mid": "sc:Text"}
    fields = [_field("classes", name, kind) for name, kind in kinds.items()]
    rows = [
        {
            "classes/name": name,
            "classes/class_id": class_id,
            "classes/mid": (dataset.mids.get(name) or [""])[0],
        }
        for class_id, name in enumerate(dataset.class_names)
    ]
    text = "The classes: name, class id in the labels, and Open Images' MID."
    return {**_record_set("classes", text, "name", fields), **_typed("sc:Enumeration", rows)}


def _images() -> dict[str, Any]:
    """Return the record set of what is known about each image."""
    columns = {
        "image_id": ("ImageID", "sc:Text"),
        "file": ("file", "sc:Text"),
        "title": ("Title", "sc:Text"),
        "author": ("Author", "sc:Text"),
        "author_url": ("AuthorProfileURL", "sc:URL"),
        "license": ("License", "sc:Text"),
        "landing_page": ("OriginalLandingURL", "sc:URL"),
        "rotation_degrees": ("rotation_degrees", "sc:Integer"),
        "width_px": ("width_px", "sc:Integer"),
        "height_px": ("height_px", "sc:Integer"),
    }
    fields = [
        _field("images", name, kind, _column(CREDITS_CSV, column))
        for name, (column, kind) in columns.items()
    ]
    split = _field("images", "split", "sc:Text", _column(CREDITS_CSV, "split"))
    fields.append({**split, "references": {"field": {"@id": "splits/name"}}})
    text = "The images of the dataset, without their pixels, and whom to credit for them."
    return _record_set("images", text, "image_id", fields)


def _pixels() -> dict[str, Any]:
    """Return the record set of the images' files."""
    source = {"fileSet": {"@id": _IMAGE_FILES}, "extract": {"fileProperty": "filename"}}
    id_source = {**source, "transform": {"regex": r"^([0-9a-f]{16})\.jpg$"}}
    content = {"fileSet": {"@id": _IMAGE_FILES}, "extract": {"fileProperty": "content"}}
    fields = [
        _field("pixels", "image_id", "sc:Text", id_source),
        _field("pixels", "image", "sc:ImageObject", content),
    ]
    text = "The pixels of each image, by its image_id."
    return _record_set("pixels", text, "image_id", fields)


def _labels() -> dict[str, Any]:
    """Return the record set of the boxes.

    They refer to the table of the images: mlcroissant 1.1 cannot join another record set.
    """
    corners = {"x_min": "XMin", "y_min": "YMin", "x_max": "XMax", "y_max": "YMax"}
    box = {
        **_field("boxes", "box", "cr:BoundingBox"),
        "description": "Fractions of the image's width and height; the origin is at the top left.",
        "subField": [
            _field("boxes/box", name, "sc:Float", _column(_BOXES, column))
            for name, column in corners.items()
        ],
    }
    image_id = _field("boxes", "image_id", "sc:Text", _column(_BOXES, "ImageID"))
    label = _field("boxes", "class", ["sc:Text", "cr:Label"], _column(_BOXES, "class"))
    fields = [
        {**image_id, "references": _column(CREDITS_CSV, "ImageID")},
        _field("boxes", "split", "sc:Text", _column(CREDITS_CSV, "split")),
        label,
        _field("boxes", "class_id", "sc:Integer", _column(_BOXES, "class_id")),
        _field("boxes", "used", "sc:Boolean", _column(_BOXES, "used")),
        box,
    ]
    text = (
        "All boxes, by the image_id of their image. Those whose `used` is false are not labels; an "
        "image without a split is not in the dataset."
    )
    return _record_set("boxes", text, "", fields)


def _typed(kind: str, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {"dataType": kind, "data": rows}


def _record_set(
    name: str, text: str, key: str, fields: Sequence[Mapping[str, object]]
) -> dict[str, Any]:
    record_set = {"@type": "cr:RecordSet", "@id": name, "name": name, "description": text}
    keys = {"key": {"@id": f"{name}/{key}"}} if key else {}
    return {**record_set, **keys, "field": list(fields)}


def _field(
    parent: str, name: str, kind: str | list[str], source: Mapping[str, object] | None = None
) -> dict[str, Any]:
    field = {"@type": "cr:Field", "@id": f"{parent}/{name}", "name": name, "dataType": kind}
    return {**field, "source": source} if source else field


def _column(file: str, column: str) -> dict[str, Any]:
    return {"fileObject": {"@id": file}, "extract": {"column": column}}
