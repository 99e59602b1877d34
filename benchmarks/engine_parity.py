"""Compare what darknet, the torch engine and the ONNX export detect with the same weights.

``python benchmarks/engine_parity.py [--alexeyab PROGRAM] [--write]`` runs each network on the same
images with the darknet on PATH (pjreddie's fork), with AlexeyAB's if it is given, with torch and
with onnxruntime. It prints a table of the largest differences, and exits with 1 if one is not below
the limit: 0.5 px of a box's side, 1e-3 of a confidence. ``--write`` replaces the table in
docs/engines.md. The networks are those that the tests compare
(``tests/support/darknet_parity.py``): the project's own, one with each type of layer, and trained
ones, if they are in ``../shared/real``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from onnx.utils import Extractor

from oiyolo.core.files import write_text
from oiyolo.darknet.program import probe
from oiyolo.inference.convert import convert
from oiyolo.inference.facts import ModelFacts
from oiyolo.networks import cfg as cfgs
from oiyolo.networks.stock import TEXTS
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.rules import rules_for
from oiyolo.torch_engine.weights_io import load_weights
from tests.support.darknet_parity import (
    ALL_FORKS,
    GOLDEN,
    SEED,
    as_input,
    class_count_of,
    compare,
    darknet_rows,
    measured_weights,
    photographs,
    raw_output_names,
    raw_outputs,
    seeded_images,
    seeded_weights,
    stock_network,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.lint import ForkName

ROOT: Final = Path(__file__).resolve().parents[1]
REAL: Final = ROOT.parent / "shared" / "real"
PAGE: Final = ROOT / "docs" / "engines.md"
BEGIN: Final = "<!-- The table is written by benchmarks/engine_parity.py --write. -->"
END: Final = "<!-- The end of that table. -->"
IMAGES: Final = 2
PHOTOGRAPHS: Final = 6
MAX_BOX_PX: Final = 0.5
MAX_CONFIDENCE: Final = 1e-3
NONE: Final = "-"


class Case(NamedTuple):
    """A network with weights and images.

    Attributes:
        name: Its name in the table.
        cfg: The network.
        weights: Its weights file.
        images: The images, shape (images, height, width, 3).
        only_alexeyab: Whether pjreddie's darknet lacks layers of the network.
    """

    name: str
    cfg: Cfg
    weights: bytes
    images: npt.NDArray[np.uint8]
    only_alexeyab: bool


class Outputs(NamedTuple):
    """What a network computes.

    Attributes:
        raw: The raw outputs, by head.
        boxes: Centres and sizes as fractions, shape (images, boxes, 4).
        scores: Shape (images, boxes, classes).
    """

    raw: list[Any]
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        cells: The text of its cells.
        is_within: Whether all differences are below the limits.
    """

    cells: tuple[str, ...]
    is_within: bool


def cases(folder: Path) -> Iterator[Case]:
    """Yield all networks."""
    demo = cfgs.read(ROOT / "cfg" / "demo.cfg")
    yield Case("demo", demo, measured_weights(demo, folder / "w"), seeded(demo), False)
    for name in TEXTS:
        cfg = stock_network(name)
        yield Case(name, cfg, measured_weights(cfg, folder / "w"), seeded(cfg), "v4" in name)
    for path in sorted(GOLDEN.glob("*.cfg")):
        cfg, is_rare = cfgs.read(path), path.stem not in ALL_FORKS
        yield Case(f"small: {path.stem}", cfg, seeded_weights(cfg, SEED), seeded(cfg), is_rare)
    for path in sorted((REAL / "pretrained").glob("*.cfg")):
        cfg = cfgs.read(path)
        images = photographs(REAL / "alpaca" / "images", cfg.size_wh, PHOTOGRAPHS)
        yield Case(path.stem, cfg, path.with_suffix(".weights").read_bytes(), images, False)


def seeded(cfg: Cfg) -> npt.NDArray[np.uint8]:
    """Return random images."""
    return seeded_images(cfg, SEED, IMAGES)


