"""Run the commands of a documentation page, and compare what they print with the page."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TIMEOUT_S = 240.0
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
# Seconds, sizes and scores differ from run to run, and the tests train for a shorter time on fewer
# scenes than the page. Whatever is left must be as on the page, word for word.
_NORMALIZED = (
    (r"\b[0-9a-f]{16}\b", "ID"),
    (r"_[0-9a-f]{10}_o\b", "_ID_o"),  # a file name on Flickr
    (r"(\d-\d\d-\d\d)T[0-9:.+]+", r"\1"),
    (r"(finished at iteration \S+);.*", r"\1"),  # the verdict
    (r"; best mAP .*", ""),
    (r"^(few images or boxes): .*", r"\1"),
    (r"(training with darknet, because) .*", r"\1"),  # the tests say so, users need not
    (rf"{_NUMBER} (?:s|min|h)\b", "DURATION"),
    (r"\d+:\d\d:\d\d", "DURATION"),
    (_NUMBER, "N"),
    (r"(^|\s)-(?=\s|$)", r"\1N"),
    (r"\b(N \w+?)s?\b", r"\1"),  # "1 image", "2 images"
    (r"^(small|medium|large|occluded|truncated|inside|depiction|group_of)( N)+$", "ROW"),
    (r"^\w+: N of N \(.* left\)$", ""),  # progress
    (r"^(Boat N N N N N|class confidence .*)$", ""),  # as many as were found
    (r": nothing$", ": N Boat"),
)


@dataclass(frozen=True)
class Step:
    """A command on a page, and the lines under it."""

    command: str
    output: tuple[str, ...]


def blocks(text: str, *languages: str) -> list[str]:
    """Return the fenced code blocks of a page in some languages."""
    return [block for language, block in _BLOCK.findall(text) if language in languages]


def console_steps(text: str) -> list[Step]:
    """Return the commands of the ``console`` blocks of a page, in order."""
    steps = []
    for block in blocks(text, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = part.rstrip("\n").split("\n")
            steps.append(Step(command, tuple(output)))
    return steps


def commands(block: str) -> list[str]:
    """Return the command lines of a ``sh`` or ``bash`` block, without comments."""
    joined = block.replace("\\\n", " ")
    lines = [re.sub(r"\s*(?:^|\s)#.*", "", line) for line in joined.splitlines()]
    return [line.strip() for line in lines if line.strip()]


def oiyolo_commands(text: str) -> list[list[str]]:
    """Return the words after ``oiyolo`` of all commands in the code blocks of a page."""
    lines = [line for block in blocks(text, "sh", "bash") for line in commands(block)]
    lines += [step.command for step in console_steps(text)]
    result = []
    for line in lines:
        for part in re.split(r" (?:&&|\|\||;|\|) ", line):
            program, *words = shlex.split(part)
            if program == "oiyolo":
                result.append(words)
    return result


def normalize(lines: Sequence[str], home: Path | None = None) -> list[str]:
    """Return lines without what may differ from run to run, and without repeated lines."""
    result: list[str] = []
    for line in lines:
        text = line if home is None else line.replace(str(home), "/home/you")
        text = " ".join(text.split())
        for pattern, replacement in _NORMALIZED:
            text = re.sub(pattern, replacement, text)
        if text and result[-1:] != [text]:
            result.append(text)
    return result


def differences(documented: Sequence[str], printed: Sequence[str], home: Path) -> list[str]:
    """Return what differs between a page's output and that of its command.

    A line ``...`` on the page stands for any number of lines.
    """
    expected, found = normalize(documented), normalize(printed, home)
    parts = [r"(?:.*\n)*?" if line == "..." else re.escape(line + "\n") for line in expected]
    if re.fullmatch("".join(parts), "".join(line + "\n" for line in found)):
        return []
    return [
        *(f"only documented: {line}" for line in expected if line not in [*found, "..."]),
        *(f"only printed: {line}" for line in found if line not in expected),
        "printed:",
        *found,
    ]


class Terminal:
    """Runs command lines one after the other, as a user would type them.

    Attributes:
        home: The folder in which it starts.
        folder: The current folder, which ``cd`` changes.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = self.folder = home
        programs = home / "bin"
        programs.mkdir(parents=True)
        script = programs / "oiyolo"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m oiyolo "$@"\n')
        script.chmod(0o755)
        path = os.pathsep.join([str(programs), os.environ.get("PATH", "")])
        self._environment = {**os.environ, **environment, "PATH": path}

    def run(self, command: str) -> list[str]:
        """Run a command and return the lines that it prints on stdout and stderr."""
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ").strip()
            assert self.folder.is_dir(), command
            return []
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=self.folder, env=self._environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        return done.stdout.splitlines()

    @contextlib.contextmanager
    def serving(self, command: str) -> Iterator[list[str]]:
        """Start a server; yield the lines that it prints until it serves, and end it afterwards."""
        with subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"], cwd=self.folder, env=self._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                lines: list[str] = []
                while not lines or "until Ctrl-C" not in lines[-1]:
                    line = process.stdout.readline()
                    assert line, f"$ {command}\n{lines}"
                    lines.append(line.rstrip("\n"))
                yield lines
            finally:
                process.terminate()
