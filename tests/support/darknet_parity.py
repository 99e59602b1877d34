"""Detections of darknet and of a converted network, on the same weights and pixels.

Weights and pixels come from a bit generator, whose stream numpy guarantees, so they are the same on
every machine. Images have the size of the network, so nothing is resized.

``python -m tests.support.darknet_parity PROGRAM`` writes the golden files anew: a part of what this
darknet (AlexeyAB's) detects with each of the networks in tests/inference/golden.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper
from PIL import Image

from oiyolo.core import process
from oiyolo.darknet.lists import pad
from oiyolo.darknet.program import data_file, probe, valid_command
from oiyolo.inference.convert import convert
from oiyolo.inference.facts import ModelFacts
from oiyolo.networks import cfg as cfgs
from oiyolo.networks.graph import Head, graph
from oiyolo.networks.layers import HEAD_KINDS, head_channels, heads_with_previous, layers
from oiyolo.networks.parameters import read_parameters
from oiyolo.networks.stock import TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt
    import onnx

    from oiyolo.darknet.program import Darknet
    from oiyolo.networks.cfg import Cfg

GOLDEN: Final = Path(__file__).parents[1] / "inference" / "golden"
SEED: Final = 1
GOLDEN_IMAGES: Final = 2
GOLDEN_ROWS: Final = 60
ALL_FORKS: Final = ("yolov3", "yolov2", "depthwise")
"""Golden networks that every fork computes; the others have layers of AlexeyAB's."""
MEASURED_IMAGES: Final = 12
"""Enough that deep networks do not magnify the rounding of floats beyond the tolerances."""
TIMEOUT_S: Final = 300.0
HEADER: Final = struct.pack("<3iQ", 0, 2, 0, 0)
Floats = np.ndarray[Any, np.dtype[np.float64]]


def uniform(seed: int, count: int) -> Floats:
    """Return numbers from -1 to 1."""
    bits = np.random.PCG64(seed).random_raw(count) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-52 - 1


def seeded_weights(
    cfg: Cfg, seed: int, statistics: dict[int, tuple[Floats, Floats]] | None = None
) -> bytes:
    """Return a weights file under which activations neither vanish nor explode.

    Args:
        cfg: The network.
        seed: Seed of the parameters.
        statistics: Means and variances of the normalized layers' convolutions, by layer; by default
            0 and 1.
    """
    parts = [HEADER]
    network = layers(cfg)
    for layer, following in zip(network, [*network[1:], None], strict=True):
        fan_in = max(1, sum(s.count for s in layer.segments if s.name == "weights"))
        fan_in = fan_in // max(1, layer.output_whc[2])
        is_before_head = following is not None and following.kind in HEAD_KINDS
        for place, segment in enumerate(layer.segments):
            noise = uniform(seed * 10_000 + layer.index * 10 + place, segment.count)
            means, variances = (statistics or {}).get(layer.index, (0 * noise, 0 * noise + 1))
            values = {
                "biases": 0.3 * noise,
                "scales": 1 + 0.3 * noise,
                "means": means,
                "variances": variances,
                # Uniform numbers have the variance 1/3.
                "weights": noise * np.sqrt((3 if is_before_head else 6) / max(1, fan_in)),
            }
            parts.append(np.asarray(values[segment.name], "<f4").tobytes())
    return b"".join(parts)


def seeded_images(cfg: Cfg, seed: int, count: int) -> npt.NDArray[np.uint8]:
    """Return blocks of random colours, shape (count, height, width, 3)."""
    width, height = cfg.size_wh
    cells = (count, -(-height // 8), -(-width // 8), 3)
    colours = np.rint((uniform(seed, int(np.prod(cells))) + 1) * 127.5).astype(np.uint8)
    blocks = np.kron(colours.reshape(cells), np.ones((1, 8, 8, 1), np.uint8))
    return np.ascontiguousarray(blocks[:, :height, :width])


def darknet_rows(
    darknet: Darknet,
    folder: Path,
    cfg: Cfg,
    weights: bytes,
    images: Iterable[npt.NDArray[np.uint8]],
) -> Floats:
    """Return what ``darknet detector valid`` prints.

    Returns:
        An array (detections, 7): image, class, confidence, and left, top, right and bottom in
        pixels counted from 1, within the image.
    """
    results = folder / "results"
    results.mkdir(parents=True)
    paths = []
    for number, pixels in enumerate(images):
        paths.append(path := f"{number}.png")
        Image.fromarray(pixels).save(folder / path)
    class_count = class_count_of(cfg)
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in pad(paths)))
    (folder / "n.names").write_text("".join(f"{number}\n" for number in range(class_count)))
    lists = {"train": "list.txt", "valid": "list.txt", "names": "n.names"}
    (folder / "n.data").write_text(
        data_file(class_count=class_count, backup="results", results="results", **lists)
    )
    (folder / "n.cfg").write_bytes(cfg.encode())
    (folder / "n.weights").write_bytes(weights)
    argv = valid_command(darknet, data="n.data", cfg="n.cfg", weights="n.weights", prefix="d_")
    finished = process.run(argv, cwd=folder, timeout_s=TIMEOUT_S)
    rows = {
        (float(words[0]), float(class_id), *map(float, words[1:]))
        for class_id in range(class_count)
        for words in map(str.split, (results / f"d_{class_id}.txt").read_text().splitlines())
    }
    assert rows, finished.output[-2000:]
    return np.array(sorted(rows))


