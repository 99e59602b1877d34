"""The training program of the torch engine: its log, its files, stops and resumption."""

from __future__ import annotations

import errno
import math
import shutil
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the torch engine needs PyTorch")

import torch
from PIL import Image

from oiyolo.core.errors import InputFormError
from oiyolo.darknet.program import data_file
from oiyolo.networks import cfg as cfgs
from oiyolo.networks.weights import check_weights
from oiyolo.torch_engine.__main__ import main
from oiyolo.torch_engine.compilation import Pace, pays_off
from oiyolo.torch_engine.heads import Heads
from oiyolo.torch_engine.loader import Loader
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.options import Options, parse
from oiyolo.torch_engine.rules import rules_for
from oiyolo.torch_engine.sidecar import load_state, state_path
from oiyolo.torch_engine.step import REPRODUCIBLE, Stepper
from oiyolo.torch_engine.training import Training
from oiyolo.torch_engine.validation import Validation, measurement_plan
from oiyolo.torch_engine.weights_io import WeightsCopy, load_weights
from oiyolo.training.live_reader import LiveReader
from oiyolo.training.monitors import ErrorReported
from oiyolo.trainlog.parse import read_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.networks.lint import ForkName
    from oiyolo.torch_engine.options import Choice

CFG = """[net]
width=32
height=32
channels=3
batch=4
subdivisions=2
learning_rate=0.01
burn_in=2
max_batches={iterations}
policy=steps
steps=1000
scales=.1
saturation=1.5
exposure=1.5
hue=.1
{net}
[convolutional]
batch_normalize=1
filters=4
size=3
stride=4
pad=1
activation=leaky
[dropout]
probability=.2
[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1
anchors=8,8, 16,16
classes=2
num=2
jitter=.2
max=20
{head}
"""


