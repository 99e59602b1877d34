"""The doctor's row about a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.operations.doctor.reachability import reached
from oiyolo.project import config
from oiyolo.project.project import Project

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.operations.doctor.facts import Reached
    from tests.support.bucket_emulator import Emulator


def row_of(bucket: str, folder: Path) -> Reached:
    options = {"sources": [bucket], "base_url": "http://127.0.0.1:1", "weights": "none"}
    project = Project(folder, config.load(folder / "oiyolo.toml", options, {}))
    (row,) = [place for place in reached(project) if place.what == "bucket"]
    return row


def test_a_bucket_that_can_be_listed_answers(emulator: Emulator, tmp_path: Path) -> None:
    bucket = emulator.client().create_bucket("doctors-own")
    assert row_of("gs://doctors-own/images", tmp_path).answer == "answers, and is empty"
    bucket.blob("images/a.jpg").upload_from_string(b"x")
    row = row_of("gs://doctors-own/images", tmp_path)
    assert (row.place, row.answer, row.problem) == ("gs://doctors-own/images", "answers", "")


@pytest.mark.usefixtures("emulator")
def test_a_bucket_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    row = row_of("gs://nobody-has-this", tmp_path)
    assert row.problem
    assert row.remedy


def test_a_service_that_is_not_there_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    row = row_of("gs://some-bucket", tmp_path)
    assert "cannot be listed" in row.problem