def class_count_of(cfg: Cfg) -> int:
    """Return the number of classes of a network."""
    heads = [node.operation for node in graph(cfg) if isinstance(node.operation, Head)]
    return heads[0].class_count


@dataclass(frozen=True)
class Comparison:
    """How two sets of detections differ.

    Attributes:
        count: Number of darknet's detections.
        box_px: Largest distance of a side.
        confidence: Largest difference of a confidence.
        missing: Number of detections of the model that darknet did not print, although no
            overlapping box could have suppressed them.
    """

    count: int
    box_px: float
    confidence: float
    missing: int


def compare(
    rows: Floats,
    boxes: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    size_wh: tuple[int, int],
    *,
    threshold: float = 0.01,
    nms_iou: float = 0.4,
) -> Comparison:
    """Compare darknet's detections with all boxes of a model.

    Args:
        rows: As ``darknet_rows`` returns them.
        boxes: Centres and sizes as fractions, shape (images, boxes, 4).
        scores: Shape (images, boxes, classes).
        size_wh: Width and height of the images.
        threshold: Confidence that is surely above darknet's threshold.
        nms_iou: IoU that surely suppresses no box.
    """
    size = np.array([*size_wh, *size_wh])
    halves = boxes[..., 2:] / 2
    sides = [boxes[..., :2] - halves, boxes[..., :2] + halves]
    corners = np.concatenate(sides, axis=2).astype(np.float64)
    printed = corners * size + 1
    printed[..., :2] = np.maximum(printed[..., :2], 1)
    printed[..., 2:] = np.minimum(printed[..., 2:], size_wh)
    worst = np.zeros(2)
    missing = 0
    for image in range(len(boxes)):
        for class_id in range(scores.shape[2]):
            found = rows[(rows[:, 0] == image) & (rows[:, 1] == class_id)]
            own = scores[image, :, class_id].astype(np.float64)
            px = np.abs(found[:, None, 3:] - printed[image][None]).max(axis=2)
            off = np.abs(found[:, 2, None] - own)
            nearest = np.argmin(px / 0.5 + off / 1e-3, axis=1)
            if len(found):
                each = np.arange(len(found))
                pair = [px[each, nearest].max(), off[each, nearest].max()]
                worst = np.maximum(worst, pair)
            alone = own > threshold
            alone[nearest] = False
            ious = _ious(corners[image][alone], corners[image][nearest])
            missing += int((ious < nms_iou).all(axis=1).sum())
    return Comparison(len(rows), float(worst[0]), float(worst[1]), missing)


def _ious(a: Floats, b: Floats) -> Floats:
    low, high = (
        np.maximum(a[:, None, :2], b[None, :, :2]),
        np.minimum(a[:, None, 2:], b[None, :, 2:]),
    )
    inside = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(x[:, 2:] - x[:, :2], 0, None).prod(axis=1) for x in (a, b)]
    ious: Floats = inside / np.maximum(areas[0][:, None] + areas[1][None] - inside, 1e-9)
    return ious


