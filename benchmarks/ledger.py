"""The ledger of all 1,743,042 training images that have boxes, beside SQLite without its help.

``python benchmarks/ledger.py`` makes a ledger in which half of the images are fetched, and the same
file without the index and without the kept sums: the baseline, in which all is counted and sought
each time. Both are asked, each step in a process of its own:

- open it and close it;
- status: the sums by state and reason;
- record 1,000 changes, of images here and there, in one transaction;
- go through all that is pending;
- select the same again, and the same but for one in a hundred;
- merge a shard's journal of 17,000 lines (ours alone).

The table shows the wall time of the step itself (best of three), the ratio to the baseline, and the
most memory that the process had, of which Python with the ids in it is some: the line "ids alone".
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


def _fate(image_id: str, number: int) -> Change:
    """Give what became of an image: one in fifty is gone."""
    if number % 50 == 0:
        return Change(image_id, EXCLUDED, "mirror: HTTP 404", "mirror: HTTP 404", {}, 1)
    facts = {"source": "mirror", "bytes": 300_000, "md5": image_id * 2}
    return Change(image_id, FETCHED, "fetched from mirror, 300,000 bytes", "", facts, 1)


def _make(folder: Path, images: int) -> None:
    """Make both files."""
    ids = _ids(images)
    ours, plain = folder / "ours" / "ledger.sqlite", folder / "plain" / "ledger.sqlite"
    if plain.is_file():
        return
    with Ledger(ours) as ledger:
        ledger.reselect(dict.fromkeys(ids, "train"))
        for begin in range(0, images // 2, _BATCH):
            some = enumerate(ids[begin : begin + _BATCH])
            ledger.record("fetch", [_fate(image_id, number) for number, image_id in some])
    plain.parent.mkdir()
    shutil.copy(ours, plain)
    with contextlib.closing(sqlite3.connect(plain)) as db:
        for what in ("TRIGGER sums_of_new", "TRIGGER sums_of_changed", "INDEX images_by_state"):
            db.execute(f"DROP {what}")
        db.commit()


def _steps(folder: Path, images: int) -> dict[str, Callable[[Ledger], object]]:
    def some() -> list[Change]:
        ids = _ids(images)
        chosen = random.Random(time.time()).sample(ids, min(_BATCH, images))  # noqa: S311  (no secret)
        return [_fate(image_id, number) for number, image_id in enumerate(chosen)]

    prepared: dict[str, list[Change]] = {}
    wanted: dict[str, dict[str, str]] = {}

    def record(ledger: Ledger) -> None:
        ledger.record("fetch", prepared["some"])

    def reselect(ledger: Ledger) -> None:
        ledger.reselect(wanted["ids"])

    def merge(ledger: Ledger) -> None:
        journals.merge(folder, ledger)

    def prepare(step: str) -> None:
        if step == "record 1,000 changes":
            prepared["some"] = some()
        elif step.startswith("select"):
            ids = _ids(images)
            kept = ids if step == "select the same" else [i for n, i in enumerate(ids) if n % 100]
            wanted["ids"] = dict.fromkeys(kept, "train")
        elif step == "ids alone":
            wanted["ids"] = dict.fromkeys(_ids(images), "train")
        elif step.startswith("merge"):
            place = journals.folder_of(folder, "00000-of-00100")
            with contextlib.closing(Journal(place, {})) as journal:
                ids = _ids(images)[-_JOURNAL_LINES:]
                journal.append([_fate(image_id, number) for number, image_id in enumerate(ids)])

    steps: dict[str, Callable[[Ledger], object]] = {
        "open": lambda _: None,
        "status": Ledger.counts,
        "record 1,000 changes": record,
        "all pending, one by one": lambda ledger: sum(1 for _ in ledger.each(PENDING)),
        "ids alone": lambda _: None,
        "select the same": reselect,
        "select 99 of 100": reselect,
        "merge 17,000 lines": merge,
    }
    return {name: _after(prepare, name, step) for name, step in steps.items()}


def _after(
    prepare: Callable[[str], None], name: str, step: Callable[[Ledger], object]
) -> Callable[[Ledger], object]:
    def both(ledger: Ledger) -> float:
        prepare(name)
        began_s = time.perf_counter()
        step(ledger)
        return time.perf_counter() - began_s

    return both


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[Ledger]:
    """Open the baseline: the sums are counted, and all that is pending is sought."""
    with Ledger(path) as ledger:
        ledger._has_sums = False  # noqa: SLF001  (this is what is measured)
        yield ledger


def _one(folder: Path, images: int, which: str, step: str) -> None:
    path = folder / which / "ledger.sqlite"
    began_s = time.perf_counter()
    with (Ledger if which == "ours" else _plain)(path) as ledger:
        opened_s = time.perf_counter() - began_s
        took_s = _steps(folder / which, images)[step](ledger)
    print(json.dumps(opened_s if step == "open" else took_s))


def _all(folder: Path, images: int) -> None:
    lines = [("", "plain s", "ours s", "ratio", "plain MB", "ours MB")]
    for step in _steps(folder, images):
        best: dict[str, tuple[float, float]] = {}
        for which in ("plain", "ours"):
            if which == "plain" and step.startswith("merge"):
                best[which] = (float("nan"), float("nan"))
                continue
            command = [sys.executable, __file__, "--folder", str(folder), "--images", str(images)]
            # What changes the ledger once is not the same a second time.
            times = 1 if step.startswith(("select 99", "merge")) else _RUNS
            done = [run([*command, "--one", which, step]) for _ in range(times)]
            best[which] = min((float(m.output), m.peak_mb) for m in done)
        (plain_s, plain_mb), (ours_s, ours_mb) = best["plain"], best["ours"]
        ratio = f"{ours_s / plain_s:.3f}" if plain_s else ""
        lines.append(
            (step, f"{plain_s:.4f}", f"{ours_s:.4f}", ratio, f"{plain_mb:.0f}", f"{ours_mb:.0f}")
        )
    print(layout(lines))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--images", type=int, default=_IMAGES)
    parser.add_argument("--one", nargs=2, metavar=("WHICH", "STEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _one(arguments.folder, arguments.images, *arguments.one)
        return
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # In a process of its own: the memory of this one counts in all that it starts.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(_make, (folder, arguments.images))
        _all(folder, arguments.images)


if __name__ == "__main__":
    main()
