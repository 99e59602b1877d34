"""Sources without the images, faults of this machine, and retries change no image for the worse."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core import files
from oiyolo.core.errors import UnavailableError
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, Change
from oiyolo.sources.image import NoImagesError
from oiyolo.stages import fetch as fetch_stage
from tests.stages.fetch.conftest import Answer, ImageRow, make_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.project.project import Project
    from tests.conftest import Site
    from tests.stages.fetch.conftest import ScriptedSite

IDS = [f"{number:016x}" for number in range(1, 31)]


def states(project: Project) -> dict[str, object]:
    with project.ledger(read_only=True) as ledger:
        return ledger.column("state")


def rows(ids: list[str]) -> list[ImageRow]:
    return [ImageRow(image_id) for image_id in ids]


def fill(folder: Path, ids: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, image_id in enumerate(ids):
        (folder / f"{image_id}.jpg").write_bytes(make_image(number))
    return folder


def with_sources(project: Project, *sources: Path | str) -> Project:
    return oiyolo.open_project(project.folder, {"sources": [str(source) for source in sources]})


@pytest.mark.parametrize("files_in_it", [None, [], ["f" * 16]], ids=["missing", "empty", "others"])
@pytest.mark.parametrize("count", [2, len(IDS)])
def test_a_source_without_any_of_the_images_changes_no_image(
    make_selected_project: Callable[..., Project],
    tmp_path: Path,
    files_in_it: list[str] | None,
    count: int,
) -> None:
    folder = tmp_path / "source"
    if files_in_it is not None:
        fill(folder, files_in_it)
    project = make_selected_project(rows(IDS[:count]), sources=[str(folder)])
    with pytest.raises(NoImagesError) as raised:
        fetch_stage.run(project)
    assert raised.value.exit_code == 4
    assert set(states(project).values()) == {PENDING}
    fetched = fetch_stage.run(with_sources(project, fill(tmp_path / "right", IDS)))
    assert fetched.new == count


def test_a_mirror_without_any_of_the_images_changes_no_image(
    make_selected_project: Callable[..., Project], scripted_site: ScriptedSite
) -> None:
    url = f"{scripted_site.url}/typo"
    project = make_selected_project(rows(IDS), mirror_url=url, sources=["mirror"])
    with pytest.raises(NoImagesError):
        fetch_stage.run(project)
    assert set(states(project).values()) == {PENDING}


def test_a_few_missing_images_of_a_source_that_had_others_are_excluded(
    make_selected_project: Callable[..., Project], tmp_path: Path
) -> None:
    source = fill(tmp_path / "source", IDS[:5])
    project = make_selected_project(rows(IDS[:5]), sources=[str(source)])
    fetch_stage.run(project)
    with project.ledger() as ledger:
        ledger.reselect(dict.fromkeys(IDS[:5], "train"))
    again = make_selected_project(rows(IDS[:7]), at=tmp_path / "more", sources=[str(source)])
    project.ledger_path.replace(again.ledger_path)
    with again.ledger() as ledger:
        ledger.reselect(dict.fromkeys(IDS[:7], "train"))
    fetch_stage.run(again)
    assert [states(again)[i] for i in IDS[5:7]] == [EXCLUDED, EXCLUDED]


def test_a_misspelt_source_is_not_saved_for_the_next_command(site: Site, tmp_path: Path) -> None:
    options: dict[str, Any] = {"classes": ["Boat"], "limit": 5, **site.urls}
    with pytest.raises(NoImagesError):
        oiyolo.fetch(tmp_path / "boats", sources=["./typo"], **options)
    assert not (tmp_path / "boats" / "oiyolo.toml").exists()


@pytest.mark.parametrize("retry", ["failed", "all"])
@pytest.mark.parametrize("source", ["none", "some"])
def test_a_retry_never_makes_a_good_image_worse(
    make_selected_project: Callable[..., Project], tmp_path: Path, retry: str, source: str
) -> None:
    first = fill(tmp_path / "first", IDS[:25])
    project = make_selected_project(rows(IDS), sources=[str(first)])
    fetch_stage.run(project)
    files_before = {p.name: p.read_bytes() for p in project.images_folder.iterdir()}
    before = states(project)
    assert sorted(map(str, before.values())) == [EXCLUDED] * 5 + [FETCHED] * 25
    with project.ledger() as ledger:
        ledger.record("split", [Change(IDS[0], "train", ""), Change(IDS[1], "prepared", "")])
    before = states(project)
    second = fill(tmp_path / "second", IDS[2:4] if source == "some" else ["f" * 16])
    try:
        done = fetch_stage.run(with_sources(project, second), retry=retry)
    except NoImagesError:
        assert source == "none"
    else:
        assert (sum(done.kept.values()), done.new) == ((23, 2) if retry == "all" else (0, 0))
    assert states(project) == before
    assert {p.name for p in project.images_folder.iterdir()} == set(files_before)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
def test_a_fault_while_reading_a_source_leaves_the_image_pending(
    make_selected_project: Callable[..., Project],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    source = fill(tmp_path / "source", IDS[:5])
    project = make_selected_project(rows(IDS[:5]), sources=[str(source)], tolerance=0.1)
    read = files.read_bytes

    def fail(path: Path) -> bytes:
        if path.stem == IDS[0]:
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr("oiyolo.core.files.read_bytes", fail)
        with pytest.raises(UnavailableError) as raised:
            fetch_stage.run(project)
    assert raised.value.exit_code == 4
    assert states(project) == {IDS[0]: PENDING, **dict.fromkeys(IDS[1:5], FETCHED)}
    assert fetch_stage.run(project).new == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("count", [4, len(IDS)])
def test_images_that_cannot_be_written_stay_pending(
    make_selected_project: Callable[..., Project],
    scripted_site: ScriptedSite,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    count: int,
) -> None:
    for at, image_id in enumerate(IDS):
        scripted_site.answers[f"/train/{image_id}.jpg"] = Answer(make_image(at))
    project = make_selected_project(
        rows(IDS[:count]), mirror_url=scripted_site.url, tolerance=0.0, jobs=2
    )

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number), "data/images")

    with monkeypatch.context() as patch:
        patch.setattr("oiyolo.sources.store.open_regular", fail)
        with pytest.raises(UnavailableError) as raised:
            fetch_stage.run(project)
    assert raised.value.exit_code == 4
    assert set(states(project).values()) == {PENDING}
    assert not list(project.images_folder.iterdir())
    # The other source is not asked for what cannot be stored.
    assert all(path.startswith("/train/") for path in scripted_site.requests)
    assert fetch_stage.run(project).new == count


def test_what_is_not_a_file_is_refused_and_the_others_are_fetched(
    make_selected_project: Callable[..., Project], tmp_path: Path
) -> None:
    source = fill(tmp_path / "source", IDS[:3])
    os.mkfifo(source / f"{IDS[3]}.jpg")
    (source / f"{IDS[4]}.jpg").mkdir()
    project = make_selected_project(rows(IDS[:5]), sources=[str(source)])
    fetch_stage.run(project)
    assert list(states(project).values()) == [FETCHED] * 3 + [EXCLUDED] * 2