class _Killed(BaseException):
    """Ends a training as a kill does, without its consent."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run's folder with six images, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    random = np.random.default_rng(3)
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(random.integers(0, 255, (40, 48, 3), np.uint8)).save(path)
        path.with_suffix(".txt").write_text(f"{number % 2} 0.4 0.5 0.4 0.5\n")
        paths.append(f"{path}\n")
    (tmp_path / "train.txt").write_text("".join(paths))
    text = data_file(
        class_count=2,
        train="train.txt",
        valid="train.txt",
        names="n",
        backup="weights",
        results="r",
    )
    (tmp_path / "obj.data").write_text(text)
    return tmp_path


def train(
    folder: Path,
    iterations: int,
    *,
    weights: str | None = None,
    fork: ForkName = "pjreddie",
    net: str = "",
    head: str = "",
    seed: int | None = 1,
    compilation: Choice = "auto",
    on_text: Callable[[str], None] = lambda _: None,
) -> str:
    """Train the network of these tests; return the log."""
    (folder / "network.cfg").write_text(CFG.format(iterations=iterations, net=net, head=head))
    options = Options(
        folder / "obj.data",
        folder / "network.cfg",
        weights_path=None if weights is None else folder / "weights" / weights,
        fork=fork,
        device="cpu",
        compilation=compilation,
        seed=seed,
    )
    texts: list[str] = []

    def write(text: str) -> None:
        texts.append(text)
        on_text(text)

    Training(options, write).run()
    return "".join(texts)


def at_iteration(number: int, act: Callable[[], object]) -> Callable[[str], None]:
    """Return what acts when the log has the line of an iteration."""

    def on_text(text: str) -> None:
        if f"\n{number}: " in text or f"\n {number}: " in text:
            act()

    return on_text


def stop_now() -> None:
    signal.raise_signal(signal.SIGTERM)


def killed() -> None:
    raise _Killed


def final(folder: Path, name: str = "network_final.weights") -> bytes:
    return (folder / "weights" / name).read_bytes()


@pytest.mark.parametrize("fork", ["pjreddie", "alexeyab", "hank"])
def test_the_log_is_read_with_all_its_numbers(folder: Path, fork: ForkName) -> None:
    (folder / "train_log.txt").write_text(train(folder, 5, fork=fork))
    log = read_log(folder / "train_log.txt")
    iterations, regions = log.iterations, log.regions
    assert iterations["iteration"].tolist() == [1, 2, 3, 4, 5]
    assert iterations["images"].tolist() == [4, 8, 12, 16, 20]
    assert iterations["rate"].tolist() == pytest.approx([0.01 / 16, *[0.01] * 4], abs=1e-6)
    assert np.isfinite(iterations[["loss", "avg_loss", "seconds"]]).all(axis=None)
    assert len(regions) == 5 * 2  # one head, two parts
    assert regions["iteration"].tolist() == np.repeat([1, 2, 3, 4, 5], 2).tolist()
    assert set(regions["layer"]) == {3}
    assert regions["no_obj"].between(0, 1).all()
    found = regions[regions["count"] > 0]
    assert found["iou"].between(0, 1).all()
    assert len(found) >= 8
    assert (fork == "pjreddie") == bool(np.isnan(iterations["hours_left"]).all())
    kinds = log.events["kind"].tolist()
    assert kinds.count("start") == kinds.count("saved") == 1
    assert "error" not in kinds


def test_the_printed_parts_of_the_loss_add_up(folder: Path) -> None:
    (folder / "train_log.txt").write_text(train(folder, 3, fork="alexeyab"))
    log = read_log(folder / "train_log.txt")
    parts = log.regions.groupby("iteration")["total_loss"].mean()
    assert log.iterations["loss"].to_numpy() == pytest.approx(parts.to_numpy(), rel=1e-4)


def test_the_final_weights_belong_to_the_network(folder: Path) -> None:
    train(folder, 3)
    report = check_weights(
        folder / "weights" / "network_final.weights",
        cfgs.read(folder / "network.cfg"),
        complete=True,
    )
    assert report.header.seen == 3 * 4


def test_the_loss_on_valid_images_is_measured_and_changes_nothing(folder: Path) -> None:
    """At the end of a run, on images as they are, with the rolling statistics."""
    (folder / "train.txt").rename(folder / "all.txt")
    paths = (folder / "all.txt").read_text().split()
    (folder / "train.txt").write_text("\n".join(paths[:3]))
    data = (folder / "obj.data").read_text()
    (folder / "obj.data").write_text(data.replace("valid = train.txt", "valid = valid.txt"))
    assert "Validation" not in train(folder, 5)  # without a list
    weights = final(folder)
    (folder / "valid.txt").write_text("\n".join(paths[3:]))
    (folder / "train_log.txt").write_text(train(folder, 5))
    assert final(folder) == weights
    log = read_log(folder / "train_log.txt")
    (measured,) = log.valid_losses.itertuples()
    assert measured.iteration == 5
    assert log.metrics()["valid_loss"].notna().tolist() == [False] * 4 + [True]

    cfg, rules = cfgs.read(folder / "network.cfg"), rules_for("pjreddie", gpu=True)
    network = TorchNetwork(cfg, rules).eval()
    load_weights(network, folder / "weights" / "network_final.weights")
    options: dict[str, Any] = {"augment": False, "in_order": True, "batch_images": 3}
    with (
        Loader(folder / "valid.txt", cfg, rules, device="cpu", seed=0, **options) as batches,
        torch.no_grad(),
    ):
        (batch,) = batches
        heads = Heads(network)
        targets = heads.targets(batch.truths, cfg.size_wh, torch.device("cpu"))
        loss, _ = heads.loss(network(batch.images), targets, cfg.size_wh, 20)
    assert measured.loss == pytest.approx(float(loss) / 3, rel=1e-4)


def test_measuring_takes_a_small_share_of_the_images() -> None:
    for batch, iterations in [(4, 2400), (64, 6000), (64, 500_200), (1, 100), (64, 40)]:
        interval, images = measurement_plan(batch, iterations, 100)
        assert interval % 100 == 0
        assert images <= max(1, min(1000, 0.04 * batch * interval))
        assert interval == 100 or iterations // interval >= 10
    assert measurement_plan(64, 6000, 100) == (400, 1000)
    assert measurement_plan(4, 2400, 100) == (200, 32)


def test_a_stop_ends_a_measurement(folder: Path) -> None:
    network = TorchNetwork(
        cfgs.parse(CFG.format(iterations=1, net="", head=""), path="n.cfg"),
        rules_for("pjreddie", gpu=True),
    )
    validation = Validation(
        network, Heads(network), folder / "train.txt", limit=5, batch_images=2, form=REPRODUCIBLE
    )
    assert validation.image_count == 5
    asked = iter([False, True])
    assert validation.measure(0, lambda: next(asked)) is None
    assert network.training
    assert validation.measure(0, lambda: False) is not None
    validation.close()


def test_a_seed_gives_the_same_weights_and_another_seed_others(folder: Path) -> None:
    results = []
    for seed in (1, 1, 2):
        train(folder, 4, seed=seed)
        results.append(final(folder))
    assert results[0] == results[1] != results[2]


def test_after_a_kill_training_goes_on_as_if_nothing_had_happened(folder: Path) -> None:
    train(folder, 104)
    wanted = final(folder)
    shutil.rmtree(folder / "weights")
    with pytest.raises(_Killed):
        train(folder, 104, on_text=at_iteration(102, killed))
    log = train(folder, 104, weights="network.backup")
    assert "\n101: " in log
    assert "\n100: " not in log
    assert final(folder) == wanted
    # A copy of the weights is the same start.
    kept = folder / "weights" / "kept" / "last-100.weights"
    kept.parent.mkdir()
    shutil.move(folder / "weights" / "network.backup", kept)
    train(folder, 104, weights="kept/last-100.weights")
    assert final(folder) == wanted


def test_sigterm_saves_what_the_training_goes_on_from(folder: Path) -> None:
    train(folder, 6)
    wanted = final(folder)
    stop = at_iteration(3, stop_now)
    log = train(folder, 6, on_text=stop)
    assert "\n4: " not in log
    header = check_weights(folder / "weights" / "network.backup").header
    assert header.seen == 3 * 4
    train(folder, 6, weights="network.backup")
    assert final(folder) == wanted


def test_a_full_disk_ends_the_training_and_leaves_the_weights_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(folder, 4, on_text=at_iteration(2, stop_now))
    good = final(folder, "network.backup")

    def fail(_: WeightsCopy, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(WeightsCopy, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        train(folder, 4, weights="network.backup", on_text=at_iteration(3, stop_now))
    assert final(folder, "network.backup") == good
    assert load_state(folder / "weights" / "network.backup") is not None
    assert not list((folder / "weights").glob("*.part"))


def test_a_run_keeps_its_seed_without_one_on_the_command_line(folder: Path) -> None:
    stop = at_iteration(2, stop_now)
    train(folder, 4, seed=None, on_text=stop)
    first = load_state(folder / "weights" / "network.backup")
    train(folder, 4, seed=None, weights="network.backup", on_text=at_iteration(3, stop_now))
    second = load_state(folder / "weights" / "network.backup")
    assert first is not None
    assert second is not None
    assert first["seed"] == second["seed"]


def test_diverged_weights_do_not_replace_good_ones(folder: Path) -> None:
    train(folder, 4, on_text=at_iteration(2, stop_now))
    good = final(folder, "network.backup")
    weights = np.frombuffer(good, "<f4").copy()
    weights[8] = math.nan
    (folder / "weights" / "bad.weights").write_bytes(weights.tobytes())
    with pytest.raises(InputFormError):
        train(folder, 4, weights="bad.weights")
    stop = at_iteration(7, stop_now)
    train(folder, 9, net="momentum=1000000000000", weights="network.backup", on_text=stop)
    assert final(folder, "network.backup") == good


@pytest.mark.parametrize("damage", ["cut", "other weights", "version"])
def test_a_state_that_does_not_fit_is_ignored(
    folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(folder, 4, on_text=at_iteration(2, stop_now))
    path = folder / "weights" / "network.backup"
    state = state_path(path)
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:1000])
    elif damage == "version":
        torch.save({"version": 99}, state)
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert load_state(path) is None
    assert len(caplog.records) >= 1
    assert "\n3: " in train(folder, 4, weights="network.backup")


def test_a_state_cannot_execute_anything(folder: Path) -> None:
    train(folder, 4, on_text=at_iteration(2, stop_now))
    path = folder / "weights" / "network.backup"
    torch.save({"version": 1, "weights_sha256": "", "state": print}, state_path(path))
    assert load_state(path) is None


def test_averaged_weights_are_saved_as_alexeyabs_darknet_does(folder: Path) -> None:
    stop = at_iteration(3, stop_now)
    log = train(folder, 4, fork="alexeyab", net="ema_alpha=0.9", on_text=stop)
    assert "network_ema.weights" in log
    averaged, last = (final(folder, f"network_{name}.weights") for name in ("ema", "last"))
    assert len(averaged) == len(last)
    assert averaged != last


def test_random_sizes_are_logged(folder: Path) -> None:
    (folder / "train_log.txt").write_text(train(folder, 2, fork="alexeyab", head="random=1"))
    sizes = [e for e in read_log(folder / "train_log.txt").events["text"] if "Resizing" in e]
    assert sizes == ["Resizing 64 x 64"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("obj.data", "train = train.txt\n"),
        ("0.txt", "7 0.5 0.5 0.1 0.1\n"),
        ("train.txt", ""),
        ("train.txt", "missing.jpg\n"),
    ],
)
def test_bad_input_is_an_error(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(InputFormError):
        train(folder, 2)


def test_the_program_reports_errors_with_their_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["detector", "train", "missing.data", "n.cfg"]) == InputFormError.exit_code
    assert "missing.data" in capsys.readouterr().out


def test_a_gpu_without_enough_memory_is_reported_so_that_the_run_goes_on_with_less(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB "
        "of which 1.19 GiB is free.\nSee documentation for Memory Management"
    )

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError(message)

    monkeypatch.setattr(Stepper, "step", fail)
    (folder / "network.cfg").write_text(CFG.format(iterations=2, net="", head=""))
    assert main(["detector", "train", "obj.data", "network.cfg", "--device", "cpu"]) != 0
    read = LiveReader()
    lines = capsys.readouterr().out.splitlines()
    events = [event for line in lines for event in read(line.encode())]
    (error,) = [event for event in events if isinstance(event, ErrorReported)]
    assert error.out_of_memory


@pytest.fixture
def chance_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training without a seed, whose network may be compiled, always be the same."""
    monkeypatch.setattr("secrets.randbits", lambda _: 7)
    monkeypatch.setattr("oiyolo.torch_engine.training.choose_form", lambda *_: REPRODUCIBLE)


