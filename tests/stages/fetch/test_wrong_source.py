"""Sources without the images, faults of this machine, and retries change no image for the worse."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core import files
from oiyolo.core.errors import UnavailableError
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, Change
from oiyolo.sources.event_loop import Outcome, SourceFailure
from oiyolo.sources.image import NoImagesError
from oiyolo.stages import fetch as fetch_stage
from oiyolo.stages import select as select_stage
from oiyolo.stages.fetch.cluster_fetch import ClusterOptions
from oiyolo.stages.fetch.source_monitor import SourceMonitor
from tests.stages.fetch.conftest import Answer, ImageRow, make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


@pytest.fixture
def good_mirror(scripted_site: ScriptedSite) -> ScriptedSite:
    """A mirror that has all images."""
    for at, image_id in enumerate(IDS):
        scripted_site.answers[f"/train/{image_id}.jpg"] = Answer(make_image(at))
    return scripted_site


def test_a_folder_of_other_images_stops_the_fetch_although_the_next_source_has_all(
    make_selected_project: Callable[..., Project], tmp_path: Path, good_mirror: ScriptedSite
) -> None:
    wrong = fill(tmp_path / "wrong", ["f" * 16])
    project = make_selected_project(
        rows(IDS[:3]), mirror_url=good_mirror.url, sources=[str(wrong), "mirror"]
    )
    with pytest.raises(NoImagesError) as raised:
        fetch_stage.run(project)
    assert (raised.value.exit_code, raised.value.where) == (4, str(wrong))
    assert not good_mirror.requests
    assert set(states(project).values()) == {PENDING}
    (wrong / f"{IDS[2]}.jpg").write_bytes(make_image(2))
    assert fetch_stage.run(project).by_source == {"mirror": 2, str(wrong): 1}


def test_a_mirror_of_other_images_stops_the_fetch_although_the_next_source_has_all(
    make_selected_project: Callable[..., Project], tmp_path: Path, scripted_site: ScriptedSite
) -> None:
    right = fill(tmp_path / "right", IDS)
    url = f"{scripted_site.url}/typo"
    project = make_selected_project(rows(IDS), mirror_url=url, sources=["mirror", str(right)])
    with pytest.raises(NoImagesError) as raised:
        fetch_stage.run(project)
    assert raised.value.where == url
    assert set(states(project).values()) == {PENDING}
    assert not list(project.images_folder.iterdir())
    scripted_site.answers[f"/typo/train/{IDS[-1]}.jpg"] = Answer(make_image(0))
    assert fetch_stage.run(project).by_source == {str(right): len(IDS) - 1, "mirror": 1}
    with project.ledger() as ledger:  # a mirror that once had an image may lack the others
        ledger.record("fetch", [Change(image_id, PENDING, "") for image_id in IDS[:-1]])
    assert fetch_stage.run(project).new == len(IDS) - 1


def test_of_a_few_images_the_first_source_may_lack_all(
    make_selected_project: Callable[..., Project],
    tmp_path: Path,
    scripted_site: ScriptedSite,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = fill(tmp_path / "right", IDS)
    project = make_selected_project(
        rows(IDS[:5]), mirror_url=scripted_site.url, sources=["mirror", str(right)]
    )
    assert fetch_stage.run(project).new == 5
    assert [r.levelname for r in caplog.records if "mirror" in r.getMessage()] == ["WARNING"]


@pytest.mark.parametrize(
    ("reached", "known", "count", "is_wrong"),
    [
        (True, (), 99, False),
        (True, (), 100, True),
        (True, ("mirror",), 1000, False),
        (False, (), 19, False),
        (False, (), 20, True),
        (False, ("mirror",), 20, True),
    ],
)
def test_how_many_images_a_source_may_lack_before_the_first(
    *, reached: bool, known: tuple[str, ...], count: int, is_wrong: bool
) -> None:
    monitor = SourceMonitor(["mirror", "original"], known, {})
    failure = SourceFailure("mirror", "", reached=reached)
    outcome = Outcome(IDS[0], "", 1, source="original", failures=(failure,))
    for _ in range(count):
        monitor.add(outcome)
    with pytest.raises(NoImagesError) if is_wrong else contextlib.nullcontext():
        monitor.check()
    monitor.add(Outcome(IDS[1], "", 1, source="mirror"))
    monitor.check()
    assert not monitor.is_in_doubt(outcome)


def test_a_source_is_not_judged_by_what_an_earlier_one_lacks() -> None:
    monitor = SourceMonitor(["first", "second"], (), {})
    monitor.add(Outcome(IDS[0], "", 1, source="first"))
    failures = tuple(SourceFailure(name, "", reached=True) for name in ("first", "second"))
    for _ in range(1000):
        monitor.add(Outcome(IDS[1], "", 2, failures=failures))
    monitor.check()
    monitor.check(at_end=True)


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


@pytest.mark.parametrize("retry", ["failed", "all"])
def test_a_retry_on_a_cluster_changes_no_state_before_its_outcome_is_known(
    make_selected_project: Callable[..., Project],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retry: str,
) -> None:
    first = fill(tmp_path / "first", IDS[:25])
    project = make_selected_project(rows(IDS), sources=[str(first)])
    fetch_stage.run(project)
    with project.ledger() as ledger:
        ledger.record("split", [Change(IDS[0], "train", ""), Change(IDS[1], "prepared", "")])
    before = states(project)
    seen = []

    def run_tasks(_: str, work: Any, tasks: Any, **hooks: Any) -> Iterator[Any]:
        for task in tasks:
            seen.append(states(project))  # what a kill would leave
            yield work(threading.Event(), *task)
            hooks["on_tick"]()

    monkeypatch.setattr("oiyolo.net.cluster.run_tasks", run_tasks)
    monkeypatch.setattr("oiyolo.stages.select.load_current", select_stage.load)
    second = fill(tmp_path / "second", [IDS[0], IDS[29]])
    done = fetch_stage.run(
        with_sources(project, second), retry=retry, cluster_options=ClusterOptions("", 2)
    )
    new = [IDS[29]] if retry == "failed" else [IDS[0], IDS[29]]
    assert seen[0] == before
    assert states(project) == before | dict.fromkeys(new, FETCHED)
    assert (done.new, sum(done.kept.values())) == (len(new), 0 if retry == "failed" else 24)
    assert not list(project.shards_folder.rglob("journal.jsonl"))
    with project.ledger() as ledger:
        assert (ledger.row(IDS[2]) or {})["attempts"] == (2 if retry == "all" else 1)


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
