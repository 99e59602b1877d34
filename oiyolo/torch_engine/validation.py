"""The loss on images that the network is not trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from oiyolo.torch_engine.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.torch_engine.heads import Heads
    from oiyolo.torch_engine.network import TorchNetwork
    from oiyolo.torch_engine.step import NumberForm

MAX_IMAGES: Final = 1000
_IMAGE_SHARE: Final = 0.04
"""Images measured, relative to those trained on since the last measurement. Without augmentation
and the backward pass, one takes less than half as long, so this is 2 % of the time at most."""
_MEASUREMENTS: Final = 10
"""A run is measured at least so often; with fewer images, if need be."""


class MeasurementPlan(NamedTuple):
    """How much is measured, and when.

    Attributes:
        interval: Iterations between two measurements.
        images: Largest number of images that are measured each time.
    """

    interval: int
    images: int


def measurement_plan(batch: int, max_batches: int, step: int) -> MeasurementPlan:
    """Return how much of a list of valid images is measured, and when.

    Args:
        batch: Images of an iteration.
        max_batches: Number of iterations of the run.
        step: Number of iterations of which the interval is a multiple.
    """
    wanted = math.ceil(MAX_IMAGES / (_IMAGE_SHARE * batch * step)) * step
    longest = max(step, max_batches // _MEASUREMENTS // step * step)
    interval = min(wanted, longest)
    return MeasurementPlan(interval, max(1, min(MAX_IMAGES, int(_IMAGE_SHARE * batch * interval))))


class Validation:
    """Measures darknet's loss on a fixed sample of a list, without augmentation.

    The network is in evaluation mode: batch normalization uses the rolling statistics. Nothing
    random is drawn, so training continues as without it.

    Args:
        network: The network, on its device.
        heads: Its heads.
        list_path: The list of valid images.
        limit: Largest number of images, which are spread evenly over the list.
        batch_images: Images of a pass.
        form: How numbers are stored and computed with.

    Raises:
        InputFormError: The list or a label cannot be used.
    """

    def __init__(
        self,
        network: TorchNetwork,
        heads: Heads,
        list_path: Path,
        *,
        limit: int,
        batch_images: int,
        form: NumberForm,
    ) -> None:
        self._network, self._heads, self._form = network, heads, form
        self._device = next(network.parameters()).device
        self._loader = Loader(
            list_path,
            network.cfg,
            network.rules,
            device=self._device,
            seed=0,
            heads=heads,
            augment=False,
            in_order=True,
            limit=limit,
            batch_images=batch_images,
            memory_format=form.memory_format,
        )

    @property
    def image_count(self) -> int:
        """Number of images that are measured."""
        return self._loader.image_count

    def close(self) -> None:
        """Stop the threads that load images."""
        self._loader.close()

    def measure(self, seen: int, should_stop: Callable[[], bool]) -> float | None:
        """Return the mean loss per image; ``None`` if it was asked to stop.

        Args:
            seen: Number of images that the network has been trained on.
            should_stop: Asked before each pass.

        Raises:
            InputFormError: An image cannot be used.
        """
        total = torch.zeros((), device=self._device)
        self._loader.rewind()
        self._network.eval()
        try:
            with torch.no_grad():
                for batch in self._loader:
                    if should_stop():
                        return None
                    with self._form.autocast(self._device):
                        raws = self._network(batch.images)
                    loss, _ = self._heads.loss(raws, batch.targets, batch.size_wh, seen)
                    total += loss
        finally:
            self._network.train()
        return float(total) / self.image_count
