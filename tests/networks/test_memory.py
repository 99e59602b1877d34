"""Estimates of GPU memory against hand calculations, reports of users and a real darknet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oiyolo.networks.builders import build, stock
from oiyolo.networks.cfg import parse
from oiyolo.networks.layers import heads_of
from oiyolo.networks.memory import CONTEXT_BYTES, choose_subdivisions, estimate_memory, largest_size
from oiyolo.networks.schedule import Schedule

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.lint import ForkName

GIB = 1 << 30


def test_a_small_network_needs_the_memory_computed_by_hand(small_text: str) -> None:
    estimate = estimate_memory(parse(small_text, path="n.cfg"), fork="pjreddie")
    # Outputs of 32x32x8, 16x16x8, 16x16x14 and 16x16x14: four arrays with batch normalisation,
    # three for the max-pooling layer, two for the convolution, three for the head.
    outputs = 4 * 32 * 32 * 8 + 3 * 16 * 16 * 8 + 2 * 16 * 16 * 14 + 3 * 16 * 16 * 14
    assert estimate.image_bytes == 4 * (outputs + 2 * 64 * 64 * 3 + 200 * 6)
    assert estimate.workspace_bytes == 4 * 32 * 32 * 3 * 3 * 3
    assert estimate.fixed_bytes == CONTEXT_BYTES + 4 * 3 * (248 + 126)
    assert estimate.size_wh == (64, 64)


@pytest.mark.parametrize(
    ("change", "more"),
    [
        (("activation=leaky", "activation=mish"), 4 * 32 * 32 * 8),
        (("channels=3", "channels=3\nadam=1"), 0),
        (("batch_normalize=1\n", ""), -2 * 4 * 32 * 32 * 8),
    ],
)
def test_options_change_what_a_layer_stores(
    small_text: str, change: tuple[str, str], more: int
) -> None:
    plain = estimate_memory(parse(small_text, path="n.cfg"))
    other = estimate_memory(parse(small_text.replace(*change), path="n.cfg"))
    assert other.image_bytes - plain.image_bytes == more
    assert (other.fixed_bytes > plain.fixed_bytes) == ("adam" in change[1])


@pytest.mark.parametrize(
    ("size_wh", "random", "fork", "largest"),
    [
        ((416, 416), "0", "alexeyab", (416, 416)),
        # AlexeyAB's darknet prints 608 x 608 first for a network of 416, and 896 x 896 for 608.
        ((416, 416), "1", "alexeyab", (608, 608)),
        ((608, 608), "1", "alexeyab", (896, 896)),
        ((512, 512), "1", "hank", (736, 736)),
        ((416, 608), "1", "alexeyab", (608, 896)),
        ((416, 416), "1.2", "alexeyab", (544, 544)),
        ((96, 96), "1", "pjreddie", (608, 608)),
        ((416, 416), "1", "pjreddie", (608, 608)),
        ((832, 832), "1", "pjreddie", (832, 832)),
        ((96, 96), "1", None, (608, 608)),
    ],
)
def test_random_training_sizes_have_a_largest_size(
    size_wh: tuple[int, int], random: str, fork: ForkName | None, largest: tuple[int, int]
) -> None:
    cfg = build("yolov3", class_count=1, size_wh=size_wh)
    cfg.layers[-1].set("random", random)
    assert largest_size(cfg, fork) == largest


def yolov4(side_px: int, *, multi_scale: bool) -> Cfg:
    return build("yolov4", class_count=80, size_wh=(side_px, side_px), multi_scale=multi_scale)


# What users of AlexeyAB's darknet reported for YOLOv4 with random=1, all with cuDNN.
@pytest.mark.parametrize(
    ("side_px", "card_gib", "images", "fits"),
    [
        (608, 8.0, 1, True),  # github.com/AlexeyAB/darknet/issues/5406
        (608, 8.0, 2, False),
        (608, 11.0, 1, True),  # 6872 and 5495
        (608, 11.0, 4, False),
        (512, 32.0, 8, True),  # 8700, on a V100
        (608, 32.0, 4, True),
        (608, 32.0, 8, False),
    ],
)
def test_the_estimate_agrees_with_reports_of_users(
    side_px: int, card_gib: float, images: int, fits: bool
) -> None:
    estimate = estimate_memory(yolov4(side_px, multi_scale=True), fork="alexeyab", cudnn=True)
    assert (estimate.bytes_for(images) <= card_gib * GIB) == fits


@pytest.mark.parametrize(
    ("side_px", "images", "printed_mb"),
    [(608, 1, 95.22), (608, 4, 412.28), (512, 8, 555.0)],  # 6872 and 8700
)
def test_the_workspace_is_a_close_upper_bound_of_cudnns(
    side_px: int, images: int, printed_mb: float
) -> None:
    estimate = estimate_memory(yolov4(side_px, multi_scale=False), fork="alexeyab", cudnn=True)
    assert 1.0 <= images * estimate.workspace_bytes / 1e6 / printed_mb <= 1.15


def test_torch_needs_what_was_measured_and_less_than_darknet() -> None:
    cfg = stock("yolov3").copy()
    cfg.net.set("width", 416)
    cfg.net.set("height", 416)
    for head in heads_of(cfg):
        head.set("random", 0)
    torch = estimate_memory(cfg, fork="alexeyab", torch=True).bytes_for(64) / GIB
    darknet = estimate_memory(cfg, fork="alexeyab", cudnn=True).bytes_for(64) / GIB
    assert 13 < torch < 2 * 13
    assert torch < darknet
    cfg.net.set("batch", 64)
    assert choose_subdivisions(cfg, free_bytes=15 * GIB, fork="alexeyab", torch=True) == 2


@pytest.mark.parametrize(
    ("free_gib", "subdivisions"), [(1, 64), (4, 64), (8, 32), (12, 16), (24, 8), (80, 2)]
)
def test_a_larger_gpu_needs_fewer_subdivisions(free_gib: int, subdivisions: int) -> None:
    cfg = build("yolov3", class_count=1, size_wh=(416, 416))
    assert choose_subdivisions(cfg, free_bytes=free_gib * GIB, fork="pjreddie") == subdivisions


@settings(max_examples=20)
@given(st.integers(0, 200 * GIB), st.sampled_from([1, 6, 24, 64]))
def test_the_chosen_subdivisions_divide_the_batch_and_fit(free_bytes: int, batch: int) -> None:
    cfg = build("yolov3-tiny", class_count=3, size_wh=(416, 416))
    cfg.net.set("batch", batch)
    parts = choose_subdivisions(cfg, free_bytes=free_bytes)
    assert batch % parts == 0
    fits = estimate_memory(cfg).bytes_for(batch // parts) <= free_bytes
    assert fits or parts == batch


@pytest.mark.darknet
@pytest.mark.slow
@pytest.mark.parametrize(("name", "side_px"), [("demo", 192), ("yolov3-tiny", 160)])
def test_a_real_training_uses_the_estimated_memory_per_image(
    name: str, side_px: int, tmp_path: Path
) -> None:
    """Darknet on a CPU has the same arrays, but one workspace and one copy of the input."""
    darknet = shutil.which("darknet")
    if darknet is None:
        pytest.skip("no darknet on PATH (apt-get install darknet)")
    cfg = build(
        name,
        class_count=1,
        size_wh=(side_px, side_px),
        multi_scale=False,
        schedule=Schedule(8, 1, 0.001, 2, 1, (1,), (0.1,)),
    )
    rss_bytes = {parts: peak_bytes(darknet, cfg, parts, tmp_path) for parts in (1, 8)}
    measured = (rss_bytes[1] - rss_bytes[8]) / 7
    expected = estimate_memory(cfg, fork="pjreddie").image_bytes - 4 * side_px * side_px * 3
    assert measured == pytest.approx(expected, rel=0.05)


def peak_bytes(darknet: str, cfg: Cfg, parts: int, folder: Path) -> int:
    """Return the peak memory of a training of two iterations."""
    cfg.net.set("subdivisions", parts)
    (folder / "n.cfg").write_bytes(cfg.encode())
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "obj.names").write_text("a\n")
    image = folder / "o.jpg"
    Image.fromarray(np.full((96, 96, 3), 90, dtype=np.uint8)).save(image)
    image.with_suffix(".txt").write_text("0 .5 .5 .4 .4\n")
    (folder / "train.txt").write_text(f"{image}\n" * 8)
    rows = ("classes=1", "train=train.txt", "valid=train.txt", "names=obj.names", "backup=weights")
    (folder / "obj.data").write_text("\n".join(rows) + "\n")
    # Through a small process, because a forked child is charged with the memory of its parent.
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], capture_output=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", measure, darknet, "detector", "train", "obj.data", "n.cfg"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    assert (folder / "weights" / "n_final.weights").exists()
    return int(completed.stdout) * 1024
