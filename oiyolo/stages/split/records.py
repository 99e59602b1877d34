"""Collect what is known about a dataset for its records (``oiyolo.provenance``)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from oiyolo import __version__
from oiyolo.core import files, staleness
from oiyolo.project.ledger import FETCHED, PENDING, SPLITS
from oiyolo.provenance import records
from oiyolo.provenance.dataset import Dataset
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages.split import official, outputs
from oiyolo.stages.split.group_keys import assigned_splits

if TYPE_CHECKING:
    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project
    from oiyolo.stages.select import Selection

_WAITING: Final = "not fetched or prepared yet"


def update(project: Project, selection: Selection, ledger: Ledger) -> tuple[str, ...]:
    """Write credits, dataset card and Croissant metadata if they are out of date.

    Returns:
        Names of the files that changed.
    """
    recipe = _recipe(project, selection, ledger)
    return records.update(
        project.dataset_folder, recipe, partial(_collect, project, selection, ledger)
    )


def stale_reason(project: Project, selection: Selection, ledger: Ledger) -> str | None:
    """Return why the records are out of date; ``None`` if they are not."""
    return records.stale_reason(project.dataset_folder, _recipe(project, selection, ledger))


def _recipe(project: Project, selection: Selection, ledger: Ledger) -> dict[str, object]:
    """Return what the records are made from, without reading any table."""
    inputs = select_stage.recorded_inputs(project)
    return {
        "the selection": staleness.fingerprint([selection.as_dict(), inputs]),
        "the prepared images": _text_of(project, prepare_stage.RECIPE_FILE),
        "the splits": _text_of(project, outputs.RECIPE_FILE),
        "the images": ledger.fingerprint_of_dataset(),
        "the counts": ledger.counts().as_dict(),
        "release": project.config.openimages.release,
        "version": __version__,
    }


def _text_of(project: Project, recipe_name: str) -> str:
    return staleness.fingerprint(files.read_json(project.dataset_folder / recipe_name))


def _collect(project: Project, selection: Selection, ledger: Ledger) -> Dataset:
    options, tables = select_stage.recorded_inputs(project)
    prepared = prepare_stage.prepared_options(project)
    width, height = prepared["size"]
    groups = outputs.read_table(project.dataset_folder)
    counts = ledger.counts()
    # Unknown for images that an older version prepared.
    sizes = [n for n in ledger.column("prepared_bytes", *SPLITS).values() if isinstance(n, int)]
    waiting = sum(counts.states.values()) - sum(counts.states[name] for name in SPLITS)
    return Dataset(
        folder=project.dataset_folder,
        selected=selection.images,
        split_by_id=assigned_splits(ledger),
        boxes=prepare_stage.boxes_table(project),
        summary=selection.summary,
        options=options,
        release=project.config.openimages.release,
        tables=tables,
        size_wh=None if prepared["fit"] == "none" else (width, height),
        fit=prepared["fit"],
        fetched_from={i: str(name or "") for i, name in ledger.column("source", *SPLITS).items()},
        fetched_size_wh=prepare_stage.source_sizes_wh(ledger, *SPLITS),
        size_bytes=sum(sizes)
        if len(sizes) == sum(counts.states[name] for name in SPLITS)
        else None,
        split_options=official.recorded_options(project),
        group_by_id=dict(zip(groups["ImageID"], groups["group"], strict=True)),
        not_used={**counts.excluded, **({_WAITING: waiting} if waiting else {})},
        selected_at=ledger.event_days("select", PENDING),
        fetched_at=ledger.event_days("fetch", FETCHED),
        version=__version__,
        imports=project.imports(),
    )
