"""GPU memory that training needs, computed from the shapes of its layers.

Darknet keeps the buffers of every layer for one part of a batch (``batch`` / ``subdivisions``
images) from the first iteration to the last, so the estimate holds for the whole run. The
largest input size decides. With ``random`` it is 608x608 for pjreddie's fork, whatever the file
says; for the others it is the size in the file times 1.4, or times ``random`` unless that is 1.

Sources are pjreddie f6afaabc and AlexeyAB 59596d78; hank-ai's fork is based on the latter.
``tests/networks/test_memory.py`` compares the estimates with numbers that users reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.networks.layers import FLOAT_BYTES, heads_of, layers
from oiyolo.networks.lint import MULTI_SCALE_MAX_PX
from oiyolo.networks.schedule import check_batch, divisors

if TYPE_CHECKING:
    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.layers import Layer
    from oiyolo.networks.lint import ForkName

CONTEXT_BYTES: Final = 600 << 20
"""Memory that CUDA, cuBLAS and cuDNN use before darknet allocates anything."""

SPARE_SHARE: Final = 0.05
"""Fraction of the free memory to leave unused, for other processes and fragmentation."""

_RESIZE_STEP_PX: Final = 32
_RANDOM_COEFFICIENT: Final = 1.4
_MAX_WORKSPACE_BYTES: Final = 2_000_000_000
"""Limit that pjreddie's fork sets for cuDNN (src/convolutional_layer.c); AlexeyAB's stays below."""

_NUMBERS_PER_TRUE_BOX: Final = 6
_MAX_TRUE_BOXES: Final = 200

# Arrays of the size of a layer's output. Nearly all layers have one of outputs and one of deltas
# (the ``make_*_layer`` functions in src/).
_DEFAULT_ARRAYS: Final = 2
_ARRAYS: Final = {
    "maxpool": 3,  # and the index of each maximum (src/maxpool_layer.c)
    "yolo": 3,  # and AlexeyAB's output_avg_gpu (src/yolo_layer.c:63)
    "Gaussian_yolo": 3,
    "batchnorm": 4,
    "normalization": 4,
    "dropout": 1,  # its outputs are those of the layer before
    "crop": 1,
}
_NORMALIZABLE: Final = frozenset({"convolutional", "connected"})
_KEEPS_INPUT: Final = frozenset({"swish", "mish", "hard_mish"})

# Arrays of the size of a layer's weights: the weights and their updates, which hold the momentum;
# both again in half precision for tensor cores (src/convolutional_layer.c:704-708).
_TORCH_SHARE: Final = 0.4
"""What PyTorch keeps of an image, as a share of what darknet keeps without cuDNN: of a convolution
two arrays in half precision instead of four in single precision, and of a maximum its index in
64 bits. Measured for yolov3 at 416x416, with 64 images at once: 13 GiB (docs/gpu.md), where this
gives 20; what a GPU without half precision needs is more."""

_WEIGHT_ARRAYS: Final = 3
_ADAM_ARRAYS: Final = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that training needs on each GPU.

    Attributes:
        size_wh: Largest input size during the training, in pixels.
        image_bytes: Bytes per image of a part of a batch: outputs, deltas, buffers of batch
            normalisation, and the input itself.
        workspace_bytes: Bytes per image of the workspace that all convolutions share.
        fixed_bytes: Bytes that do not depend on the batch: weights, their updates, and CUDA itself.
    """

    size_wh: tuple[int, int]
    image_bytes: int
    workspace_bytes: int
    fixed_bytes: int

    def bytes_for(self, images: int) -> int:
        """Return the bytes needed for parts of ``images`` images."""
        workspace = min(images * self.workspace_bytes, _MAX_WORKSPACE_BYTES)
        return self.fixed_bytes + images * self.image_bytes + workspace


def largest_size(cfg: Cfg, fork: ForkName | None = None) -> tuple[int, int]:
    """Return the largest input size during the training of a network, width and height in pixels.

    Args:
        cfg: The network.
        fork: Fork of darknet that trains it; ``None`` for the largest size of all forks.

    Raises:
        CfgError: A value in the file is not a number.
    """
    base_wh = cfg.size_wh
    heads = heads_of(cfg)
    # Darknet reads ``random`` of the last head only (examples/detector.c:63, src/detector.c:108).
    random = heads[-1].number("random", 0) if heads else 0
    if not random:
        return base_wh
    coefficient = _RANDOM_COEFFICIENT if random == 1 else random
    step = cfg.net.integer("resize_step", _RESIZE_STEP_PX)
    sizes = [base_wh]
    if fork != "pjreddie":  # src/detector.c:205
        # Darknet computes in 32-bit floats and rounds half away from 0; only ties differ.
        scaled = [int(coefficient * side / step + 1.5) * step for side in base_wh]
        sizes.append((scaled[0], scaled[1]))
    if fork in {"pjreddie", None}:  # examples/detector.c:65-66
        sizes.append((MULTI_SCALE_MAX_PX, MULTI_SCALE_MAX_PX))
    return max(sizes, key=lambda size: size[0] * size[1])