@pytest.mark.usefixtures("chance_is_fixed")
def test_compiling_changes_nothing_but_the_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[int, ...]] = []

    def compile_network(network: TorchNetwork, **_: object) -> Callable[..., list[torch.Tensor]]:
        def compute(images: torch.Tensor) -> list[torch.Tensor]:
            used.append(tuple(images.shape[2:]))
            return network(images)  # type: ignore[no-any-return]

        return compute

    monkeypatch.setattr("torch.compile", compile_network)
    train(folder, 140, head="random=1", fork="alexeyab", seed=None)
    before = final(folder)
    assert used == []  # the rest of the training would be shorter
    log = train(folder, 140, head="random=1", fork="alexeyab", seed=None, compilation="always")
    assert final(folder) == before
    sizes = set(used)
    assert len(sizes) == 2
    assert all(f"Compiling the network for {width}x{height}" in log for height, width in sizes)
    parts_per_iteration = 2
    assert len(used) > 140 * parts_per_iteration
    train(folder, 140, seed=1, compilation="always")
    assert log.count("Compiled in") == 2
    (folder / "train_log.txt").write_text(log)
    assert len(read_log(folder / "train_log.txt").iterations) == 140


@pytest.mark.usefixtures("chance_is_fixed")
def test_a_network_that_cannot_be_compiled_is_trained_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(folder, 4, seed=None)
    before = final(folder)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory: no C++ compiler\nand more")

    monkeypatch.setattr("torch.compile", fail)
    log = train(folder, 4, seed=None, compilation="always")
    assert "Compilation failed; training continues without it: see compilation_error.txt\n" in log
    assert "no C++ compiler" in (folder / "compilation_error.txt").read_text()
    assert log.count("Compiling") == 1
    assert final(folder) == before
    # The supervisor would take an error in the log for one of the training.
    events = [event for line in log.encode().splitlines() for event in LiveReader()(line)]
    assert not any(isinstance(event, ErrorReported) for event in events)


