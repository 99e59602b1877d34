"""Train a network with PyTorch as ``darknet detector train`` does, and print what it prints."""

from __future__ import annotations

import contextlib
import math
import secrets
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.darknet.forks import FINAL_WEIGHTS, FORKS
from oiyolo.networks import cfg as cfg_file
from oiyolo.networks.schedule import parts_on_gpus
from oiyolo.torch_engine.compilation import Compiler, Pace
from oiyolo.torch_engine.heads import Heads
from oiyolo.torch_engine.input_sizes import ITERATIONS_PER_SIZE, size_at
from oiyolo.torch_engine.loader import Batch, Loader
from oiyolo.torch_engine.log_lines import (
    IterationFigures,
    hours_left,
    log_format,
    resize_lines,
    running_average,
    start_lines,
    validation_line,
)
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.optimizer import MovingAverage, sgd
from oiyolo.torch_engine.options import read_data_file
from oiyolo.torch_engine.parallel import Team
from oiyolo.torch_engine.rules import rules_for
from oiyolo.torch_engine.samples import has_images
from oiyolo.torch_engine.saving import HostCopy, Saver
from oiyolo.torch_engine.sidecar import load_state, save_with_state
from oiyolo.torch_engine.step import (
    REPRODUCIBLE,
    Stepper,
    StopAsked,
    choose_form,
    gradient_scaler,
    thread_count,
)
from oiyolo.torch_engine.validation import Validation, measurement_plan
from oiyolo.torch_engine.weights_io import WeightsCopy, load_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oiyolo.networks.cfg import Section
    from oiyolo.torch_engine.options import Options
    from oiyolo.torch_engine.step import NumberForm, StepResult

_SEED_BITS: Final = 31
_SPEED_SHARE: Final = 0.1
_EMA_WEIGHTS: Final = "_ema.weights"
_NO_MEMORY: Final = ("out of memory", "can't allocate memory")
_TRIAL_TRUTH: Final = (0.5, 0.5, 0.3, 0.3, 0.0)


