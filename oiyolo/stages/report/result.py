"""The result of report."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oiyolo.core.results import Result

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Report(Result):
    """A written report.

    Attributes:
        path: The page.
        run: The name of its run; of two that are compared, both.
    """

    path: Path
    run: str

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-compatible values."""
        return {"run": self.run, "report": str(self.path)}

    def __str__(self) -> str:
        return f"{self.run}: see {self.path}"

    def _repr_html_(self) -> str:
        url = html.escape(os.path.relpath(self.path))
        return f'{html.escape(self.run)}: see <a href="{url}" target="_blank">{url}</a>'