@pytest.mark.usefixtures("chance_is_fixed")
def test_a_compiled_network_that_is_no_faster_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durations = iter([1.1, 1.0, 1.0])
    monkeypatch.setattr(
        "oiyolo.torch_engine.compilation.measure_passes", lambda *_, **__: next(durations)
    )
    monkeypatch.setattr("oiyolo.torch_engine.compilation._WARM_UP", 1)
    monkeypatch.setattr("oiyolo.torch_engine.compilation.pays_off", lambda left_s, _: left_s > 0)
    monkeypatch.setattr("torch.compile", lambda *_, **__: stop_now)  # it would fail if used
    log = train(folder, 5, seed=None)
    assert "but that is no faster (1.00 times): not used" in log
    assert log.index("\n2: ") < log.index("Saving weights") < log.index("Compiling")


@pytest.mark.usefixtures("chance_is_fixed")
def test_a_program_that_dies_of_compiling_does_not_try_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oiyolo.torch_engine.compilation._WARM_UP", 1)
    monkeypatch.setattr("oiyolo.torch_engine.compilation.pays_off", lambda left_s, _: left_s > 0)
    handlers = []

    def die(*_: object, **__: object) -> None:
        handlers.append(signal.getsignal(signal.SIGTERM))
        raise _Killed

    monkeypatch.setattr("torch.compile", die)
    with pytest.raises(_Killed):
        train(folder, 6, seed=None)
    assert handlers == [signal.SIG_DFL]  # a stop need not wait
    log = train(folder, 6, seed=None, weights="network.backup")
    assert "\n3: " in log
    assert "\n2: " not in log
    assert "Compiling" not in log


