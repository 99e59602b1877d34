"""The doctor's check of a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.operations.doctor.reachability import check_endpoints
from oiyolo.project import config
from oiyolo.project.project import Project

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.operations.doctor.facts import Endpoint
    from tests.support.bucket_emulator import Emulator


def row_of(bucket: str, folder: Path) -> Endpoint:
    options = {"sources": [bucket], "base_url": "http://127.0.0.1:1", "weights": "none"}
    project = Project(folder, config.load(folder / "oiyolo.toml", options, {}))
    (row,) = [place for place in check_endpoints(project) if place.what == "bucket"]
    return row


def test_a_bucket_that_can_be_listed_is_reachable(emulator: Emulator, tmp_path: Path) -> None:
    bucket = emulator.client().create_bucket("doctors-own")
    assert row_of("gs://doctors-own/images", tmp_path).answer == "answers, and is empty"
    bucket.blob("images/a.jpg").upload_from_string(b"x")
    row = row_of("gs://doctors-own/images", tmp_path)
    assert (row.place, row.answer, row.problem) == ("gs://doctors-own/images", "answers", "")


@pytest.mark.usefixtures("emulator")
def test_a_missing_bucket_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    row = row_of("gs://nobody-has-this", tmp_path)
    assert row.problem
    assert row.remedy


def test_an_unreachable_service_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    row = row_of("gs://some-bucket", tmp_path)
    assert "cannot be listed" in row.problem
