"""The command that copies the notebooks: what it writes, keeps and replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.core import packaged
from oiyolo.core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli


@pytest.fixture(autouse=True)
def two_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the package without a checkout, with two notebooks and a file that is none."""
    package = tmp_path / "installed" / "oiyolo"
    folder = package / "notebooks"
    folder.mkdir(parents=True)
    for name in ("0_a.ipynb", "1_b.ipynb", "notes.txt"):
        (folder / name).write_text(name, encoding="utf-8")
    monkeypatch.setattr(packaged, "_PACKAGE", package)
    return folder


def test_the_notebooks_are_copied_once(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    plan = cli.ok("notebooks", target, "--dry-run", "--json").json
    assert len(plan["would"]) == 2
    assert not target.exists()
    assert cli.ok("notebooks", target, "--json").json == {
        "folder": str(target),
        "copied": ["0_a.ipynb", "1_b.ipynb"],
        "kept": [],
        "unchanged": [],
    }
    assert sorted(path.name for path in target.iterdir()) == ["0_a.ipynb", "1_b.ipynb"]
    again = cli.ok("notebooks", target, "--json").json
    assert (again["copied"], again["unchanged"]) == ([], ["0_a.ipynb", "1_b.ipynb"])
    assert oiyolo.notebooks(target, dry_run=True).as_dict()["would"] == []


def test_a_notebook_that_was_run_is_replaced_only_on_demand(tmp_path: Path) -> None:
    (tmp_path / "0_a.ipynb").write_text("run", encoding="utf-8")
    kept = oiyolo.notebooks(tmp_path)
    assert (kept.copied, kept.kept) == (["1_b.ipynb"], ["0_a.ipynb"])
    assert (tmp_path / "0_a.ipynb").read_text(encoding="utf-8") == "run"
    assert "--force" in str(kept)
    replaced = oiyolo.notebooks(tmp_path, force=True)
    assert (replaced.copied, replaced.kept) == (["0_a.ipynb"], [])
    assert (tmp_path / "0_a.ipynb").read_text(encoding="utf-8") == "0_a.ipynb"


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("mine", encoding="utf-8")
    target = tmp_path / "target"
    target.mkdir()
    (target / "0_a.ipynb").symlink_to(other)
    assert oiyolo.notebooks(target).kept == ["0_a.ipynb"]
    oiyolo.notebooks(target, force=True)
    assert other.read_text(encoding="utf-8") == "mine"


def test_a_folder_that_is_a_file_and_a_broken_installation_are_errors(
    cli: Cli, tmp_path: Path, two_notebooks: Path
) -> None:
    (tmp_path / "file").touch()
    assert cli("notebooks", tmp_path / "file").code == 2
    two_notebooks.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        oiyolo.notebooks(tmp_path)
