"""What a demo mirror contains, from its plan and its tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pandas as pd

from oiyolo.demo_data import catalogue, writer
from oiyolo.demo_data.scenes import BOAT_FAMILY

if TYPE_CHECKING:
    from oiyolo.demo_data.writer import DemoMirror

NAMES = {mid: name for name, mid in catalogue.MIDS.items()}


def fates(seed: int, scenes: int) -> dict[str, list[str]]:
    """Return the ImageIDs of the train images by fate."""
    by_fate: dict[str, list[str]] = {}
    for plan in writer.plan_images(seed, scenes):
        if plan.subset == "train":
            by_fate.setdefault(plan.fate.value, []).append(plan.image_id)
    return by_fate


def table(mirror: DemoMirror, name: str) -> pd.DataFrame:
    """Return one of the mirror's official tables, with all values as texts."""
    return pd.read_csv(mirror.folder / "openimages" / name, dtype=str, keep_default_na=False)


def box_counts(mirror: DemoMirror, subset: str) -> Counter[str]:
    """Return the number of boxes of a subset by class name."""
    return Counter(table(mirror, writer.BOX_FILES[subset]).LabelName.map(NAMES))


def boat_image_count(mirror: DemoMirror, subset: str) -> int:
    """Return the number of images of a subset with a box of Boat, Canoe or Gondola."""
    rows = table(mirror, writer.BOX_FILES[subset])
    return int(rows[rows.LabelName.map(NAMES).isin(BOAT_FAMILY)].ImageID.nunique())
