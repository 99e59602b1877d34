"""The files that a prediction writes: their names, and what they may replace."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.output import printable
from oiyolo.core.results import pluralize
from oiyolo.inference.earlier import replaceable, write_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Literal

    from oiyolo.operations.predict.sources import MediaSource

    Format = Literal["pictures", "json", "csv", "yolo"]

VIDEO_SUFFIX: Final = ".mp4"
FORMATS: Final = ("pictures", "json", "csv", "yolo")
JSON_NAME: Final = "predictions.json"
CSV_NAME: Final = "predictions.csv"
LABELS_FOLDER: Final = "labels"
CLASSES_NAME: Final = f"{LABELS_FOLDER}/classes.txt"
NAMES_NAME: Final = "obj.names"
DISK_REMEDY: Final = "or choose a folder on a larger disk with --out"
_CHOOSE_ANOTHER: Final = "Choose another folder with --out"


def parse_formats(words: str | Iterable[str]) -> tuple[str, ...]:
    """Return formats from "pictures,json", or from several such texts, each once.

    Raises:
        UsageError: A word is not a format.
    """
    texts = [words] if isinstance(words, str) else words
    formats = [word.strip().lower() for text in texts for word in text.split(",")]
    for word in formats:
        if word not in FORMATS:
            raise UsageError(
                "unknown output format",
                where="--format",
                expected=f"some of {', '.join(FORMATS)}, separated by commas",
                found=repr(word),
                remedy="Correct the option",
            )
    return tuple(dict.fromkeys(formats))


@dataclass(frozen=True)
class Outputs:
    """The outputs of one prediction.

    Attributes:
        folder: Their folder.
        formats: Their formats.
        planned: Their paths relative to it; those of folders end in a slash.
        replaced: Those that replace outputs of an earlier prediction.
    """

    folder: Path
    formats: Sequence[str]
    planned: Sequence[str]
    replaced: frozenset[str]

    def discard(self, name: str) -> None:
        """Delete what an earlier prediction wrote for an image that cannot be read any more.

        Args:
            name: Name of the image's outputs.
        """
        for output in (f"{name}.jpg", f"{name}{VIDEO_SUFFIX}", f"{LABELS_FOLDER}/{name}.txt"):
            if output in self.replaced:
                (self.folder / output).unlink(missing_ok=True)

    def record(self, *, complete: bool) -> None:
        """Record the outputs, if there are any.

        Args:
            complete: Whether they are written. Before the first one is, they are also recorded, so
                that a call that is interrupted can be repeated.
        """
        if self.planned:
            write_record(self.folder, self.planned, complete=complete)


def plan_outputs(
    folder: Path, formats: Sequence[str], sources: Sequence[MediaSource], names: Sequence[str]
) -> Outputs:
    """Return the outputs after verifying that they replace nothing but earlier predictions.

    Args:
        folder: Folder of the outputs, which need not exist.
        formats: Formats of the outputs.
        sources: The sources.
        names: Name of the outputs of each source (see ``sources.output_names``).

    Raises:
        UsageError: An output would replace a source or another file.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(
            "the outputs need a folder, but a file has its name",
            where=printable(str(folder)),
            remedy=_CHOOSE_ANOTHER,
        )
    planned = _planned(formats, sources, names)
    real = os.path.realpath(folder)
    inputs = {os.path.realpath(source.path) for source in sources if source.path is not None}
    if clashes := [name for name in planned if f"{real}/{name}" in inputs]:
        raise UsageError(
            f"{pluralize(len(clashes), 'output')} would replace the image it was made from",
            where=printable(str(folder / clashes[0])),
            remedy=_CHOOSE_ANOTHER,
        )
    existing = [name for name in planned if os.path.lexists(folder / name)]
    own = replaceable(folder, existing)
    if foreign := [name for name in existing if name not in own]:
        raise UsageError(
            f"this would overwrite {pluralize(len(foreign), 'file')} that `oiyolo predict` did not "
            "write or that changed since",
            where=printable(str(folder / foreign[0])),
            remedy=f"{_CHOOSE_ANOTHER}, or move them away",
        )
    return Outputs(folder, formats, planned, frozenset(existing))


def _planned(
    formats: Sequence[str], sources: Sequence[MediaSource], names: Sequence[str]
) -> list[str]:
    """Return the paths of the outputs, relative to their folder; folders end in a slash."""
    planned: list[str] = []
    for source, name in zip(sources, names, strict=True):
        if "pictures" in formats:
            planned.append(f"{name}{VIDEO_SUFFIX if source.is_video else '.jpg'}")
        if "yolo" in formats:
            planned.append(f"{LABELS_FOLDER}/{name}{'/' if source.is_video else '.txt'}")
    planned += [JSON_NAME] if "json" in formats else []
    planned += [CSV_NAME] if "csv" in formats else []
    return planned + ([CLASSES_NAME, NAMES_NAME] if "yolo" in formats else [])
