"""What a training will be, and why: network, schedule, anchors, weights, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.darknet.gpus import Gpu
from oiyolo.networks.builders import anchors_of, stock
from oiyolo.networks.cfg import parse
from oiyolo.training.plan import identity_of, plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.darknet.program import Darknet
    from oiyolo.project.keys import TrainOptions
    from oiyolo.training.plan import Course

    Planning = Callable[..., Course]

GIB = 1 << 30
V2 = (
    "[net]\nwidth=416\nheight=416\nchannels=3\nbatch=8\nsubdivisions=2\n[convolutional]\n"
    "filters=125\nsize=1\n[region]\nanchors=1,2,3,4\nnum=2\nclasses=20\ncoords=4\n"
)


def gpu(index: int = 0, free_gib: float = 14.5) -> Gpu:
    free = int(free_gib * GIB)
    return Gpu(index, "Tesla T4", 15 * GIB, free, "7.5", "580.65.06")


@pytest.fixture
def planned(
    options: Callable[..., TrainOptions], darknet: Callable[..., Darknet], tmp_path: Path
) -> Planning:
    def make(
        *,
        line: str = "pjreddie",
        gpus: tuple[Gpu, ...] | None = None,
        images: int = 5000,
        classes: int = 1,
        size_wh: tuple[int, int] = (416, 416),
        on: str | None = None,
        cudnn: bool = False,
        **keys: Any,
    ) -> Course:
        rng = np.random.default_rng(2)
        return plan(
            options(**keys, gpus=on),
            base=tmp_path,
            darknet=darknet(line, gpu=gpus is not None, cudnn=cudnn),
            class_count=classes,
            image_count=images,
            images_size_wh=size_wh,
            box_wh=np.clip(np.exp(rng.normal(-1.2, 0.5, (400, 2))), 0.01, 1),
            gpus=gpus or (),
        )

    return make


def reason(course: Course, key: str) -> str:
    """Give the one reason that speaks of a key."""
    (found,) = (reason for reason in course.reasons if reason.startswith(key))
    return found


@pytest.mark.parametrize(
    ("keys", "max_batches", "why"),
    [
        ({}, 6000, "the most of 6,000, 2,000 for each of 1 class and one for each of 5,000 images"),
        ({"classes": 4}, 8000, "4 classes"),
        ({"images": 26_000}, 26_000, "26,000 images"),
        ({"max_batches": 400}, 400, "as [train] max_batches says"),
        ({"network": "demo"}, None, "as the network's own file has it"),
    ],
)
def test_the_length_of_a_training_has_its_reason(
    planned: Planning, keys: dict[str, Any], max_batches: int | None, why: str
) -> None:
    course = planned(**keys)
    expected = max_batches or stock("demo").net.integer("max_batches", 0)
    assert course.schedule.max_batches == expected
    assert why in reason(course, "max_batches=")
    assert course.schedule.burn_in <= expected / 5


def test_the_users_rate_and_burn_in_are_taken(planned: Planning) -> None:
    course = planned(learning_rate=0.0004, burn_in=33, max_batches=500)
    assert (course.schedule.learning_rate, course.schedule.burn_in) == (0.0004, 33)
    assert reason(course, "learning_rate") == "learning_rate=0.0004: as [train] learning_rate says"
    assert "as [train] burn_in says" in reason(course, "burn_in")
    with pytest.raises(UsageError, match="burn_in = 500 leaves nothing"):
        planned(burn_in=500, max_batches=500)


@pytest.mark.parametrize(("asked", "used"), [("auto", "own"), ("own", "own"), ("stock", "stock")])
def test_anchors_are_fitted_or_as_asked_for(planned: Planning, asked: str, used: str) -> None:
    course = planned(anchors=asked)
    assert course.anchors.used == used
    told = reason(course, f"{used} anchors")
    assert f"stock {course.anchors.stock_average_iou:.3f}" in told
    is_stock = np.array_equal(anchors_of(course.cfg), anchors_of(stock("yolov3")))
    assert is_stock == (used == "stock")


def test_given_anchors_are_written(planned: Planning) -> None:
    sizes = tuple(float(n) for n in range(10, 28))
    course = planned(anchors=sizes)
    assert anchors_of(course.cfg).ravel().tolist() == list(sizes)
    assert course.anchors.used == "given"
    with pytest.raises(UsageError, match="expected 9 anchors"):
        planned(anchors=sizes[:4])


def test_a_network_whose_anchors_are_in_cells_keeps_them(planned: Planning, tmp_path: Path) -> None:
    (tmp_path / "v2.cfg").write_text(V2)
    course = planned(network="v2.cfg")
    assert course.cfg.layers[-1].text("anchors") == "1,2,3,4"
    assert course.told.endswith("stock anchors")
    assert "cannot be fitted" in reason(course, "stock anchors")
    with pytest.raises(InputFormError, match="cannot be fitted"):
        planned(network="v2.cfg", anchors="own")


def test_a_users_file_is_adapted_and_the_diff_shows_it(planned: Planning, tmp_path: Path) -> None:
    text = "# Mine.\n" + stock("yolov3-tiny").render().replace("batch=64", "batch=1")
    (tmp_path / "mine.cfg").write_text(text)
    course = planned(network="mine.cfg", classes=3, size_wh=(320, 224))
    changed = {line for line in course.diff.splitlines() if line[:1] in "+-" and line[1:2] != "+"}
    assert {"-width=416", "+width=320", "+height=224", "-batch=1", "+batch=64"} <= changed
    assert {"-classes=80", "+classes=3", "-filters=255", "+filters=24"} <= changed
    assert course.cfg.render().startswith("# Mine.\n")
    # Its backbone is the published one's, and so are the weights that it starts from.
    assert course.weights == "yolov3-tiny.conv.15"
    assert "weights=yolov3-tiny.conv.15" in reason(course, "weights")
    assert planned(network="mine.cfg", weights="none").weights == "none"
    other = text.replace("filters=16\n", "filters=17\n", 1)
    (tmp_path / "mine.cfg").write_text(other)
    assert planned(network="mine.cfg").weights == "none"


@pytest.mark.parametrize(
    ("free_gib", "asked", "subdivisions"),
    [(14.5, "auto", 16), (7.0, "auto", 32), (78.0, "auto", 2), (1.0, "auto", 64), (14.5, 8, 8)],
)
def test_batches_are_cut_to_fit_the_gpu(
    planned: Planning, free_gib: float, asked: int | str, subdivisions: int
) -> None:
    course = planned(gpus=(gpu(0, free_gib),), subdivisions=asked)
    assert course.schedule.subdivisions == subdivisions
    told = reason(course, "subdivisions=")
    assert "of 608x608, the largest" in told
    assert f"{free_gib:.1f} that are free on GPU 0 (Tesla T4)" in told


def test_with_cudnn_more_images_fit(planned: Planning) -> None:
    took = [
        reason(planned(line="alexeyab", gpus=(gpu(0),), subdivisions=8, cudnn=cudnn), "subdiv")
        for cudnn in (False, True)
    ]
    without, with_it = (float(told.split(" take ")[1].split()[0]) for told in took)
    assert with_it < 0.9 * without


def test_on_a_cpu_batches_are_cut_as_the_network_has_it(planned: Planning) -> None:
    course = planned()
    assert course.schedule.subdivisions == 16
    assert not any("free on GPU" in reason for reason in course.reasons)


def test_several_gpus_share_the_rate(planned: Planning) -> None:
    first = planned(gpus=(gpu(0), gpu(1, 7.0), gpu(2, 1.0)))
    assert first.schedule.learning_rate == 0.001
    assert "on GPU 0" in reason(first, "subdivisions=")
    both = planned(gpus=(gpu(0), gpu(1, 7.0), gpu(2, 1.0)), on="0,1")
    assert both.schedule.learning_rate == 0.0005
    assert both.schedule.burn_in == 1200
    assert "for 2 GPUs" in reason(both, "learning_rate=")
    assert "on GPU 1" in reason(both, "subdivisions=")


@pytest.mark.parametrize(
    ("asked", "match"), [("0,7", "there is no GPU 7"), ("first", "no numbers of GPUs")]
)
def test_a_gpu_that_is_not_there_is_refused(planned: Planning, asked: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        planned(gpus=(gpu(0),), on=asked)


def test_what_the_machine_is_does_not_make_another_training(planned: Planning) -> None:
    on_cpu, on_gpu, on_two = (
        planned(line="alexeyab", network="yolov4", **keys)
        for keys in (
            {},
            {"gpus": (gpu(0, 40.0),)},
            {"gpus": (gpu(0), gpu(1)), "on": "0,1"},
        )
    )
    assert on_cpu.cfg.render() != on_gpu.cfg.render() != on_two.cfg.render()
    assert on_cpu.identity == on_gpu.identity == on_two.identity
    others = ({"max_batches": 77}, {"classes": 2}, {"learning_rate": 0.5}, {"anchors": "stock"})
    for keys in others:
        assert planned(line="alexeyab", network="yolov4", **keys).identity != on_cpu.identity


def test_a_comment_or_blank_does_not_make_another_training(
    planned: Planning, tmp_path: Path
) -> None:
    text = stock("yolov3-tiny").render()
    found = set()
    for mine in (text, "# why\n\n" + text.replace("=", " = "), text.replace("\n", "\r\n")):
        (tmp_path / "mine.cfg").write_bytes(mine.encode())
        found.add(planned(network="mine.cfg").identity)
    assert len(found) == 1
    odd = parse("[net]\nhue=caf\udce9\n", path="n.cfg")
    assert identity_of(odd)


def test_yolov4_is_not_for_pjreddies_darknet(planned: Planning) -> None:
    with pytest.raises(UsageError, match="cannot train yolov4"):
        planned(network="yolov4")


def test_a_users_file_with_faults_is_refused_with_its_lines(
    planned: Planning, tmp_path: Path
) -> None:
    text = stock("yolov3-tiny").render().replace("activation=leaky", "activation=lekay", 1)
    (tmp_path / "mine.cfg").write_text(text)
    with pytest.raises(InputFormError, match=r"mine\.cfg.*line \d+: .*no activation lekay"):
        planned(network="mine.cfg")
