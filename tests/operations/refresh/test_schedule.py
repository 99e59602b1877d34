"""Lines for cron and units for systemd, read back as these programs read them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import oiyolo
from oiyolo.core.errors import UsageError
from oiyolo.operations.refresh import schedule

if TYPE_CHECKING:
    from tests.conftest import Cli

ODD_NAMES = [
    "boats",
    "two words",
    "100%",
    r"a\%b",
    "it's",
    '"$HOME"',
    "Bötchen",
    r"back\slash",
    "$$",
]


def cron_command(line: str) -> str:
    r"""Return the shell command that cron runs for a line: ``\%`` is %, and % ends the command."""
    schedule_words, command = re.fullmatch(r"(15 3 \* \* \*)  (.*)", line).groups()  # type: ignore[union-attr]
    assert schedule_words
    text, escaped = "", False
    for character in command:
        if escaped and character == "%":
            text = text[:-1] + "%"
        else:
            assert character != "%"
            text += character
        escaped = character == "\\" and not escaped
    return text


def systemd_words(line: str) -> list[str]:
    """Return the words of a command line in a unit, as systemd.syntax(7) reads it."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    plain = [re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for quoted, bare in words]
    return [word.replace("%%", "%").replace("$$", "$") for word in plain]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_both_run_this_installations_refresh_of_the_project(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    command = schedule.command_of(folder, {"deadline": "6h", "max_loss": None}, retrain=True)
    script = str(Path(sys.executable).with_name("oiyolo"))
    program = [script] if Path(script).exists() else [sys.executable, "-m", "oiyolo"]
    assert command[: len(program)] == program
    assert command[len(program) :] == [
        *("refresh", "--quiet", "--project", str(folder), "--retrain", "--deadline", "6h")
    ]
    line = schedule.cron(command, {"XDG_CACHE_HOME": "/a b%"}).text
    assert shlex.split(cron_command(line)) == ["XDG_CACHE_HOME=/a b%", *command]
    units = schedule.systemd(command, {"XDG_CACHE_HOME": "/a b%"}, folder).units
    service = next(text for unit, text in units.items() if unit.endswith(".service"))
    started = re.search(r"^ExecStart=(.*)$", service, re.MULTILINE)
    assert started is not None
    assert systemd_words(started[1]) == command
    assert 'Environment="XDG_CACHE_HOME=/a b%%"' in service


def test_what_is_printed_for_systemd_installs_both_units_when_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    printed = schedule.systemd(["/bin/oiyolo", "$x"], {}, tmp_path / "my boats")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("systemctl", "loginctl"):
        (tools / tool).write_text(f'#!/bin/sh\necho {tool} "$@" >> "$HOME/calls"\n')
        (tools / tool).chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{tools}:/usr/bin:/bin"}
    subprocess.run(["/bin/sh", "-ec", str(printed)], env=environment, check=True)
    folder = tmp_path / ".config" / "systemd" / "user"
    assert {p.name: p.read_text(encoding="utf-8") for p in folder.iterdir()} == printed.units
    timer = next(name for name in printed.units if name.endswith(".timer"))
    assert f"--user enable --now {timer}" in (tmp_path / "calls").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on PATH")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    command = ["/bin/sh", "refresh", "--project", str(tmp_path / 'my "boats" 100%')]
    units = schedule.systemd(command, {"A": 'b "c"'}, tmp_path / 'my "boats" 100%').units
    for name, text in units.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    paths = [tmp_path / name for name in units]
    done = subprocess.run(
        ["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_command_line_prints_them_and_does_nothing_else(tmp_path: Path, cli: Cli) -> None:
    oiyolo.init(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    line = cli.ok("refresh", "-q", "--print-cron", "--deadline", "6h", project=tmp_path).out
    assert shlex.split(cron_command(line.rstrip("\n")))[-2:] == ["--deadline", "6h"]
    assert cli.ok("refresh", "--print-systemd", "--json", project=tmp_path).json["units"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_that_cron_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        schedule.command_of(tmp_path / "a\nb", {}, retrain=False)
    with pytest.raises(UsageError):
        schedule.cron(["/bin/oiyolo", "x" * 1000], {})
