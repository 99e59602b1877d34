"""``oiyolo`` and ``python -m oiyolo``."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from oiyolo.cli import main as run  # noqa: PLC0415  (keeps ``import oiyolo.__main__`` free)

    exit_code = run()
    gc.freeze()  # Python looks for cycles several times as it ends; all is given back anyhow
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
