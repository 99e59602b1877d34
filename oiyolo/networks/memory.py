"""How much memory of a GPU a training takes, worked out from the shapes of its layers.

Darknet keeps all that a layer needs for one part of a batch (``batch`` / ``subdivisions`` images)
from the first iteration to the last, so that what is counted once holds for the whole training.
What counts is the largest size it will train at: with ``random`` that is 608x608 in pjreddie's
line whatever the file says, and in the others 1.4 times the file's own, or as often as ``random``
says.

Sources are pjreddie f6afaabc and AlexeyAB 59596d78; hank-ai's line is a fork of the latter. Numbers
of others that the sum was held against stand in ``tests/networks/test_memory.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.networks.layers import FLOAT_BYTES, HEAD_KINDS, layers
from oiyolo.networks.lint import MULTI_SCALE_MAX_PX
from oiyolo.networks.schedule import divisors

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.layers import Layer
    from oiyolo.networks.lint import DarknetLine

CONTEXT_BYTES: Final = 600 << 20
"""What CUDA, cuBLAS and cuDNN take for themselves before darknet asks for anything."""

SPARE_SHARE: Final = 0.05
"""Of the free memory, what is not planned for: others use it too, and it comes in pieces."""

_RESIZE_STEP_PX: Final = 32
_RANDOM_COEFFICIENT: Final = 1.4
_MOST_WORKSPACE_BYTES: Final = 2_000_000_000
"""pjreddie's line asks cuDNN for no more (src/convolutional_layer.c); AlexeyAB's never took it."""

_NUMBERS_PER_TRUTH: Final = 6
_TRUTHS: Final = 200

# Arrays of the size of a layer's output. Nearly all layers have one of outputs and one of what is
# learned from them (the ``make_*_layer`` functions in src/).
_USUAL_ARRAYS: Final = 2
_ARRAYS: Final = {
    "maxpool": 3,  # and where each maximum came from (src/maxpool_layer.c)
    "yolo": 3,  # and AlexeyAB's output_avg_gpu (src/yolo_layer.c:63)
    "Gaussian_yolo": 3,
    "batchnorm": 4,
    "normalization": 4,
    "dropout": 1,  # its outputs are those of the layer before
    "crop": 1,
}
_NORMALISED: Final = frozenset({"convolutional", "connected"})
_NEED_INPUT: Final = frozenset({"swish", "mish", "hard_mish"})

# Arrays of the size of a layer's weights: the weights and their updates, in which the momentum is
# kept; both once more in half as many bytes for tensor cores (src/convolutional_layer.c:704-708).
_WEIGHT_ARRAYS: Final = 3
_ADAM_ARRAYS: Final = 2


@dataclass(frozen=True)
class Need:
    """What a training takes of each GPU's memory.

    Attributes:
        size_wh: The largest input it will train at, in pixels.
        image_bytes: For each image of a part of a batch: outputs, deltas, what batch normalisation
            keeps, and the input itself.
        workspace_bytes: For each of them what a convolution works in, by which all take turns.
        fixed_bytes: Whatever the batch: weights, their updates, and what CUDA takes for itself.
    """

    size_wh: tuple[int, int]
    image_bytes: int
    workspace_bytes: int
    fixed_bytes: int

    def bytes_for(self, images: int) -> int:
        """Give the bytes for parts of so many images."""
        workspace = min(images * self.workspace_bytes, _MOST_WORKSPACE_BYTES)
        return self.fixed_bytes + images * self.image_bytes + workspace


def largest_size(cfg: Cfg, line: DarknetLine | None = None) -> tuple[int, int]:
    """Give the largest input that a training of a network will see, in pixels, width by height.

    Args:
        cfg: The network.
        line: The line of darknet that trains it; without it, the larger of all.

    Raises:
        CfgError: A value in the file is no number.
    """
    own = cfg.size_wh
    heads = [layer for layer in cfg.layers if layer.kind in HEAD_KINDS]
    # Darknet asks the last head only (examples/detector.c:63 and src/detector.c:108).
    random = heads[-1].number("random", 0) if heads else 0
    if not random:
        return own
    coefficient = _RANDOM_COEFFICIENT if random == 1 else random
    step = cfg.net.integer("resize_step", _RESIZE_STEP_PX)
    sizes = [own]
    if line != "pjreddie":  # src/detector.c:205
        # In 32-bit floats, and rounded half away from 0, it is the same but for ties.
        scaled = [int(coefficient * side / step + 1.5) * step for side in own]
        sizes.append((scaled[0], scaled[1]))
    if line in {"pjreddie", None}:  # examples/detector.c:65-66
        sizes.append((MULTI_SCALE_MAX_PX, MULTI_SCALE_MAX_PX))
    return max(sizes, key=lambda size: size[0] * size[1])


def need(cfg: Cfg, *, line: DarknetLine | None = None, cudnn: bool = False) -> Need:
    """Work out what a training takes of each GPU's memory.

    Args:
        cfg: The network.
        line: The line of darknet that trains it; without it, the most that any takes.
        cudnn: It is AlexeyAB's or hank-ai's, known to be built with cuDNN, which then keeps no
            second copy of normalised outputs (src/convolutional_layer.c:759). Without it the sum
            is on the safe side.

    Raises:
        CfgError: As ``shapes.layers``.
    """
    size_wh = largest_size(cfg, line)
    sized = cfg
    if size_wh != cfg.size_wh:
        sized = cfg.copy()
        sized.net.set("width", size_wh[0])
        sized.net.set("height", size_wh[1])
    made = layers(sized)
    inputs = size_wh[0] * size_wh[1] * cfg.net.integer("channels", 0)
    copies = 1 if cudnn and line != "pjreddie" else 2
    outputs = sum(_arrays(layer, copies) * _numbers(layer.output_whc) for layer in made)
    image = outputs + 2 * inputs + _TRUTHS * _NUMBERS_PER_TRUTH
    weights = sum(layer.parameter_count for layer in made)
    per_weight = _WEIGHT_ARRAYS + (_ADAM_ARRAYS if cfg.net.integer("adam", 0) else 0)
    # Without cuDNN it is that of one image. What cuDNN asks for grows with the images at once, and
    # stays below that of all of them: AlexeyAB's prints 95 MB for one image of YOLOv4 at 608x608
    # (github.com/AlexeyAB/darknet/issues/6872), 412 for four and, at 512x512, 555 for eight (8700).
    workspace = max((_unrolled(layer) for layer in made), default=0)
    return Need(
        size_wh=size_wh,
        image_bytes=FLOAT_BYTES * image,
        workspace_bytes=FLOAT_BYTES * workspace,
        fixed_bytes=CONTEXT_BYTES + FLOAT_BYTES * per_weight * weights,
    )


def choose_subdivisions(
    cfg: Cfg, *, free_bytes: int, line: DarknetLine | None = None, cudnn: bool = False
) -> int:
    """Give the fewest parts of a batch with which a training fits into a GPU's memory.

    The fewer the better: batch normalisation sees more images at once, and the GPU has more to do
    at a time. Where not even one image fits, the batch is cut into single ones.

    Args:
        cfg: The network, with its batch.
        free_bytes: What is free of the GPU's memory; of several, of the one with the least.
        line: As ``need``.
        cudnn: As ``need``.

    Raises:
        CfgError: As ``shapes.layers``.
    """
    batch = max(1, cfg.net.integer("batch", 1))
    needed = need(cfg, line=line, cudnn=cudnn)
    usable = free_bytes * (1 - SPARE_SHARE)
    fitting = [p for p in divisors(batch) if needed.bytes_for(batch // p) <= usable]
    return fitting[0] if fitting else batch


def _arrays(layer: Layer, copies: int) -> int:
    count = _ARRAYS.get(layer.kind, _USUAL_ARRAYS)
    section = layer.section
    if layer.kind in _NORMALISED and section.integer("batch_normalize", 0):
        count += copies  # x and x_norm
    if section.text("activation") in _NEED_INPUT:
        count += 1  # activation_input
    return count


def _unrolled(layer: Layer) -> int:
    """Give the numbers of a convolution's unrolled input: ``get_workspace_size`` without cuDNN."""
    if layer.kind != "convolutional":
        return 0
    section = layer.section
    width, height, _ = layer.output_whc
    size, groups = section.integer("size", 1), section.integer("groups", 1)
    return width * height * size * size * layer.input_whc[2] // groups


def _numbers(whc: tuple[int, int, int]) -> int:
    return whc[0] * whc[1] * whc[2]
