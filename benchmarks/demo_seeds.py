"""Train the demo with several seeds and print what it scores: does it depend on the seed?

``python benchmarks/demo_seeds.py --seeds 3`` needs a darknet on PATH and a few minutes per seed.
The tests train the first seed only and require an mAP of 0.80.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from _measure import layout

import oiyolo


def main() -> None:
    """Print one row for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    rows = [("", "mAP@0.50", "images", "boxes", "wall s")]
    for seed in range(parser.parse_args().seeds):
        with tempfile.TemporaryDirectory(prefix="oiyolo-demo-") as folder:
            began_s = time.monotonic()
            oiyolo.demo(folder, seed=seed)
            wall_s = time.monotonic() - began_s
            path = Path(folder) / "runs" / "demo-001" / "evaluation.json"
            scores = json.loads(path.read_text(encoding="utf-8"))
        counts = (str(scores["images"]), str(scores["boxes"]))
        rows.append((f"seed {seed}", f"{scores['map50']:.3f}", *counts, f"{wall_s:.0f}"))
    print(layout(rows))


if __name__ == "__main__":
    main()
