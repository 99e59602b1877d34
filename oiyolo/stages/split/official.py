"""Open Images' own subsets as splits, and the record of how images were dealt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.openimages.subsets import SPLIT_OF_SUBSET
from oiyolo.project.config import as_dict
from oiyolo.project.keys import SplitOptions

if TYPE_CHECKING:
    from oiyolo.project.project import Project

_RATIOS_OF: Final = ".split-ratios.json"


def check_subsets(project: Project) -> None:
    """Refuse official splits without all subsets.

    Raises:
        UsageError: A subset that would be a split is not selected.
    """
    selected = project.config.dataset.subsets
    missing = [subset for subset in SPLIT_OF_SUBSET if subset not in selected]
    if project.config.split.official and missing:
        raise UsageError(
            "the official subsets cannot be the splits, because not all are selected",
            where=str(project.options_path),
            expected='[dataset] subsets = ["train", "validation", "test"]',
            found=f"subsets = {list(selected)}",
            remedy="Set it and run `oiyolo fetch`, or leave official out",
        )


def dealing(project: Project) -> dict[str, object]:
    """Give the options that decide where an image goes."""
    return {key: value for key, value in as_dict(project.config.split).items() if key != "look"}


def check_ratios(project: Project, *, reassign: bool, has_splits: bool) -> None:
    """Refuse other ratios than those the images were dealt by, unless all are dealt anew.

    Raises:
        UsageError: ``[split]`` is not what it was.
    """
    before = files.read_json(project.dataset_folder / _RATIOS_OF)
    if not has_splits or not isinstance(before, dict) or reassign:
        return
    before = {**as_dict(SplitOptions()), **before}  # an older oiyolo knew fewer keys
    now = dealing(project)
    if before["official"] and now["official"]:
        return  # shares decide nothing then
    changed = [f"{n} from {before.get(n)} to {now[n]}" for n in now if before.get(n) != now[n]]
    if changed:
        raise UsageError(
            f"[split] changed ({', '.join(changed)}), and images keep the split they have",
            where=str(project.options_path),
            remedy="Change it back, or deal all images anew with `oiyolo split --reassign` (what "
            "was trained before has then seen images of the new test split)",
        )


def dealt_by(project: Project) -> SplitOptions:
    """Give the options that the images were dealt by, which one call alone may have had."""
    before = files.read_json(project.dataset_folder / _RATIOS_OF)
    if not isinstance(before, dict):
        return project.config.split
    known = {key: before[key] for key in as_dict(SplitOptions()) if key in before}
    if isinstance(known.get("group_by"), list):
        known["group_by"] = tuple(known["group_by"])
    return SplitOptions(**known)


def keep_ratios(project: Project) -> None:
    """Remember the ratios that images are dealt by; after old splits were forgotten."""
    path = project.dataset_folder / _RATIOS_OF
    now = dealing(project)
    if files.read_json(path) != now:
        files.write_json(path, now)
