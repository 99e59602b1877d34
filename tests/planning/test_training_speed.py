"""Estimates of the duration of a training iteration, against figures measured elsewhere."""

from __future__ import annotations

import pytest

from oiyolo.core.errors import UsageError
from oiyolo.darknet.gpus import Gpu
from oiyolo.networks import builders
from oiyolo.networks.schedule import schedule_of
from oiyolo.planning.training_speed import (
    GPUS,
    check_gpu_name,
    estimate,
    find_gpu,
    gflop_per_image,
)


def seconds(network: str, gpu: str | None, side: int = 416) -> float:
    cfg = builders.build(network, class_count=80, size_wh=(side, side))
    duration_s, _ = estimate(cfg, (), gpu)
    assert duration_s is not None
    return duration_s


def test_the_operations_of_known_networks() -> None:
    gflop = {
        name: gflop_per_image(builders.build(name, class_count=80, size_wh=(416, 416)))
        for name in ("yolov3", "yolov3-tiny", "yolov4", "yolov4-tiny")
    }
    # As darknet prints them (Total BFLOPS 65.879 for yolov3), up to what is no convolution.
    published = {"yolov3": 65.88, "yolov3-tiny": 5.57, "yolov4": 60.14, "yolov4-tiny": 6.91}
    assert gflop == pytest.approx(published, rel=0.01)


def test_what_was_measured_is_returned() -> None:
    assert seconds("yolov3", "H200") == pytest.approx(64 / 224, rel=0.02)
    assert seconds("yolov3-tiny", "H200") == pytest.approx(64 / 369, rel=0.02)
    assert seconds("yolov3-tiny", None) == pytest.approx(12.5 / 8 * 64, rel=0.02)


def test_what_was_scaled_agrees_with_figures_of_other_users() -> None:
    assert seconds("yolov3", "V100", 608) == pytest.approx(3.0, rel=0.2)
    assert seconds("yolov3-tiny", "RTX 2070") == pytest.approx(0.3, rel=0.2)


@pytest.mark.parametrize(
    ("network", "gpu", "batch_s"),
    [
        ("yolov3", "H200", 64 / 958),
        ("yolov3-tiny", "H200", 64 / 3659),
        ("yolov3-tiny", None, 8 * 1.76),
    ],
)
def test_what_was_measured_with_torch_is_returned(
    network: str, gpu: str | None, batch_s: float
) -> None:
    cfg = builders.build(network, class_count=80, size_wh=(416, 416))
    duration_s, text = estimate(cfg, (), gpu, engine="torch")
    assert duration_s is not None
    assert duration_s == pytest.approx(batch_s, rel=0.03)
    assert "torch" in text.lower()
    assert duration_s < seconds(network, gpu)


def test_the_demos_network_takes_as_long_with_torch_as_measured() -> None:
    cfg = builders.build("demo", class_count=1, size_wh=(96, 96))
    duration_s, _ = estimate(cfg, (), engine="torch")
    assert duration_s is not None
    assert 4 * duration_s / schedule_of(cfg).batch == pytest.approx(0.024, rel=0.1)


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("t4", "T4"),
        ("NVIDIA GeForce RTX 2080 Ti", "RTX 2080 Ti"),
        ("NVIDIA GeForce RTX 2080", None),
        ("Tesla K80", None),
        ("", None),
    ],
)
def test_a_gpu_is_found_by_the_words_of_its_name(name: str, gpu: str | None) -> None:
    assert find_gpu(name) == gpu


def test_the_gpu_of_this_machine_is_the_default() -> None:
    cfg = builders.build("yolov3", class_count=1, size_wh=(416, 416))
    t4 = Gpu(0, "Tesla T4", 15 << 30, 14 << 30, "7.5", "550")
    assert estimate(cfg, [t4]) == estimate(cfg, (), "T4")
    assert estimate(cfg, [t4], "H200") == estimate(cfg, (), "H200")
    duration_s, text = estimate(cfg, [Gpu(0, "Tesla K80", 1, 1, "3.7", "470")])
    assert duration_s is None
    assert "--seconds-per-iteration" in text


def test_a_slower_gpu_never_trains_faster() -> None:
    for network in ("yolov3", "yolov3-tiny", "yolov4-tiny"):
        assert seconds(network, "T4") >= seconds(network, "V100") >= seconds(network, "H200")
    assert all(seconds("yolov4", gpu) < seconds("yolov4", None) for gpu in GPUS)


def test_a_gpu_without_figures_is_rejected() -> None:
    check_gpu_name(None)
    check_gpu_name("RTX 3090")
    with pytest.raises(UsageError):
        check_gpu_name("Voodoo 2")
