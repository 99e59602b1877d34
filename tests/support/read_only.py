"""Run command lines in a project that may only be read: as another user, or on a read-only mount.

Python itself may be installed where another user cannot read it, so a process loads everything
first, and only then becomes ``nobody``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PROGRAM = """
import codecs, contextlib, importlib, io, json, os, pkgutil, sys
import pandas, oiyolo
for encoding in ("utf-8-sig", "latin-1", "idna"):
    codecs.lookup(encoding)
for module in pkgutil.walk_packages(oiyolo.__path__, "oiyolo."):
    if not module.name.endswith("__main__"):
        with contextlib.suppress(ImportError):
            importlib.import_module(module.name)
from oiyolo.cli import main
if sys.argv[1] == "nobody" and os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
results = []
for words in json.loads(sys.argv[2]):
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        results.append((main(words), err.getvalue()))
print(json.dumps(results))
"""


def as_nobody(commands: Sequence[Sequence[str]], project: Path) -> list[tuple[int, str]]:
    """Return exit codes and stderr of commands, run by a user who may not write to a project."""
    if os.geteuid():  # not root: the permissions apply to this user as well
        for path in [project, *project.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o555 if path.is_dir() else 0o444)
    return _run([], "nobody", commands, project)


def on_read_only_mount(commands: Sequence[Sequence[str]], project: Path) -> list[tuple[int, str]]:
    """Return exit codes and stderr of commands in a project that is mounted read-only."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare on PATH")
    tried = subprocess.run(
        [unshare, "--mount", "sh", "-c", mount, str(project)], capture_output=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"no read-only mount can be created: {tried.stderr.decode().strip()}")
    prefix = [unshare, "--mount", "sh", "-c", f'{mount} && shift 0 && exec "$@"', str(project)]
    return _run(prefix, "self", commands, project)


def _run(
    prefix: Sequence[str], user: str, commands: Sequence[Sequence[str]], project: Path
) -> list[tuple[int, str]]:
    words = [[*command, "--project", str(project)] for command in commands]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _PROGRAM, user, json.dumps(words)],
        env={**os.environ, "HOME": "/nonexistent", "MPLBACKEND": "agg"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, err) for code, err in json.loads(done.stdout)]
