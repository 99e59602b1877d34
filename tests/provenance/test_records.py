"""The records of a dataset: what they say, and that nothing in them does anything."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from oiyolo.core.escaping import in_csv, in_markdown, link, web_url
from oiyolo.provenance import records
from oiyolo.provenance.croissant import NAME as CROISSANT
from oiyolo.provenance.licences import name_of
from oiyolo.provenance.selection_rules import selection_rules
from tests.provenance.conftest import AUTHORS, CC_BY, IDS, TITLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.provenance.dataset import Dataset

    MakeDataset = Callable[..., Dataset]


class Page(html.parser.HTMLParser):
    """The tags, links and text of rendered Markdown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        markdown = pytest.importorskip("markdown", reason="tensorboard installs it")
        body = text.split("---\n", 2)[2] if text.startswith("---\n") else text
        self.feed(markdown.markdown(body, extensions=["tables"]))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "text",
    [
        'a "quoted" | title',
        "<script>alert(1)</script> & <img src=x>",
        "[x](http://evil) ![y](z) `code` **bold** _em_ ~~s~~ # h",
        "1. - + = @someone :boat: http://evil.example $x^2$",
        "\\ back\\*slash",
    ],
)
def test_markdown_shows_a_text_and_does_nothing_else(text: str) -> None:
    page = Page(f"- {in_markdown(text)}")
    assert page.text.strip() == text
    assert page.tags == {"ul", "li"}


def test_only_addresses_of_the_web_become_links() -> None:
    assert link("t", "https://x.org/a)(?q=ä") == "[t](https://x.org/a%29%28?q=%C3%A4)"
    assert web_url("HTTP://x.org/a%20b") == "HTTP://x.org/a%20b"
    bad = ("javascript:alert(1)", "", "https://x.org/a b", "data:,x", "https://x\u202e.org", "//x")
    assert [web_url(url) for url in bad] == [""] * len(bad)


def test_no_field_begins_a_formula_or_a_line() -> None:
    texts = ("=1+1", "+1", "-1", "@x", "\t=1", "a\r\nb", "\u202eabc", "&#61;1", "x=1")
    assert [in_csv(text) for text in texts] == [
        *("'=1+1", "'+1", "'-1", "'@x", "'=1", "a b", "abc", "'=1", "x=1"),
    ]


@pytest.mark.parametrize(
    ("licence", "name"),
    [
        (CC_BY, "CC BY 2.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/deed.de", "CC BY-NC-SA 4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
        ("mine alone", "mine alone"),
        ("", "not stated"),
    ],
)
def test_a_licence_has_its_usual_name(licence: str, name: str) -> None:
    assert name_of(licence) == name


def test_the_credits_name_every_image_with_its_changes(make_dataset: MakeDataset) -> None:
    text = records.render(make_dataset())["CREDITS.csv"]
    assert len(text.splitlines()) == 1 + len(IDS)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["ImageID"] for row in rows] == IDS
    first, second, third, last = rows
    assert first["Title"] == 'Harbour, "early" | morning'
    assert first["Author"] == "O'Neil"
    assert second["Title"].startswith("'=cmd")
    assert [row["AuthorProfileURL"] for row in rows[1:]] == ["", "", ""]
    assert last["License"] == "not stated"
    assert [row["rotation_degrees"] for row in rows] == ["0", "90", "0", "0"]
    assert [row["masked_regions"] for row in rows] == ["1", "0", "0", "0"]
    assert [row["fetched_from"] for row in rows] == ["mirror", "bucket", "folder", ""]
    sizes = ("fetched_width_px", "fetched_height_px", "width_px", "height_px")
    assert [third[name] for name in sizes] == ["640", "480", "64", "48"]


def test_the_readable_credits_do_nothing_but_credit(make_dataset: MakeDataset) -> None:
    page = Page(records.render(make_dataset())["CREDITS.md"])
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert all(url.startswith("https://") for url in page.links)
    assert '=cmd|" /C calc"!A0 <script>' in page.text
    assert page.text.count("1. @mallory & **co**") == 1  # on one line with both images
    assert IDS[3] in page.text  # instead of the missing title


def test_a_dataset_without_licences_states_none(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(tables={"http://127.0.0.1:1/v6/boxes.csv": "0" * 32})
    images = dataset.selected.assign(License="")
    texts = records.render(dataclasses.replace(dataset, selected=images))
    metadata = json.loads(texts[CROISSANT])
    assert metadata["license"] == "not stated"
    assert "citeAs" not in metadata
    assert "rai:dataAnnotationProtocol" not in metadata
    for name in ("CREDITS.md", "DATASET.md"):
        assert "creativecommons" not in texts[name]
        assert "Google" not in texts[name]
    assert 'license: ["unknown"]' in texts["DATASET.md"]


def test_open_images_is_recognized_at_another_address(make_dataset: MakeDataset) -> None:
    boxes_v6 = "3c3e70cfaba5757ea5c2604b19cac3b2"
    assert make_dataset().is_open_images
    assert make_dataset(tables={"http://mirror.example/x.csv": boxes_v6}).is_open_images
    assert not make_dataset(tables={"http://mirror.example/x.csv": "0"}).is_open_images
    assert not make_dataset(tables={}).is_open_images


def test_the_dataset_card_has_counts_rules_and_dates(make_dataset: MakeDataset) -> None:
    text = records.render(make_dataset())["DATASET.md"]
    page = Page(text)
    assert 'license: ["cc-by-4.0", "cc-by-2.0"]' in text
    assert "| images | 2 | 1 | 1 | 4 |" in text
    assert "| boxes | 2 | 1 | 0 | 3 |" in text
    assert "from 2026-11-01 to 2026-11-02" in page.text
    assert "on 2026-11-02." in page.text
    for fact in ("filled with grey", "At most 4 images", "beyond the limit", "withdrawn", "1 of 4"):
        assert fact in page.text


def test_only_options_that_change_something_are_rules() -> None:
    assert len(selection_rules({})) == 2
    changed = {"occluded": "drop-image", "min_box_area": 0.01, "require_verified": True}
    assert len(selection_rules({**changed, "negatives": 0.5})) == 6


def test_unchanged_records_are_not_written_again(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    folder, calls = dataset.folder, list[object]()

    def collect(**changes: object) -> Callable[[], Dataset]:
        def make() -> Dataset:
            calls.append(changes)
            return make_dataset(**changes)

        return make

    assert records.update(folder, {"a": 1}, collect()) == records.NAMES
    assert records.update(folder, {"a": 1}, collect()) == ()
    assert len(calls) == 1
    assert records.update(folder, {"a": 2}, collect()) == ()
    assert len(calls) == 2
    assert records.update(folder, {"a": 3}, collect(not_used={})) == ("DATASET.md",)
    (folder / "CREDITS.md").unlink()
    assert records.stale_reason(folder, {"a": 3}) is not None
    assert records.update(folder, {"a": 3}, collect(not_used={})) == ("CREDITS.md",)
    assert records.stale_reason(folder, {"a": 3}) is None


def test_an_empty_dataset_has_records(make_dataset: MakeDataset) -> None:
    texts = records.render(make_dataset(split_by_id={}))
    assert len(texts["CREDITS.csv"].splitlines()) == 1
    assert "| images | 0 | 0 | 0 | 0 |" in texts["DATASET.md"]


def test_the_hostile_texts_are_what_they_should_be() -> None:
    table = pd.DataFrame({"Title": TITLES, "Author": AUTHORS})
    assert table["Title"].str.contains("\n").any()
    assert table["Author"].str.contains("\u202e").any()
