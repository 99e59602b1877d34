"""Progress: a bar on a terminal, plain lines elsewhere, nothing if it is disabled."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from oiyolo.core import progress as module
from oiyolo.core.progress import enabled, progress

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def enabled_and_not_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    token = enabled.set(True)
    yield
    enabled.reset(token)


@pytest.fixture
def lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("oiyolo"), "propagate", True)
    caplog.set_level(logging.INFO, logger="oiyolo")
    return caplog


def test_without_a_terminal_plain_lines_are_logged_at_intervals(
    lines: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "PLAIN_LINE_EVERY_S", 0.0)
    with progress("fetch", total=3, unit="img", initial=1) as bar:
        bar.advance()
        bar.set_postfix(MB=5, failed=0)
        bar.advance()
    assert lines.messages == ["fetch: 2 of 3", "fetch: 3 of 3 (MB 5, failed 0)"]
    assert capsys.readouterr().err == ""


def test_quick_work_logs_no_line(lines: pytest.LogCaptureFixture) -> None:
    with progress("fetch", total=1000) as bar:
        for _ in range(1000):
            bar.advance()
    assert lines.messages == []


@pytest.mark.parametrize(
    ("total", "unit", "count", "line"),
    [
        (None, "", 5, "x: 5"),
        (None, "B", 2_400_000, "x: 2.4 MB"),
        (10_000_000, "B", 2_600_000, "x: 2.6 MB of 10.0 MB"),
        (7, "img", 0, "x: 0 of 7"),
    ],
)
def test_a_line_shows_the_total_and_unit_if_they_are_known(
    *,
    lines: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    total: int | None,
    unit: str,
    count: int,
    line: str,
) -> None:
    monkeypatch.setattr(module, "PLAIN_LINE_EVERY_S", 0.0)
    with progress("x", total=total, unit=unit) as bar:
        bar.advance(count)
    assert lines.messages == [line]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("train", total=4, unit="it", initial=1) as bar:
        bar.set_postfix(loss="1.250")
        bar.advance(3)
    assert "train: 100%" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert "loss=1.250" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, str]]:
    """Pretend to be in a notebook's cell; return its outputs' versions, by number of the output."""
    display = pytest.importorskip("IPython.display")
    shown: list[dict[int, str]] = []

    def show(content: dict[str, str], *, raw: bool, **_: object) -> SimpleNamespace:
        number = len({number for version in shown for number in version})

        def update(content: dict[str, str], *, raw: bool) -> None:
            assert raw
            shown.append({number: content["text/plain"]})

        update(content, raw=raw)
        return SimpleNamespace(update=update)

    monkeypatch.setattr(display, "display", show)
    monkeypatch.setattr(module, "is_notebook", lambda: True)
    return shown


def test_a_notebook_keeps_one_short_line_of_a_bar(
    cell: list[dict[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("train", total=4, unit="it") as bar:
        bar.advance(3)
        bar.set_postfix(loss="1.250")
        bar.advance()
    assert set().union(*cell) == {0}, "one output, updated in place"
    assert "%" in cell[0][0]
    assert re.fullmatch(r"train: 4/4 \[\d\d:\d\d, loss=1.250\]", cell[-1][0])
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_work_that_shows_no_bar_leaves_nothing_in_a_notebook(cell: list[dict[int, str]]) -> None:
    with progress("boxes.csv", unit="B"):
        pass
    with progress("checksums", total=3, delay_s=60.0) as bar:
        bar.advance(3)
    assert cell == []


def test_an_interrupted_bar_in_a_notebook_says_how_far_it_came(cell: list[dict[int, str]]) -> None:
    with contextlib.suppress(KeyboardInterrupt), progress("fetch", total=3) as bar:
        bar.advance()
        raise KeyboardInterrupt
    assert cell[-1][0].startswith("fetch: 1/3 [")


def test_a_bar_of_bytes_shows_larger_units(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("boxes.csv", total=4 << 20, unit="B") as bar:
        bar.advance(4 << 20)
    assert "4.00M/4.00M" in terminal.getvalue()


def test_disabled_progress_shows_nothing_even_on_a_terminal(
    lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(module, "PLAIN_LINE_EVERY_S", 0.0)
    enabled.set(False)
    with progress("fetch", total=3) as bar:
        bar.advance()
        bar.set_postfix(loss=1)
    assert terminal.getvalue() == ""
    assert lines.messages == []


def test_an_exception_closes_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyboardInterrupt), progress("fetch", total=3):
        raise KeyboardInterrupt
    assert terminal.getvalue().endswith("\n")


@pytest.mark.parametrize("count", [0, 1])
def test_a_bar_of_bytes_appears_with_the_first_byte(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("boxes.csv", unit="B") as bar:
        for _ in range(count):
            bar.advance(100)
    assert bool(terminal.getvalue()) == bool(count)


@pytest.mark.parametrize(
    ("columns", "shown"), [(0, []), (10, ["avg"]), (19, ["avg"]), (20, ["avg", "IOU"])]
)
def test_the_figures_that_do_not_fit_into_a_terminal_are_left_out(
    columns: int, shown: list[str]
) -> None:
    figures = {"avg": "1.50", "IOU": "0.50"}  # ", avg=1.50" and ", IOU=0.50" have 10 columns each
    assert list(module._fitting(figures, columns)) == shown
