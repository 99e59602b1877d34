"""Names of a part's files: those of a project, and none that a bucket could do harm with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import UsageError
from oiyolo.core.files import NotRegularFileError
from oiyolo.transfer import parts
from oiyolo.transfer.parts import ProjectPart

if TYPE_CHECKING:
    from pathlib import Path

DATASET = ProjectPart("dataset")
RUN = ProjectPart("run", "demo-001")


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (DATASET, "oiyolo.toml"),
        (DATASET, "data/ledger.sqlite"),
        (DATASET, "data/withdrawn.csv"),
        (DATASET, "data/selection/url-list-0001.tsv"),
        (DATASET, "data/dataset/.split-from.json"),
        (DATASET, "data/dataset/CREDITS.md"),
        (DATASET, "data/dataset/obj/0123456789abcdef.jpg"),
        (ProjectPart("split", "test"), "data/dataset/obj/0123456789abcdef.txt"),
        (RUN, "oiyolo.toml"),
        (RUN, "runs/demo-001/run.json"),
        (RUN, "runs/demo-001/.evaluated-from.json"),
        (RUN, "runs/demo-001/weights/network_final.weights"),
        (RUN, "runs/demo-001/weights/kept/best-0.289881-200.weights"),
        (RUN, "runs/demo-001/export/demo-001.onnx"),
    ],
)
def test_the_files_of_a_part_are_valid(part: ProjectPart, name: str) -> None:
    assert part.is_valid_name(name)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (DATASET, ""),
        (DATASET, "/etc/passwd"),
        (DATASET, "../oiyolo.toml"),
        (DATASET, "data/dataset/../../.bashrc"),
        (DATASET, "data/dataset/.."),
        (DATASET, "data/dataset/obj"),
        (DATASET, "data/dataset/obj/../x.jpg"),
        (DATASET, "data/dataset/obj/0123456789ABCDEF.jpg"),
        (DATASET, "data/dataset/obj/0123456789abcdef.jpg\n"),
        (DATASET, "data/dataset/obj/0123456789abcdef.png"),
        (DATASET, "data/dataset/look/index.html"),
        (DATASET, "data/dataset/.train.txt.12-34.part"),
        (DATASET, "data/.lock"),
        (DATASET, "data/pushed/project.json"),
        (DATASET, "runs/demo-001/run.json"),
        (RUN, "runs/demo-002/run.json"),
        (RUN, "runs/demo-001/../demo-002/run.json"),
        (RUN, "runs/demo-001//run.json"),
        (RUN, "runs/demo-001/.stop"),
        (RUN, "runs/demo-001/.lock"),
        (RUN, "runs/demo-001/weights/network_1000.weights"),
        (RUN, "runs/demo-001/weights/kept/last-200.weights"),
        (RUN, "data/ledger.sqlite"),
    ],
)
def test_other_names_are_refused(part: ProjectPart, name: str) -> None:
    assert not part.is_valid_name(name)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", ".hidden", "run\n"])
def test_a_run_cannot_have_a_name_that_leads_elsewhere(name: str) -> None:
    with pytest.raises(UsageError):
        parts.run_part(name)


def test_an_unknown_split_is_refused() -> None:
    assert parts.part_in(parts.split_part(["valid", "test"]).folder_name).splits == [
        "test",
        "valid",
    ]
    with pytest.raises(UsageError) as caught:
        parts.split_part(["test", "../runs"])
    assert "../runs" in caught.value.found


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (project / "data").mkdir(parents=True)
    elsewhere.mkdir()
    (project / "data" / "dataset").symlink_to(elsewhere)
    (project / "oiyolo.toml").symlink_to(elsewhere / "any.toml")
    (project / "runs").mkdir()

    parts.check_places(project, ["data/selection/images.csv"])
    for name in ("data/dataset/obj/0123456789abcdef.jpg", "oiyolo.toml"):
        with pytest.raises(UsageError) as caught:
            parts.check_places(project, [name])
        assert caught.value.where in {str(project / "data/dataset"), str(project / "oiyolo.toml")}
    with pytest.raises(NotRegularFileError):
        parts.check_places(project, ["runs"])
