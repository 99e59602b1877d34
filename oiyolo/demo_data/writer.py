"""Writes scenes as a mirror of Open Images: its files, their names and their exact forms.

Below the folder::

    openimages/            what storage.googleapis.com/openimages has: tables of boxes and images
    open-images-dataset/   what the public image mirror has: <subset>/<ImageID>.jpg
    flickr/                the originals that OriginalURL leads to
    url-lists/             the image lists without the address that this mirror is served at
    answers.json           the paths that do not simply give a file: dead links, thumbnails
    mirror.json            what all this was made from; written last

Only the first three are served.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageDraw

from oiyolo import boxes
from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.demo_data import catalogue
from oiyolo.demo_data.canvas import chance
from oiyolo.demo_data.scenes import BOAT_FAMILY, Kind, draw_scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from oiyolo.demo_data.scenes import DrawnObject, Scene

FORM: Final = 1
"""Counted up when the same arguments no longer give the same mirror."""

SCENES: Final = 760
LEAST_SCENES: Final = 20
SUBSETS: Final = ("train", "validation", "test")
PUBLIC_FOLDERS: Final = ("openimages", "open-images-dataset", "flickr")
MARKER_FILE: Final = "mirror.json"
ANSWERS_FILE: Final = "answers.json"

_URL_LISTS: Final = "url-lists"
_ADDRESS: Final = "{base_url}"
_PLACEHOLDER: Final = "flickr/images/en-us/photo_unavailable.png"
_MIRROR_QUALITY: Final = 88
_ORIGINAL_QUALITY: Final = 94
_ORIENTATION_TAG: Final = 0x0112
_ORIENTATIONS: Final = {90: 8, 180: 3, 270: 6}
"""EXIF's word for "turn by so many degrees counter-clockwise"."""

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
    """What became of an image since its boxes were drawn."""

    FINE = "fine"
    GONE_404 = "gone-404"
    GONE_410 = "gone-410"
    MOVED = "moved-to-placeholder"
    ORIGINAL_ONLY = "original-only"
    CORRUPT = "corrupt"
    CUT_SHORT = "cut-short"


_DEAD: Final = {Fate.GONE_404: 404, Fate.GONE_410: 410, Fate.MOVED: 302, Fate.CORRUPT: 404}
_ABSENT: Final = {Fate.GONE_404, Fate.GONE_410, Fate.MOVED, Fate.ORIGINAL_ONLY}


@dataclass(frozen=True)
class Mirror:
    """A mirror on the disk.

    Attributes:
        folder: Where it lies.
        base_url: Where it is, or was last, served.
        seed, scenes: What it was made from.
        images: Images in the lists, by subset.
        boxes: Boxes, by subset and class name.
        boat_images: Images with a box of Boat, Canoe or Gondola, by subset.
        authors: How many authors the train subset has.
        rotated: Train images that have to be turned, by degrees counter-clockwise.
        flags: Train boxes with a flag, by the flag's column.
        verified_negatives: Train images without a boat, and verified so.
        unverified_negatives: Train images without a boat of which nobody said so.
        fates: ImageIDs of what is not simply there, by fate.
    """

    folder: Path
    base_url: str
    seed: int
    scenes: int
    images: dict[str, int]
    boxes: dict[str, dict[str, int]]
    boat_images: dict[str, int]
    authors: int
    rotated: dict[str, int]
    flags: dict[str, int]
    verified_negatives: int
    unverified_negatives: int
    fates: dict[str, tuple[str, ...]]

    @property
    def openimages_url(self) -> str:
        """What ``[openimages] base_url`` has to be."""
        return f"{self.base_url}/openimages"

    @property
    def images_url(self) -> str:
        """What ``[images] mirror_url`` has to be."""
        return f"{self.base_url}/open-images-dataset"


