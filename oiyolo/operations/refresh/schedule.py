"""Lines for cron and units for systemd that run this installation's refresh of a project."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import UsageError
from oiyolo.core.results import Result
from oiyolo.project.keys import KEYS_BY_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MINUTE: Final = 15
_HOUR: Final = 3
_CRON_COMMAND_CHARACTERS: Final = 999
"""The longest command of Debian's cron (``MAX_COMMAND`` in its cron.h, without the NUL)."""
_SYSTEM_UNITS: Final = "/etc/systemd/system"
_USER_UNITS: Final = "~/.config/systemd/user"


@dataclass(frozen=True)
class RefreshSchedule(Result):
    """What starts a refresh every night.

    Attributes:
        text: What to paste: a line of a crontab, or shell commands that install units.
        units: Content of each unit by its file name; empty for cron.
    """

    text: str
    units: Mapping[str, str]

    def as_dict(self) -> dict[str, object]:
        """Return the text and the units as JSON-compatible values."""
        return {"text": self.text, "units": dict(self.units)}

    def __str__(self) -> str:
        return self.text


def command_of(folder: Path, options: Mapping[str, object], *, retrain: bool) -> list[str]:
    """Return the words of the command that refreshes a project, with absolute paths.

    Args:
        folder: The project's folder.
        options: Values of keys by name; ``None`` means that the option is not set.
        retrain: Whether it also trains.

    Raises:
        UsageError: A path contains a line break or another control character.
    """
    # Not resolved: in a virtual environment, the path itself selects the environment.
    python = Path(sys.executable).absolute()
    script = python.with_name("oiyolo")
    program = [str(script)] if os.access(script, os.X_OK) else [str(python), "-m", "oiyolo"]
    words = [*program, "refresh", "--quiet", "--project", str(folder.absolute())]
    words += ["--retrain"] if retrain else []
    for name, value in options.items():
        words += [] if value is None else [f"--{KEYS_BY_NAME[name].option}", str(value)]
    if bad := [word for word in words if not word.isprintable()]:
        raise UsageError(
            "no schedule can contain this path",
            where=bad[0],
            expected="a path without control characters",
            remedy="Rename the folder",
        )
    return words


def environment() -> dict[str, str]:
    """Return the variables of this shell without which a scheduler would run something else."""
    from importlib import metadata  # noqa: PLC0415  (slow to import, and rarely needed)

    names = ["XDG_CACHE_HOME"]
    try:
        metadata.distribution("oiyolo")
    except metadata.PackageNotFoundError:  # it runs from its sources
        names.append("PYTHONPATH")
    return {name: value for name in names if (value := os.environ.get(name, ""))}


def cron(command: Sequence[str], variables: Mapping[str, str]) -> RefreshSchedule:
    """Return the line of a crontab that runs a command every night.

    Raises:
        UsageError: The command is too long for cron.
    """
    words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    text = _cron_quoted(" ".join([*words, shlex.join(command)]))
    if len(text.encode()) > _CRON_COMMAND_CHARACTERS:
        raise UsageError(
            "the command is too long for cron",
            where=command[-1],
            expected=f"at most {_CRON_COMMAND_CHARACTERS} bytes",
            found=f"{len(text.encode())} bytes",
            remedy="Make a link with a shorter path to the project, and pass it with --project",
        )
    return RefreshSchedule(f"{_MINUTE} {_HOUR} * * *  {text}", {})


def _cron_quoted(text: str) -> str:
    r"""Return a shell command as cron takes it, where ``\%`` is a percent sign, ``%`` a line break.

    In a quoted word, an empty quotation separates a backslash from the ``\%`` after it, which cron
    would read as an escaped backslash.
    """
    return re.sub(r"(\\?)%", lambda match: (match[1] + "''" if match[1] else "") + r"\%", text)


def systemd(command: Sequence[str], variables: Mapping[str, str], folder: Path) -> RefreshSchedule:
    """Return a service and a timer that run a command every night, and how to install them.

    Args:
        command: The words of the command.
        variables: Variables to set.
        folder: The project's folder.
    """
    name = f"oiyolo-refresh-{re.sub(r'[^A-Za-z0-9_-]+', '-', folder.absolute().name) or 'project'}"
    title = _specifiers_escaped(f"Refresh the oiyolo project {folder.absolute()}")
    environment_lines = [f"Environment={_unit_word(f'{n}={v}')}" for n, v in variables.items()]
    service = [
        "[Unit]",
        f"Description={title}",
        "",
        "[Service]",
        "Type=oneshot",
        *environment_lines,
        f"ExecStart={' '.join(map(_unit_argument, command))}",
    ]
    timer = [
        "[Unit]",
        f"Description={title} every night",
        "",
        "[Timer]",
        f"OnCalendar=*-*-* {_HOUR:02}:{_MINUTE:02}:00",
        "Persistent=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    units = {
        f"{name}.service": "".join(f"{line}\n" for line in service),
        f"{name}.timer": "".join(f"{line}\n" for line in timer),
    }
    return RefreshSchedule(_installation(units, is_root=os.geteuid() == 0), units)


def _installation(units: Mapping[str, str], *, is_root: bool) -> str:
    """Return shell commands that write the units and start the timer."""
    folder, control = (_SYSTEM_UNITS, "systemctl") if is_root else (_USER_UNITS, "systemctl --user")
    lines = [f"mkdir -p {folder}"]
    for name, content in units.items():
        lines.append(f"cat > {folder}/{name} <<'END_OF_UNIT'\n{content}END_OF_UNIT")
    timer = next(name for name in units if name.endswith(".timer"))
    lines.append(f"{control} daemon-reload && {control} enable --now {timer}")
    if not is_root:
        lines.append("loginctl enable-linger  # so that it also runs while you are logged out")
    return "\n".join(lines)


def _specifiers_escaped(text: str) -> str:
    return text.replace("%", "%%")


def _unit_word(text: str) -> str:
    """Return a word of a unit, quoted (systemd.syntax(7)) and without specifiers."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_specifiers_escaped(escaped)}"'


def _unit_argument(text: str) -> str:
    """Return a word of a command line in a unit, in which a dollar sign is doubled."""
    is_plain = re.fullmatch(r"[\w@+=:,./-]+", text, re.ASCII) is not None
    return text if is_plain else _unit_word(text).replace("$", "$$")
