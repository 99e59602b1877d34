"""Write synthetic tables in the format and size of Open Images: boxes, image list, human labels.

``python benchmarks/big_files.py --folder FOLDER`` writes them (3.3 GB, about a minute); the other
scripts call ``make`` themselves. Formats, row counts and sizes are those of the official files of
the train subset (2,258,447,590 bytes of boxes, 638,407,721 of images, 376,764,810 of labels). Boat
has its official 79,113 boxes on 25,478 images. The frequencies of Boat's descendants and all values
are invented. The same arguments produce the same bytes.
"""

from __future__ import annotations

import argparse
import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BOAT: Final = "/m/019jd"
BOAT_FAMILY: Final = (BOAT, "/m/01btn", "/m/02068x", "/m/0ph39")
"""Boat, Barge, Gondola and Canoe."""

_IMAGES: Final = 1_743_042
_BOXES: Final = 14_610_229
_LABELS: Final = 9_000_000
_CLASSES: Final = 601
_BOAT_IMAGES: Final = 25_478
_FAMILY_BOXES: Final = (79_113, 2_400, 1_900, 6_800)
_FIFTY_CLASSES_BOXES: Final = 292_205
"""Number of boxes of 50 classes together: two per cent of all boxes."""
_FIFTY: Final = 50

_CHUNK_ROWS: Final = 200_000
_VARIANTS: Final = 1 << 14
_ACTIVEMIL_SHARE: Final = 0.1
_CROWD_SHARE: Final = 0.02
_BOX_HEADER: Final = (
    b"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,"
    b"IsDepiction,IsInside,XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,"
    b"XClick4Y\n"
)
_IMAGE_HEADER: Final = (
    b"ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    b"OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation\n"
)
_LABEL_HEADER: Final = b"ImageID,Source,LabelName,Confidence\n"
_WORDS: Final = (
    *("harbour", "lake", "old town", "IMG_2041", "a day out", "DSC00310", "Señor", "sunset"),
    *("the market, again", "#sea", "untitled", "&quot;Regatta&quot;", "2009", "winter", "friends"),
    *("a walk in the hills", "O&#x27;Neil", "Évian", "two dogs, one ball", "holiday"),
)


@dataclass(frozen=True)
class BigFiles:
    """Paths of the files, and classes to search for in them.

    Attributes:
        boxes, images, labels: Paths of the three files.
        one, four, fifty: MIDs of Boat, of Boat and its descendants, and of 50 classes with 2 % of
            the boxes.
    """

    boxes: Path
    images: Path
    labels: Path
    one: tuple[str, ...]
    four: tuple[str, ...]
    fifty: tuple[str, ...]


def make(folder: Path, share: float = 1.0) -> BigFiles:
    """Write the files that do not exist yet, and return all of them.

    Args:
        folder: Folder of the files, which is created.
        share: Number of rows as a fraction, in (0, 1], of the official number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mids = _mids()
    writers = {"boxes": _box_chunks, "images": _image_chunks, "labels": _label_chunks}
    paths = {}
    for name, chunks in writers.items():
        paths[name] = folder / f"{name}-{share:g}.csv"
        if paths[name].exists():
            continue
        part = paths[name].with_suffix(".part")
        with part.open("wb") as file:
            for chunk in chunks(mids, share):
                file.write(chunk)
        part.replace(paths[name])
    return BigFiles(**paths, one=(BOAT,), four=BOAT_FAMILY, fifty=tuple(mids[:_FIFTY]))


def _mids() -> list[str]:
    """Return MIDs with realistic lengths: those of boats first, then other rare classes."""
    rng = np.random.default_rng(600)
    letters = np.array(list("0123456789bcdfghjklmnpqrstvwxyz_"))
    mids = dict.fromkeys(BOAT_FAMILY)
    while len(mids) < _CLASSES:
        length = rng.choice((3, 4, 5, 6), p=(0.01, 0.46, 0.43, 0.10))
        mids["/m/0" + "".join(rng.choice(letters, length))] = None
    return list(mids)


def _image_ids(share: float) -> NDArray[np.uint64]:
    """Return the ids of all images, in the order of the files."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 1 << 63, round(_IMAGES * share) + 1000, dtype=np.uint64) * np.uint64(2)
    return np.unique(ids)[: round(_IMAGES * share)]


def _box_classes(share: float) -> tuple[NDArray[np.intp], NDArray[np.int16]]:
    """Return the image and class of each box, as indices into the image list and ``_mids()``."""
    rng = np.random.default_rng(2)
    image_count = round(_IMAGES * share)
    family = [max(1, round(count * share)) for count in _FAMILY_BOXES]
    boat_images = rng.choice(image_count, max(1, round(_BOAT_IMAGES * share)), replace=False)
    further_boxes = rng.choice(boat_images, family[0] - len(boat_images))
    images = [np.concatenate([boat_images, further_boxes])]
    classes = [np.zeros(family[0], np.int16)]
    for number, count in enumerate(family[1:], start=1):
        images.append(rng.integers(0, image_count, count))
        classes.append(np.full(count, number, np.int16))
    rare = max(1, round(_FIFTY_CLASSES_BOXES * share) - sum(family))
    images.append(rng.integers(0, image_count, rare))
    classes.append(rng.integers(len(family), _FIFTY, rare).astype(np.int16))
    rest = round(_BOXES * share) - sum(family) - rare
    weights = 1 / np.arange(3, _CLASSES - _FIFTY + 3)
    all_images = np.arange(image_count)  # the official lists contain only images with boxes
    images.append(np.concatenate([all_images, rng.integers(0, image_count, rest - image_count)]))
    classes.append(
        rng.choice(np.arange(_FIFTY, _CLASSES), rest, p=weights / weights.sum()).astype(np.int16)
    )
    image_indices, class_indices = np.concatenate(images), np.concatenate(classes)
    order = np.argsort(image_indices, kind="stable")
    return image_indices[order], class_indices[order]