class Training:
    """A training run of the engine in the current working folder.

    Args:
        options: What to train.
        write: Writes text to the log.
        meeting_path: File through which several processes find each other.

    Raises:
        UsageError: The device is not available, or a batch cannot be divided among the GPUs.
        InputFormError: A file is missing or damaged.
        CfgError: The network has something that is not supported.
    """

    def __init__(
        self, options: Options, write: Callable[[str], None], meeting_path: Path = Path()
    ) -> None:
        self._options, self._write = options, write
        self._fork = FORKS[options.fork]
        self._rules = rules_for(options.fork, gpu=options.on_gpu)
        data = read_data_file(options.data_path)
        self._folder, self._list_path = Path(data["backup"]), Path(data["train"])
        self._valid_path = Path(data.get("valid", ""))
        self._stem = options.cfg_path.name.partition(".")[0]
        self._cfg = cfg_file.read(options.cfg_path)
        self._batch = self._cfg.net.integer("batch", 1)
        size = max(1, len(options.gpus))
        self._parts = _parts(self._cfg.net, size)
        self._max_batches = self._cfg.net.integer("max_batches", 0)
        self._measurements = measurement_plan(
            self._batch, self._max_batches, self._fork.last_weights_interval
        )
        self._validation: Validation | None = None
        self._checkpoints = frozenset(self._fork.checkpoint_iterations(self._max_batches))
        self._device = _device(options)
        self._state = None
        if options.weights_path is not None and not options.clear:
            self._state = load_state(options.weights_path)
        self._team = Team(options.rank, size, self._device, meeting_path)
        self._seed = self._team.first(self._choose_seed())
        torch.manual_seed(self._seed + options.rank)
        self._network = (
            TorchNetwork(self._cfg, self._rules, seed=self._seed).to(self._device).train()
        )
        self._heads = Heads(self._network)
        self._iteration = 0
        self._saver = Saver(lambda path: write(f"Saving weights to {path}\n"))
        self._log = _Log(options.fork, self._batch, self._max_batches, write)
        self._stop_signal = 0
        self._is_compiling = False

    def run(self) -> int:
        """Train up to the last iteration, or until SIGTERM or SIGINT, and save the weights.

        Returns:
            The number of the signal; 0 if there was none.

        Raises:
            InputFormError: An image or label cannot be used.
            UnavailableError: The memory does not suffice.
        """
        self._write(f"{self._stem}\n")
        self._load_weights()
        self._write(start_lines(self._cfg.net))
        with _signals(self._stop):
            try:
                with self._saver:
                    self._train()
            except (RuntimeError, MemoryError) as error:
                if not any(text in str(error) for text in _NO_MEMORY):
                    raise
                raise _out_of_memory_error(error) from error
        self._team.close()
        return self._stop_signal

    def _train(self) -> None:
        form = self._choose_form()
        torch.backends.cudnn.benchmark = True  # few sizes, each for at least ten iterations
        self._network.to(memory_format=form.memory_format)  # type: ignore[call-overload]
        self._optimizer = sgd(self._network, fused=self._device.type in {"cpu", "cuda"})
        self._moving = MovingAverage(self._network)
        self._scaler = gradient_scaler(self._device, form)
        self._restore()
        self._stepper = Stepper(
            self._network,
            self._heads,
            self._optimizer,
            form=form,
            scaler=self._scaler,
            should_stop=lambda: bool(self._stop_signal),
            team=self._team,
        )
        loader = Loader(
            self._list_path,
            self._cfg,
            self._rules,
            device=self._device,
            seed=self._seed,
            heads=self._heads,
            sizes=self._size_at,
            position=self._iteration * self._batch,
            batch_images=self._batch // self._parts,
            rank=self._team.rank,
            ranks=self._team.size,
            memory_format=form.memory_format,
        )
        self._compiler = self._make_compiler(form)
        first = self._iteration
        with loader, self._open_validation(form), contextlib.suppress(StopAsked):
            self._train_with(loader)
        self._log.flush()
        if not self._team.is_first:
            return
        if self._iteration >= self._max_batches:
            self._save(FINAL_WEIGHTS)
        elif self._iteration > first and self._is_finite():
            self._save_last()
        self._saver.wait()

    def _train_with(self, loader: Loader) -> None:
        size_wh = self._cfg.size_wh
        self._pace = Pace(self._iteration)
        self._log.begin()
        while self._iteration < self._max_batches:
            wanted_wh = self._size_at(self._iteration)
            if wanted_wh != size_wh:
                self._log.flush()
                self._write(resize_lines(self._options.fork, wanted_wh))
                size_wh = wanted_wh
            self._compile_if_due(size_wh)
            result = self._stepper.step(self._iteration + 1, loader, self._parts)
            self._iteration += 1
            self._moving.update(self._iteration)
            self._log.add(self._iteration, result)
            if self._device.type != "cuda":
                self._log.flush()
            self._save_if_due()
            self._validate_if_due()

    def _make_compiler(self, form: NumberForm) -> Compiler:
        """Return what compiles the network, where that is possible.

        On a CPU, a training with a seed is to be reproducible, and bfloat16 does not get faster
        (0.83 times for the demo's network, 0.97 for yolov3-tiny; float32: 1.1 and 1.3 times).
        """
        choice = self._options.compilation
        if self._device.type == "cpu":
            gains = form.dtype == torch.float32 or choice == "always"
            is_possible = self._options.seed is None and gains
        else:
            is_possible = self._device.type == "cuda"
        # If an earlier process died while it compiled, this one would die of it as well.
        has_failed = self._state is not None and self._state.get("compiling", False)
        if not is_possible or has_failed or self._team.size > 1:
            choice = "never"
        rest = range(self._iteration, self._max_batches, ITERATIONS_PER_SIZE)
        part = self._batch // self._parts
        return Compiler(
            self._network,
            self._heads,
            form,
            sizes_wh=lambda: {self._size_at(iteration) for iteration in rest},
            choice=choice,
            trial_batch=lambda size_wh: _trial_batch(part, size_wh, self._device),
            write=self._write,
        )

    def _compile_if_due(self, size_wh: tuple[int, int]) -> None:
        pace_s = self._pace.seconds(self._iteration)
        remaining_s = (self._max_batches - self._iteration) * pace_s
        if self._stop_signal or not self._compiler.is_due(size_wh, remaining_s):
            return
        self._log.flush()
        if self._log.average is not None:
            self._is_compiling = True
            self._save_last()  # a signal ends the program at once while it compiles
            self._saver.wait()
            self._is_compiling = False
        with _signals(signal.SIG_DFL):
            compiled = self._compiler.compile(size_wh)
        if compiled is not None:
            self._stepper.use(compiled, size_wh)
        self._pace.restart(self._iteration)
        self._log.begin()

    def _size_at(self, iteration: int) -> tuple[int, int]:
        return size_at(self._cfg, self._rules, iteration, seed=self._seed)

    def _save_if_due(self) -> None:
        if not self._team.is_first:
            return
        self._saver.report()
        is_last = self._iteration % self._fork.last_weights_interval == 0
        is_checkpoint = self._iteration in self._checkpoints
        if is_last or is_checkpoint:
            self._log.flush()
            self._saver.wait()
        if is_last:
            self._save_last()
        if is_checkpoint:
            self._save(f"_{self._iteration}.weights")
        if self._device.type != "cuda":
            self._saver.wait()

    @contextlib.contextmanager
    def _open_validation(self, form: NumberForm) -> Iterator[None]:
        """Prepare the measurement of the loss on valid images, if there are any."""
        self._validation = None
        if self._team.is_first and has_images(self._valid_path):
            self._validation = Validation(
                self._network,
                self._heads,
                self._valid_path,
                limit=self._measurements.images,
                batch_images=self._batch // self._parts,
                form=form,
            )
        try:
            yield
        finally:
            if self._validation is not None:
                self._validation.close()

    def _validate_if_due(self) -> None:
        is_due = self._iteration % self._measurements.interval == 0
        if self._validation is None or not (is_due or self._iteration == self._max_batches):
            return
        self._log.flush()
        seen = self._iteration * self._batch
        loss = self._validation.measure(seen, lambda: bool(self._stop_signal))
        if loss is not None:
            self._write(validation_line(loss, self._validation.image_count))
        self._log.begin()

    def _save_last(self) -> None:
        """Save what a training is resumed from, and the averaged weights if there are any."""
        weights, state = self._weights_now(), self._state_now()

        def write(path: Path) -> None:
            content = {
                name: value.wait() if isinstance(value, HostCopy) else value
                for name, value in state.items()
            }
            save_with_state(weights.write, content, path)

        self._saver.save(self._path_of(self._fork.last_weights), write)
        if self._moving.values:
            with self._moving.applied():
                self._save(_EMA_WEIGHTS)

    def _is_finite(self) -> bool:
        return all(bool(torch.isfinite(value).all()) for value in self._network.parameters())

    def _save(self, suffix: str) -> None:
        self._saver.save(self._path_of(suffix), self._weights_now().save)

    def _weights_now(self) -> WeightsCopy:
        return WeightsCopy(self._network, self._iteration * self._batch)

    def _path_of(self, suffix: str) -> Path:
        return self._folder / f"{self._stem}{suffix}"

    def _state_now(self) -> dict[str, Any]:
        state = self._optimizer.state
        momentum = {
            name: state[parameter]["momentum_buffer"]
            for name, parameter in self._network.named_parameters()
            if "momentum_buffer" in state.get(parameter, {})
        }
        return {
            "seed": self._seed,
            "iteration": self._iteration,
            "average": self._log.average,
            "momentum": HostCopy(momentum),
            "moving": HostCopy(self._moving.values),
            "scaler": self._scaler.state_dict(),
            "random": torch.get_rng_state(),
            "compiling": self._is_compiling,
        }

    def _choose_seed(self) -> int:
        if self._options.seed is not None:
            return self._options.seed
        if self._state is not None:
            return int(self._state["seed"])
        return secrets.randbits(_SEED_BITS)

    def _load_weights(self) -> None:
        path = self._options.weights_path
        if path is None:
            return
        layer_count, seen = load_weights(self._network, path)
        self._write(f"Loading weights from {path}...Done! Loaded {layer_count} layers\n")
        self._iteration = 0 if self._options.clear else seen // self._batch

    def _restore(self) -> None:
        """Continue from the state next to the weights, if there is one."""
        if self._state is None:
            return
        for name, parameter in self._network.named_parameters():
            buffer = self._state["momentum"].get(name)
            if buffer is not None and buffer.shape == parameter.shape:
                moved = torch.empty_like(parameter).copy_(buffer)
                self._optimizer.state[parameter]["momentum_buffer"] = moved
        self._moving.values = {
            name: value.to(self._device) for name, value in self._state["moving"].items()
        }
        if self._scaler.is_enabled() and self._state["scaler"]:
            self._scaler.load_state_dict(self._state["scaler"])
        self._log.average = self._state["average"]
        if self._team.is_first:
            torch.set_rng_state(self._state["random"])

    def _choose_form(self) -> NumberForm:
        part = self._batch // self._parts
        if self._device.type == "cpu":
            threads = thread_count(self._network, part) // self._team.size
            torch.set_num_threads(max(1, threads))
        if self._options.seed is not None and self._device.type == "cpu":
            form = REPRODUCIBLE
        else:
            size_wh = self._cfg.size_wh
            batch = _trial_batch(part, size_wh, self._device)
            form = self._team.first(choose_form(self._network, self._heads, batch))
        self._write(f"PyTorch {torch.__version__} on {_device_name(self._device)}: {form}\n")
        return form

    def _stop(self, number: int, _: object) -> None:
        self._stop_signal = number


