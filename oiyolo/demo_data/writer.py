"""Write scenes as a mirror of Open Images, with the official file names and formats.

The folder contains::

    openimages/            as storage.googleapis.com/openimages: tables of boxes, images and labels
    open-images-dataset/   as the public image mirror: <subset>/<ImageID>.jpg
    flickr/                the original images, to which OriginalURL points
    url-lists/             the image lists with a placeholder for the mirror's base URL
    answers.json           responses for paths that are not plain files: dead links, thumbnails
    mirror.json            the arguments of the mirror and its base URL; written last

Only the first three are served.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypedDict
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageDraw

from oiyolo import boxes
from oiyolo.core import files, records
from oiyolo.core.errors import UsageError
from oiyolo.demo_data import catalogue
from oiyolo.demo_data.canvas import chance
from oiyolo.demo_data.scenes import BOAT_FAMILY, SceneKind, draw_scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from oiyolo.demo_data.scenes import DrawnObject, Scene

FORMAT_VERSION: Final = 1
"""Increased when the same arguments no longer produce the same mirror."""

DEFAULT_SCENES: Final = 760
MIN_SCENES: Final = 20
SUBSETS: Final = ("train", "validation", "test")
PUBLIC_FOLDERS: Final = ("openimages", "open-images-dataset", "flickr")
MARKER_FILE: Final = "mirror.json"
OVERRIDES_FILE: Final = "answers.json"

_URL_LISTS: Final = "url-lists"
_BASE_URL_FIELD: Final = "{base_url}"
_UNAVAILABLE_PHOTO: Final = "flickr/images/en-us/photo_unavailable.png"
_MIRROR_QUALITY: Final = 88
_ORIGINAL_QUALITY: Final = 94
_ORIENTATION_TAG: Final = 0x0112
_ORIENTATIONS: Final = {90: 8, 180: 3, 270: 6}
"""EXIF orientation by the counter-clockwise rotation, in degrees, that makes an image upright."""

BOX_FILES: Final = {
    "train": "v6/oidv6-train-annotations-bbox.csv",
    "validation": "v5/validation-annotations-bbox.csv",
    "test": "v5/test-annotations-bbox.csv",
}
IMAGE_FILES: Final = {
    "train": "2018_04/train/train-images-boxable-with-rotation.csv",
    "validation": "2018_04/validation/validation-images-with-rotation.csv",
    "test": "2018_04/test/test-images-with-rotation.csv",
}
LABEL_FILES: Final = {
    subset: f"v5/{subset}-annotations-human-imagelabels-boxable.csv" for subset in SUBSETS
}
CLASS_FILES: Final = (
    "v5/class-descriptions-boxable.csv",
    "v7/oidv7-class-descriptions-boxable.csv",
)
HIERARCHY_FILE: Final = "2018_04/bbox_labels_600_hierarchy.json"

_BOX_HEADER: Final = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
_CLICK_HEADER: Final = ",XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y"
_IMAGE_HEADER: Final = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
)
_LABEL_HEADER: Final = "ImageID,Source,LabelName,Confidence"
_LICENCE: Final = "https://creativecommons.org/licenses/by/2.0/"

_FIRST_NAMES: Final = (
    "Ada", "Bjørn", "Chiara", "Daniel X.", "Émile", "Farah", "Gwen", "Hiroshi", "Inès", "João",
    "Katja", "Liam", "Mae", "Nikolai", "Oona", "Priya", "Quentin", "Ruth", "Søren", "Tomás",
)  # fmt: skip
_LAST_NAMES: Final = (
    "O&#x27;Neil", "Anker", "van der Meer", "Castellanos", "Lindqvist", "Okafor", "Harbour",
    "Petrov", "Sandoval", "Whitby",
)  # fmt: skip
_TITLES: Final = (
    "Harbour, early morning", "IMG_{n}", "DSC0{n}", "Regatta &quot;{n}&quot;", "out on the water",
    "", "Fish &amp; ships", "Évian, le lac", 'The "{n}", at anchor', "P10{n}", "holiday, day {d}",
    "Wind &lt; 3 bft", 'Venezia, "Canal Grande"', "#sea #sky #light", "Sunday on the lake {n}",
    "waiting for the ferry", "帆船", "Blick aufs Meer, {d}. Juli",
)  # fmt: skip


class Fate(Enum):
    """What happened to an image after it was annotated."""

    FINE = "fine"
    GONE_404 = "gone-404"
    GONE_410 = "gone-410"
    MOVED = "moved-to-placeholder"
    ORIGINAL_ONLY = "original-only"
    CORRUPT = "corrupt"
    CUT_SHORT = "cut-short"


_ORIGINAL_STATUS: Final = {
    Fate.GONE_404: 404,
    Fate.GONE_410: 410,
    Fate.MOVED: 302,
    Fate.CORRUPT: 404,
}
"""HTTP status of the original by fate; other originals can be downloaded."""
_NOT_MIRRORED: Final = {Fate.GONE_404, Fate.GONE_410, Fate.MOVED, Fate.ORIGINAL_ONLY}


@dataclass(frozen=True)
class DemoMirror:
    """A demo mirror on disk.

    Attributes:
        folder: Folder of the mirror.
        base_url: URL at which the mirror is or was last served, without a trailing slash.
    """

    folder: Path
    base_url: str

    @property
    def openimages_url(self) -> str:
        """Value of ``[openimages] base_url`` for this mirror."""
        return f"{self.base_url}/openimages"

    @property
    def images_url(self) -> str:
        """Value of ``[images] mirror_url`` for this mirror."""
        return f"{self.base_url}/open-images-dataset"


@dataclass(frozen=True)
class ImagePlan:
    """The properties of an image that are decided before it is drawn.

    Attributes:
        subset: Open Images' own subset.
        number: Number within the subset; together with seed and subset, it determines the scene.
        image_id: ImageID: 16 hexadecimal digits.
        kind: Subject of the scene.
        author: Number of the author.
        rotation: Counter-clockwise rotation, in degrees, that makes the image upright; ``None`` if
            unknown.
        fate: What happened to the image after it was annotated.
        verified: Whether an image without boats has a label saying so.
    """

    subset: str
    number: int
    image_id: str
    kind: SceneKind
    author: int
    rotation: int | None = 0
    fate: Fate = Fate.FINE
    verified: bool = True


@dataclass(frozen=True)
class _ImageRows:
    """The rows of one image in the tables, without line ends, and its response overrides."""

    subset: str
    image: str
    labels: Sequence[str]
    boxes: Sequence[str]
    overrides: dict[str, dict[str, Any]]


def _make_rng(seed: int, *words: str | int) -> np.random.Generator:
    """Return a random number generator that depends only on the seed and the words."""
    text = ":".join(str(word) for word in (seed, *words))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def plan_images(seed: int, scenes: int) -> list[ImagePlan]:
    """Return the plans of all images of a mirror, sorted by ImageID.

    Args:
        seed: Seed of the mirror.
        scenes: Number of images in the train subset; validation and test have at most 24 each.

    Raises:
        UsageError: There are too few scenes to contain every kind and fate.
    """
    if scenes < MIN_SCENES:
        raise UsageError(
            "too few scenes for a demo mirror",
            expected=f"at least {MIN_SCENES}",
            found=str(scenes),
        )
    count = min(24, max(4, scenes // 8))
    plans = _plan_train(seed, scenes)
    authors = 1 + max(plan.author for plan in plans)
    for subset in SUBSETS[1:]:
        rng = _make_rng(seed, subset)
        for number in range(count):
            kind = SceneKind.NO_BOATS if number % 6 == 0 else SceneKind.BOATS
            author = int(rng.integers(authors))
            plans.append(ImagePlan(subset, number, _image_id(seed, subset, number), kind, author))
    return sorted(plans, key=lambda plan: plan.image_id)


def _image_id(seed: int, subset: str, number: int) -> str:
    return hashlib.sha256(f"{seed}:{subset}:{number}".encode()).hexdigest()[:16]


def _plan_train(seed: int, scenes: int) -> list[ImagePlan]:
    rng = _make_rng(seed, "plan")
    kinds = [SceneKind.NO_BOATS] * max(2, round(0.13 * scenes))
    kinds += [SceneKind.MARINA] * max(1, round(0.015 * scenes))
    kinds += [SceneKind.POSTER] * max(1, round(0.006 * scenes))
    kinds += [SceneKind.ON_BOARD] * max(1, round(0.006 * scenes))
    # Only plain boat scenes are rotated or lost, so that every case affects a Boat project.
    fates = [Fate.GONE_404, Fate.GONE_410, Fate.MOVED, Fate.CORRUPT, Fate.CUT_SHORT]
    fates += [Fate.ORIGINAL_ONLY] * max(1, scenes // 250)
    rotations = [(90, 180, 270)[nth % 3] for nth in range(max(3, round(0.03 * scenes)))]
    cases: list[tuple[SceneKind, Fate, int | None]] = [(kind, Fate.FINE, 0) for kind in kinds]
    cases += [(SceneKind.BOATS, fate, 0) for fate in fates]
    cases += [(SceneKind.BOATS, Fate.FINE, rotation) for rotation in rotations]
    plans = []
    for number, author in enumerate(_assign_authors(rng, scenes)):
        if number >= len(cases):
            # Flickr had already lost one image in ten when the rotations were collected.
            cases.append((SceneKind.BOATS, Fate.FINE, None if chance(rng, 0.1) else 0))
        kind, fate, rotation = cases[number]
        # Every second image without boats has a label saying so.
        verified = kind is not SceneKind.NO_BOATS or number % 2 == 0
        image_id = _image_id(seed, "train", number)
        plans.append(ImagePlan("train", number, image_id, kind, author, rotation, fate, verified))
    return plans


def _assign_authors(rng: np.random.Generator, scenes: int) -> list[int]:
    """Return an author's number for each image; authors have 5 to 22, fewer in small mirrors."""
    most = min(22, max(2, scenes // 16))
    least = max(1, most // 4)
    authors: list[int] = []
    author = 0
    while len(authors) < scenes:
        authors += [author] * int(rng.integers(least, most + 1))
        author += 1
    return [int(author) for author in rng.permutation(authors[:scenes])]


class _Marker(TypedDict, total=False):
    made_from: dict[str, Any]
    base_url: str


def write_mirror(
    folder: Path, *, base_url: str, seed: int = 0, scenes: int = DEFAULT_SCENES
) -> DemoMirror:
    """Write a mirror, unless the folder already contains it, and return it.

    Only the image lists are rewritten if the folder contains the mirror with another base URL.

    Args:
        folder: Folder of the mirror: a new or empty one, or an existing mirror, which is replaced
            if it was written with other arguments.
        base_url: URL at which the folder will be served, without a trailing slash.
        seed: Seed of the scenes.
        scenes: Number of scenes in the train subset.

    Raises:
        UsageError: ``folder`` contains other files, or ``scenes`` is too small.
    """
    recipe = {"form": FORMAT_VERSION, "seed": seed, "scenes": scenes}
    marker_path = folder / MARKER_FILE
    marker = records.find_intact(marker_path, _Marker)
    if marker is None and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            "not a demo mirror",
            where=str(folder),
            expected="a new or empty folder, or an existing demo mirror",
            remedy="Choose another folder",
        )
    # The marker of an interrupted run has no base URL.
    if marker is None or marker.get("made_from") != recipe or "base_url" not in marker:
        files.write_json(marker_path, {"made_from": recipe})
        _draw_all(folder, plan_images(seed, scenes), seed)
        marker = {"base_url": ""}
    if marker["base_url"] != base_url:
        # An empty base URL in the marker reveals an interrupted rewrite of the lists.
        files.write_json(marker_path, {"made_from": recipe, "base_url": ""})
        for subset in SUBSETS:
            text = (folder / _URL_LISTS / f"{subset}.csv").read_text(encoding="utf-8")
            path = folder / "openimages" / IMAGE_FILES[subset]
            files.write_text(path, text.replace(_BASE_URL_FIELD, base_url), durable=False)
        files.write_json(marker_path, {"made_from": recipe, "base_url": base_url})
    return DemoMirror(folder, base_url)


def last_port(folder: Path) -> int:
    """Return the port of the mirror's last base URL, or 0 if there is none."""
    marker = records.find_intact(folder / MARKER_FILE, _Marker) or {}
    try:
        return urlsplit(marker.get("base_url", "")).port or 0
    except ValueError:  # damaged
        return 0


def _draw_all(folder: Path, plans: Sequence[ImagePlan], seed: int) -> None:
    """Write everything but the image lists with URLs."""
    for name in (*PUBLIC_FOLDERS, _URL_LISTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (*(f"open-images-dataset/{subset}" for subset in SUBSETS), _URL_LISTS):
        (folder / name).mkdir(parents=True)
    # numpy and Pillow, which do the drawing, release the GIL; nothing here uses BLAS's own threads.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(lambda plan: _write_image(folder, plan, seed), plans))
    _write_tables(folder, rows)
    files.write_bytes(folder / _UNAVAILABLE_PHOTO, _unavailable_photo_png(), durable=False)
    overrides = {path: fields for row in rows for path, fields in row.overrides.items()}
    files.write_json(folder / OVERRIDES_FILE, overrides)


def _write_image(folder: Path, plan: ImagePlan, seed: int) -> _ImageRows:
    scene = draw_scene(_make_rng(seed, plan.subset, plan.number), plan.kind)
    rng = _make_rng(seed, plan.subset, plan.number, "facts")
    rotation = plan.rotation or 0
    # The stored image is rotated in the opposite direction.
    stored, objects = _rotate(scene, (360 - rotation) % 360)
    original = _jpeg(stored, _ORIGINAL_QUALITY, rotation)
    # As in the real mirror, most files lost their EXIF and some did not, so readers must not
    # rely on it.
    mirrored = _jpeg(stored, _MIRROR_QUALITY, rotation if plan.number % 3 == 0 else 0)
    farm, host, photo = rng.integers(1, 10), rng.integers(1000, 9999), rng.integers(10**9, 10**10)
    stem = f"flickr/{farm}/{host}/{photo}_"
    original_path = f"{stem}{rng.bytes(5).hex()}_o.jpg"
    thumbnail_path = f"{stem}{rng.bytes(5).hex()}_z.jpg"
    overrides: dict[str, dict[str, Any]] = {}
    if plan.fate in _ORIGINAL_STATUS:
        overrides[f"/{original_path}"] = {"status": _ORIGINAL_STATUS[plan.fate]}
        if plan.fate is Fate.MOVED:
            overrides[f"/{original_path}"]["location"] = f"/{_UNAVAILABLE_PHOTO}"
    else:
        files.write_bytes(folder / original_path, original, durable=False)
        overrides[f"/{thumbnail_path}"] = {"path": original_path}
    if plan.fate not in _NOT_MIRRORED:
        name = f"open-images-dataset/{plan.subset}/{plan.image_id}.jpg"
        files.write_bytes(folder / name, _damage(mirrored, plan.fate), durable=False)
    thumbnail = f"{_BASE_URL_FIELD}/{thumbnail_path}" + ("?zz=1" if chance(rng, 0.2) else "")
    annotated = _annotated_objects(rng, objects)
    return _ImageRows(
        subset=plan.subset,
        image=_image_row(
            rng,
            plan,
            original,
            original_url=f"{_BASE_URL_FIELD}/{original_path}",
            photo=int(photo),
            thumbnail_url="" if chance(rng, 0.03) else thumbnail,
        ),
        labels=_label_rows(rng, plan, annotated),
        boxes=[
            _box_row(rng, plan, item)
            for item in sorted(annotated, key=lambda item: catalogue.MIDS[item.name])
        ],
        overrides=overrides,
    )


def _rotate(scene: Scene, degrees: int) -> tuple[Image.Image, tuple[DrawnObject, ...]]:
    """Return the image and objects of a scene, rotated counter-clockwise."""
    if degrees == 0:
        return scene.image, scene.objects
    transpositions = {
        90: Image.Transpose.ROTATE_90,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_270,
    }
    objects = []
    for item in scene.objects:
        x1, y1, x2, y2 = boxes.rotate_ccw(np.array([item.xyxy]), degrees)[0].tolist()
        # A point is rotated as a box of size zero.
        points = boxes.rotate_ccw(np.array([(*click, *click) for click in item.clicks]), degrees)
        order = (
            points[:, 1].argmin(),
            points[:, 0].argmin(),
            points[:, 1].argmax(),
            points[:, 0].argmax(),
        )
        clicks = tuple((float(points[index, 0]), float(points[index, 1])) for index in order)
        objects.append(replace(item, xyxy=(x1, y1, x2, y2), clicks=clicks))
    return scene.image.transpose(transpositions[degrees]), tuple(objects)


def _jpeg(image: Image.Image, quality: int, rotation: int) -> bytes:
    exif = b""
    if rotation:
        tags = Image.Exif()
        tags[_ORIENTATION_TAG] = _ORIENTATIONS[rotation]
        exif = tags.tobytes()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def _damage(jpeg: bytes, fate: Fate) -> bytes:
    """Return a JPEG, damaged according to its fate.

    A corrupt file gets a Huffman table with impossibly many codes. Its header, markers, length and
    end stay valid, so that only decoding reveals the damage.
    """
    if fate is Fate.CUT_SHORT:
        return jpeg[: len(jpeg) * 2 // 3]
    if fate is Fate.CORRUPT:
        counts = jpeg.index(b"\xff\xc4") + 5  # after marker, length and the table's class
        return jpeg[:counts] + b"\xff" * 16 + jpeg[counts + 16 :]
    return jpeg


def _unavailable_photo_png() -> bytes:
    """Return the image that Flickr shows instead of a deleted photo: a PNG, not a JPEG."""
    image = Image.new("RGB", (500, 374), (243, 245, 246))
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 30, 470, 344), outline=(200, 204, 208), width=3)
    draw.text((170, 180), "This photo is no longer available", fill=(120, 124, 128))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _annotated_objects(
    rng: np.random.Generator, objects: Sequence[DrawnObject]
) -> Sequence[DrawnObject]:
    """Return the objects that have boxes: all or none of a class in an image are annotated."""
    names = sorted({item.name for item in objects} - BOAT_FAMILY)
    skipped = {name for name in names if chance(rng, 0.1)}
    return [item for item in objects if item.name not in skipped] or objects


def _image_row(
    rng: np.random.Generator,
    plan: ImagePlan,
    original: bytes,
    *,
    original_url: str,
    photo: int,
    thumbnail_url: str,
) -> str:
    first = _FIRST_NAMES[plan.author % len(_FIRST_NAMES)]
    last = _LAST_NAMES[(plan.author * 7 + plan.author // 20) % len(_LAST_NAMES)]
    account = f"{43584526 + 9973 * plan.author}@N{plan.author % 9:02d}"
    title = _TITLES[int(rng.integers(len(_TITLES)))]
    title = title.format(n=rng.integers(1000, 9999), d=rng.integers(1, 28)).replace('"', '""')
    md5 = base64.b64encode(hashlib.md5(original, usedforsecurity=False).digest()).decode()
    fields = (
        plan.image_id,
        plan.subset,
        original_url,
        f"https://www.flickr.com/photos/{account}/{photo}",
        _LICENCE,
        f"https://www.flickr.com/people/{account}/",
        f'"{first} {last}"',
        f'"{title}"',
        str(len(original)),
        md5,
        thumbnail_url,
        "" if plan.rotation is None else f"{plan.rotation:.1f}",
    )
    return ",".join(fields)


def _label_rows(
    rng: np.random.Generator, plan: ImagePlan, objects: Sequence[DrawnObject]
) -> list[str]:
    """Return the rows of verified labels: of all present classes, and of some absent ones."""
    present = {item.name for item in objects}
    absent = {"Dolphin", "Train", "Flower"} if chance(rng, 0.4) else {"Helicopter"}
    if plan.verified and not present & BOAT_FAMILY:
        absent.add("Boat")
    elif "Boat" in present and chance(rng, 0.15):
        # An image with boats stays one, although it has no canoe.
        absent.add("Canoe")
    labels = [(catalogue.MIDS[name], 1) for name in present]
    labels += [(catalogue.MIDS[name], 0) for name in absent - present]
    rows = []
    for mid, confidence in sorted(labels):
        source = "crowdsource-verification" if chance(rng, 0.3) else "verification"
        rows.append(f"{plan.image_id},{source},{mid},{confidence}")
    return rows


def _box_row(rng: np.random.Generator, plan: ImagePlan, item: DrawnObject) -> str:
    x1, y1, x2, y2 = item.xyxy
    flags = [item.occluded, item.truncated, item.group_of, item.depiction, item.inside]
    # Boxes that a model proposed and a person accepted have neither flags nor clicks.
    proposed = plan.subset == "train" and not any(flags) and chance(rng, 0.03)
    source = "activemil" if proposed else "xclick"
    if plan.subset != "train" and chance(rng, 0.3):
        source = "freeform"
    fields = [plan.image_id, source, catalogue.MIDS[item.name], "1"]
    fields += [f"{value:.6f}" for value in (x1, x2, y1, y2)]
    fields += ["-1" if proposed else str(int(flag)) for flag in flags]
    if plan.subset == "train":
        clicks = [(-1.0, -1.0)] * 4 if proposed else item.clicks
        fields += [f"{click[axis]:.6f}" for axis in (0, 1) for click in clicks]
    return ",".join(fields)


def _write_tables(folder: Path, rows: Sequence[_ImageRows]) -> None:
    tables = folder / "openimages"
    for subset in SUBSETS:
        own_rows = [row for row in rows if row.subset == subset]
        box_header = _BOX_HEADER + (_CLICK_HEADER if subset == "train" else "")
        box_rows = chain.from_iterable(row.boxes for row in own_rows)
        label_rows = chain.from_iterable(row.labels for row in own_rows)
        image_rows = (row.image for row in own_rows)
        _write_lines(tables / BOX_FILES[subset], box_header, box_rows)
        _write_lines(tables / LABEL_FILES[subset], _LABEL_HEADER, label_rows)
        _write_lines(folder / _URL_LISTS / f"{subset}.csv", _IMAGE_HEADER, image_rows)
    descriptions = [
        f"{mid},{name}" for mid, name in sorted((m, n) for n, m in catalogue.MIDS.items())
    ]
    # The older file has no header and Windows line ends; the newer one has a header and Unix ones.
    files.write_text(tables / CLASS_FILES[0], "\r\n".join([*descriptions, ""]), durable=False)
    _write_lines(tables / CLASS_FILES[1], "LabelName,DisplayName", descriptions)
    files.write_json(tables / HIERARCHY_FILE, catalogue.hierarchy())


def _write_lines(path: Path, header: str, lines: Iterable[str]) -> None:
    files.write_text(path, "\n".join((header, *lines)) + "\n", durable=False)
