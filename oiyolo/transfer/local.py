"""The files of a part as they are in a project now, with a copy of the ledger."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from oiyolo.core import files, staleness
from oiyolo.core.progress import progress
from oiyolo.project import ledger_copy
from oiyolo.project.ledger import SPLITS
from oiyolo.transfer.parts import LEDGER, SPLIT_RECIPE, SPLIT_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oiyolo.net.buckets import FileFacts
    from oiyolo.project.project import Project


@contextlib.contextmanager
def derived_files(project: Project, splits: Sequence[str] = ()) -> Iterator[dict[str, Path]]:
    """Yield the files of a dataset that stand for the project's own while the block runs.

    Args:
        project: The project.
        splits: The splits that the dataset is reduced to: the lists and the table of the others
            are empty, and their images are not selected. Empty for the whole dataset, of which
            only the ledger is copied.

    Yields:
        The path of each file, by its name.

    Raises:
        OiyoloError: The ledger cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="oiyolo-") as name:
        folder = Path(name)
        ledger_path = folder / Path(LEDGER).name
        ledger_copy.write_copy(project.ledger_path, ledger_path, only_splits=splits)
        reduced = _reduced(project.folder, folder, splits) if splits else {}
        yield {LEDGER: ledger_path, **reduced}


def _reduced(source: Path, folder: Path, splits: Sequence[str]) -> dict[str, Path]:
    """Write lists, a table and their recipe with only some splits; return their paths by name."""
    others = [f"data/dataset/{split}.txt" for split in SPLITS if split not in splits]
    names = [*others, SPLIT_TABLE, SPLIT_RECIPE]
    paths = {name: folder / Path(name).name for name in names}
    for name, path in paths.items():
        shutil.copyfile(source / name, path)
    head, *rows = files.read_text(paths[SPLIT_TABLE]).splitlines(keepends=True)
    kept = [row for row in rows if row.split(",", 2)[1] in splits]
    contents = dict.fromkeys(others, "") | {SPLIT_TABLE: "".join([head, *kept])}
    for name, text in contents.items():
        staleness.replace_file(paths[SPLIT_RECIPE], paths[name], text.encode())
    return paths


def facts_of(paths: Mapping[str, Path]) -> dict[str, FileFacts]:
    """Return the size and checksum of those of the files that exist, by name.

    Raises:
        OSError: A file cannot be read, or is not a regular file.
    """
    from oiyolo.net import gcs  # noqa: PLC0415  (google's libraries are large)

    present = [name for name, path in paths.items() if path.exists()]
    facts = {}
    with progress("checksums", total=len(present), unit="file", delay_s=2.0) as bar:
        for name in present:
            facts[name] = gcs.facts_of(paths[name])
            bar.advance()
    return facts