def outputs(case: Case, fork: ForkName, folder: Path) -> tuple[Outputs, Outputs]:
    """Return what torch and onnxruntime compute, with the rules of a fork."""
    path, images = folder / "n.weights", as_input(case.images)
    path.write_bytes(case.weights)
    names = tuple(str(number) for number in range(class_count_of(case.cfg)))
    model = convert(case.cfg, path, ModelFacts(names, fork=fork))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    results = ["boxes", "scores"]
    boxes, scores = session.run(results, {"images": images})
    raw = raw_outputs(model, images)
    network = TorchNetwork(case.cfg, rules_for(fork, gpu=False))
    load_weights(network, path)
    with torch.no_grad():
        own = [head.numpy() for head in network.eval()(torch.from_numpy(images))]
    # The engine trains and has no boxes: those of its raw outputs are decoded as the export does.
    heads = raw_output_names(model)
    decoder = Extractor(model).extract_model(heads, results)
    decode = onnxruntime.InferenceSession(decoder.SerializeToString())
    decoded = decode.run(results, dict(zip(heads, own, strict=True)))
    return Outputs(own, *decoded), Outputs(raw, boxes, scores)


def compare_case(case: Case, programs: dict[str, Darknet | None], folder: Path) -> Row:
    """Return the table's row of a network."""
    width, height = case.cfg.size_wh
    cells, is_within = [f"{case.name}, {width}x{height}"], True
    raw_differences = []
    for name, program in programs.items():
        if program is None or (case.only_alexeyab and name == "pjreddie"):
            cells += [NONE, NONE]
            continue
        place = folder / name
        rows = darknet_rows(program, place, case.cfg, case.weights, case.images)
        both = outputs(case, program.fork.name, place)
        raw_differences.append(raw_difference(*both))
        for result in both:
            found = compare(rows, result.boxes, result.scores, case.cfg.size_wh)
            is_within &= found.box_px < MAX_BOX_PX and found.confidence < MAX_CONFIDENCE
            cells.append(f"{found.box_px:.3f} px, {found.confidence:.0e}")
    if raw_differences:
        largest, share = max(raw_differences)
        is_within &= largest < MAX_CONFIDENCE
        cells.append(f"{largest:.0e} ({share:.0e})")
    else:
        cells.append(NONE)
    return Row(tuple(cells), is_within)


def raw_difference(first: Outputs, second: Outputs) -> tuple[float, float]:
    """Return the largest difference of raw outputs, and its share of the largest value."""
    pairs = list(zip(first.raw, second.raw, strict=True))
    difference = max(float(np.abs(one - other).max()) for one, other in pairs)
    return difference, difference / max(float(np.abs(other).max()) for _, other in pairs)


def markdown(rows: list[Row]) -> str:
    """Return the table."""
    header = (
        "network",
        *(
            f"{fork} and {other}"
            for fork in ("pjreddie", "AlexeyAB")
            for other in ("torch", "ONNX")
        ),
        "raw outputs of torch and ONNX (share of the largest)",
    )
    lines = [header, ("---",) * len(header), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_table(page: str, table: str) -> str:
    """Return a page with the table between its marks replaced.

    Raises:
        ValueError: The marks are missing.
    """
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE} lacks the lines around the table: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def main() -> int:
    """Compare, print or write the table, and return 1 if a difference is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--darknet", default=shutil.which("darknet"), help="pjreddie's darknet")
    parser.add_argument("--alexeyab", help="AlexeyAB's darknet; left out by default")
    parser.add_argument("--write", action="store_true", help="write the table into docs/engines.md")
    options = parser.parse_args()
    given = {"pjreddie": options.darknet, "AlexeyAB": options.alexeyab}
    programs = {name: probe(Path(path), "given") if path else None for name, path in given.items()}
    if not any(programs.values()):
        sys.exit("no darknet to compare with: none on PATH, and none given")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases(Path(folder))):
            rows.append(compare_case(case, programs, Path(folder) / str(number)))
            print(*rows[-1].cells, sep="  ", flush=True)
    if options.write:
        write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), markdown(rows)))
    return int(not all(row.is_within for row in rows))


if __name__ == "__main__":
    sys.exit(main())
