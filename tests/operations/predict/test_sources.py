"""Which words name which images, and how the outputs of each are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oiyolo.core.errors import UsageError
from oiyolo.inference.earlier import write_record
from oiyolo.operations.predict.sources import MediaSource, find_sources, output_names


def labels(*words: str | Path) -> list[str]:
    return [source.label for source in find_sources(words)]


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_a_folder_is_searched_with_its_subfolders_but_not_hidden_ones_and_earlier_outputs(
    here: Path,
) -> None:
    make("b.JPG", "a.png", "deep/er/c.webp", "film.MP4", "notes.txt", ".hidden.jpg", ".git/d.jpg")
    make("predictions/a.jpg", "predictions/own.jpg", "deep/out/sub/e.jpg")
    write_record(Path("predictions"), ["a.jpg"])
    write_record(Path("deep/out"), ["sub/e.jpg"])
    expected = ["a.png", "b.JPG", "film.MP4", "deep/er/c.webp", "predictions/own.jpg"]
    assert labels(".") == expected
    assert labels(here) == [str(here / name) for name in expected]


def test_a_glob_finds_images_and_folders_and_no_earlier_outputs(here: Path) -> None:
    del here
    make("a.jpg", "b.txt", "sub/c.jpg", "predictions/a.jpg", "[1].jpg")
    write_record(Path("predictions"), ["a.jpg"])
    assert labels("*") == ["[1].jpg", "a.jpg", "sub/c.jpg"]
    assert labels("**/*.jpg") == ["[1].jpg", "a.jpg", "sub/c.jpg"]
    assert labels("[1].jpg") == ["[1].jpg"]  # an existing file is not a pattern


def test_each_source_counts_once_in_the_order_of_the_words(here: Path) -> None:
    make("a.jpg", "b.jpg", "c.unknown")
    words: list[str | Path] = [
        "b.jpg",
        here / "b.jpg",
        ".",
        "c.unknown",
        "https://host/x.jpg",
        "https://host/x.jpg",
    ]
    assert labels(*words) == ["b.jpg", "a.jpg", "c.unknown", "https://host/x.jpg"]


def test_the_label_of_a_url_has_no_secrets_and_is_unique(here: Path) -> None:
    del here
    urls = ["HTTP://me:pass@host/x?id=1&token=t", "http://host/x?id=2"]
    assert labels(*urls) == ["http://host/x", "http://host/x #2"]


@pytest.mark.parametrize(
    "word",
    [
        "missing.jpg",
        "*.nothing",
        "empty",
        "ftp://host/a.jpg",
        "http://[bad/a",
        "http:///a",
        "",
        "a\0b",
        "texts/*",
    ],
)
def test_a_word_that_names_no_image_is_a_usage_error(here: Path, word: str) -> None:
    (here / "empty").mkdir()
    make("texts/a.txt")
    with pytest.raises(UsageError):
        find_sources([word])


def test_no_words_are_a_usage_error() -> None:
    with pytest.raises(UsageError):
        find_sources([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_an_unreadable_folder_is_a_source_so_that_it_is_named_among_the_failures(
    here: Path,
) -> None:
    make("a.jpg", "closed/b.jpg")
    (here / "closed").chmod(0)
    assert labels(".") == ["a.jpg", "closed"]
    (here / "closed").chmod(0o700)


def names(*paths: str, depth: int = 0) -> list[str]:
    return output_names([MediaSource(path, Path(path), depth=depth) for path in paths])


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/p/a.jpg", "/q/b.jpg"], ["a", "b"]),
        (["/p/a.jpg", "/q/a.jpg", "/q/b.jpg"], ["p/a", "q/a", "b"]),
        (["/x/p/a.jpg", "/y/p/a.jpg", "/z/q/a.jpg"], ["x/p/a", "y/p/a", "q/a"]),
        (["/a.jpg", "/p/a.jpg"], ["a", "p/a"]),
        (["/p/a.jpg", "/p/a.png", "/p/b.c.jpg"], ["a.jpg", "a.png", "b.c"]),
        (["/p/a.jpg", "/q/A.jpg"], ["p/a", "q/A"]),
        (["/x/p/a.jpg", "/x/p/A.JPG"], ["a.jpg", "A.JPG-2"]),
        (["/x/p/a.jpg", "/x/p/a.JPG", "/x/q/a.jpg"], ["a.jpg", "a.JPG-2", "a"]),
        (["/p/classes.jpg"], ["p/classes"]),
        (["/classes.jpg"], ["classes.jpg"]),
        (["/p/.jpg"], [".jpg"]),
        (["/p/" + "ä" * 127 + ".jpg"], ["ä" * 90]),
    ],
)
def test_outputs_of_different_sources_have_different_names(
    paths: list[str], expected: list[str]
) -> None:
    assert names(*paths) == expected


def test_outputs_of_a_folder_are_in_its_subfolders() -> None:
    assert names("/photos/2024/may/a.jpg", depth=2) == ["2024/may/a"]


def test_outputs_of_urls_are_named_by_their_paths() -> None:
    urls = ["http://h/%2e%2e/%2Fetc/a%0A.jpg", "http://h/b?id=1", "http://h/b?id=2", "http://h"]
    sources = [MediaSource(url, url=url) for url in urls]
    assert output_names(sources) == ["a_", "b", "b-2", "h"]
