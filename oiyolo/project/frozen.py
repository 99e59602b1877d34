"""A frozen dataset, which a project rebuilds: its images, their checksums and their splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class FrozenDataset:
    """What decides a frozen dataset beyond the options.

    Attributes:
        fingerprint: Fingerprint of the file that it was read from.
        split_by_id: The split of each image; no other image is selected.
        md5_by_id: MD5 of each image's file as fetched, in hexadecimal; any other file is rejected.
    """

    fingerprint: str
    split_by_id: Mapping[str, str]
    md5_by_id: Mapping[str, str]
