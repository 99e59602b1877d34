"""Reading some classes out of all boxes, and some images out of the image list.

``python benchmarks/select_scan.py --folder FOLDER`` makes files of the true size (3.3 GB, once) and
measures, each in a process of its own, from the warm page cache, the best of several interleaved
runs:

- boxes of one class, of four and of 50 (2 % of the rows), parsed into a table, beside ``wc -l`` on
  the same file and pandas in chunks. "all" checks every row's number of fields and writes the map
  of all rows, as the first selection does; "map" finds rows by it, as all later ones do; "hits"
  searches the file and checks only the rows that are found, as where no map could be written;
- 26,000 images by their ids, beside ``wc -l`` on the list and pandas in chunks;
- human labels of one class and of four, beside ``wc -l`` on them.

Time is without the start of Python and imports. Memory is the peak of the process less the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from _measure import layout
from big_files import make

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from big_files import BigFiles

_SELECTED_IMAGES: Final = 26_000
_PANDAS_ROWS: Final = 500_000
_TASKS: Final = {
    "boxes": ("one", "four", "fifty"),
    "images": ("ids",),
    "labels": ("one", "four"),
}
_METHODS: Final = ("all", "map", "hits", "pandas")


def _ids(files: BigFiles) -> list[str]:
    """Give ids spread over the whole list, as many as a selection of boats has."""
    size = files.images.stat().st_size
    found = set()
    with files.images.open("rb") as file:
        for number in range(_SELECTED_IMAGES):
            file.seek(size // _SELECTED_IMAGES * number)
            file.readline()
            if line := file.readline():
                found.add(line[:16].decode())
    return sorted(found)


def _read(files: BigFiles, kind: str, what: str, method: str) -> Callable[[], pd.DataFrame]:
    """Give what is to be timed: everything is imported, and nothing is read yet."""
    import pandas as pd  # noqa: PLC0415 (the parent must stay small: Linux counts its memory too)

    from oiyolo.openimages import tables  # noqa: PLC0415 (the same)
    from oiyolo.openimages.csvscan.window import Mapped, OnDisk  # noqa: PLC0415 (the same)

    path = getattr(files, kind)
    wanted = _ids(files) if what == "ids" else getattr(files, what)
    column = "ImageID" if kind == "images" else "LabelName"
    columns = {"boxes": tables.BOX_COLUMNS, "images": tables.IMAGE_COLUMNS}.get(kind)

    def with_pandas() -> pd.DataFrame:
        chunks = pd.read_csv(path, chunksize=_PANDAS_ROWS, usecols=columns)
        return pd.concat([chunk[chunk[column].isin(set(wanted))] for chunk in chunks])

    def with_ours() -> pd.DataFrame:
        reader = getattr(tables, f"read_{kind}")
        file = OnDisk(path) if method == "hits" else Mapped(path, "of the benchmark")
        return reader(file, "train", wanted, check_all=method == "all").rows

    return with_pandas if method == "pandas" else with_ours


def _child(files: BigFiles, kind: str, what: str, method: str) -> None:
    """Be the process that is measured, and print what it took as JSON."""
    read = _read(files, kind, what, method)
    if method == "all":
        getattr(files, kind).with_suffix(".csv.rows").unlink(missing_ok=True)
    cpu_s, began_s = time.process_time(), time.perf_counter()
    table = read()
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
    table_mb = table.memory_usage(deep=True).sum() / 1e6
    print(
        json.dumps(
            {
                "wall_s": wall_s,
                "cpu_s": cpu_s,
                "rows": len(table),
                "table_mb": table_mb,
                "beside_mb": peak_kib * 1024 / 1e6 - table_mb,
            }
        )
    )


def _measure(folder: Path, share: float, *words: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--folder", str(folder), "--share", str(share)]
    done = subprocess.run(
        [*command, "--child", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _wc_s(path: Path) -> float:
    began_s = time.perf_counter()
    subprocess.run(["wc", "-l", str(path)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began_s


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the true number of rows")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _child(make(arguments.folder, arguments.share), *arguments.child)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        files = make(folder, arguments.share)
        lines = [("", "wall s", "x wc", "CPU s", "rows", "table MB", "beside MB")]
        for kind, whats in _TASKS.items():
            wc_s = min(_wc_s(getattr(files, kind)) for _ in range(3))
            rows = {}
            for _ in range(arguments.runs):
                wc_s = min(wc_s, _wc_s(getattr(files, kind)))
                for words in ((kind, w, m) for w in whats for m in _METHODS):
                    if words[2] == "pandas" and words in rows:
                        continue  # takes longest, and varies least
                    got = _measure(folder, arguments.share, *words)
                    rows[words] = min(got, rows.get(words, got), key=lambda m: m["wall_s"])
            lines.append((f"wc -l {kind}", f"{wc_s:.2f}", "1.0", "", "", "", ""))
            for words, got in rows.items():
                wall_s = got["wall_s"]
                numbers = (got["table_mb"], got["beside_mb"])
                lines.append(
                    (
                        *(" ".join(words), f"{wall_s:.2f}", f"{wall_s / wc_s:.1f}"),
                        *(f"{got['cpu_s']:.2f}", f"{got['rows']:,}"),
                        *(f"{number:.0f}" for number in numbers),
                    )
                )
        print(layout(lines))


if __name__ == "__main__":
    main()
