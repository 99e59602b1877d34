"""Report what happened to another program or server: run a command, or send JSON to a URL."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.core import output, process
from oiyolo.core.errors import OiyoloError, shorten
from oiyolo.net.client import HttpClient
from oiyolo.net.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("oiyolo")

TIMEOUT_S: Final = 60.0
"""Time after which a command is ended, and a server is given up."""
_POLICY: Final = RetryPolicy(max_attempts=3, connect_timeout_s=10.0, read_timeout_s=20.0)
_MAX_CHARACTERS: Final = 4000
"""A text is cut to this length, so that all facts fit into the buffer of a pipe."""


def call_hook(target: str, facts: Mapping[str, object]) -> None:
    """Run a shell command, or send JSON to a URL; a failure is only logged as a warning.

    A command runs with ``/bin/sh``, in the folder that ``facts["project"]`` names. It gets every
    fact as an environment variable (``exit_code`` as ``OIYOLO_EXIT_CODE``; lists and objects as
    JSON), and all of them as a JSON object on stdin. What it prints is logged only if it fails.

    A URL gets a POST request with the JSON object. Chat services show its fact ``text``.

    Args:
        target: A command, or a URL that begins with ``http://`` or ``https://``.
        facts: JSON-compatible values by name. ``event`` ("failure", "new_detector"), ``text`` (one
            sentence) and ``project`` (its folder) belong to every event.
    """
    cut = {name: _cut(value) for name, value in facts.items()}
    if target.lower().startswith(("http://", "https://")):
        problem = _post(target, cut)
    else:
        problem = _run(target, cut)
    if problem:
        _log.warning("the hook for %s failed: %s", facts.get("event", "an event"), problem)


def _cut(value: object) -> object:
    return value[:_MAX_CHARACTERS] if isinstance(value, str) else value


def _run(command: str, facts: Mapping[str, object]) -> str:
    """Run a command; return why it failed, in a few words, or an empty text."""
    folder = Path(str(facts.get("project", ".")))
    try:
        done = process.run(
            ["/bin/sh", "-c", command],
            cwd=folder if folder.is_dir() else None,
            environment={
                f"OIYOLO_{name.upper()}": _as_text(value) for name, value in facts.items()
            },
            timeout_s=TIMEOUT_S,
            stdin_text=output.to_json(facts) + "\n",
        )
    except OSError as error:
        return str(error)
    if done.exit_code == 0:
        return ""
    lines = done.output.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    return f"{done.exit_description}: {shorten(last)}"


def _as_text(value: object) -> str:
    """Return a fact as the value of an environment variable."""
    if value is None:
        return ""
    return output.printable(value) if isinstance(value, str) else json.dumps(value)


def _post(url: str, facts: Mapping[str, object]) -> str:
    """Send the facts; return why that failed, in a few words, or an empty text."""
    with contextlib.closing(HttpClient(_POLICY)) as client:
        try:
            client.post(url, output.to_json(facts, "utf-8").encode(), "application/json")
        except OiyoloError as error:
            # The path of a webhook's URL is a secret, too.
            return f"{urlsplit(url).hostname}: {error.found or error.what}"
    return ""
