"""Compute the keys that group images: identical files, near-duplicates and authors.

A key is a text that begins with its kind. Images with an equal key belong to one group, and the key
is enough to describe the reason.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.imagery.duplicates import (
    FLAT,
    differing_bits,
    hash_to_text,
    hashes_from_texts,
    near_pairs,
)
from oiyolo.openimages.releases import SPLIT_OF_SUBSET
from oiyolo.project.ledger import SPLITS, SplitRecord
from oiyolo.splits.groups import Member

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pandas as pd

    from oiyolo.imagery.duplicates import Hashes
    from oiyolo.project.keys import SplitOptions
    from oiyolo.project.ledger import Ledger

SAME_FILE: Final = "file"
NEAR_DUPLICATE: Final = "near-duplicate"
SAME_AUTHOR: Final = "author"
_LINK_TEXTS: Final = {
    SAME_FILE: "duplicate of",
    NEAR_DUPLICATE: "near-duplicate of",
    SAME_AUTHOR: "same author as",
}
_CONFLICT_TEXTS: Final = {
    SAME_FILE: "a duplicate",
    NEAR_DUPLICATE: "a near-duplicate",
    SAME_AUTHOR: "an image by the same author",
}


def kind_of(key: str) -> str:
    """Return a key's kind: a file, a near-duplicate or an author."""
    return key.partition(":")[0]


def describe_link(key: str, other: str) -> str:
    """Return why an image is in its group, as ``split.csv`` says it.

    Args:
        key: A key of the image.
        other: The id of another image that has the same key.
    """
    kind, _, value = key.partition(":")
    text = f"{_LINK_TEXTS[kind]} {other}"
    if kind != NEAR_DUPLICATE:
        return text
    first, _, second = value.partition("-")
    bits = int(differing_bits(hashes_from_texts([first]), hashes_from_texts([second or first]))[0])
    return f"{text} ({bits} of 64 bits differ)"


def describe_conflict(key_by_split: Mapping[str, str]) -> str:
    """Return why an image would join groups of different splits.

    Args:
        key_by_split: The splits of these groups, each with a key that the image shares there.
    """
    reasons = [
        f"{_CONFLICT_TEXTS[kind_of(key)]} is in {split}" for split, key in key_by_split.items()
    ]
    return ", ".join(reasons)


def authors_of(images: pd.DataFrame) -> dict[str, str]:
    """Return each image's author by id: the URL of the profile or, if that is missing, the name.

    Imported images have none: whoever is credited for a folder need not have taken one series.
    """
    if "Import" in images:
        images = images[images["Import"] == ""]
    columns = (images[name].tolist() for name in ("ImageID", "AuthorProfileURL", "Author"))
    rows = zip(*columns, strict=True)
    return {image_id: profile or author for image_id, profile, author in rows}


def build_members(
    ledger: Ledger,
    options: SplitOptions,
    candidates: Collection[str],
    authors: Mapping[str, str],
    classes_by_id: Mapping[str, tuple[str, ...]],
    *,
    given: Mapping[str, str],
) -> list[Member]:
    """Return all images that have a split or need one, with their keys.

    Args:
        ledger: The ledger, which has the checksums, hashes and splits of images.
        options: The options of ``[split]``.
        candidates: Ids of the selected images that are prepared.
        authors: Their authors by id.
        classes_by_id: The classes of their boxes by id.
        given: Splits that new images are to get, by id; the options decide about the others.
    """
    assigned = ledger.split_records()
    has_split = {row.image_id for row in assigned}
    md5_by_id, hash_by_id = ledger.column("md5"), ledger.column("phash")
    subset_by_id = ledger.column("subset") if options.official else {}
    imported = ledger.original_names() if options.official else {}
    official = {
        i: SPLIT_OF_SUBSET[str(subset)] for i, subset in subset_by_id.items() if i not in imported
    }
    split_by_id = {**official, **given}
    new = [
        SplitRecord(
            image_id,
            split_by_id.get(image_id, ""),
            str(md5_by_id[image_id] or ""),
            authors.get(image_id, ""),
            str(hash_by_id[image_id] or ""),
        )
        for image_id in candidates
        if image_id not in has_split
    ]
    rows = [*assigned, *new]
    candidate_ids = set(candidates)
    return [
        Member(
            row.image_id,
            keys,
            row.split,
            is_counted=row.image_id in candidate_ids,
            classes=classes_by_id.get(row.image_id, ()),
        )
        for row, keys in zip(rows, keys_of(rows, options.group_by), strict=True)
    ]


def keys_of(rows: Sequence[SplitRecord], group_by: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the keys of each image, the strongest reason first.

    Args:
        rows: The images.
        group_by: "duplicate", "author" or both.
    """
    keys: list[list[str]] = [[] for _ in rows]
    if "duplicate" in group_by:
        near_duplicate_keys = _near_duplicate_keys(hashes_from_texts(row.phash for row in rows))
        for own, row, near in zip(keys, rows, near_duplicate_keys, strict=True):
            own.extend([f"{SAME_FILE}:{row.md5}"] if row.md5 else [])
            own.extend(near)
    if "author" in group_by:
        for own, row in zip(keys, rows, strict=True):
            own.extend([f"{SAME_AUTHOR}:{row.author}"] if row.author else [])
    return list(map(tuple, keys))


def assigned_splits(ledger: Ledger) -> dict[str, str]:
    """Return the split of each selected image that has one."""
    return {image_id: str(state) for image_id, state in ledger.column("state", *SPLITS).items()}


def near_duplicates(ledger: Ledger) -> list[tuple[str, str, int]]:
    """Return the pairs of near-duplicates among images with a split.

    Returns:
        For each pair the ids of both images, and the number of differing bits of their hashes.
    """
    texts = {i: str(text or "") for i, text in ledger.column("phash", *SPLITS).items()}
    ids, hashes = list(texts), hashes_from_texts(texts.values())
    pairs = near_pairs(hashes)
    bits = differing_bits(hashes[pairs[:, 0]], hashes[pairs[:, 1]]).tolist()
    return [(ids[a], ids[b], n) for (a, b), n in zip(pairs.tolist(), bits, strict=True)]


def _near_duplicate_keys(hashes: Hashes) -> list[tuple[str, ...]]:
    """Return the near-duplicate keys of each hash.

    Hashes that occur more than once have a key, and so has each pair of near hashes. Pairs need
    keys of their own because nearness is not transitive: two hashes that are both near a third one
    need not be near each other.
    """
    distinct, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    keys_by_hash: dict[int, list[str]] = defaultdict(list)
    for index in np.flatnonzero((counts > 1) & (distinct != FLAT)).tolist():
        keys_by_hash[index].append(f"{NEAR_DUPLICATE}:{hash_to_text(int(distinct[index]))}")
    for pair in near_pairs(distinct).tolist():
        first, second = (hash_to_text(int(distinct[index])) for index in pair)
        for index in pair:
            keys_by_hash[index].append(f"{NEAR_DUPLICATE}:{first}-{second}")
    return [tuple(keys_by_hash.get(index, ())) for index in inverse.tolist()]
