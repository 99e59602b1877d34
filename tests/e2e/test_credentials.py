"""Credentials in the URLs of a project are used, but never shown or stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.conftest import Cli, Site

COMMANDS = (
    *(["select", "--dry-run"], ["select", "-vv"], ["plan", "--json"], ["fetch", "-vv"]),
    *(
        ["select", "--base-url", "ftp://me:secret@h/x"],
        ["fetch", "--sources", "http://me:secret@h"],
    ),
    *(["doctor", "--json"], ["status", "--json"], ["fetch", "--json"], ["build", "--dry-run"]),
)


def test_credentials_are_in_no_output_and_in_no_file(
    cli: Cli,
    site: Site,
    make_project: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_project(at=tmp_path / "project", cache=str(tmp_path / "cache"), executable=None)
    for name, url in site.urls.items():
        section = {"base_url": "OPENIMAGES", "mirror_url": "IMAGES"}[name]
        monkeypatch.setenv(f"OIYOLO_{section}_{name.upper()}", url.replace("://", "://me:secret@"))
    monkeypatch.setenv("OIYOLO_DARKNET_SOURCE_URL", "https://me:secret@127.0.0.1:1/d.git")
    for words in COMMANDS:
        done = cli(*words, project=folder)
        assert "secret" not in done.out + done.err, words
    assert list((folder / "data" / "images").glob("*.jpg"))
    paths = list(tmp_path.rglob("*"))
    assert not any("secret" in str(path.relative_to(tmp_path)) for path in paths)
    assert not any(b"secret" in path.read_bytes() for path in paths if path.is_file())
