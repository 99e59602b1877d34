"""Kill every command at random moments, hundreds of times, and check what is left.

``python benchmarks/chaos.py ROUNDS SEED`` prints a line for each round with a problem and a summary
for each command, and exits with 1 if there was any problem. It needs a darknet on PATH. The tests
do thirty rounds with the same code (``tests/support/chaos.py``).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.conftest import TINY_CFG
from tests.support.chaos import COMMANDS, chaos


def main() -> int:
    """Run the rounds and print the problems; return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--command", action="append", choices=COMMANDS)
    options = parser.parse_args()
    darknet = shutil.which("darknet")
    if darknet is None:
        parser.error("no darknet on PATH")
    bad, total = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="oiyolo-chaos-") as name:
        network = Path(name) / "tiny.cfg"
        network.write_text(TINY_CFG)
        folder = Path(name) / "chaos"
        with chaos(folder, darknet=Path(darknet), network=network, seed=options.seed) as victim:
            for done in victim.rounds(options.rounds, options.command or COMMANDS):
                total[done.command] += done.kills
                bad[done.command] += bool(done.problems)
                for problem in done.problems:
                    print(f"{done.command} killed after {done.after_s:.2f} s: {problem}")
    for command in total:
        print(f"{command}: {total[command]} kills, {bad[command]} rounds with problems")
    return 1 if bad.total() else 0


if __name__ == "__main__":
    sys.exit(main())
