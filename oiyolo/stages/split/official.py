"""Check ``[split]``: official subsets as splits, and the options that assigned the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo.core import files, records
from oiyolo.core.errors import UsageError
from oiyolo.core.results import format_value
from oiyolo.openimages.releases import SPLIT_OF_SUBSET
from oiyolo.project.config import as_dict
from oiyolo.project.keys import SplitOptions

if TYPE_CHECKING:
    from oiyolo.project.project import Project

_RATIOS_FILE: Final = ".split-ratios.json"


def check_subsets(project: Project) -> None:
    """Raise if the official subsets are to be the splits, but not all of them are selected.

    Raises:
        UsageError: ``[split] official`` is true, and a subset is not selected.
    """
    selected = project.config.dataset.subsets
    missing = [subset for subset in SPLIT_OF_SUBSET if subset not in selected]
    if project.config.split.official and missing:
        raise UsageError(
            "cannot use the official subsets as splits, because not all of them are selected",
            where=str(project.options_path),
            expected='[dataset] subsets = ["train", "validation", "test"]',
            found=f"only {', '.join(selected)}" if selected else "none",
            remedy="Select all subsets and run `oiyolo fetch`, or set [split] official = false"
            + ("" if selected else "; `oiyolo import --keep-splits` keeps the splits of imports"),
        )


def assignment_options(project: Project) -> dict[str, object]:
    """Return the options of ``[split]`` that determine an image's split."""
    return {key: value for key, value in as_dict(project.config.split).items() if key != "look"}


def check_ratios(project: Project, *, reassign: bool, has_splits: bool) -> None:
    """Raise if ``[split]`` changed since images were assigned, unless all are assigned again.

    Raises:
        UsageError: ``[split]`` changed, so that it contradicts the splits that images keep.
    """
    if not has_splits or reassign:
        return
    before = _recorded(project)
    if before is None:
        return
    before = {**as_dict(SplitOptions()), **before}  # older versions had fewer keys
    now = assignment_options(project)
    if before["official"] and now["official"]:
        return  # shares have no effect then
    changed = [
        f"{name} from {format_value(before.get(name))} to {format_value(value)}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if changed:
        raise UsageError(
            f"[split] changed ({'; '.join(changed)}), and images keep the split they have",
            where=str(project.options_path),
            remedy="Undo the change, or assign all images again with `oiyolo split --reassign` "
            "(networks trained earlier will have seen images of the new test split)",
        )


class _Recorded(TypedDict, total=False):
    train: float
    valid: float
    test: float
    seed: int
    group_by: list[str]
    official: bool


def _recorded(project: Project) -> dict[str, Any] | None:
    """Return what assigned the images; ``None`` if it is not recorded."""
    remedy = f"Delete it; [split] in {project.options_path.name} then counts as what assigned them"
    return records.find(project.dataset_folder / _RATIOS_FILE, _Recorded, remedy=remedy)


def recorded_options(project: Project) -> SplitOptions:
    """Return the options that assigned the images, which may have been options of a single call."""
    before = _recorded(project)
    if before is None:
        return project.config.split
    recorded = {key: before[key] for key in as_dict(SplitOptions()) if key in before}
    if isinstance(recorded.get("group_by"), list):
        recorded["group_by"] = tuple(recorded["group_by"])
    return SplitOptions(**recorded)


def record_options(project: Project) -> None:
    """Write the options that assign images; a reassignment discards the old splits first."""
    path = project.dataset_folder / _RATIOS_FILE
    now = assignment_options(project)
    if files.read_json(path) != now:
        files.write_json(path, now)
