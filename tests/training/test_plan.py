"""The plan of a training and its reasons: network, schedule, anchors, weights, memory."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oiyolo.core.errors import InputFormError, OiyoloError, UsageError
from oiyolo.darknet.gpus import Gpu
from oiyolo.networks.builders import anchors_of, stock
from oiyolo.networks.cfg import parse
from oiyolo.training.plan import identity_of, make_plan
from tests.support.strange_values import STRANGE_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.darknet.program import Darknet
    from oiyolo.project.keys import TrainOptions
    from oiyolo.training.plan import TrainingPlan

    PlanMaker = Callable[..., TrainingPlan]

GIB = 1 << 30
V2 = (
    "[net]\nwidth=416\nheight=416\nchannels=3\nbatch=8\nsubdivisions=2\n[convolutional]\n"
    "filters=125\nsize=1\n[region]\nanchors=1,2,3,4\nnum=2\nclasses=20\ncoords=4\n"
)


def gpu(index: int = 0, free_gib: float = 14.5) -> Gpu:
    free = int(free_gib * GIB)
    return Gpu(index, "Tesla T4", 15 * GIB, free, "7.5", "580.65.06")


@pytest.fixture
def plan_for(
    options: Callable[..., TrainOptions], make_darknet: Callable[..., Darknet], tmp_path: Path
) -> PlanMaker:
    def make(
        *,
        fork: str = "pjreddie",
        gpus: tuple[Gpu, ...] | None = None,
        images: int = 5000,
        classes: int = 1,
        size_wh: tuple[int, int] = (416, 416),
        on: str | None = None,
        cudnn: bool = False,
        engine: str = "darknet",
        **keys: Any,
    ) -> TrainingPlan:
        rng = np.random.default_rng(2)
        return make_plan(
            options(**keys, gpus=on),
            base=tmp_path,
            darknet=make_darknet(fork, gpu=gpus is not None, cudnn=cudnn, engine=engine),
            class_count=classes,
            image_count=images,
            images_size_wh=size_wh,
            box_wh=np.clip(np.exp(rng.normal(-1.2, 0.5, (400, 2))), 0.01, 1),
            gpus=gpus or (),
        )

    return make


def reason(plan: TrainingPlan, key: str) -> str:
    """Return the only reason about a key."""
    (only,) = (reason for reason in plan.reasons if reason.startswith(key))
    return only


@pytest.mark.parametrize(
    ("keys", "max_batches", "why"),
    [
        (
            {},
            6000,
            "the largest of 6,000, 2,000 per class (1 class) and 1 per image (5,000 images)",
        ),
        ({"classes": 4}, 8000, "4 classes"),
        ({"images": 26_000}, 26_000, "26,000 images"),
        ({"max_batches": 400}, 400, "set by [train] max_batches"),
        ({"network": "demo"}, None, "as in the network's own file"),
    ],
)
def test_max_batches_has_a_reason(
    plan_for: PlanMaker, keys: dict[str, Any], max_batches: int | None, why: str
) -> None:
    plan = plan_for(**keys)
    expected = max_batches or stock("demo").net.integer("max_batches", 0)
    assert plan.schedule.max_batches == expected
    assert why in reason(plan, "max_batches=")
    assert plan.schedule.burn_in <= expected / 5


def test_the_users_learning_rate_and_burn_in_are_used(plan_for: PlanMaker) -> None:
    plan = plan_for(learning_rate=0.0004, burn_in=33, max_batches=500)
    assert (plan.schedule.learning_rate, plan.schedule.burn_in) == (0.0004, 33)
    assert reason(plan, "learning_rate") == "learning_rate=0.0004: set by [train] learning_rate"
    assert "set by [train] burn_in" in reason(plan, "burn_in")
    with pytest.raises(UsageError) as caught:
        plan_for(burn_in=500, max_batches=500)
    assert "burn_in = 500" in caught.value.what


@pytest.mark.parametrize(
    ("option", "source"), [("auto", "own"), ("own", "own"), ("stock", "stock")]
)
def test_anchors_are_fitted_or_those_of_the_option(
    plan_for: PlanMaker, option: str, source: str
) -> None:
    plan = plan_for(anchors=option)
    assert plan.anchors.source == source
    text = reason(plan, f"{source} anchors")
    assert f"stock {plan.anchors.stock_average_iou:.3f}" in text
    is_stock = np.array_equal(anchors_of(plan.cfg), anchors_of(stock("yolov3")))
    assert is_stock == (source == "stock")


def test_the_users_anchors_are_written(plan_for: PlanMaker) -> None:
    sizes = tuple(float(n) for n in range(10, 28))
    plan = plan_for(anchors=sizes)
    assert anchors_of(plan.cfg).ravel().tolist() == list(sizes)
    assert plan.anchors.source == "configured"
    with pytest.raises(UsageError) as caught:
        plan_for(anchors=sizes[:4])
    assert "9 anchors" in caught.value.expected


def test_a_network_whose_anchors_are_in_cells_keeps_them(
    plan_for: PlanMaker, tmp_path: Path
) -> None:
    (tmp_path / "v2.cfg").write_text(V2)
    plan = plan_for(network="v2.cfg")
    assert plan.cfg.layers[-1].text("anchors") == "1,2,3,4"
    assert plan.summary.endswith("stock anchors")
    assert "cannot be fitted" in reason(plan, "stock anchors")
    with pytest.raises(InputFormError):
        plan_for(network="v2.cfg", anchors="own")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_strange_value_in_a_users_file_is_an_error_with_its_path(
    plan_for: PlanMaker, tmp_path: Path, data: st.DataObject
) -> None:
    lines = stock(data.draw(st.sampled_from(["demo", "yolov4-tiny"]))).render().splitlines()
    for _ in range(2):
        index = data.draw(st.sampled_from([i for i, text in enumerate(lines) if "=" in text]))
        value = data.draw(st.sampled_from([*STRANGE_VALUES, None]))
        lines[index] = f"{lines[index].partition('=')[0]}={value}" if value else ""
    path = tmp_path / "mine.cfg"
    path.write_text("\n".join(lines), encoding="utf-8")
    size_wh = data.draw(st.sampled_from([(96, 96), (416, 416)]))
    errors: list[OiyoloError] = []
    try:
        plan_for(network=str(path), size_wh=size_wh, fork="alexeyab", gpus=(gpu(),), weights="none")
    except OiyoloError as error:
        errors.append(error)
    for problem in errors:
        assert problem.exit_code in {2, 3}
        assert str(path) in problem.where or isinstance(problem, UsageError)
        assert len(str(problem)) < 2000


def test_warnings_name_the_file_and_its_own_lines(plan_for: PlanMaker, tmp_path: Path) -> None:
    text = stock("demo").render().replace("subdivisions=", "subdivision=")
    path = tmp_path / "mine.cfg"
    path.write_text(text)
    (warning,) = plan_for(network="mine.cfg", weights="none").warnings
    line = next(n for n, row in enumerate(text.splitlines(), 1) if row.startswith("subdivision="))
    assert warning.startswith(f"{path}, line {line}: ")


def test_a_warning_about_the_users_file_is_kept_although_heads_are_adapted(
    plan_for: PlanMaker, tmp_path: Path
) -> None:
    text = re.sub(
        r"^filters *=.*$", "filters=21", stock("yolov3-tiny").render(), flags=re.MULTILINE
    )
    (tmp_path / "mine.cfg").write_text(text.replace("classes=80", "classes=2"))
    plan = plan_for(network="mine.cfg", classes=1, weights="none")
    assert any("21 filters" in warning for warning in plan.warnings)


def test_a_batch_of_one_image_is_refused_where_it_was_set(plan_for: PlanMaker) -> None:
    with pytest.raises(UsageError) as caught:
        plan_for(batch=1)
    assert caught.value.where == "[train] batch"


def test_an_existing_path_is_a_path(plan_for: PlanMaker, tmp_path: Path) -> None:
    name = "darknet53.conv.74"
    assert plan_for(weights=name).weights == name
    (tmp_path / name).touch()
    for weights in (name, "auto"):
        assert plan_for(weights=weights).weights == str(tmp_path / name)
    assert plan_for(weights="none").weights == "none"


def test_the_diff_shows_how_a_users_file_was_adapted(plan_for: PlanMaker, tmp_path: Path) -> None:
    text = "# Mine.\n" + stock("yolov3-tiny").render().replace("batch=64", "batch=1")
    (tmp_path / "mine.cfg").write_text(text)
    plan = plan_for(network="mine.cfg", classes=3, size_wh=(320, 224))
    changed = {line for line in plan.diff.splitlines() if line[:1] in "+-" and line[1:2] != "+"}
    assert {"-width=416", "+width=320", "+height=224", "-batch=1", "+batch=64"} <= changed
    assert {"-classes=80", "+classes=3", "-filters=255", "+filters=24"} <= changed
    assert plan.cfg.render().startswith("# Mine.\n")
    # Its backbone is that of the published network, so it starts from the same weights.
    assert plan.weights == "yolov3-tiny.conv.15"
    assert "weights=yolov3-tiny.conv.15" in reason(plan, "weights")
    assert plan_for(network="mine.cfg", weights="none").weights == "none"
    other = text.replace("filters=16\n", "filters=17\n", 1)
    (tmp_path / "mine.cfg").write_text(other)
    assert plan_for(network="mine.cfg").weights == "none"


@pytest.mark.parametrize(
    ("free_gib", "option", "subdivisions"),
    [(14.5, "auto", 16), (7.0, "auto", 32), (78.0, "auto", 2), (1.0, "auto", 64), (14.5, 8, 8)],
)
def test_subdivisions_fit_the_gpu(
    plan_for: PlanMaker, free_gib: float, option: int | str, subdivisions: int
) -> None:
    plan = plan_for(gpus=(gpu(0, free_gib),), subdivisions=option)
    assert plan.schedule.subdivisions == subdivisions
    text = reason(plan, "subdivisions=")
    assert "of 608x608, the largest" in text
    assert f"{free_gib:.1f} GiB free on GPU 0 (Tesla T4)" in text


def test_cudnn_needs_less_memory(plan_for: PlanMaker) -> None:
    reasons = [
        reason(plan_for(fork="alexeyab", gpus=(gpu(0),), subdivisions=8, cudnn=cudnn), "subdiv")
        for cudnn in (False, True)
    ]
    without, with_it = (float(text.split(" take ")[1].split()[0]) for text in reasons)
    assert with_it < 0.9 * without


def test_the_networks_own_subdivisions_are_used_on_a_cpu(plan_for: PlanMaker) -> None:
    plan = plan_for()
    assert plan.schedule.subdivisions == 16
    assert not any("free on GPU" in reason for reason in plan.reasons)


def test_several_gpus_share_the_learning_rate(plan_for: PlanMaker) -> None:
    first = plan_for(gpus=(gpu(0), gpu(1, 7.0), gpu(2, 1.0)))
    assert first.schedule.learning_rate == 0.001
    assert "on GPU 0" in reason(first, "subdivisions=")
    both = plan_for(gpus=(gpu(0), gpu(1, 7.0), gpu(2, 1.0)), on="0,1")
    assert both.schedule.learning_rate == 0.0005
    assert both.schedule.burn_in == 1200
    assert "for 2 GPUs" in reason(both, "learning_rate=")
    assert "on GPU 1" in reason(both, "subdivisions=")


def test_several_gpus_share_a_batch_of_the_torch_engine(plan_for: PlanMaker) -> None:
    gpus = tuple(gpu(number, 90.0) for number in range(3))
    keys: dict[str, Any] = {"engine": "torch", "network": "yolov3-tiny", "gpus": gpus}
    one = plan_for(**keys)
    assert one.schedule.subdivisions == 1
    both = plan_for(**keys, on="0,1")
    assert both.schedule == replace(one.schedule, subdivisions=2)
    assert "for 2 GPUs" in reason(both, "subdivisions=2")
    with pytest.raises(UsageError) as caught:
        plan_for(**keys, on="0,1,2")
    assert caught.value.where == "[train] gpus"


def test_only_darknet_needs_opencv_for_mosaic(plan_for: PlanMaker) -> None:
    for engine, mosaic in (("darknet", 0), ("torch", 1)):
        plan = plan_for(fork="alexeyab", network="yolov4", engine=engine)
        assert plan.cfg.net.integer("mosaic", 0) == mosaic


@pytest.mark.parametrize("option", ["0,7", "first"])
def test_a_missing_gpu_is_refused(plan_for: PlanMaker, option: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_for(gpus=(gpu(0),), on=option)
    assert caught.value.where == "[train] gpus"
    assert option in caught.value.found


def test_the_identity_does_not_depend_on_the_machine(plan_for: PlanMaker) -> None:
    on_cpu, on_gpu, on_two = (
        plan_for(fork="alexeyab", network="yolov4", **keys)
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
        assert plan_for(fork="alexeyab", network="yolov4", **keys).identity != on_cpu.identity


def test_the_identity_ignores_comments_and_blanks(plan_for: PlanMaker, tmp_path: Path) -> None:
    text = stock("yolov3-tiny").render()
    identities = set()
    for mine in (text, "# why\n\n" + text.replace("=", " = "), text.replace("\n", "\r\n")):
        (tmp_path / "mine.cfg").write_bytes(mine.encode())
        identities.add(plan_for(network="mine.cfg").identity)
    assert len(identities) == 1
    odd = parse("[net]\nhue=caf\udce9\n", path="n.cfg")
    assert identity_of(odd)


def test_pjreddies_darknet_cannot_train_yolov4(plan_for: PlanMaker) -> None:
    with pytest.raises(UsageError) as caught:
        plan_for(network="yolov4")
    assert "alexeyab" in caught.value.expected


def test_an_error_in_a_users_file_is_reported_with_its_line(
    plan_for: PlanMaker, tmp_path: Path
) -> None:
    text = stock("yolov3-tiny").render().replace("activation=leaky", "activation=lekay", 1)
    (tmp_path / "mine.cfg").write_text(text)
    with pytest.raises(InputFormError) as caught:
        plan_for(network="mine.cfg")
    assert caught.value.where == str(tmp_path / "mine.cfg")
    assert re.search(r"line \d+: .*lekay", caught.value.found)


def test_what_the_torch_engine_does_not_support_is_an_error_with_its_line(
    plan_for: PlanMaker, tmp_path: Path
) -> None:
    text = stock("yolov3-tiny").render().replace("[net]", "[net]\nblur=1\nmosaic=1", 1)
    (tmp_path / "mine.cfg").write_text(text)
    keys: dict[str, Any] = {"network": "mine.cfg", "fork": "alexeyab"}
    plan_for(**keys)
    with pytest.raises(InputFormError) as caught:
        plan_for(**keys, engine="torch")
    line = text.splitlines().index("blur=1") + 1
    assert caught.value.where == f"{tmp_path / 'mine.cfg'}:{line}"
    (tmp_path / "mine.cfg").write_text(text.replace("blur=1", "blur=0"))
    warnings = plan_for(**keys, engine="torch").warnings
    assert not any("OpenCV" in warning for warning in warnings)
