"""A mirror of Open Images whose annotations change between two refreshes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oiyolo.demo_data import catalogue
from oiyolo.demo_data.scenes import BOAT_FAMILY
from oiyolo.demo_data.writer import BOX_FILES

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from tests.conftest import Site

LINE = re.compile(
    r"\+(?P<images>[\d,]+) images, (?P<boxes>[+-][\d,]+) boxes, -(?P<withdrawn>[\d,]+) withdrawn, "
    r"(?P<moved>\d+) moved between splits"
    r"(, (?P<changed>[\d,]+) images? with changed boxes)?(, (?P<left_out>[\d,]+) left out)?"
    r"(?P<current>; up to date)?\n"
)
"""The one line that a refresh prints."""


def numbers(line: str) -> dict[str, int]:
    """Return the numbers in the line of a refresh, 0 for absent ones; assert that it is one."""
    match = LINE.fullmatch(line)
    assert match is not None, line
    texts = {**match.groupdict(), "current": "1" if match["current"] else "0"}
    return {name: int((text or "0").replace(",", "")) for name, text in texts.items()}


@dataclass
class ChangingMirror:
    """The boxes of the train subset: which images they are listed of, and where they are.

    Attributes:
        site: The mirror; its table of boxes is written by ``publish``.
        hidden: Ids of images whose boxes are not listed.
        moved: Ids of images whose boxes are listed 0.001 further to the left.
    """

    site: Site
    hidden: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._head, *self._lines = self._path.read_text(encoding="utf-8").splitlines()

    @property
    def _path(self) -> Path:
        return self.site.mirror.folder / "openimages" / BOX_FILES["train"]

    def boxes_of(self, image_ids: Collection[str]) -> int:
        """Return the number of boats in some images."""
        boats = {mid for name, mid in catalogue.MIDS.items() if name in BOAT_FAMILY}
        fields = (line.split(",") for line in self._lines)
        return sum(row[0] in image_ids and row[2] in boats for row in fields)

    def publish(self) -> None:
        """Write the table, without the hidden images."""
        lines = [self._listed(line) for line in self._lines]
        text = "".join(f"{line}\n" for line in (self._head, *filter(None, lines)))
        self._path.write_text(text, encoding="utf-8")

    def _listed(self, line: str) -> str:
        fields = line.split(",")
        if fields[0] in self.hidden:
            return ""
        if fields[0] in self.moved:  # columns: ImageID, Source, LabelName, Confidence, XMin, XMax
            x_min, x_max = (float(text) for text in fields[4:6])
            fields[4:6] = [f"{max(x_min - 0.001, 0):.6f}", f"{max(x_max - 0.001, 0.0005):.6f}"]
        return ",".join(fields)
