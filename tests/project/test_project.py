"""A project: where it begins, what overrides what, where everything lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from oiyolo.core.errors import LockedError, UsageError
from oiyolo.project import config
from oiyolo.project.keys import KEYS
from oiyolo.project.ledger import Ledger
from oiyolo.project.project import create, open_project


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.delenv(key.variable, raising=False)


def test_a_folder_without_options_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this is no project") as caught:
        open_project(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert "oiyolo init" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_absent_is_no_project_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_project(tmp_path / "absent", may_create=True)
    assert not (tmp_path / "absent").exists()


def test_classes_begin_a_project_where_that_is_allowed(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with pytest.raises(UsageError):
        open_project(folder, {"classes": ["Duck"]})
    opened = open_project(folder, {"classes": ["Duck"], "limit": 5, "seed": None}, may_create=True)
    assert opened.config.dataset.classes == ("Duck",)
    assert opened.config.dataset.limit == 5
    again = open_project(folder)
    assert again.config == opened.config
    assert [path.name for path in folder.iterdir()] == [config.FILE_NAME]


def test_classes_in_the_environment_begin_a_project_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIYOLO_DATASET_CLASSES", "Duck,Boat")
    assert open_project(tmp_path, {}, may_create=True).config.dataset.classes == ("Duck", "Boat")
    monkeypatch.delenv("OIYOLO_DATASET_CLASSES")
    assert open_project(tmp_path).config.dataset.classes == ("Duck", "Boat")


def test_a_wrong_option_begins_nothing(tmp_path: Path) -> None:
    for wrong in ({"limit": -1}, {"limmit": 1}, {"train": 0.5}):
        with pytest.raises(UsageError):
            open_project(tmp_path / "new", {"classes": ["Duck"], **wrong}, may_create=True)
    assert not (tmp_path / "new").exists()


def test_options_of_a_call_override_the_file_and_leave_it_alone(tmp_path: Path) -> None:
    path = create(tmp_path, {"limit": 5})
    before = path.read_bytes()
    assert open_project(tmp_path, {"limit": 9}).config.dataset.limit == 9
    assert open_project(tmp_path, {"limit": None}).config.dataset.limit == 5
    assert path.read_bytes() == before


def test_a_second_beginning_is_refused(tmp_path: Path) -> None:
    create(tmp_path, {})
    with pytest.raises(UsageError, match="there is a project here already"):
        create(tmp_path, {})


def test_an_open_project_passes_as_it_is_and_takes_no_options(tmp_path: Path) -> None:
    create(tmp_path, {})
    opened = open_project(tmp_path)
    assert open_project(opened) is opened
    assert open_project(opened, {"limit": None}) is opened
    with pytest.raises(UsageError, match="beside an open project"):
        open_project(opened, {"limit": 3})


def test_everything_lies_where_the_contract_says(tmp_path: Path) -> None:
    create(tmp_path, {})
    opened = open_project(tmp_path)
    places = {
        "options_path": "oiyolo.toml",
        "data_folder": "data",
        "selection_folder": "data/selection",
        "images_folder": "data/images",
        "dataset_folder": "data/dataset",
        "objects_folder": "data/dataset/obj",
        "runs_folder": "runs",
        "ledger_path": "data/ledger.sqlite",
    }
    assert {name: getattr(opened, name) for name in places} == {
        name: tmp_path / place for name, place in places.items()
    }


def test_a_relative_folder_stays_the_same_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path, {})
    monkeypatch.chdir(tmp_path)
    opened = open_project()
    monkeypatch.chdir("/")
    assert opened.folder == tmp_path
    assert opened.options_path.is_file()


@pytest.mark.parametrize(
    ("cache", "xdg", "expected"),
    [
        (None, "{tmp}/xdg", "{tmp}/xdg/oiyolo"),
        (None, "", "{tmp}/home/.cache/oiyolo"),
        ("files", "{tmp}/xdg", "{tmp}/project/files"),
        ("../files", "", "{tmp}/files"),
        ("~/files", "", "{tmp}/home/files"),
        ("{tmp}/files", "", "{tmp}/files"),
    ],
)
def test_the_cache_is_the_users_or_the_configured_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str | None, xdg: str, expected: str
) -> None:
    def filled(text: str) -> str:
        return text.format(tmp=tmp_path)

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", filled(xdg))
    folder = tmp_path / "project"
    create(folder, {} if cache is None else {"cache": filled(cache)})
    assert open_project(folder).cache_folder == Path(filled(expected))


def test_reading_a_ledger_that_is_not_there_says_how_to_begin(tmp_path: Path) -> None:
    create(tmp_path, {})
    opened = open_project(tmp_path)
    with pytest.raises(UsageError, match="no data yet"):
        opened.ledger(read_only=True)
    assert not opened.data_folder.exists()
    with opened.ledger() as ledger:
        assert isinstance(ledger, Ledger)
    with opened.ledger(read_only=True) as ledger:
        assert ledger.counts().selected == 0


def test_the_dataset_has_one_writer_at_a_time(tmp_path: Path) -> None:
    create(tmp_path, {})
    opened = open_project(tmp_path)
    with (
        opened.data_lock("fetch"),
        pytest.raises(LockedError, match="the dataset is in use"),
        opened.data_lock("split"),
    ):
        pass
