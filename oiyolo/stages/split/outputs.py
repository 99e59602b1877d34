"""The files of split in ``data/dataset``: the lists, ``split.csv`` and ``obj.names``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.core import csv_rows, files, staleness
from oiyolo.core.errors import InputFormError
from oiyolo.core.image_ids import parse_ids
from oiyolo.darknet.paths import safe_alias
from oiyolo.project.ledger import SPLITS
from oiyolo.stages.split.group_keys import describe_link

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.project.project import Project
    from oiyolo.splits.assign import Assignment

RECIPE_FILE: Final = ".split-from.json"
"""What the lists and the table were made from."""
TABLE: Final = "split.csv"
_REMEDY: Final = "Run `oiyolo split`, which writes the table again"
_LISTS: Final = (*(f"{name}.txt" for name in SPLITS), "obj.names")
_COLUMNS: Final = ("ImageID", "split", "group", "why")


def are_complete(folder: Path) -> bool:
    """Return whether all files exist and the table is readable."""
    try:
        read_table(folder)
    except InputFormError:
        return False
    return has_lists(folder)


def are_intact(folder: Path) -> bool:
    """Return whether all files are complete and as ``split`` wrote them."""
    return are_complete(folder) and are_unchanged(folder)


def are_unchanged(folder: Path) -> bool:
    """Return whether all files exist and have the checksums that were recorded, if they were."""
    recipe_path = folder / RECIPE_FILE
    return all(staleness.is_intact(recipe_path, folder / name) for name in (*_LISTS, TABLE))


def check_list(folder: Path, split: str) -> None:
    """Raise InputFormError if the list of a split is missing, or is not as ``split`` wrote it."""
    remedy = "Run `oiyolo split`, which writes the list again"
    staleness.check_intact(folder / RECIPE_FILE, folder / f"{split}.txt", remedy=remedy)


def has_lists(folder: Path) -> bool:
    """Return whether the lists and ``obj.names`` exist."""
    return all((folder / name).is_file() for name in _LISTS)


def darknet_images_path(project: Project) -> Path:
    """Return the folder of the images as darknet's lists name it; create its link if missing."""
    return safe_alias(project.objects_folder, project.cache_folder)


def render(project: Project, assignment: Assignment, class_names: Sequence[str]) -> dict[str, str]:
    """Return the text of each file by name, for the images of the assignment."""
    import pandas as pd  # noqa: PLC0415  (large, and training does not need it)

    images_path = darknet_images_path(project)
    lines: dict[str, list[str]] = {name: [] for name in SPLITS}
    rows = []
    for i, split in assignment.split_by_id.items():
        lines[split].append(f"{images_path}/{i}.jpg\n")
        link = assignment.link_by_id.get(i)
        rows.append((i, split, assignment.group_by_id[i], describe_link(*link) if link else ""))
    return {
        **{f"{name}.txt": "".join(paths) for name, paths in lines.items()},
        TABLE: pd.DataFrame(rows, columns=list(_COLUMNS)).to_csv(index=False),
        "obj.names": "".join(f"{name}\n" for name in class_names),
    }


def remove(folder: Path, image_ids: Collection[str]) -> None:
    """Remove some images from the lists and from the table, as far as these exist."""
    names = {f"{image_id}.jpg".encode() for image_id in image_ids}
    for path in [folder / f"{name}.txt" for name in SPLITS]:
        if path.is_file():
            lines = files.read_bytes(path).splitlines(keepends=True)
            kept = [line for line in lines if line.strip().rpartition(b"/")[2] not in names]
            staleness.replace_file(folder / RECIPE_FILE, path, b"".join(kept))
    table, ids = folder / TABLE, {image_id.encode() for image_id in image_ids}
    if table.is_file():
        rows = csv_rows.without(files.read_bytes(table).splitlines(keepends=True), ids)
        staleness.replace_file(folder / RECIPE_FILE, table, b"".join(rows))


def are_up_to_date(folder: Path, texts: Mapping[str, str]) -> bool:
    """Return whether all files have the given texts, by name."""
    try:
        return all(files.read_bytes(folder / n) == text.encode() for n, text in texts.items())
    except OSError:
        return False


def read_table(folder: Path) -> pd.DataFrame:
    """Read ``split.csv``; all columns are texts.

    Raises:
        InputFormError: The file is missing or damaged.
    """
    import pandas as pd  # noqa: PLC0415  (large, and training does not need it)

    path = folder / TABLE
    try:
        with files.open_binary(path) as file:
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
        contents = ",".join(table.columns)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        contents = str(error)
    if contents == ",".join(_COLUMNS):
        for column in ("ImageID", "group"):
            ids = table[column].tolist()
            parse_ids(ids, where=str(path), first_row=2, remedy=_REMEDY)
        return table
    raise InputFormError(
        "cannot read the table of splits",
        where=str(path),
        expected=f"the columns {','.join(_COLUMNS)}",
        found=contents,
        remedy=_REMEDY,
    )
