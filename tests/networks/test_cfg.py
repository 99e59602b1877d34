"""Parsing, editing and rendering of .cfg files."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oiyolo.core.errors import UsageError
from oiyolo.networks.cfg import CfgError, parse, read

SEED_CFG = Path(__file__).parents[3] / "shared/real/seed_project/cfg/yolov3_ih_fp.cfg"
DEBIAN_CFGS = Path("/usr/share/darknet/cfg")


def test_unedited_text_is_rendered_unchanged(small_text: str) -> None:
    for text in (small_text, small_text.rstrip(), small_text.replace("\n", "\r\n")):
        assert parse(text, path="n.cfg").render() == text


@given(
    st.lists(
        st.sampled_from(
            ["[net]", " [ conv ]", "a=1", "b = 2 # two", "# \u2028c", ";d", "", "\t", "e=f=g"]
        )
    ),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_cfg_is_rendered_unchanged(lines: list[str], newline: str) -> None:
    text = newline.join(["# head", "[net]", *lines])
    assert parse(text, path="n.cfg").render() == text


@given(st.text())
def test_any_text_is_rendered_unchanged_or_rejected(text: str) -> None:
    with contextlib.suppress(CfgError):
        cfg = parse(f"[net]\n{text}", path="n.cfg")
        assert cfg.render() == f"[net]\n{text}"
        assert cfg.copy().canonical() == cfg.canonical()


def test_bytes_that_are_not_utf8_are_preserved_in_comments(tmp_path: Path, small_text: str) -> None:
    data = b"# caf\xe9\n" + small_text.encode()
    (tmp_path / "n.cfg").write_bytes(data)
    assert read(tmp_path / "n.cfg").encode() == data


def test_every_cfg_of_debians_darknet_is_rendered_unchanged() -> None:
    paths = sorted(DEBIAN_CFGS.glob("*.cfg"))
    if not paths:
        pytest.skip(f"no darknet files in {DEBIAN_CFGS} (apt-get install darknet)")
    for path in paths:
        assert read(path).encode() == path.read_bytes(), path.name


def test_values_are_parsed_as_darknet_parses_them(small_text: str) -> None:
    cfg = parse(small_text, path="n.cfg")
    assert cfg.size_wh == (64, 64)
    assert cfg.net.integer("batch", 1) == 8
    assert cfg.net.integer("subdivisions", 1) == 2
    assert cfg.net.number("learning_rate", 0) == 0.002
    assert cfg.net.integers("steps") == [300, 360]
    assert cfg.net.text("policy") == "steps"
    assert cfg.net.integer("time_steps", 1) == 1
    assert [layer.kind for layer in cfg.layers] == [
        "convolutional",
        "maxpool",
        "convolutional",
        "yolo",
    ]
    head = cfg.layers[-1]
    assert head.numbers("anchors") == [8, 9, 20.5, 18]
    assert (head.line, head.line_of("mask"), head.line_of("absent")) == (35, 36, 35)


def test_the_first_of_two_equal_keys_wins() -> None:
    section = parse("[net]\nbatch=1\nbatch=64\n", path="n.cfg").net
    assert section.integer("batch", 0) == 1
    section.set("batch", 8)
    assert section.integer("batch", 0) == 8


def test_short_section_names_are_aliases_of_the_long_ones() -> None:
    cfg = parse("[network]\nwidth=1\n[conv]\nsize=1\n[max]\nsize=2\n", path="n.cfg")
    assert [s.kind for s in cfg.sections] == ["net", "convolutional", "maxpool"]


@pytest.mark.parametrize(
    ("before", "key", "value", "after"),
    [
        ("[net]\nbatch = 1\n", "batch", 64, "[net]\nbatch = 64\n"),
        ("[net]\nbatch=1 # why\n", "batch", 64, "[net]\nbatch=64 # why\n"),
        ("[net]\r\nbatch=1\r\n", "batch", 64, "[net]\r\nbatch=64\r\n"),
        ("[net]\nbatch=1", "batch", 64, "[net]\nbatch=64"),
        ("[net]\nsteps = 1, 2\n", "steps", [3, 4], "[net]\nsteps = 3,4\n"),
        # An equal number keeps its notation.
        ("[net]\nscales = .1, .1\n", "scales", [0.1, 0.1], "[net]\nscales = .1, .1\n"),
        # A new option follows the last one, before blank lines and comments.
        ("[net]\na=1\n\n# b\n", "c", True, "[net]\na=1\nc=1\n\n# b\n"),
        ("[net]", "c", "leaky", "[net]\nc=leaky\n"),
        ("[net]\r\na=1", "c", 0.5, "[net]\r\na=1\nc=0.5\n"),
    ],
)
def test_set_changes_one_line(
    before: str, key: str, value: str | float | list[int] | list[float], after: str
) -> None:
    cfg = parse(before, path="n.cfg")
    cfg.net.set(key, value)
    assert cfg.render() == after


def test_unset_removes_all_occurrences() -> None:
    cfg = parse("[net]\na=1\nb=2\na=3\n", path="n.cfg")
    cfg.net.unset("a")
    assert cfg.render() == "[net]\nb=2\n"
    assert not cfg.net.has("a")


def test_a_copy_is_independent_and_keeps_the_line_numbers_of_the_file(small_text: str) -> None:
    cfg = parse(small_text, path="n.cfg")
    cfg.net.set("angle", 5)
    cfg.net.unset("burn_in")
    copy = cfg.copy()
    assert copy.render() == cfg.render()
    lines = small_text.splitlines()
    assert lines[copy.layers[-1].line_of("mask") - 1].startswith("mask")
    assert copy.net.line_of("angle") == copy.net.line
    copy.net.set("angle", 7)
    assert cfg.net.integer("angle", 0) == 5


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_a_file_with_a_byte_order_mark_is_read(
    small_text: str, tmp_path: Path, encoding: str
) -> None:
    mark = "" if encoding in {"utf-8-sig", "utf-16", "utf-32"} else "\ufeff"
    path = tmp_path / "n.cfg"
    path.write_bytes((mark + small_text).encode(encoding))
    cfg = read(path)
    assert cfg.encode() == small_text.encode()
    assert cfg.net.line == 2


@pytest.mark.parametrize("content", [b"[\0n\0e\0t\0]\0", b"\xff\xfe[\0n", b"\0" * 20, b"\x7fELF\0"])
def test_a_file_that_is_not_text_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "n.cfg"
    path.write_bytes(content)
    with pytest.raises(CfgError) as caught:
        read(path)
    assert "text" in caught.value.what
    assert caught.value.where == f"{path}:1"


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "n.cfg"
    os.mkfifo(path)
    with pytest.raises(UsageError) as caught:
        read(path)
    assert caught.value.where == str(path)


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(CfgError) as caught:
        parse(f"[net]\nbatch={'x' * 200_000}\n", path="n.cfg").net.integer("batch", 1)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "marker",
    ["<<<<<<< HEAD", "=======", ">>>>>>> dfa5e4ca", "||||||| base", "<<<<<<<", ">>>>>>> a\r"],
)
def test_a_merge_conflict_is_rejected_with_its_line(marker: str) -> None:
    with pytest.raises(CfgError) as caught:
        parse(f"[net]\nbatch=1\n{marker}\nbatch=2\n", path="my.cfg")
    assert (caught.value.where, caught.value.line) == ("my.cfg:3", 3)
    assert caught.value.exit_code == 3
    assert caught.value.remedy


def test_the_merge_conflict_of_the_seed_project_is_rejected_with_its_line() -> None:
    if not SEED_CFG.exists():
        pytest.skip(f"the seed project's file is not at {SEED_CFG}")
    with pytest.raises(CfgError) as caught:
        read(SEED_CFG)
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("", 1, "no section"),
        ("# nothing\n", 1, "no section"),
        ("<!DOCTYPE html>\n<html>\n", 1, "<!DOCTYPE html>"),
        ("batch=1\n[net]\n", 1, "[net]"),
        ("\ufeff[net]\n", 1, "[net]"),
        ("\n[convolutional]\n", 2, "[convolutional]"),
        ("[net]\nbatch\n", 2, "batch"),
        ("[net]\nbatch=\n", 2, "batch="),
        ("[net]\n=1\n", 2, "=1"),
        ("[net]\n[yolo\n", 2, "[yolo"),
        ("[net]\n[yolo] # last\n", 2, "# last"),
        ("[net]\n" + "x" * 500, 2, "x" * 60 + "...'"),
    ],
)
def test_text_that_is_not_a_cfg_is_rejected(text: str, line: int, named: str) -> None:
    with pytest.raises(CfgError) as caught:
        parse(text, path="my.cfg")
    assert caught.value.line == line
    assert named in caught.value.expected + caught.value.found


@pytest.mark.parametrize(
    ("value", "read_as"),
    [("many", "integer"), ("1.5", "integer"), ("1,2", "number"), ("1,", "numbers")],
)
def test_an_invalid_value_is_rejected_with_its_line(value: str, read_as: str) -> None:
    section = parse(f"[net]\n\nkey={value}\n", path="my.cfg").net
    arguments = ("key",) if read_as == "numbers" else ("key", 1)
    with pytest.raises(CfgError) as caught:
        getattr(section, read_as)(*arguments)
    assert (caught.value.where, caught.value.found) == ("my.cfg:3", repr(value))


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "1e999", "1e30", "1_000", "\u0663", "0x1f"]
)
def test_numbers_that_only_python_accepts_are_rejected(value: str) -> None:
    section = parse(f"[net]\nkey={value}\n", path="my.cfg").net
    for read_as in (section.integer, section.number):
        with pytest.raises(CfgError) as caught:
            read_as("key", 1)
        assert caught.value.line == 2


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("# Ours.\n", ""), True),
        (("batch = 8", "batch=8   # of ours"), True),
        (("\n\n[maxpool]", "\n# pooled\n\n\n[max]"), True),
        (("scales=.1,.1", "scales = 0.10, 1e-1"), True),
        (("\n", "\r\n"), True),
        (("\n", " \t\n"), True),
        (("width=64\nheight=64", "height=64\nwidth=64"), True),
        (("jitter=.1", "jitter=.1\njitter=.3"), True),
        (("jitter=.1", "jitter=.2"), False),
        (("jitter=.1\n", ""), False),
        (("random=0", "random=0\nmax=30"), False),
        (("activation=leaky", "activation=mish"), False),
        (("[maxpool]\nsize=2", "[maxpool]\nsize=3"), False),
    ],
)
def test_the_canonical_form_is_what_darknet_reads_from_a_file(
    small_text: str, change: tuple[str, str], *, same: bool
) -> None:
    before, after = (
        parse(text, path="n.cfg").canonical() for text in (small_text, small_text.replace(*change))
    )
    assert (before == after) == same
    assert json.loads(json.dumps(before)) == before


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.cfg", tmp_path):
        with pytest.raises(UsageError) as caught:
            read(path)
        assert caught.value.where == str(path)