def model_rows(
    cfg: Cfg, weights: Path, images: npt.NDArray[np.uint8], *, fork: str = ""
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return boxes and scores of the converted network."""
    names = tuple(str(number) for number in range(class_count_of(cfg)))
    model = convert(cfg, weights, ModelFacts(names, fork=fork))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    boxes, scores = session.run(["boxes", "scores"], {"images": as_input(images)})
    return boxes, scores


def stock_network(name: str) -> Cfg:
    """Return a network of the project, for two classes and small images."""
    cfg = cfgs.parse(TEXTS[name](), path=name)
    for key, value in {"width": 96, "height": 64, "batch": 1, "subdivisions": 1}.items():
        cfg.net.set(key, value)
    for before, head in heads_with_previous(cfg):
        head.set("classes", 2)
        before.set("filters", head_channels(head))
    return cfg


def measured_weights(cfg: Cfg, path: Path) -> bytes:
    """Return weights for a deep network, whose statistics are those of images.

    They do not magnify the rounding of floats as other random weights would.

    Args:
        cfg: The network.
        path: File for weights that are needed meanwhile.
    """
    path.write_bytes(seeded_weights(cfg, SEED))
    images = seeded_images(cfg, SEED, MEASURED_IMAGES)
    return seeded_weights(cfg, SEED, measured_statistics(cfg, path, images))


def photographs(folder: Path, size_wh: tuple[int, int], count: int) -> npt.NDArray[np.uint8]:
    """Return the first photographs of a folder, stretched, shape (count, height, width, 3)."""
    paths = sorted(folder.glob("*.jpg"))[:count]
    images = (Image.open(path).convert("RGB").resize(size_wh) for path in paths)
    return np.stack([np.asarray(image) for image in images])


def raw_output_names(model: onnx.ModelProto) -> list[str]:
    """Return the names of the outputs of a converted network's last convolutions, by head."""
    made = {node.output[0]: node for node in model.graph.node}
    return [
        made[node.input[0]].input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and helper.get_node_attr_value(node, "perm") == [0, 1, 3, 2]
    ]


def raw_outputs(model: onnx.ModelProto, images: npt.NDArray[np.float32]) -> list[Any]:
    """Return what a converted network computes in front of its heads."""
    names = raw_output_names(model)
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    outputs: list[Any] = session.run(names, {"images": images})
    return outputs


def as_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return images as a network gets them, shape (images, 3, height, width), from 0 to 1."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


def measured_statistics(
    cfg: Cfg, weights: Path, images: npt.NDArray[np.uint8]
) -> dict[int, tuple[Floats, Floats]]:
    """Return means and variances of all normalized convolutions, each after the one before it.

    Args:
        cfg: The network.
        weights: Weights whose means are 0 and variances 1.
        images: The images to measure with.
    """
    names = tuple(str(number) for number in range(class_count_of(cfg)))
    body = (model := convert(cfg, weights, ModelFacts(names))).graph
    parameters = read_parameters(weights, cfg)
    indices = [index for index, stored in enumerate(parameters) if "scales" in stored]
    constants = {tensor.name: tensor for tensor in body.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in body.node:
        nodes.append(node)
        index = int(node.name.removeprefix("layer_")) if node.op_type == "Conv" else -1
        if index in indices:
            # The convolution alone, then a normalization that measures.
            body.initializer.remove(constants[node.input.pop()])
            for name in ("scales", "biases"):
                values = parameters[index][name].reshape(1, -1, 1, 1)
                body.initializer.append(numpy_helper.from_array(values, f"{index}_{name}"))
            nodes += measuring_nodes(str(index), node.output[0])
            node.output[0] = f"{index}_raw"
    del body.node[:]
    body.node.extend(nodes)
    outputs = [f"{index}_{name}" for index in indices for name in ("mean", "variance")]
    for output in outputs:
        body.output.append(helper.make_tensor_value_info(output, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    values = iter(session.run(outputs, {"images": as_input(images)}))
    return {index: (next(values).ravel(), next(values).ravel()) for index in indices}


def measuring_nodes(index: str, output: str) -> list[onnx.NodeProto]:
    """Return the nodes that normalize a convolution's output, which contains its scales."""

    def node(kind: str, inputs: str, name: str, **attributes: Any) -> onnx.NodeProto:
        full = [f"{index}_{word}" for word in inputs.split()]
        return helper.make_node(kind, full, [name], **attributes)

    mean = {"axes": [0, 2, 3]}
    return [
        node("Div", "raw scales", f"{index}_plain"),
        node("ReduceMean", "plain", f"{index}_mean", **mean),
        node("Sub", "plain mean", f"{index}_centred"),
        node("Mul", "centred centred", f"{index}_square"),
        node("ReduceMean", "square", f"{index}_variance", **mean),
        node("Sqrt", "variance", f"{index}_deviation"),
        node("Div", "centred deviation", f"{index}_normal"),
        node("Mul", "normal scales", f"{index}_scaled"),
        node("Add", "scaled biases", output),
    ]


def write_golden(program: Path) -> None:
    """Write the golden file of every network, from the detections of a darknet program."""
    darknet = probe(program, "argument")
    for path in sorted(GOLDEN.glob("*.cfg")):
        cfg = cfgs.read(path)
        images = seeded_images(cfg, SEED, GOLDEN_IMAGES)
        with tempfile.TemporaryDirectory() as folder:
            rows = darknet_rows(darknet, Path(folder), cfg, seeded_weights(cfg, SEED), images)
        # Evenly from the most to the least confident.
        order = np.argsort(-rows[:, 2], kind="stable")
        picked = order[np.linspace(0, len(order) - 1, GOLDEN_ROWS).astype(int)]
        header = "image class confidence left top right bottom"
        path_out = path.with_suffix(".txt")
        np.savetxt(path_out, rows[np.sort(picked)], "%d %d %.6f %.4f %.4f %.4f %.4f", header=header)


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
