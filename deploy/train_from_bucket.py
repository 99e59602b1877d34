"""Train a project that is in a bucket, on a machine that may vanish at any moment.

    python train_from_bucket.py gs://my-bucket/boats --project /var/lib/boats

It pulls the project, restores the runs that an earlier machine backed up, trains, pushes the run,
scores it, writes the report, and pushes these, too. On SIGTERM, such as a spot VM's notice, the
training stops and is backed up a last time; the same command on any machine resumes it.

Backups are in ``backups/`` below the project's folder in the bucket. The exit code is that of the
first command that fails, or 130 after SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import OiyoloError
from oiyolo.core.progress import NO_PROGRESS
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.net.gcs import BucketClient

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED: Final = 130
_POLL_S: Final = 0.2
_NAME: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""Name of a file of a run; other objects are not backups, and might lead out of the project."""
_STEPS: Final = ("train", "push", "evaluate", "report", "push")
"""The weights are pushed before they are scored, so that they are safe whatever comes then."""


def _say(message: str) -> None:
    sys.stderr.write(f"train_from_bucket: {message}\n")
    sys.stderr.flush()


class Commands:
    """Runs commands of oiyolo one after the other, and passes SIGTERM on to the running one."""

    def __init__(self, project: Path, bucket: str, backups: str) -> None:
        self._project = project
        self._bucket = bucket
        self._environment = {**os.environ, "OIYOLO_TRAIN_BACKUP_TO": backups}
        self._signals: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: self._signals.append(number))

    def run(self, name: str) -> int:
        """Return the exit code of a command, or 130 if SIGTERM came first."""
        if self._signals:
            return _INTERRUPTED
        where = [self._bucket] if name in {"pull", "push"} else []
        command = [sys.executable, "-m", "oiyolo", name, *where, "--project", str(self._project)]
        _say(f"oiyolo {' '.join(command[3:])}")
        with subprocess.Popen(command, env=self._environment) as process:
            while not self._signals:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
                    break
            else:
                process.terminate()
            code = process.wait()
        return _INTERRUPTED if code == -signal.SIGTERM else code


def restore_runs(backups: str, project: Path) -> list[str]:
    """Return the names of the runs that were restored: those in the bucket but not in the project.

    A run's folder gets its name when all its files are there.

    Args:
        backups: ``gs://bucket/prefix`` that ``[train] backup_to`` named.
        project: Folder of the project.

    Raises:
        OiyoloError: The bucket cannot be read.
    """
    client = BucketClient(parse_bucket_url(backups))
    objects = {name: facts for name, facts in client.list_objects() if _NAME.fullmatch(name)}
    runs = project / "runs"
    found = sorted({name.partition("/")[0] for name in objects})
    missing = [run for run in found if not (runs / run).exists()]
    for run in missing:
        incoming = runs / f".{run}.incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        (incoming / "weights").mkdir(parents=True)
        for name in (name for name in objects if name.startswith(f"{run}/")):
            file = name.partition("/")[2]
            path = incoming / ("weights" if file.startswith("network") else "") / file
            client.receive_file(name, path, objects[name], NO_PROGRESS)
        incoming.rename(runs / run)
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of the steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bucket", metavar="gs://BUCKET/PREFIX", help="where the project was pushed")
    parser.add_argument("--project", type=Path, default=Path(), help="folder of the project here")
    options = parser.parse_args(arguments)
    backups = f"{options.bucket.rstrip('/')}/backups"
    commands = Commands(options.project, options.bucket, backups)
    if code := commands.run("pull"):
        return code
    try:
        restored = restore_runs(backups, options.project)
    except OiyoloError as error:
        _say(str(error))
        return error.exit_code
    if restored:
        _say(f"restored {', '.join(restored)}")
    for name in _STEPS:
        if code := commands.run(name):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
