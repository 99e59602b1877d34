"""``oiyolo`` and ``python -m oiyolo``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from oiyolo.cli import main as run  # noqa: PLC0415  (keeps ``import oiyolo.__main__`` free)

    sys.exit(run())


if __name__ == "__main__":
    main()
