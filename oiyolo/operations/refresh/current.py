"""Decide whether a refresh has anything to do, and which failed images it tries again."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from oiyolo import __version__
from oiyolo.core import files, staleness
from oiyolo.project import config as options_of
from oiyolo.project.ledger import FETCHED, PENDING, PREPARED
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import prepare as prepare_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages import split as split_stage

if TYPE_CHECKING:
    from oiyolo.operations.refresh.baseline import SavedState
    from oiyolo.project.ledger import Ledger
    from oiyolo.project.project import Project

RETRY_AFTER: Final = dt.timedelta(days=7)
"""Time after which a refresh tries an image again that failed for good (404, a broken file)."""
_MIN_RETRIES: Final = 1000
_RETRIED_SHARE: Final = 7
_UNFINISHED: Final = (PENDING, FETCHED, PREPARED)


def stamp(project: Project, ledger: Ledger) -> dict[str, object]:
    """Return what the data stages depend on, as far as it is cheap to find out.

    If it is the same after two refreshes, neither the selection, nor the state of any image, nor an
    option changed in between. Damage to files is found by ``is_current``.
    """
    config, folder = project.config, project.dataset_folder
    sections = (config.dataset, config.openimages, config.images, config.split)
    recipes = (prepare_stage.RECIPE_FILE, split_stage.RECIPE_FILE)
    return {
        "options": staleness.fingerprint([options_of.as_dict(section) for section in sections]),
        "selection": select_stage.load(project).fingerprint,
        "last event": ledger.last_event(),
        "recipes": staleness.fingerprint([files.read_json(folder / name) for name in recipes]),
        "version": __version__,
    }


def is_current(project: Project, before: SavedState) -> bool:
    """Return whether the dataset is as the last refresh left it, complete and intact.

    The selection must be up to date. This reads no table, so it takes a fraction of a second.
    """
    with project.ledger() as ledger:
        states = ledger.counts().states
        if before.fields["waiting"] or any(states[state] for state in _UNFINISHED):
            return False
        if before.fields["stamp"] != stamp(project, ledger) or due_images(ledger):
            return False
    return prepare_stage.stale_reason(project) is None and split_stage.is_intact(project)


def due_images(ledger: Ledger) -> list[str]:
    """Return the ids of the failed images that a refresh tries again, in ascending order.

    An image that failed temporarily is still pending, and every fetch tries it. The others are due
    a week after their last attempt; of many, a seventh is tried each time, so that the nights of a
    week share them.
    """
    now = dt.datetime.now(dt.timezone.utc)
    before = (now - RETRY_AFTER).isoformat(timespec="seconds")
    waiting = ledger.excluded_since(fetch_stage.STAGE, before)
    failed = len(ledger.ids("excluded", stage=fetch_stage.STAGE))
    return sorted(waiting[: max(_MIN_RETRIES, failed // _RETRIED_SHARE)])