def estimate_memory(
    cfg: Cfg, *, fork: ForkName | None = None, cudnn: bool = False, torch: bool = False
) -> MemoryEstimate:
    """Estimate the memory that training needs on each GPU.

    Args:
        cfg: The network.
        fork: Fork of darknet that trains it; ``None`` for the highest estimate of all forks.
        cudnn: Whether darknet is built with cuDNN. AlexeyAB's and hank-ai's then keep no second
            copy of normalised outputs (src/convolutional_layer.c:759). If unknown, ``False`` is
            the safe choice.
        torch: Whether PyTorch trains it, as the fork does.

    Raises:
        CfgError: As for ``layers.layers``.
    """
    size_wh = largest_size(cfg, fork)
    sized = cfg
    if size_wh != cfg.size_wh:
        sized = cfg.copy()
        sized.net.set("width", size_wh[0])
        sized.net.set("height", size_wh[1])
    network_layers = layers(sized)
    inputs = size_wh[0] * size_wh[1] * cfg.net.integer("channels", 0)
    copies = 1 if cudnn and fork != "pjreddie" else 2
    outputs = sum(
        _array_count(layer, copies) * _element_count(layer.output_whc) for layer in network_layers
    )
    image = outputs + 2 * inputs + _MAX_TRUE_BOXES * _NUMBERS_PER_TRUE_BOX
    weights = sum(layer.parameter_count for layer in network_layers)
    per_weight = _WEIGHT_ARRAYS + (_ADAM_ARRAYS if cfg.net.integer("adam", 0) else 0)
    # Without cuDNN the workspace is that of a single image. With cuDNN it grows with the images in
    # a part and stays below their sum: AlexeyAB's prints 95 MB for one image of YOLOv4 at 608x608
    # (github.com/AlexeyAB/darknet/issues/6872), 412 for four and, at 512x512, 555 for eight (8700).
    workspace = max((_workspace_elements(layer) for layer in network_layers), default=0)
    return MemoryEstimate(
        size_wh=size_wh,
        image_bytes=int(FLOAT_BYTES * image * (_TORCH_SHARE if torch else 1)),
        workspace_bytes=FLOAT_BYTES * workspace,
        fixed_bytes=CONTEXT_BYTES + FLOAT_BYTES * per_weight * weights,
    )


def choose_subdivisions(
    cfg: Cfg,
    *,
    free_bytes: int,
    fork: ForkName | None = None,
    cudnn: bool = False,
    torch: bool = False,
) -> int:
    """Return the fewest subdivisions with which training fits into the memory of a GPU.

    Fewer are better: batch normalisation sees more images at a time, and the GPU is used better.
    If not even a single image fits, every part is a single image.

    Args:
        cfg: The network, with its batch size.
        free_bytes: Free memory of the GPU; with several, of the one that has the least.
        fork: Fork of darknet, as for ``estimate_memory``.
        cudnn: Whether darknet is built with cuDNN, as for ``estimate_memory``.
        torch: Whether PyTorch trains it.

    Raises:
        UsageError: The batch is implausibly large.
        CfgError: As for ``layers.layers``.
    """
    batch = max(1, cfg.net.integer("batch", 1))
    check_batch(batch)
    estimate = estimate_memory(cfg, fork=fork, cudnn=cudnn, torch=torch)
    budget_bytes = free_bytes * (1 - SPARE_SHARE)
    fitting = [p for p in divisors(batch) if estimate.bytes_for(batch // p) <= budget_bytes]
    return fitting[0] if fitting else batch


def _array_count(layer: Layer, copies: int) -> int:
    count = _ARRAYS.get(layer.kind, _DEFAULT_ARRAYS)
    section = layer.section
    if layer.kind in _NORMALIZABLE and section.integer("batch_normalize", 0):
        count += copies  # x and x_norm
    if section.text("activation") in _KEEPS_INPUT:
        count += 1  # activation_input
    return count


def _workspace_elements(layer: Layer) -> int:
    """Return the elements of a convolution's unrolled input (get_workspace_size without cuDNN)."""
    if layer.kind != "convolutional":
        return 0
    section = layer.section
    width, height, _ = layer.output_whc
    size, groups = section.integer("size", 1), section.integer("groups", 1)
    return width * height * size * size * layer.input_whc[2] // groups


def _element_count(whc: tuple[int, int, int]) -> int:
    return whc[0] * whc[1] * whc[2]