def test_the_first_iterations_do_not_count_for_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    pace = Pace(100)
    seconds = []
    for iteration in range(100, 140):
        seconds.append(pace.seconds(iteration))
        now_s[0] += 5.0 if iteration < 105 else 0.25
    assert all(map(math.isnan, seconds[:20]))
    assert seconds[20:] == [0.25] * 20
    pace.restart(140)
    assert math.isnan(pace.seconds(140))


def test_compiling_pays_off_if_the_rest_is_long() -> None:
    assert not pays_off(120, 1)  # never a minute of warm-up in a run of two
    assert not pays_off(600, 1)
    assert pays_off(1_200, 1)
    assert not pays_off(1_200, 10)
    assert pays_off(3 * 3_600, 10)
    assert not pays_off(math.nan, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("chance_is_fixed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, about itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles with g++")
def test_a_compiled_network_trains_as_the_same_network_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dropout draws the same numbers then.
    monkeypatch.setattr("torch._inductor.config.fallback_random", True)
    net = "ema_alpha=.9\n"
    train(folder, 6, fork="alexeyab", seed=None, net=net)
    expected = {name: _numbers(path) for name, path in _weights(folder)}
    log = train(folder, 6, fork="alexeyab", seed=None, net=net, compilation="always")
    assert "times as fast, not counting image loading" in log, log
    found = {name: _numbers(path) for name, path in _weights(folder)}
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)


def _weights(folder: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in sorted((folder / "weights").glob("*.weights"))]


def _numbers(path: Path) -> Any:
    return np.frombuffer(path.read_bytes()[20:], dtype="<f4")


def test_the_command_line_is_darknets() -> None:
    words = ["detector", "train", "a.data", "b.cfg", "c.weights", "-clear", "-gpus", "1"]
    more = ["--cpu-rules", "--seed", "7", "--compile", "never"]
    options = parse([*words, "-dont_show", "--fork", "hank", *more])
    assert (options.clear, options.gpus, options.fork) == (True, (1,), "hank")
    assert (options.on_gpu, options.seed, options.compilation) == (False, 7, "never")
    assert str(options.weights_path) == "c.weights"
