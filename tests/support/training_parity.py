"""Training steps of darknet and of the torch engine, on the same weights, image and truths.

Darknet draws images at random and flips them at random, so its list contains one image that is its
own mirror image, in the size of the network, and augmentation is off.

``python -m tests.support.training_parity PROGRAM`` writes the golden file of a program's fork anew:
the losses that it prints in each case of ``CASES``.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

from oiyolo.core import process
from oiyolo.darknet.program import data_file, probe, train_command
from oiyolo.networks import cfg as cfgs
from oiyolo.networks.builders import stock
from oiyolo.networks.layers import HEAD_KINDS, heads_of
from oiyolo.torch_engine.heads import Heads
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.optimizer import learning_rate, set_rate, sgd
from oiyolo.torch_engine.rules import rules_for
from oiyolo.torch_engine.weights_io import WeightsCopy, load_weights
from tests.support.darknet_parity import GOLDEN, seeded_weights, uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.lint import ForkName
    from oiyolo.torch_engine.log_lines import HeadFigures

SEED: Final = 1
TIMEOUT_S: Final = 300.0
NUMBER: Final = r"([-+\w.]+)"
ITERATION: Final = re.compile(rf"^\s*\d+: {NUMBER}, {NUMBER} avg", re.MULTILINE)
PJREDDIE_REGION: Final = re.compile(
    rf"Region \d+ Avg IOU: {NUMBER}, Class: {NUMBER}, Obj: {NUMBER}, No Obj: {NUMBER}, "
    rf"\.5R: {NUMBER}, \.75R: {NUMBER},  count: (\d+)"
)
ALEXEYAB_REGION: Final = re.compile(
    rf"Region \d+ Avg \(IOU: {NUMBER}\), count: (\d+), class_loss = {NUMBER}, "
    rf"iou_loss = {NUMBER}, total_loss = {NUMBER}"
)
TRUTHS: Final = (
    (0, 0.27, 0.33, 0.21, 0.34),
    (2, 0.18, 0.71, 0.08, 0.12),
    (1, 0.38, 0.52, 0.33, 0.61),
)
"""Class, x, y, width and height; the mirror image of each is a truth, too."""

LOSSES: Final = Path(__file__).parents[1] / "torch_engine" / "golden"
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Case:
    """A training run that is compared.

    Attributes:
        network: A network of tests/inference/golden, or of oiyolo's own.
        iterations: Number of iterations.
        subdivisions: Parts of two images per iteration.
        first_head: Whether the network ends at its first head. AlexeyAB's fork never clears the
            deltas of [upsample] on the CPU, so updates of networks with it agree only once.
        truths: The truths.
        has_updates: Whether parameters are compared, and not only losses.
        tolerance: Limit of the difference of the updates, over their norm.
        options: Options of the heads.
    """

    network: str
    iterations: int
    subdivisions: int
    first_head: bool = False
    truths: tuple[tuple[float, ...], ...] = TRUTHS
    has_updates: bool = True
    tolerance: float = 1e-4
    options: dict[str, str | float] = field(default_factory=dict)

    def cfg(self) -> Cfg:
        """Return the network as it is trained."""
        path = GOLDEN / f"{self.network}.cfg"
        cfg = cfgs.read(path) if path.is_file() else stock(self.network)
        if not path.is_file():
            cfg.net.set("width", STOCK_PX)
            cfg.net.set("height", STOCK_PX)
        if self.first_head:
            end = next(i for i, s in enumerate(cfg.sections) if s.kind in HEAD_KINDS)
            del cfg.sections[end + 1 :]
        for head in heads_of(cfg):
            for key, value in self.options.items():
                head.set(key, value)
        return training_cfg(cfg, self.iterations, self.subdivisions)


def _steps(**options: str | float) -> Case:
    return Case("yolov3", 5, 2, first_head=True, options=options)


STOCK_PX: Final = 192
CASES: Final[dict[str, dict[str, Case]]] = {
    "pjreddie": {
        "1 iteration": Case("yolov3", 1, 2),
        "2 iterations": Case("yolov3", 2, 2),
        "5 iterations": Case("yolov3", 5, 2),
        "truth_thresh": Case("yolov3", 2, 2, truths=TRUTHS[:1], options={"truth_thresh": 0.2}),
        # Debian's darknet does not train it.
        "region": Case("yolov2", 1, 2, truths=TRUTHS[:1], has_updates=False),
        # Its first two layers differ by 3e-3, the others by less than 1e-4. There the engine agrees
        # with its own computation in float64 to 1e-5.
        "yolov3-tiny": Case("yolov3-tiny", 1, 1, tolerance=3e-3),
    },
    "alexeyab": {
        "mse": _steps(),
        "giou": _steps(iou_loss="giou", iou_normalizer=0.5, obj_normalizer=0.4, ignore_thresh=0.05),
        "ciou": _steps(
            iou_loss="ciou",
            iou_normalizer=0.07,
            iou_thresh=0.213,
            scale_x_y=1.05,
            max_delta=5,
            ignore_thresh=0.1,
            label_smooth_eps=0.1,
        ),
        "diou": _steps(iou_loss="diou", iou_thresh=0.1, iou_thresh_kind="giou"),
        "iou": _steps(
            iou_loss="iou",
            iou_thresh=0.2,
            counters_per_class="10,20,5",
            cls_normalizer=0.5,
            max_delta=3,
        ),
        "focal": _steps(focal_loss=1, iou_thresh=0.2),
        "smooth": _steps(objectness_smooth=1, ignore_thresh=0.1),
        "new_coords": Case("scaled", 5, 2, first_head=True, options={"iou_loss": "ciou"}),
        "gaussian": Case("gaussian", 5, 2, first_head=True),
        "attention": Case("attention", 5, 2, options={"iou_loss": "giou"}),
        "two heads": Case("yolov3", 1, 1, options={"iou_loss": "ciou", "iou_thresh": 0.2}),
        "yolov4": Case("yolov4", 1, 1),
        "rare": Case("rare", 1, 1),
        "uncertain": Case("gaussian", 1, 1, options={"iou_loss": "ciou", "uc_normalizer": 0.5}),
        "region": Case("yolov2", 1, 1),
    },
}
"""What is compared with the program of a fork."""


@dataclass(frozen=True)
class Training:
    """What a training run leaves.

    Attributes:
        losses: The loss of each iteration.
        regions: What the heads printed or reported, one after the other.
        weights: The weights file after the last iteration.
        log: What was printed.
    """

    losses: list[float]
    regions: list[list[float]]
    weights: Path
    log: str = ""


def training_cfg(cfg: Cfg, iterations: int, subdivisions: int = 2) -> Cfg:
    """Return a network that trains without augmentation, at a constant rate."""
    new = cfg.copy()
    settings: dict[str, str | float] = {
        "batch": 2 * subdivisions,
        "subdivisions": subdivisions,
        "max_batches": iterations,
        "policy": "constant",
        "learning_rate": 0.001,
        "momentum": 0.9,
        "decay": 0.0005,
        "burn_in": 0,
        "hue": 0,
        "saturation": 1,
        "exposure": 1,
        "angle": 0,
        "flip": 0,
    }
    for key, value in settings.items():
        new.net.set(key, value)
    for section in new.layers:
        if section.kind in ("yolo", "Gaussian_yolo", "region"):
            section.set("jitter", 0)
            section.set("random", 0)
    return new


def mirrored_image(cfg: Cfg) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image that is its own mirror image, shape (height, width, 3).

    Every pixel has a colour of its own: in areas of one colour, rounding would decide which cell
    of a window has the maximum.
    """
    width, height = cfg.size_wh
    noise = uniform(SEED, height * width * 3).reshape(height, width, 3)
    half = np.rint((noise[:, : width // 2] + 1) * 127.5).astype(np.uint8)
    return np.concatenate([half, half[:, ::-1]], axis=1)


def darknet_training(darknet: Darknet, folder: Path, case: Case) -> Training:
    """Train with darknet."""
    cfg = case.cfg()
    (folder / "backup").mkdir(parents=True)
    class_count = max(section.integer("classes", 0) for section in cfg.layers)
    Image.fromarray(mirrored_image(cfg)).save(folder / "0.png")
    lines = (" ".join(map(str, truth)) + "\n" for truth in with_mirrored(case.truths))
    (folder / "0.txt").write_text("".join(lines))
    (folder / "list.txt").write_text("0.png\n" * 200)
    (folder / "n.names").write_text("".join(f"{number}\n" for number in range(class_count)))
    lists = {"train": "list.txt", "valid": "list.txt", "names": "n.names"}
    (folder / "n.data").write_text(
        data_file(class_count=class_count, backup="backup", results="backup", **lists)
    )
    (folder / "n.cfg").write_bytes(cfg.encode())
    (folder / "n.weights").write_bytes(seeded_start(cfg))
    argv = train_command(darknet, data="n.data", cfg="n.cfg", weights="n.weights", resume=True)
    # Line by line, because messages on stderr would otherwise cut lines of stdout in two.
    argv = ("stdbuf", "-oL", *argv)
    finished = process.run(argv, cwd=folder, timeout_s=TIMEOUT_S)
    pattern = PJREDDIE_REGION if darknet.fork.name == "pjreddie" else ALEXEYAB_REGION
    return Training(
        losses=[float(found[1]) for found in ITERATION.finditer(finished.output)],
        regions=[[float(x) for x in found.groups()] for found in pattern.finditer(finished.output)],
        weights=folder / "backup" / "n_final.weights",
        log=finished.output,
    )


def engine_training(fork: ForkName, folder: Path, case: Case) -> Training:
    """Train with the torch engine."""
    cfg, truths = case.cfg(), with_mirrored(case.truths)
    folder.mkdir(parents=True, exist_ok=True)
    path, final = folder / "start.weights", folder / "final.weights"
    path.write_bytes(seeded_start(cfg))
    network = TorchNetwork(cfg, rules_for(fork, gpu=False, with_defects=True))
    load_weights(network, path)
    heads, optimizer = Heads(network), sgd(network)
    batch, subdivisions = cfg.net.integer("batch", 1), cfg.net.integer("subdivisions", 1)
    part = batch // subdivisions
    pixels = torch.from_numpy(mirrored_image(cfg).transpose(2, 0, 1).astype(np.float32) / 255)
    images = pixels.expand(part, -1, -1, -1)
    rows = torch.tensor([[*box, class_id] for class_id, *box in truths]).expand(part, -1, -1)
    targets = heads.targets(rows, cfg.size_wh, torch.device("cpu"))
    losses: list[float] = []
    figures: list[HeadFigures] = []
    seen = 0
    for iteration in range(1, cfg.net.integer("max_batches", 0) + 1):
        total = 0.0
        optimizer.zero_grad()
        for _ in range(subdivisions):
            seen += part
            loss, results = heads.loss(network(images), targets, cfg.size_wh, seen)
            torch.autograd.backward(loss / batch)
            total += float(loss.detach()) / batch
            figures += [result.figures() for result in results]
        set_rate(optimizer, learning_rate(cfg.net, iteration))
        optimizer.step()
        losses.append(total)
    WeightsCopy(network, seen).save(final)
    return Training(losses, [_printed(fork, row) for row in figures], final)


def _printed(fork: ForkName, row: HeadFigures) -> list[float]:
    """Return the numbers of a head that the fork prints, in their order."""
    if fork == "pjreddie":
        return [
            row.iou,
            row.class_score,
            row.obj,
            row.no_obj,
            row.recall50,
            row.recall75,
            row.count,
        ]
    return [row.iou, row.count, row.class_loss, row.iou_loss, row.total_loss]


def with_mirrored(truths: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Return truths and their mirror images."""
    mirrored = [(class_id, 1 - x, *rest) for class_id, x, *rest in truths]
    return sorted({*truths, *mirrored})


def seeded_start(cfg: Cfg) -> bytes:
    """Return the weights from which a test starts."""
    return seeded_weights(cfg, SEED)


def updates(before: bytes, after: Path) -> Floats:
    """Return by how much each parameter of a weights file changed."""
    start = np.frombuffer(before[20:], "<f4")
    change: Floats = np.frombuffer(after.read_bytes()[20:], "<f4") - start
    return change


def write_golden(program: Path) -> None:
    """Write the losses that a program prints."""
    darknet = probe(program, "argument")
    losses = {}
    for name, case in CASES[darknet.fork.name].items():
        with tempfile.TemporaryDirectory() as folder:
            losses[name] = darknet_training(darknet, Path(folder) / "run", case).losses
    text = json.dumps(losses, indent=1) + "\n"
    (LOSSES / f"{darknet.fork.name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
