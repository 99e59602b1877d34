"""Paths in which every fork of darknet finds its labels."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import UsageError
from oiyolo.darknet import paths
from oiyolo.darknet.paths import is_safe, safe_alias

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("folder", "safe"),
    [
        ("/home/ann/boats/data/dataset/obj", True),
        ("/home/ann/image/obj", True),
        ("/home/ann/with space/obj", True),
        ("/home/ann/schön/obj", True),
        ("/home/ann/open-images/obj", False),
        ("/data/images/obj", False),
        ("/data/JPEGImages/obj", False),
        ("/data/drawings/obj", False),
        ("/home/crawler/obj", False),
        ("/data/a.jpg/obj", False),
        ("/data/a.jpeg.d/obj", False),
        ("/data/a.PNG/obj", False),
        ("/data/obj ", False),
        ("/data/a\nb/obj", False),
        ("/data/a\tb/obj", False),
        ("/data/" + "x" * 2000, False),
        ("/data/" + "ä" * 1500, False),
    ],
)
def test_a_path_is_safe_if_no_fork_of_darknet_would_change_it(folder: str, *, safe: bool) -> None:
    assert is_safe(folder) == safe


def pjreddie_label_path(path: str) -> str:
    """Replace the first of each word, as fill_truth_detection in pjreddie's src/data.c does."""
    for old, new in [("images", "labels"), ("JPEGImages", "labels"), ("raw", "labels"),
                     (".jpg", ".txt"), (".png", ".txt"), (".JPG", ".txt"),
                     (".JPEG", ".txt")]:  # fmt: skip
        path = path.replace(old, new, 1)
    return path


WORDS = st.sampled_from(["data", "images", "raw", "draw", "JPEGImages", "obj", "a.jpg", ".png",
                         "x.JPEG", "labels", "im", "ages"])  # fmt: skip


@given(st.lists(WORDS, min_size=1, max_size=5).map("/".join))
def test_in_a_safe_folder_the_label_is_next_to_the_image(folder: str) -> None:
    if is_safe(f"/{folder}"):
        assert pjreddie_label_path(f"/{folder}/0123456789abcdef.jpg") == (
            f"/{folder}/0123456789abcdef.txt"
        )


@pytest.fixture
def plain() -> Iterator[Path]:
    """A folder whose path is safe, which pytest's temporary folder may not be."""
    for place in (Path("/var/tmp"), Path(tempfile.gettempdir())):  # noqa: S108
        if is_safe(str(place)):
            with tempfile.TemporaryDirectory(dir=place, prefix="oiyolo-test-") as folder:
                yield Path(folder)
            return
    pytest.skip("no folder for temporary files has a plain path")


def test_a_safe_folder_is_its_own_alias(plain: Path) -> None:
    assert safe_alias(plain / "obj", plain / "cache") == plain / "obj"
    assert not (plain / "cache").exists()


def test_an_unsafe_folder_gets_a_link_that_points_to_it(plain: Path) -> None:
    folder = plain / "my images" / "obj"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("label")
    alias = safe_alias(folder, plain / "cache")
    assert is_safe(str(alias))
    assert alias.is_symlink()
    assert alias.is_relative_to(plain / "cache")
    assert (alias / "a.txt").read_text() == "label"
    assert safe_alias(folder, plain / "cache") == alias
    assert len(list(alias.parent.iterdir())) == 1


@pytest.mark.parametrize("damage", ["elsewhere", "dangling", "missing"])
def test_a_link_that_points_elsewhere_is_replaced(plain: Path, damage: str) -> None:
    folder = plain / "images"
    folder.mkdir()
    alias = safe_alias(folder, plain / "cache")
    alias.unlink()
    if damage != "missing":
        alias.symlink_to(plain if damage == "elsewhere" else plain / "absent")
    assert safe_alias(folder, plain / "cache") == alias
    assert alias.resolve() == folder.resolve()


def test_two_folders_have_two_links(plain: Path) -> None:
    aliases = {safe_alias(plain / "images" / name, plain / "cache") for name in "ab"}
    assert len(aliases) == 2


def test_a_link_is_not_created_in_a_cache_folder_with_an_unsafe_path(plain: Path) -> None:
    folder = plain / "raw"
    folder.mkdir()
    alias = safe_alias(folder, plain / "images" / "cache")
    try:
        assert is_safe(str(alias))
        assert alias.resolve() == folder.resolve()
        assert alias.parent.stat().st_mode & 0o777 == 0o700
    finally:
        alias.unlink()


def test_without_any_safe_folder_for_links_it_is_an_error(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_link_folders", lambda folder: [folder / "paths"])
    with pytest.raises(UsageError) as caught:
        safe_alias(plain / "images", plain / "images" / "cache")
    assert caught.value.where == str(plain / "images")