class _Log:
    """The lines of a training, of which those of the last iteration may still be due.

    Args:
        fork: The fork whose format is used.
        batch: Images of an iteration.
        max_batches: Number of the last iteration.
        write: Writes text to the log.

    Attributes:
        average: The running average of the loss; ``None`` before the first iteration.
    """

    def __init__(
        self, fork: str, batch: int, max_batches: int, write: Callable[[str], None]
    ) -> None:
        self.average: float | None = None
        self._format = log_format(fork)
        self._batch, self._max_batches, self._write = batch, max_batches, write
        self._due: tuple[int, StepResult] | None = None
        self._seconds = math.nan
        self._ended_s = time.monotonic()

    def begin(self) -> None:
        """Measure time from now on."""
        self._ended_s = time.monotonic()

    def add(self, iteration: int, result: StepResult) -> None:
        """Write the lines of the iteration before; those of this one are due."""
        self.flush()
        self._due = iteration, result

    def flush(self) -> None:
        """Write the lines that are due, after the device has computed their figures."""
        if self._due is None:
            return
        (iteration, result), self._due = self._due, None
        loss, heads = result.wait()
        now_s = time.monotonic()
        seconds, self._ended_s = now_s - self._ended_s, now_s
        share = 1.0 if math.isnan(self._seconds) else _SPEED_SHARE
        before_s = 0.0 if math.isnan(self._seconds) else self._seconds
        self._seconds = (1 - share) * before_s + share * seconds
        self.average = running_average(self.average, loss)
        figures = IterationFigures(
            iteration,
            loss,
            self.average,
            result.rate,
            seconds,
            iteration * self._batch,
            hours_left(self._max_batches - iteration, self._seconds),
        )
        lines = [
            f"Loaded: {result.wait_s:f} seconds",
            *(self._format.head(head.figures(), head.normalizers) for head in heads),
            self._format.iteration(figures),
        ]
        self._write("\n".join(lines) + "\n")


