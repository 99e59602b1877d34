"""review: decisions change the labels, the ledger says so, and undoing them restores everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.label_errors import decisions
from oiyolo.label_errors.decisions import ReviewRow
from tests.support.finished_runs import make_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd


@pytest.fixture
def project(make_project: Callable[..., Path]) -> Path:
    folder = make_project(train=0.4, valid=0.3, test=0.3, executable="no/darknet")
    oiyolo.fetch(folder)
    oiyolo.split(folder)
    return folder


def used_boxes(project: Path) -> pd.DataFrame:
    boxes = oiyolo.select(project).boxes
    with oiyolo.open_project(project).ledger() as ledger:
        ids = ledger.ids("train", "valid", "test")
    return boxes[boxes["used"] & boxes["ImageID"].isin(ids)]


def row_of(box: pd.Series, decision: str) -> ReviewRow:
    corners = tuple(box[name] for name in ("XMin", "YMin", "XMax", "YMax"))
    return ReviewRow(box["ImageID"], box["class"], corners, decision=decision)


def labels(project: Path, image_id: str) -> list[str]:
    path = project / "data" / "dataset" / "obj" / f"{image_id}.txt"
    return path.read_text().splitlines()


@pytest.fixture
def decided(project: Path) -> tuple[str, str, str]:
    """Decide about three images, and return their ids: of one that keeps a box, and two others."""
    boxes = used_boxes(project)
    counts = boxes["ImageID"].value_counts()
    several = str(counts[counts > 1].index[0])
    single, rejected = map(str, counts[counts == 1].index[:2])
    first, alone = (boxes[boxes["ImageID"] == i].iloc[0] for i in (several, single))
    rows = [
        row_of(first, "drop"),
        ReviewRow(several, "Boat", (0.0, 0.0, 0.05, 0.07), decision="add"),
        row_of(alone, "drop"),
        ReviewRow(rejected, "Boat", (0.0, 0.0, 1.0, 1.0), decision="drop_image"),
        ReviewRow("f" * 16, "Boat", (0.0, 0.0, 1.0, 1.0), decision="drop"),
    ]
    decisions.write(project / "data" / "review.csv", rows)
    return several, single, rejected


def test_decisions_change_the_labels(project: Path, decided: tuple[str, str, str]) -> None:
    several, *excluded = decided
    before = labels(project, several)
    assert any("3 images" in action for action in oiyolo.prepare(project, dry_run=True).actions)
    result = oiyolo.prepare(project)
    assert (result.new, result.review_not_applied) == (1, 1)
    assert "1 decision in data/review.csv no longer apply" in str(result)
    assert result.dropped_boxes["review"] == 1  # the other one is of an excluded image
    oiyolo.split(project)
    changed = labels(project, several)
    assert len(changed) == len(before)
    assert len(set(changed) & set(before)) == len(before) - 1
    events = oiyolo.why(several, project).events
    assert any("1 box dropped and 1 box added by review" in event[2] for event in events)
    for image_id in excluded:
        assert oiyolo.why(image_id, project).row["reason"] == "review"
        assert not (project / "data" / "dataset" / "obj" / f"{image_id}.jpg").exists()
    counts = oiyolo.status(project).counts
    assert counts.excluded["review"] == len(excluded)
    assert sum(counts.states.values()) + sum(counts.excluded.values()) == counts.selected
    exported = oiyolo.export_openimages(project)  # which needs the boxes before they were placed
    assert isinstance(exported, oiyolo.DatasetExported)
    tables = exported.path.rglob("*annotations-bbox.csv")
    assert sum(path.read_text().count(several) for path in tables) == len(changed)


def test_decisions_can_be_undone(
    project: Path,
    decided: tuple[str, str, str],
    digests: Callable[[Path], dict[str, str]],
) -> None:
    objects = project / "data" / "dataset" / "obj"
    before = digests(objects)
    oiyolo.split(project)
    assert len(digests(objects)) == len(before) - 2 * len(decided[1:])
    (project / "data" / "review.csv").unlink()
    oiyolo.split(project)
    assert digests(objects) == before
    assert "review" not in oiyolo.status(project).counts.excluded


def test_a_damaged_file_of_decisions_stops_prepare(project: Path) -> None:
    path = project / "data" / "review.csv"
    path.write_text("ImageID,decision\n")
    with pytest.raises(InputFormError) as caught:
        oiyolo.prepare(project)
    assert caught.value.where == str(path)


def test_a_list_is_written_and_decisions_in_it_are_kept(project: Path) -> None:
    with pytest.raises(UsageError):
        oiyolo.review(project)  # there is no run yet
    opened = oiyolo.open_project(project)
    run = make_run(opened, "tiny-001", ["Boat"])
    assert oiyolo.review(project, dry_run=True).actions
    assert not opened.review_path.exists()
    own = ReviewRow("f" * 16, "Boat", (0.1, 0.1, 0.2, 0.2), decision="drop")
    decisions.write(opened.review_path, [own])
    result = oiyolo.review(project)
    assert (result.run, result.path, result.decided) == (run.name, opened.review_path, 1)
    assert result.page.is_file()
    assert decisions.read(opened.review_path)[-1] == own
    with pytest.raises(UsageError):
        oiyolo.review(project, limit=0)
