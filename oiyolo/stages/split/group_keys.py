"""What binds images together: the same bytes, the same look, the same author.

A key is a text with its kind in front, so that equal keys mean kin and can be told to a person.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from oiyolo.imagery.duplicates import FLAT, as_text, differing_bits, from_texts, near_pairs
from oiyolo.openimages.subsets import SPLIT_OF_SUBSET
from oiyolo.project.ledger import SPLITS, Assigned
from oiyolo.splits.groups import Member

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pandas as pd

    from oiyolo.imagery.duplicates import Hashes
    from oiyolo.project.keys import SplitOptions
    from oiyolo.project.ledger import Ledger

SAME_FILE: Final = "file"
SAME_LOOK: Final = "look"
SAME_AUTHOR: Final = "author"
_BOUND: Final = {
    SAME_FILE: "duplicate of",
    SAME_LOOK: "near-duplicate of",
    SAME_AUTHOR: "same author as",
}
_KIN: Final = {
    SAME_FILE: "a duplicate",
    SAME_LOOK: "a near-duplicate",
    SAME_AUTHOR: "an image of its author",
}


def kind_of(key: str) -> str:
    """Give a key's kind."""
    return key.partition(":")[0]


def told(key: str, other: str) -> str:
    """Tell why an image is in its group.

    Args:
        key: What binds it.
        other: An image that it is bound to.
    """
    kind, _, value = key.partition(":")
    words = f"{_BOUND[kind]} {other}"
    if kind != SAME_LOOK:
        return words
    first, _, second = value.partition("-")
    bits = int(differing_bits(from_texts([first]), from_texts([second or first]))[0])
    return f"{words} ({bits} of 64 bits differ)"


def told_of_torn(key_by_split: Mapping[str, str]) -> str:
    """Tell why an image would join groups of different splits: where its kin are."""
    kin = [f"{_KIN[kind_of(key)]} is in {split}" for split, key in key_by_split.items()]
    return ", ".join(kin)


def authors_of(images: pd.DataFrame) -> dict[str, str]:
    """Give a name for each image's author: the profile's address, where there is one."""
    columns = (images[name].tolist() for name in ("ImageID", "AuthorProfileURL", "Author"))
    named = zip(*columns, strict=True)
    return {image_id: profile or author for image_id, profile, author in named}


def members_of(
    ledger: Ledger,
    options: SplitOptions,
    candidates: Collection[str],
    authors: Mapping[str, str],
    classes_by_id: Mapping[str, tuple[str, ...]],
) -> list[Member]:
    """Give all images that have a split or shall get one.

    Args:
        ledger: It knows files, hashes and splits.
        options: What binds images, and whether the subsets are the splits.
        candidates: The prepared images that are selected.
        authors: The author of each.
        classes_by_id: The classes that each shows.
    """
    known = ledger.assigned()
    has_split = {row.image_id for row in known}
    md5_by_id, hash_by_id = ledger.facts("md5"), ledger.facts("phash")
    subset_by_id = ledger.facts("subset") if options.official else {}
    new = [
        Assigned(
            image_id,
            SPLIT_OF_SUBSET[str(subset_by_id[image_id])] if options.official else "",
            str(md5_by_id[image_id] or ""),
            authors.get(image_id, ""),
            str(hash_by_id[image_id] or ""),
        )
        for image_id in candidates
        if image_id not in has_split
    ]
    rows = [*known, *new]
    wanted = set(candidates)
    return [
        Member(
            row.image_id,
            keys,
            row.split or None,
            counts=row.image_id in wanted,
            classes=classes_by_id.get(row.image_id, ()),
        )
        for row, keys in zip(rows, keys_of(rows, options.group_by), strict=True)
    ]


def keys_of(rows: Sequence[Assigned], group_by: Iterable[str]) -> list[tuple[str, ...]]:
    """Give the keys of each image, the strongest reason first."""
    keys: list[list[str]] = [[] for _ in rows]
    if "duplicate" in group_by:
        looks = _keys_of_looks(from_texts(row.phash for row in rows))
        for own, row, look in zip(keys, rows, looks, strict=True):
            own.extend([f"{SAME_FILE}:{row.md5}"] if row.md5 else [])
            own.extend(look)
    if "author" in group_by:
        for own, row in zip(keys, rows, strict=True):
            own.extend([f"{SAME_AUTHOR}:{row.author}"] if row.author else [])
    return list(map(tuple, keys))


def look_alikes(ledger: Ledger) -> list[tuple[str, str, int]]:
    """Give the pairs of images with a split that look the same, and how many bits differ."""
    texts = {i: str(text or "") for i, text in ledger.facts("phash", *SPLITS).items()}
    ids, hashes = list(texts), from_texts(texts.values())
    pairs = near_pairs(hashes)
    bits = differing_bits(hashes[pairs[:, 0]], hashes[pairs[:, 1]]).tolist()
    return [(ids[a], ids[b], n) for (a, b), n in zip(pairs.tolist(), bits, strict=True)]


def _keys_of_looks(hashes: Hashes) -> list[tuple[str, ...]]:
    """Give a key for each hash that is there more than once, and one for each pair of near ones.

    A key for each pair, because being near does not pass on: of three images in a row, the outer
    two are kin only through the one between them.
    """
    distinct, which, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    keys_by_hash: dict[int, list[str]] = defaultdict(list)
    for at in np.flatnonzero((counts > 1) & (distinct != FLAT)).tolist():
        keys_by_hash[at].append(f"{SAME_LOOK}:{as_text(int(distinct[at]))}")
    for pair in near_pairs(distinct).tolist():
        first, second = (as_text(int(distinct[at])) for at in pair)
        for at in pair:
            keys_by_hash[at].append(f"{SAME_LOOK}:{first}-{second}")
    return [tuple(keys_by_hash.get(at, ())) for at in which.tolist()]
