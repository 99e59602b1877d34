"""A project: its creation, the precedence of options, and its paths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from oiyolo.core.errors import LockedError, UsageError
from oiyolo.project import config
from oiyolo.project.keys import KEYS
from oiyolo.project.ledger import Ledger
from oiyolo.project.project import create, open_project


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.delenv(key.variable, raising=False)


def test_a_folder_without_oiyolo_toml_is_not_a_project(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"not an oiyolo project: it has no oiyolo\.toml"
    ) as caught:
        open_project(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert "oiyolo init" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_not_a_project_and_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_project(tmp_path / "missing", may_create=True)
    assert not (tmp_path / "missing").exists()


def test_classes_create_a_project_if_that_is_allowed(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with pytest.raises(UsageError):
        open_project(folder, {"classes": ["Duck"]})
    opened = open_project(folder, {"classes": ["Duck"], "limit": 5, "seed": None}, may_create=True)
    assert opened.config.dataset.classes == ("Duck",)
    assert opened.config.dataset.limit == 5
    reopened = open_project(folder)
    assert reopened.config == opened.config
    assert [path.name for path in folder.iterdir()] == [config.FILE_NAME]


def test_classes_in_the_environment_also_create_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIYOLO_DATASET_CLASSES", "Duck,Boat")
    assert open_project(tmp_path, {}, may_create=True).config.dataset.classes == ("Duck", "Boat")
    monkeypatch.delenv("OIYOLO_DATASET_CLASSES")
    assert open_project(tmp_path).config.dataset.classes == ("Duck", "Boat")


def test_an_invalid_option_creates_no_project(tmp_path: Path) -> None:
    for wrong in ({"limit": -1}, {"limmit": 1}, {"train": 0.5}):
        with pytest.raises(UsageError):
            open_project(tmp_path / "new", {"classes": ["Duck"], **wrong}, may_create=True)
    assert not (tmp_path / "new").exists()


def test_options_of_a_call_override_the_file_without_changing_it(tmp_path: Path) -> None:
    path = create(tmp_path, {"limit": 5})
    before = path.read_bytes()
    assert open_project(tmp_path, {"limit": 9}).config.dataset.limit == 9
    assert open_project(tmp_path, {"limit": None}).config.dataset.limit == 5
    assert path.read_bytes() == before


def test_a_second_project_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    create(tmp_path, {})
    with pytest.raises(UsageError) as caught:
        create(tmp_path, {})
    assert caught.value.where == str(tmp_path / "oiyolo.toml")


def test_an_open_project_is_returned_unchanged_and_takes_no_options(tmp_path: Path) -> None:
    create(tmp_path, {})
    opened = open_project(tmp_path)
    assert open_project(opened) is opened
    assert open_project(opened, {"limit": None}) is opened
    with pytest.raises(UsageError):
        open_project(opened, {"limit": 3})


def test_paths_are_the_documented_ones(tmp_path: Path) -> None:
    create(tmp_path, {})
    opened = open_project(tmp_path)
    paths = {
        "options_path": "oiyolo.toml",
        "data_folder": "data",
        "selection_folder": "data/selection",
        "images_folder": "data/images",
        "dataset_folder": "data/dataset",
        "objects_folder": "data/dataset/obj",
        "runs_folder": "runs",
        "ledger_path": "data/ledger.sqlite",
    }
    assert {name: getattr(opened, name) for name in paths} == {
        name: tmp_path / path for name, path in paths.items()
    }


def test_a_relative_folder_survives_a_change_of_the_working_folder(
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
        (None, "relative", "{tmp}/home/.cache/oiyolo"),
        ("files", "{tmp}/xdg", "{tmp}/project/files"),
        ("../files", "", "{tmp}/files"),
        ("~/files", "", "{tmp}/home/files"),
        ("{tmp}/files", "", "{tmp}/files"),
    ],
)
def test_the_cache_is_that_of_the_user_unless_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str | None, xdg: str, expected: str
) -> None:
    def expand(text: str) -> str:
        return text.format(tmp=tmp_path)

    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", expand(xdg))
    folder = tmp_path / "project"
    create(folder, {} if cache is None else {"cache": expand(cache)})
    assert open_project(folder).cache_folder == Path(expand(expected))


@pytest.mark.parametrize("home", ["/nonexistent", "", None])
def test_without_a_home_folder_the_cache_is_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    create(tmp_path, {})
    assert open_project(tmp_path).cache_folder == tmp_path / "data" / "cache"


def test_without_home_the_cache_is_in_the_home_folder_of_the_user_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path)))
    create(tmp_path / "project", {})
    expected = tmp_path / ".cache" / "oiyolo"
    assert open_project(tmp_path / "project").cache_folder == expected


def test_the_error_for_a_missing_ledger_names_the_first_command(tmp_path: Path) -> None:
    create(tmp_path, {})
    opened = open_project(tmp_path)
    with pytest.raises(UsageError) as caught:
        opened.ledger(read_only=True)
    assert "oiyolo fetch" in caught.value.remedy
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
        pytest.raises(LockedError, match="the dataset"),
        opened.data_lock("split"),
    ):
        pass
