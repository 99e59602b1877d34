"""The folders that are installed with the package: network files and notebooks."""

from __future__ import annotations

from pathlib import Path

from oiyolo.core.errors import UsageError

_PACKAGE = Path(__file__).resolve().parents[1]


def packaged_folder(name: str) -> Path:
    """Return a folder in the installed package, else in the checkout.

    Raises:
        UsageError: Neither exists; the installation is broken.
    """
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise UsageError(
        f"the folder {name} of oiyolo is missing",
        where=str(_PACKAGE / name),
        remedy="Install oiyolo again",
    )
