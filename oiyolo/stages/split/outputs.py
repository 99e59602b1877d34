"""What split leaves in ``data/dataset``: the lists, ``split.csv`` and ``obj.names``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.darknet.paths import safe_alias
from oiyolo.project.ledger import SPLITS
from oiyolo.stages.split.group_keys import told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from oiyolo.project.project import Project
    from oiyolo.splits.assign import Assignment

TABLE: Final = "split.csv"
_COLUMNS: Final = ("ImageID", "split", "group", "why")


def complete(folder: Path) -> bool:
    """Tell whether all files are there, and the table can be read."""
    try:
        read_table(folder)
    except InputFormError:
        return False
    return are_listed(folder)


def are_listed(folder: Path) -> bool:
    """Tell whether the lists and the names are there."""
    names = [*(f"{name}.txt" for name in SPLITS), "obj.names"]
    return all((folder / name).is_file() for name in names)


def place(project: Project) -> Path:
    """Give the path under which darknet finds the images; a link that is gone is made again."""
    return safe_alias(project.objects_folder, project.cache_folder)


def render(
    project: Project, made: Assignment, candidates: Iterable[str], class_names: Sequence[str]
) -> dict[str, str]:
    """Give the texts of all files by their names, for the candidates that have a split."""
    objects = place(project)
    ids = sorted(i for i in candidates if i in made.split_by_id)
    texts = {
        f"{name}.txt": "".join(f"{objects}/{i}.jpg\n" for i in ids if made.split_by_id[i] == name)
        for name in SPLITS
    }
    rows = [
        (i, made.split_by_id[i], made.group_by_id[i], told(*made.bond_by_id[i]))
        if i in made.bond_by_id
        else (i, made.split_by_id[i], made.group_by_id[i], "")
        for i in ids
    ]
    import pandas as pd  # noqa: PLC0415  (heavy, and a training runs for days without it)

    texts[TABLE] = pd.DataFrame(rows, columns=list(_COLUMNS)).to_csv(index=False)
    texts["obj.names"] = "".join(f"{name}\n" for name in class_names)
    return texts


def are_there(folder: Path, texts: Mapping[str, str]) -> bool:
    """Tell whether all files have these texts."""
    try:
        return all((folder / n).read_bytes() == text.encode() for n, text in texts.items())
    except OSError:
        return False


def read_table(folder: Path) -> pd.DataFrame:
    """Read ``split.csv``.

    Raises:
        InputFormError: It is missing or damaged.
    """
    import pandas as pd  # noqa: PLC0415  (heavy, and a training runs for days without it)

    path = folder / TABLE
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        found = ",".join(table.columns)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        found = str(error)
    if found == ",".join(_COLUMNS):
        return table
    raise InputFormError(
        "the table of splits cannot be read",
        where=str(path),
        expected=f"the columns {','.join(_COLUMNS)}",
        found=found,
        remedy="Remove it, if it is there, and run `oiyolo split`, which writes it anew",
    )