def _box_chunks(mids: list[str], share: float) -> Iterator[bytes]:
    rng = np.random.default_rng(3)
    ids = _image_ids(share)
    images, classes = _box_classes(share)
    heads = [[f",{source},{mid},1,".encode() for mid in mids] for source in ("xclick", "activemil")]
    tails = [[_box_tail(rng, clicked=clicked) for _ in range(_VARIANTS)] for clicked in (1, 0)]
    yield _BOX_HEADER
    for first in range(0, len(images), _CHUNK_ROWS):
        image_ids = ids[images[first : first + _CHUNK_ROWS]].tolist()
        class_indices = classes[first : first + _CHUNK_ROWS].tolist()
        is_activemil = (rng.random(len(image_ids)) < _ACTIVEMIL_SHARE).tolist()
        tail_indices = rng.integers(0, _VARIANTS, len(image_ids)).tolist()
        yield b"".join(
            b"%016x%b%b" % (i, heads[m][c], tails[m][t])
            for i, c, m, t in zip(image_ids, class_indices, is_activemil, tail_indices, strict=True)
        )


def _box_tail(rng: np.random.Generator, *, clicked: bool | int) -> bytes:
    """Return the end of a row, from XMin on."""
    (x1, x2), (y1, y2) = np.sort(rng.random((2, 2)))
    flags = (rng.random(5) < (0.6, 0.25, 0.06, 0.05, 0.001)).astype(int)
    clicks = [x1, *rng.uniform(x1, x2, 2), x2, *rng.uniform(y1, y2, 2), y1, y2]
    fields = [
        *(f"{corner:.6f}" for corner in (x1, x2, y1, y2)),
        *(str(flag) for flag in flags),
        *(f"{click if clicked else -1:.6f}" for click in clicks),
    ]
    return ",".join(fields).encode() + b"\n"


def _image_chunks(_: list[str], share: float) -> Iterator[bytes]:
    rng = np.random.default_rng(4)
    people = [_person(rng) for _ in range(_VARIANTS)]
    titles = [_title(rng) for _ in range(_VARIANTS)]
    md5s = [base64.b64encode(rng.bytes(16)) for _ in range(_VARIANTS)]
    ids = _image_ids(share)
    yield _IMAGE_HEADER
    for first in range(0, len(ids), _CHUNK_ROWS):
        yield b"".join(
            _image_row(i, people[n % _VARIANTS], titles[n * 7 % _VARIANTS], md5s[n % _VARIANTS], n)
            for n, i in enumerate(ids[first : first + _CHUNK_ROWS].tolist(), start=first)
        )


def _image_row(image: int, person: tuple[bytes, bytes], title: bytes, md5: bytes, n: int) -> bytes:
    account, author = person
    photo = b"%d_%010x" % (image >> 30, image & 0xFFFFFFFFFF)
    return (
        b"%016x,train,https://c%d.staticflickr.com/%d/%d/%b_o.jpg,"
        b"https://www.flickr.com/photos/%b/%d,https://creativecommons.org/licenses/by/2.0/,"
        b'https://www.flickr.com/people/%b/,"%b","%b",%d,%b,%b,%b\n'
    ) % (
        *(image, n % 8 + 1, n % 9, n % 8999 + 1000, photo, account, image >> 30, account),
        *(author, title, image % 9_000_000 + 14_245, md5),
        b"" if n % 40 == 0 else b"https://c%d.staticflickr.com/%d/%b_z.jpg" % (n % 8 + 1, n, photo),
        (b"0.0", b"0.0", b"0.0", b"90.0", b"", b"0.0", b"270.0")[n % 7],
    )


def _person(rng: np.random.Generator) -> tuple[bytes, bytes]:
    """Return an author's Flickr account and name."""
    account = f"{rng.integers(10**7, 10**8)}@N0{rng.integers(0, 9)}".encode()
    return account, " ".join(rng.choice(_WORDS, 2)).title().encode()


def _title(rng: np.random.Generator) -> bytes:
    return " ".join(rng.choice(_WORDS, rng.integers(1, 4))).encode()


def _label_chunks(mids: list[str], share: float) -> Iterator[bytes]:
    rng = np.random.default_rng(5)
    ids = _image_ids(share)
    _, classes = _box_classes(share)
    count = round(_LABELS * share)
    images = np.sort(rng.integers(0, len(ids), count))
    label_classes = rng.choice(classes, count)
    tails = [
        [f",{source},{mid},{value}\n".encode() for mid in mids]
        for source in ("verification", "crowdsource-verification")
        for value in (1, 0)
    ]
    yield _LABEL_HEADER
    for first in range(0, count, _CHUNK_ROWS):
        chunk = slice(first, first + _CHUNK_ROWS)
        variants = (rng.random(len(images[chunk])) < _CROWD_SHARE) * 2 + rng.integers(
            0, 2, len(images[chunk])
        )
        rows = zip(
            ids[images[chunk]].tolist(),
            variants.tolist(),
            label_classes[chunk].tolist(),
            strict=True,
        )
        yield b"".join(b"%016x%b" % (i, tails[v][c]) for i, v, c in rows)


def main() -> None:
    """Write the files, and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0)
    arguments = parser.parse_args()
    files = make(arguments.folder, arguments.share)
    for path in (files.boxes, files.images, files.labels):
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