@contextlib.contextmanager
def _signals(handle: Callable[[int, object], None] | signal.Handlers) -> Iterator[None]:
    """Have SIGTERM and SIGINT handled, as far as this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _device(options: Options) -> torch.device:
    """Return the device to train on.

    Raises:
        UsageError: It is not available.
    """
    name = options.device
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            "this build of PyTorch finds no GPU",
            where=f"PyTorch {torch.__version__}",
            remedy="Train on the CPU, or install a build for this GPU: "
            "https://pytorch.org/get-started/locally",
        )
    if name == "cuda" and options.gpus:
        name = f"cuda:{options.gpus[options.rank]}"
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # events and graphs are those of the current one
    return device


def _parts(net: Section, gpu_count: int) -> int:
    """Return in how many parts a batch is computed.

    Raises:
        UsageError: It cannot be divided among the GPUs.
    """
    batch, subdivisions = net.integer("batch", 1), max(1, net.integer("subdivisions", 1))
    if gpu_count == 1:
        return min(subdivisions, batch)
    return parts_on_gpus(batch, subdivisions, gpu_count)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"the CPU ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def _trial_batch(image_count: int, size_wh: tuple[int, int], device: torch.device) -> Batch:
    """Return a batch for measuring: grey noise with one object per image."""
    width, height = size_wh
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(image_count, 3, height, width, generator=generator)
    truths = torch.tensor(_TRIAL_TRUTH).repeat(image_count, 1, 1)
    counts = torch.ones(image_count, dtype=torch.int64)
    return Batch(images.to(device), truths, counts, np.arange(image_count))


def _out_of_memory_error(error: BaseException) -> UnavailableError:
    return UnavailableError(
        "out of memory in training with torch",
        found=str(error).partition("\n")[0],
        remedy="Use more subdivisions or a smaller input",
    )
