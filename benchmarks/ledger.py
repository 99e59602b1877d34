"""Measure a ledger of all 1,743,042 train images with boxes, against plain SQLite.

``python benchmarks/ledger.py`` creates a ledger in which half of the images are fetched, and a copy
of it without the index and the stored counts. The copy is the baseline, which counts and searches
all rows every time. Each step runs on both files, in its own process:

- open and close the ledger;
- status: the counts by state and reason;
- record 1,000 changes of random images in one transaction;
- iterate over all pending images;
- select the same images again, and all but one in a hundred;
- merge a shard's journal of 17,000 lines (not on the baseline).

The table shows the wall time of the step itself (best of three), the ratio to the baseline, and the
peak memory of the process. The row "ids only" shows how much of the memory Python and the list of
ids take.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _measure import layout, run

from oiyolo.project import journals
from oiyolo.project.journals import Journal
from oiyolo.project.ledger import EXCLUDED, FETCHED, PENDING, Change, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_IMAGES: Final = 1_743_042
_JOURNAL_LINES: Final = 17_000
_RUNS: Final = 3
_BATCH: Final = 1_000


def _ids(images: int) -> list[str]:
    return sorted(hashlib.md5(b"%d" % n).hexdigest()[:16] for n in range(images))  # noqa: S324  (looks like an ImageID)


def _change(image_id: str, number: int) -> Change:
    """Return the result of a fetch: one image in fifty is missing."""
    if number % 50 == 0:
        return Change(image_id, EXCLUDED, "mirror: HTTP 404", "mirror: HTTP 404", {}, 1)
    facts = {"source": "mirror", "bytes": 300_000, "md5": image_id * 2}
    return Change(image_id, FETCHED, "fetched from mirror, 300,000 bytes", "", facts, 1)


def _create_ledgers(folder: Path, images: int) -> None:
    """Create both files."""
    ids = _ids(images)
    ours, plain = folder / "ours" / "ledger.sqlite", folder / "plain" / "ledger.sqlite"
    if plain.is_file():
        return
    with Ledger(ours) as ledger:
        ledger.reselect(dict.fromkeys(ids, "train"))
        for start in range(0, images // 2, _BATCH):
            batch = enumerate(ids[start : start + _BATCH])
            ledger.record("fetch", [_change(image_id, number) for number, image_id in batch])
    plain.parent.mkdir()
    shutil.copy(ours, plain)
    with contextlib.closing(sqlite3.connect(plain)) as db:
        for item in ("TRIGGER sums_of_new", "TRIGGER sums_of_changed", "INDEX images_by_state"):
            db.execute(f"DROP {item}")
        db.commit()


def _steps(folder: Path, images: int) -> dict[str, Callable[[Ledger], Callable[[], object]]]:
    """Return by name the functions that prepare a step and return the action to time."""

    def record(ledger: Ledger) -> Callable[[], object]:
        sample = random.Random(time.time()).sample(_ids(images), min(_BATCH, images))  # noqa: S311  (no secret)
        changes = [_change(image_id, number) for number, image_id in enumerate(sample)]
        return lambda: ledger.record("fetch", changes)

    def select(ledger: Ledger, leave_out_every: int) -> Callable[[], object]:
        ids = [image_id for n, image_id in enumerate(_ids(images)) if (n + 1) % leave_out_every]
        subset_by_id = dict.fromkeys(ids, "train")
        return lambda: ledger.reselect(subset_by_id)

    def merge(ledger: Ledger) -> Callable[[], object]:
        shard_folder = journals.shard_folder(folder, "00000-of-00100")
        with contextlib.closing(Journal(shard_folder, {})) as journal:
            ids = _ids(images)[-_JOURNAL_LINES:]
            journal.append([_change(image_id, number) for number, image_id in enumerate(ids)])
        return lambda: journals.merge(folder, ledger)

    def keep_ids(_: Ledger) -> Callable[[], object]:
        subset_by_id = dict.fromkeys(_ids(images), "train")
        return lambda: subset_by_id

    return {
        "open": lambda _: lambda: None,
        "status": lambda ledger: ledger.counts,
        "record 1,000 changes": record,
        "all pending, one by one": lambda ledger: lambda: sum(1 for _ in ledger.iter_ids(PENDING)),
        "ids only": keep_ids,
        "select the same": lambda ledger: select(ledger, images + 1),
        "select 99 of 100": lambda ledger: select(ledger, 100),
        "merge 17,000 lines": merge,
    }


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[Ledger]:
    """Yield the baseline ledger, which counts all rows and searches them for pending images."""
    with Ledger(path) as ledger:
        ledger._version = 1  # noqa: SLF001  (what the benchmark compares)
        yield ledger


def _run_step(folder: Path, images: int, variant: str, step: str) -> None:
    path = folder / variant / "ledger.sqlite"
    start_s = time.perf_counter()
    with (Ledger if variant == "ours" else _plain)(path) as ledger:
        open_s = time.perf_counter() - start_s
        action = _steps(folder / variant, images)[step](ledger)
        start_s = time.perf_counter()
        action()
        step_s = time.perf_counter() - start_s
    print(json.dumps(open_s if step == "open" else step_s))


def _print_table(folder: Path, images: int) -> None:
    lines = [("", "plain s", "oiyolo s", "ratio", "plain MB", "oiyolo MB")]
    for step in _steps(folder, images):
        best: dict[str, tuple[float, float]] = {}
        for variant in ("plain", "ours"):
            if variant == "plain" and step.startswith("merge"):
                best[variant] = (float("nan"), float("nan"))
                continue
            command = [sys.executable, __file__, "--folder", str(folder), "--images", str(images)]
            # Steps that change the ledger cannot be repeated.
            runs = 1 if step.startswith(("select 99", "merge")) else _RUNS
            measurements = [run([*command, "--one", variant, step]) for _ in range(runs)]
            best[variant] = min((float(m.output), m.peak_mb) for m in measurements)
        (plain_s, plain_mb), (ours_s, ours_mb) = best["plain"], best["ours"]
        ratio = f"{ours_s / plain_s:.3f}" if plain_s else ""
        lines.append(
            (step, f"{plain_s:.4f}", f"{ours_s:.4f}", ratio, f"{plain_mb:.0f}", f"{ours_mb:.0f}")
        )
    print(layout(lines))


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--images", type=int, default=_IMAGES)
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "STEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _run_step(arguments.folder, arguments.images, *arguments.one)
        return
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # In its own process, because Linux adds the memory of this process to that of its children.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(_create_ledgers, (folder, arguments.images))
        _print_table(folder, arguments.images)


if __name__ == "__main__":
    main()
