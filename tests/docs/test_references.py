"""The references of the documentation are current, and every page is in the navigation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
import pytest

import oiyolo
from tests.support.command_line import COMMANDS

pytest.importorskip("sphinx", reason="the documentation is built with Python 3.11 or newer")

from docs import conf
from docs._extensions import api_reference, command_reference, notebook_pages, site_pages

if TYPE_CHECKING:
    from pathlib import Path

DOCS = command_reference.PAGE.parent
EXPORT = ("--out", "`--half`", r"runs/\<run>/export/\<run>.onnx")
PATIENCE = ("`--patience N`", "`0`", "`OIYOLO_TRAIN_PATIENCE`", "configuration.md#train")


def entry(command: str) -> str:
    """Return the part of the reference that describes a command."""
    _, title, rest = command_reference.page().partition(f"\n## `oiyolo {command}`\n")
    assert title, command
    return rest.partition("\n## ")[0]


def test_the_command_reference_is_current() -> None:
    committed = command_reference.PAGE.read_text(encoding="utf-8")
    assert committed == command_reference.page(), "run `make docs` and commit docs/commands.md"


@pytest.mark.parametrize(
    ("declared", "command"),
    list(zip(COMMANDS.values(), command_reference.command_names(), strict=True)),
)
def test_an_entry_has_every_option_of_its_command(declared: click.Command, command: str) -> None:
    text = entry(command)
    options = [o for o in declared.params if isinstance(o, click.Option)]
    missing = [o.opts[-1] for o in options if f"`{o.opts[-1]}" not in text]
    assert not missing or "every key" in text
    assert f"oiyolo {command} [OPTIONS]" in text


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("train", PATIENCE),
        ("export onnx", EXPORT),
        ("predict", ("the detector's own, or 0.25", r"`--device [auto\|cpu\|cuda]`", "`auto`")),
        ("fetch", ("May be repeated.", "`--class TEXT`", "`Boat`")),
    ],
)
def test_an_entry_has_defaults_and_environment_variables(
    command: str, parts: tuple[str, ...]
) -> None:
    text = entry(command)
    assert [part for part in parts if part not in text] == []


def test_every_public_name_is_in_one_section_of_the_api_reference() -> None:
    sections = api_reference.sections()
    names = [name for names in sections.values() for name in names]
    assert sorted(names) == sorted(set(oiyolo.__all__) - {"__version__"})
    assert set(COMMANDS) <= set(sections["Commands"])
    assert "load_detector" not in sections["Commands"]
    assert "Fetched" in sections["Results"]
    assert "UsageError" in sections["Errors"]


def test_keys_are_one_parameter_of_the_api_reference() -> None:
    assert api_reference.directive("split").startswith(
        ".. autofunction:: oiyolo.split(project='.', *, reassign=False, check=False, "
        "dry_run=False, **options) -> "
    )
    lines = (oiyolo.split.__doc__ or "").expandtabs().splitlines()
    shown = api_reference.without_keys([line.removeprefix("    ") for line in lines])
    assert len([line for line in shown if "**options" in line]) == 1
    assert not [line for line in shown if "group_by" in line]


def test_every_page_is_in_the_navigation_once() -> None:
    pages = sorted(p.relative_to(DOCS).with_suffix("").as_posix() for p in DOCS.rglob("*.md"))
    patterns = [pattern for section in conf.site_navigation.values() for pattern in section]
    listed = [p.relative_to(DOCS) for pattern in patterns for p in DOCS.glob(f"{pattern}.md")]
    assert sorted(["index", *(p.with_suffix("").as_posix() for p in listed)]) == pages
    assert set(conf.site_root_files) <= set(pages), "each file shown as a page needs docs/<page>.md"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](../CHANGELOG.md)", "[a](changelog.md)"),
        ("[a](../CHANGELOG.md#old)", "[a](changelog.md#old)"),
        ("[a `b`](train.md#x), ![p](p/c.png)", "[a `b`](../train.md#x), ![p](../p/c.png)"),
        (
            "[a](#here) [b](http://x/y) [c](mailto:a@b)",
            "[a](#here) [b](http://x/y) [c](mailto:a@b)",
        ),
        ("[the folder](../cfg)", "the folder"),
        ("```text\n[a](../CHANGELOG.md)\n```\n", "```text\n[a](../CHANGELOG.md)\n```\n"),
    ],
)
def test_links_are_written_for_the_place_of_the_page(
    text: str, expected: str, tmp_path: Path
) -> None:
    docs = tmp_path / "docs"
    (tmp_path / "cfg").mkdir()
    page = docs / "project" / "page.md"
    moved = {tmp_path / "CHANGELOG.md": docs / "project" / "changelog.md"}
    origin = docs / "page.md"
    assert site_pages.relink(text, origin=origin, page=page, root=tmp_path, moved=moved) == expected


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_links_of_the_readme_which_is_not_in_the_site_lead_somewhere() -> None:
    readme = DOCS.parent / "README.md"
    targets = [m["target"] for m in site_pages.LINK.finditer(readme.read_text(encoding="utf-8"))]
    local = [target.partition("#") for target in targets if ":" not in target]
    assert len(local) > 10
    for path, _, anchor in local:
        page = readme.parent / path if path else readme
        assert page.exists(), path
        assert not anchor or anchor in anchors(page), f"{path}#{anchor}"


def test_only_long_words_of_code_may_be_broken() -> None:
    html = '<span class="pre">OIYOLO_DATASET_CLASSES</span> <span class="pre">a_b</span> c_d'
    assert site_pages.breakable(html) == (
        '<span class="pre">OIYOLO_<wbr>DATASET_<wbr>CLASSES</span> <span class="pre">a_b</span> c_d'
    )


def test_a_notebook_is_shown_with_its_outputs() -> None:
    html = '<b>x</b> <a href="runs/a.html" target="_blank">a</a> <a href="https://b/">b</a>'
    outputs = [
        {"output_type": "stream", "text": ["\x1b[32mdone\x1b[0m\n", "```\n"]},
        {"output_type": "display_data", "data": {"image/png": "AAAA\n", "text/plain": "<Figure>"}},
        {"output_type": "execute_result", "data": {"text/html": html, "text/plain": "x"}},
        {"output_type": "execute_result", "data": {"text/plain": ["'a'"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Why."]},
        {"cell_type": "code", "source": "1 + 1", "outputs": outputs},
        {"cell_type": "code", "source": "!pip install x", "outputs": []},
        {"cell_type": "code", "source": "", "outputs": []},
    ]
    assert notebook_pages.markdown({"cells": cells}).split("\n\n") == [
        *("# Title", "Why.", "```python\n1 + 1\n```", "````text\ndone\n```\n````"),
        "![output](data:image/png;base64,AAAA)",
        '```{raw} html\n<div class="cell-output"><b>x</b> a <a href="https://b/">b</a></div>\n```',
        *("```text\n'a'\n```", "```text\n!pip install x\n```\n"),
    ]