@dataclass(frozen=True)
class Shot:
    """One image of the mirror before it is drawn.

    Attributes:
        subset: Open Images' own subset.
        number: Its place in the plan; with the seed and subset it decides the scene.
        image_id: 16 hexadecimal digits.
        kind: What the scene is about.
        author: The number of its author.
        rotation: How far it has to be turned counter-clockwise to be upright; ``None``: unknown.
        fate: What became of it.
        verified: Whether somebody verified which kinds of boat are absent.
    """

    subset: str
    number: int
    image_id: str
    kind: Kind
    author: int
    rotation: int | None = 0
    fate: Fate = Fate.FINE
    verified: bool = True


@dataclass(frozen=True)
class _Rows:
    """What one image adds to the tables; each text is whole lines, but for the line's end."""

    shot: Shot
    image: str
    labels: tuple[str, ...]
    boxes: tuple[str, ...]
    objects: tuple[DrawnObject, ...]
    answers: dict[str, dict[str, Any]]


def _random(seed: int, *words: str | int) -> np.random.Generator:
    """Give random numbers that depend on the seed and some words, and on nothing else."""
    text = ":".join(str(word) for word in (seed, *words))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def plan(seed: int, scenes: int) -> list[Shot]:
    """Decide every image of a mirror, in ImageID order.

    Args:
        seed: Which mirror.
        scenes: Images in the train subset; validation and test have up to 24 each.

    Raises:
        UsageError: There are too few scenes to hold one of everything.
    """
    if scenes < LEAST_SCENES:
        raise UsageError(
            "too few scenes for a demo mirror",
            expected=f"at least {LEAST_SCENES}",
            found=str(scenes),
        )
    few = min(24, max(4, scenes // 8))
    shots = _plan_train(seed, scenes)
    authors = 1 + max(shot.author for shot in shots)
    for subset in SUBSETS[1:]:
        rng = _random(seed, subset)
        for number in range(few):
            kind = Kind.NO_BOATS if number % 6 == 0 else Kind.BOATS
            author = int(rng.integers(authors))
            shots.append(Shot(subset, number, _image_id(seed, subset, number), kind, author))
    return sorted(shots, key=lambda shot: shot.image_id)


def _image_id(seed: int, subset: str, number: int) -> str:
    return hashlib.sha256(f"{seed}:{subset}:{number}".encode()).hexdigest()[:16]


def _plan_train(seed: int, scenes: int) -> list[Shot]:
    rng = _random(seed, "plan")
    kinds = [Kind.NO_BOATS] * max(2, round(0.13 * scenes))
    kinds += [Kind.MARINA] * max(1, round(0.015 * scenes))
    kinds += [Kind.POSTER] * max(1, round(0.006 * scenes))
    kinds += [Kind.ON_BOARD] * max(1, round(0.006 * scenes))
    negatives = 0
    shots = []
    for number, author in enumerate(_authors(rng, scenes)):
        kind = kinds[number] if number < len(kinds) else Kind.BOATS
        negatives += kind is Kind.NO_BOATS
        shot = Shot("train", number, _image_id(seed, "train", number), kind, author)
        shots.append(replace(shot, verified=kind is not Kind.NO_BOATS or bool(negatives % 2)))
    # Fates and turns fall on plain boat pictures, so that each of them matters to a Boat project.
    fates = [Fate.GONE_404, Fate.GONE_410, Fate.MOVED, Fate.CORRUPT, Fate.CUT_SHORT]
    fates += [Fate.ORIGINAL_ONLY] * max(1, scenes // 250)
    turns = [(90, 180, 270)[nth % 3] for nth in range(max(3, round(0.03 * scenes)))]
    for nth, fate in enumerate(fates):
        at = len(kinds) + nth
        shots[at] = replace(shots[at], fate=fate)
    for nth, turn in enumerate(turns):
        at = len(kinds) + len(fates) + nth
        shots[at] = replace(shots[at], rotation=turn)
    for at in range(len(kinds) + len(fates) + len(turns), scenes):
        # Flickr had lost one image in ten when the rotations were collected.
        if chance(rng, 0.1):
            shots[at] = replace(shots[at], rotation=None)
    return shots


def _authors(rng: np.random.Generator, scenes: int) -> list[int]:
    """Give each image an author's number; authors have 5 to 22 images, fewer in small mirrors."""
    most = min(22, max(2, scenes // 16))
    least = max(1, most // 4)
    owners: list[int] = []
    author = 0
    while len(owners) < scenes:
        owners += [author] * int(rng.integers(least, most + 1))
        author += 1
    return [int(owner) for owner in rng.permutation(owners[:scenes])]


def write_mirror(
    folder: Path, *, base_url: str, seed: int = 0, scenes: int = SCENES, workers: int | None = None
) -> Mirror:
    """Write a mirror, or only what is missing for it to be the one that is asked for.

    Args:
        folder: Where to; absent, empty, or an earlier mirror.
        base_url: The address that the folder will be served at, without a slash at the end.
        seed: Which scenes are drawn.
        scenes: How many are in the train subset.
        workers: Threads that draw; by default one for each core.

    Raises:
        UsageError: ``folder`` holds something else, or ``scenes`` is too small.
    """
    made_from = {"form": FORM, "seed": seed, "scenes": scenes}
    marker = files.read_json(folder / MARKER_FILE)
    if marker is None and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            "this folder is no demo mirror",
            where=str(folder),
            expected="an absent or empty folder, or an earlier mirror",
            remedy="Name another folder",
        )
    if marker is None or marker.get("made_from") != made_from or not marker.get("facts"):
        files.write_json(folder / MARKER_FILE, {"made_from": made_from})
        facts = _draw_all(folder, plan(seed, scenes), seed, workers or os.cpu_count() or 1)
        marker = {"made_from": made_from, "base_url": "", "facts": facts}
    mirror = _mirror(folder, {**marker, "base_url": base_url})
    if marker["base_url"] != base_url:
        # The marker names no address while the lists are half one's and half the other's.
        files.write_json(folder / MARKER_FILE, {**marker, "base_url": ""})
        for subset in SUBSETS:
            text = (folder / _URL_LISTS / f"{subset}.csv").read_text(encoding="utf-8")
            listed = folder / "openimages" / IMAGE_FILES[subset]
            files.write_text(listed, text.replace(_ADDRESS, base_url), durable=False)
        files.write_json(folder / MARKER_FILE, {**marker, "base_url": base_url})
    return mirror


def last_port(folder: Path) -> int:
    """Give the port that a mirror was last written for; 0 when there is none."""
    marker = files.read_json(folder / MARKER_FILE) or {}
    return urlsplit(marker.get("base_url", "")).port or 0


def _mirror(folder: Path, marker: dict[str, Any]) -> Mirror:
    facts = dict(marker["facts"])
    facts["fates"] = {fate: tuple(ids) for fate, ids in facts["fates"].items()}
    seed, scenes = marker["made_from"]["seed"], marker["made_from"]["scenes"]
    return Mirror(folder=folder, base_url=marker["base_url"], seed=seed, scenes=scenes, **facts)


def _draw_all(folder: Path, shots: Sequence[Shot], seed: int, workers: int) -> dict[str, Any]:
    """Write everything but the image lists' addresses; give the facts about it."""
    for name in (*PUBLIC_FOLDERS, _URL_LISTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (*(f"open-images-dataset/{subset}" for subset in SUBSETS), _URL_LISTS):
        (folder / name).mkdir(parents=True)
    # Drawing is numpy and Pillow, which let other threads run meanwhile.
    with ThreadPoolExecutor(workers) as pool:
        rows = list(pool.map(lambda shot: _write_image(folder, shot, seed), shots))
    _write_tables(folder, rows)
    files.write_bytes(folder / _PLACEHOLDER, _placeholder(), durable=False)
    answers: dict[str, dict[str, Any]] = {}
    for row in rows:
        answers.update(row.answers)
    files.write_json(folder / ANSWERS_FILE, answers)
    return _facts(rows)


def _write_image(folder: Path, shot: Shot, seed: int) -> _Rows:
    scene = draw_scene(_random(seed, shot.subset, shot.number), shot.kind)
    rng = _random(seed, shot.subset, shot.number, "facts")
    turn = shot.rotation or 0
    # What has to be turned counter-clockwise is stored turned the other way.
    stored, objects = _turned(scene, (360 - turn) % 360)
    original = _jpeg(stored, _ORIGINAL_QUALITY, turn)
    # Most mirrored files lost their EXIF on the way, some did not: nobody may go by it.
    mirrored = _jpeg(stored, _MIRROR_QUALITY, turn if shot.number % 3 == 0 else 0)
    farm, host, photo = rng.integers(1, 10), rng.integers(1000, 9999), rng.integers(10**9, 10**10)
    stem = f"flickr/{farm}/{host}/{photo}_"
    original_path = f"{stem}{rng.bytes(5).hex()}_o.jpg"
    thumbnail_path = f"{stem}{rng.bytes(5).hex()}_z.jpg"
    answers: dict[str, dict[str, Any]] = {}
    if shot.fate in _DEAD:
        answers[f"/{original_path}"] = {"status": _DEAD[shot.fate]}
        if shot.fate is Fate.MOVED:
            answers[f"/{original_path}"]["location"] = f"/{_PLACEHOLDER}"
    else:
        files.write_bytes(folder / original_path, original, durable=False)
        answers[f"/{thumbnail_path}"] = {"path": original_path}
    if shot.fate not in _ABSENT:
        name = f"open-images-dataset/{shot.subset}/{shot.image_id}.jpg"
        files.write_bytes(folder / name, _damaged(mirrored, shot.fate), durable=False)
    thumbnail = f"{_ADDRESS}/{thumbnail_path}" + ("?zz=1" if chance(rng, 0.2) else "")
    objects = _annotated(rng, objects)
    return _Rows(
        shot=shot,
        image=_image_row(
            rng,
            shot,
            original,
            original_url=f"{_ADDRESS}/{original_path}",
            photo=int(photo),
            thumbnail_url="" if chance(rng, 0.03) else thumbnail,
        ),
        labels=_label_rows(rng, shot, objects),
        boxes=tuple(
            _box_row(rng, shot, drawn)
            for drawn in sorted(objects, key=lambda drawn: catalogue.MIDS[drawn.name])
        ),
        objects=objects,
        answers=answers,
    )


def _turned(scene: Scene, degrees: int) -> tuple[Image.Image, tuple[DrawnObject, ...]]:
    """Give a scene's picture and objects turned counter-clockwise."""
    if degrees == 0:
        return scene.image, scene.objects
    turns = {
        90: Image.Transpose.ROTATE_90,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_270,
    }
    objects = []
    for drawn in scene.objects:
        x1, y1, x2, y2 = boxes.rotate_ccw(np.array([drawn.xyxy]), degrees)[0].tolist()
        # A point is a box without a size.
        points = boxes.rotate_ccw(np.array([(*click, *click) for click in drawn.clicks]), degrees)
        order = (
            points[:, 1].argmin(),
            points[:, 0].argmin(),
            points[:, 1].argmax(),
            points[:, 0].argmax(),
        )
        clicks = tuple((float(points[at, 0]), float(points[at, 1])) for at in order)
        objects.append(replace(drawn, xyxy=(x1, y1, x2, y2), clicks=clicks))
    return scene.image.transpose(turns[degrees]), tuple(objects)


def _jpeg(image: Image.Image, quality: int, turn: int) -> bytes:
    exif = b""
    if turn:
        tags = Image.Exif()
        tags[_ORIENTATION_TAG] = _ORIENTATIONS[turn]
        exif = tags.tobytes()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def _damaged(jpeg: bytes, fate: Fate) -> bytes:
    """Damage a JPEG as its fate has it.

    A Huffman table with more codes than there are leaves head, markers, length and end as they
    should be: only decoding the file finds out.
    """
    if fate is Fate.CUT_SHORT:
        return jpeg[: len(jpeg) * 2 // 3]
    if fate is Fate.CORRUPT:
        counts = jpeg.index(b"\xff\xc4") + 5  # after marker, length and the table's class
        return jpeg[:counts] + b"\xff" * 16 + jpeg[counts + 16 :]
    return jpeg


def _placeholder() -> bytes:
    """Draw what Flickr shows in the place of a photo that is gone: a PNG, not a JPEG."""
    image = Image.new("RGB", (500, 374), (243, 245, 246))
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 30, 470, 344), outline=(200, 204, 208), width=3)
    draw.text((170, 180), "This photo is no longer available", fill=(120, 124, 128))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _annotated(rng: np.random.Generator, objects: Iterable[DrawnObject]) -> tuple[DrawnObject, ...]:
    """Give the objects that got boxes: a class is annotated throughout an image, or not at all."""
    objects = tuple(objects)
    names = sorted({drawn.name for drawn in objects} - BOAT_FAMILY)
    skipped = {name for name in names if chance(rng, 0.1)}
    kept = tuple(drawn for drawn in objects if drawn.name not in skipped)
    return kept or objects


def _image_row(
    rng: np.random.Generator,
    shot: Shot,
    original: bytes,
    *,
    original_url: str,
    photo: int,
    thumbnail_url: str,
) -> str:
    first = _FIRST_NAMES[shot.author % len(_FIRST_NAMES)]
    last = _LAST_NAMES[(shot.author * 7 + shot.author // 20) % len(_LAST_NAMES)]
    account = f"{43584526 + 9973 * shot.author}@N{shot.author % 9:02d}"
    title = _TITLES[int(rng.integers(len(_TITLES)))]
    title = title.format(n=rng.integers(1000, 9999), d=rng.integers(1, 28)).replace('"', '""')
    md5 = base64.b64encode(hashlib.md5(original, usedforsecurity=False).digest()).decode()
    fields = (
        shot.image_id,
        shot.subset,
        original_url,
        f"https://www.flickr.com/photos/{account}/{photo}",
        _LICENCE,
        f"https://www.flickr.com/people/{account}/",
        f'"{first} {last}"',
        f'"{title}"',
        str(len(original)),
        md5,
        thumbnail_url,
        "" if shot.rotation is None else f"{shot.rotation:.1f}",
    )
    return ",".join(fields)


def _label_rows(
    rng: np.random.Generator, shot: Shot, objects: Sequence[DrawnObject]
) -> tuple[str, ...]:
    """Give the verified labels: what is there, and some of what is not."""
    present = {drawn.name for drawn in objects}
    absent = {"Dolphin", "Train", "Flower"} if chance(rng, 0.4) else {"Helicopter"}
    if shot.verified and not present & BOAT_FAMILY:
        absent.add("Boat")
    elif "Boat" in present and chance(rng, 0.15):
        # That there is no canoe does not make a picture with boats a picture without any.
        absent.add("Canoe")
    verdicts = [(catalogue.MIDS[name], 1) for name in present]
    verdicts += [(catalogue.MIDS[name], 0) for name in absent - present]
    rows = []
    for mid, confidence in sorted(verdicts):
        source = "crowdsource-verification" if chance(rng, 0.3) else "verification"
        rows.append(f"{shot.image_id},{source},{mid},{confidence}")
    return tuple(rows)


def _box_row(rng: np.random.Generator, shot: Shot, drawn: DrawnObject) -> str:
    x1, y1, x2, y2 = drawn.xyxy
    flags = [drawn.occluded, drawn.truncated, drawn.group_of, drawn.depiction, drawn.inside]
    # Boxes that a machine proposed and a person accepted have neither flags nor clicks.
    proposed = shot.subset == "train" and not any(flags) and chance(rng, 0.03)
    source = "activemil" if proposed else "xclick"
    if shot.subset != "train" and chance(rng, 0.3):
        source = "freeform"
    fields = [shot.image_id, source, catalogue.MIDS[drawn.name], "1"]
    fields += [f"{value:.6f}" for value in (x1, x2, y1, y2)]
    fields += ["-1" if proposed else str(int(flag)) for flag in flags]
    if shot.subset == "train":
        clicks = [(-1.0, -1.0)] * 4 if proposed else drawn.clicks
        fields += [f"{click[axis]:.6f}" for axis in (0, 1) for click in clicks]
    return ",".join(fields)


def _write_tables(folder: Path, rows: Sequence[_Rows]) -> None:
    tables = folder / "openimages"
    for subset in SUBSETS:
        own = [row for row in rows if row.shot.subset == subset]
        header = _BOX_HEADER + (_CLICK_HEADER if subset == "train" else "")
        _write_lines(
            tables / BOX_FILES[subset], header, (line for row in own for line in row.boxes)
        )
        _write_lines(
            tables / LABEL_FILES[subset],
            _LABEL_HEADER,
            (line for row in own for line in row.labels),
        )
        _write_lines(
            folder / _URL_LISTS / f"{subset}.csv", _IMAGE_HEADER, (row.image for row in own)
        )
    described = sorted((mid, name) for name, mid in catalogue.MIDS.items())
    # The older file has no header and ends its lines as Windows does; the newer one neither.
    text = "".join(f"{mid},{name}\r\n" for mid, name in described)
    files.write_text(tables / CLASS_FILES[0], text, durable=False)
    _write_lines(
        tables / CLASS_FILES[1],
        "LabelName,DisplayName",
        (f"{mid},{name}" for mid, name in described),
    )
    files.write_json(tables / HIERARCHY_FILE, catalogue.hierarchy())


def _write_lines(path: Path, header: str, lines: Iterable[str]) -> None:
    files.write_text(path, "\n".join((header, *lines)) + "\n", durable=False)


def _facts(rows: Sequence[_Rows]) -> dict[str, Any]:
    """Count what a mirror holds; see ``Mirror`` for the names."""
    counted: dict[str, Counter[str]] = {subset: Counter() for subset in SUBSETS}
    fates: dict[str, list[str]] = defaultdict(list)
    flags: Counter[str] = Counter()
    images, boat_images, rotated = Counter[str](), Counter[str](), Counter[str]()
    negatives: Counter[bool] = Counter()
    for row in rows:
        subset, names = row.shot.subset, [drawn.name for drawn in row.objects]
        images[subset] += 1
        counted[subset].update(names)
        boat_images[subset] += bool(BOAT_FAMILY.intersection(names))
        if subset != "train":
            continue
        if row.shot.rotation:
            rotated[str(row.shot.rotation)] += 1
        if row.shot.fate is not Fate.FINE:
            fates[row.shot.fate.value].append(row.shot.image_id)
        if row.shot.kind is Kind.NO_BOATS:
            negatives[row.shot.verified] += 1
        for drawn in row.objects:
            values = asdict(drawn)
            for flag in ("occluded", "truncated", "group_of", "depiction", "inside"):
                flags["Is" + flag.title().replace("_", "")] += values[flag]
    return {
        "images": dict(images),
        "boxes": {subset: dict(sorted(counts.items())) for subset, counts in counted.items()},
        "boat_images": dict(boat_images),
        "authors": len({row.shot.author for row in rows if row.shot.subset == "train"}),
        "rotated": dict(sorted(rotated.items())),
        "flags": dict(flags),
        "verified_negatives": negatives[True],
        "unverified_negatives": negatives[False],
        "fates": {fate: sorted(ids) for fate, ids in sorted(fates.items())},
    }
