"""Optional libraries, which the extras of the package install."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from oiyolo.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def required(extra: str, *, library: str, by: str) -> Iterator[None]:
    """Import an optional library in the block.

    Args:
        extra: Name of the extra that installs the library.
        library: Name of the library for people.
        by: The option that needs it.

    Raises:
        UsageError: The library is not installed; the message has the command that installs it.
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{by} needs {library}, which is not installed",
            remedy=f"Install it: pip install 'oiyolo[{extra}]'",
        ) from error
