"""Loading for the torch engine: batches, augmentation, cache, samples and input sizes."""

from __future__ import annotations

import colorsys
import itertools
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("torch", reason="the torch engine needs PyTorch")

import torch
from PIL import Image

from oiyolo.core.errors import InputFormError
from oiyolo.inference.placement import fit_image
from oiyolo.networks import cfg as cfgs
from oiyolo.torch_engine import augment, samples
from oiyolo.torch_engine.cache import ImageCache
from oiyolo.torch_engine.heads import Heads
from oiyolo.torch_engine.input_sizes import size_at
from oiyolo.torch_engine.loader import BatchMaker, Loader
from oiyolo.torch_engine.network import TorchNetwork
from oiyolo.torch_engine.rules import rules_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg

RED = (200, 20, 20)
BLUE = (20, 20, 90)
ALEXEYAB = rules_for("alexeyab", gpu=False)
PJREDDIE = rules_for("pjreddie", gpu=False)
RULES = {"pjreddie": PJREDDIE, "alexeyab": ALEXEYAB, "hank": rules_for("hank", gpu=False)}
SIZES = [(96, 64), (70, 110), (64, 64), (150, 40)]


def network(
    net: str = "", head: str = "", size_wh: tuple[int, int] = (64, 64), batch: int = 4
) -> Cfg:
    width, height = size_wh
    text = f"[net]\nwidth={width}\nheight={height}\nbatch={batch}\nsubdivisions=1\n{net}\n"
    return cfgs.parse(f"{text}[yolo]\nclasses=2\nmax=10\n{head}\n", path="t.cfg")


def trained_network() -> Cfg:
    """Return a network with a layer before its head."""
    return cfgs.parse(
        "[net]\nwidth=64\nheight=64\nchannels=3\nbatch=4\n[convolutional]\nfilters=14\nsize=1\n"
        "stride=8\nactivation=linear\n[yolo]\nclasses=2\nnum=2\nmask=0,1\nanchors=9,9, 30,30\n",
        path="t.cfg",
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes images with one red rectangle each, and their list."""

    def write(sizes: list[tuple[int, int]] = SIZES, labels: str | None = None) -> Path:
        paths = []
        random = np.random.default_rng(7)
        for number, (width, height) in enumerate(sizes):
            pixels = np.full((height, width, 3), BLUE, np.uint8)
            x, y = (random.uniform(0.1, 0.5, 2) * (width, height)).astype(int)
            w, h = (random.uniform(0.25, 0.4, 2) * (width, height)).astype(int)
            pixels[y : y + h, x : x + w] = RED
            path = tmp_path / f"{number}.jpg"
            Image.fromarray(pixels).save(path, format="PNG")  # without loss
            box = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            text = labels if labels is not None else "1 " + " ".join(f"{v:.7f}" for v in box)
            path.with_suffix(".txt").write_text(text + "\n")
            paths.append(str(path))
        (tmp_path / "train.txt").write_text("\n".join(paths) + "\n")
        return tmp_path / "train.txt"

    return write


def loader(path: Path, cfg: Cfg, fork: str = "alexeyab", **options: Any) -> Loader:
    fixed: dict[str, Any] = {"device": "cpu", "seed": 5, "threads": 2} | options
    return Loader(path, cfg, RULES[fork], **fixed)


def pixels_of(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(path))


AUGMENTED = "hue=.1\nsaturation=1.5\nexposure=1.5"


@pytest.mark.parametrize(
    ("fork", "net"),
    [
        ("pjreddie", ""),
        ("alexeyab", ""),
        ("alexeyab", "letter_box=1"),
        ("hank", ""),
        ("alexeyab", "mosaic=1\nmosaic_bound=1"),
    ],
)
def test_boxes_stay_with_their_pixels(dataset: Callable[..., Path], fork: str, net: str) -> None:
    """The rectangle is where the box says, through every crop, mirror and mosaic."""
    colours = "hue=.1\nsaturation=1.2\nexposure=1.2"
    cfg = network(f"{net}\n{colours}", "jitter=.3\nresize=1.5", size_wh=(96, 64), batch=16)
    margin = 2
    with loader(dataset(), cfg, fork) as batches:
        seen = 0
        for batch in itertools.islice(batches, 8):
            images, truths = batch.images.numpy(), batch.truths.numpy()
            assert np.isfinite(images).all()
            assert images.min() >= 0
            assert images.max() <= 1
            assert truths.min() >= 0
            assert truths[..., :4].max() <= 1
            for image, boxes, count in zip(images, truths, batch.counts, strict=True):
                chroma = image.max(axis=0) - image.min(axis=0)
                outside = np.ones(chroma.shape, bool)
                for x, y, w, h, class_id in boxes[:count]:
                    assert class_id == 1
                    left, right = (x - w / 2) * 96, (x + w / 2) * 96
                    top, bottom = (y - h / 2) * 64, (y + h / 2) * 64
                    inner = chroma[
                        int(top) + margin : int(bottom) - margin + 1,
                        int(left) + margin : int(right) - margin + 1,
                    ]
                    seen += inner.size
                    assert not inner.size or inner.min() > 0.42
                    outside[
                        max(0, int(top) - margin) : int(bottom) + 1 + margin,
                        max(0, int(left) - margin) : int(right) + 1 + margin,
                    ] = False
                if count and "mosaic" not in net:
                    assert not outside.any() or chroma[outside].max() < 0.42
        assert seen > 1000


@pytest.mark.parametrize("size_wh", [(64, 64), (96, 64), (33, 70)])
@pytest.mark.parametrize(
    ("fork", "net", "fit"),
    [
        ("alexeyab", "", "stretch"),
        ("alexeyab", "letter_box=1", "letterbox"),
        ("pjreddie", "", "letterbox"),
    ],
)
def test_without_augmentation_the_input_is_that_of_detection(
    dataset: Callable[..., Path], fork: str, net: str, fit: Any, size_wh: tuple[int, int]
) -> None:
    path = dataset()
    with loader(path, network(net, size_wh=size_wh), fork, augment=False, in_order=True) as batches:
        (batch,) = batches
    assert batch.indices.tolist() == [0, 1, 2, 3]
    for number, image in enumerate(batch.images.numpy()):
        expected = np.empty((3, size_wh[1], size_wh[0]), np.float32)
        fit_image(pixels_of(path.parent / f"{number}.jpg"), size_wh, fit, expected)
        np.testing.assert_allclose(image, expected, atol=1e-5)


def test_a_stream_is_repeated_bit_by_bit_also_from_the_middle(
    dataset: Callable[..., Path],
) -> None:
    path, cfg = dataset(), network(f"mixup=1\n{AUGMENTED}", "jitter=.2")
    with loader(path, cfg) as first, loader(path, cfg, threads=1) as second:
        batches = [next(first) for _ in range(23)]
        for batch in batches:
            other = next(second)
            assert all(torch.equal(a, b) for a, b in zip(batch[:3], other[:3], strict=True))
    with loader(path, cfg, position=12) as third:
        assert torch.equal(next(third).images, batches[3].images)
    with loader(path, cfg, seed=6) as other_seed:
        assert not torch.equal(next(other_seed).images, batches[0].images)


def test_a_change_of_size_wastes_no_prepared_image(
    dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches have the size of their iteration, although they are prepared before it."""
    made: list[tuple[int, tuple[int, int]]] = []
    make = BatchMaker.make

    def record(maker: BatchMaker, positions: Any, size_wh: tuple[int, int], **options: Any) -> Any:
        made.extend((position, size_wh) for position in positions.tolist())
        return make(maker, positions, size_wh, **options)

    monkeypatch.setattr(BatchMaker, "make", record)
    path, cfg = dataset(), network(batch=8)

    def size_of(iteration: int) -> tuple[int, int]:
        return [(32, 32), (64, 32), (32, 96)][iteration // 10 % 3]

    with loader(path, cfg, sizes=size_of, batch_images=4, position=24) as batches:
        images = [next(batches).images for _ in range(80)]
    assert [image.shape[:1:-1] for image in images] == [size_of(3 + i // 2) for i in range(80)]
    assert [position for position, _ in made] == list(range(24, 24 + len(made)))
    assert all(size_wh == size_of(position // 8) for position, size_wh in made)
    fixed = size_of(13)
    with loader(path, cfg, sizes=lambda _: fixed, batch_images=4, position=13 * 8) as alone:
        assert torch.equal(next(alone).images, images[20])


def test_a_sample_is_spread_over_the_list_and_can_be_repeated(
    dataset: Callable[..., Path],
) -> None:
    path = dataset([*SIZES, (50, 40)])
    with loader(path, network(), augment=False, in_order=True, limit=2) as batches:
        first = list(batches)
        batches.rewind()
        second = list(batches)
    assert [len(batch.images) for batch in first] == [2]
    assert torch.equal(first[0].images, second[0].images)
    with loader(path, network(batch=5), augment=False, in_order=True) as batches:
        (whole,) = batches
    assert torch.equal(whole.images[[0, 2]], first[0].images)


def test_memory_is_not_used_again_before_the_training_has_read_it(
    dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch's memory comes from the producer's stream, so the reading stream is recorded."""
    recorded: list[tuple[int, Any]] = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "training")
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda tensor, name: recorded.append((id(tensor), name))
    )
    heads = Heads(TorchNetwork(trained_network(), RULES["alexeyab"]))
    with loader(dataset(), trained_network(), heads=heads) as batches:
        batch = next(batches)
        assert not recorded
        batches._stream = Mock(spec=torch.cuda.Stream)
        batch = next(batches)
    (target,) = batch.targets
    assert target.assignment is not None
    on_device = [batch.images, *target.truths, target.assignment.boxes, target.assignment.corners]
    assert {(id(tensor), "training") for tensor in on_device} <= set(recorded)


def test_batches_come_with_the_targets_of_their_boxes(dataset: Callable[..., Path]) -> None:
    cfg = trained_network()
    heads = Heads(TorchNetwork(cfg, RULES["alexeyab"]))
    with loader(dataset(), cfg, heads=heads, batch_images=2) as batches:
        for batch in itertools.islice(batches, 3):
            wanted = heads.targets(batch.truths, (64, 64), torch.device("cpu"))
            for target, own in zip(batch.targets, wanted, strict=True):
                pairs = zip(target.tensors(), own.tensors(), strict=True)
                assert all(torch.equal(*pair) for pair in pairs)
                assert len(target.truths.places[0]) == int(batch.counts.sum())


def test_processes_share_a_stream(dataset: Callable[..., Path]) -> None:
    path = dataset()
    with loader(path, network(batch=4), batch_images=4) as alone:
        whole = [next(alone).images for _ in range(2)]
    parts = []
    for rank in range(2):
        with loader(path, network(batch=4), batch_images=2, rank=rank, ranks=2) as part:
            parts.append([next(part).images for _ in range(2)])
    for step in range(2):
        assert torch.equal(torch.cat([part[step] for part in parts]), whole[step])


def test_one_pass_in_order_ends_with_a_smaller_batch(dataset: Callable[..., Path]) -> None:
    with loader(dataset(), network(batch=3), augment=False, in_order=True) as batches:
        assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [3]]


def test_colours_change_as_in_hsv(dataset: Callable[..., Path]) -> None:
    """Compared with the textbook's conversion, pixel by pixel, for every hue."""
    path = dataset([(24, 24)] * 4)
    random = np.random.default_rng(1)
    for number in range(4):
        noise = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        noise[0] = noise[0, :, :1]
        Image.fromarray(noise).save(path.parent / f"{number}.jpg", format="PNG")
    cfg = network(f"flip=0\n{AUGMENTED}", "jitter=0", size_wh=(24, 24), batch=8)
    with loader(path, cfg) as batches:
        batch = next(batches)
        colours = augment._colours(
            augment.augmentation_of(cfg, ALEXEYAB),
            samples.uniform(5, np.arange(8)[:, None] * 4, np.arange(augment._SLOTS)),
        )
    assert (np.abs(colours - [0, 1, 1]) > 1e-3).all()
    for image, index, (hue, saturation, exposure) in zip(
        batch.images.numpy(), batch.indices, colours.tolist(), strict=True
    ):
        source = pixels_of(path.parent / f"{index}.jpg") / 255
        for y, x in itertools.product(range(0, 24, 3), range(24)):
            h, s, v = colorsys.rgb_to_hsv(*source[y, x])
            h, s, v = (h + hue) % 1, s * saturation, v * exposure
            expected = np.clip(colorsys.hsv_to_rgb(h, s, v), 0, 1)
            np.testing.assert_allclose(image[:, y, x], expected, atol=1e-5)


def test_boxes_are_dropped_and_capped_as_in_darknet(dataset: Callable[..., Path]) -> None:
    small = "0 .5 .5 .01 .5"  # less than a pixel of 64
    many = "\n".join(f"1 .5 .5 {0.1 + number / 100:.2f} .2" for number in range(20))
    path = dataset([(64, 64)], labels=f"{small}\n0 0 0 .5 .5")
    with loader(path, network(), augment=False) as batches:
        assert next(batches).counts.tolist() == [0] * 4
    with loader(path, network(), "pjreddie", augment=False) as batches:
        assert next(batches).counts.tolist() == [1] * 4
    with loader(dataset([(64, 64)], labels=many), network(), augment=False) as batches:
        first, second = (next(batches).truths[0] for _ in range(2))
    assert first.shape == (10, 5)
    assert (first[:, 2] > 0).all()
    assert len(set(first[:, 2].tolist())) == 10
    assert not torch.equal(first, second)  # which boxes are left out is drawn each time


def test_mixup_blends_two_images_and_joins_their_boxes(dataset: Callable[..., Path]) -> None:
    path = dataset([(64, 64)] * 4)
    cfg = network("mixup=1\nflip=0", "jitter=0", batch=32)
    with loader(path, cfg) as batches:
        batch = next(batches)
    mixed = batch.counts.numpy() == 2
    assert 4 < mixed.sum() < 28
    sources = [pixels_of(path.parent / f"{number}.jpg") / 255 for number in range(4)]
    for row in np.flatnonzero(mixed):
        first = sources[batch.indices[row]]
        image = batch.images[row].numpy().transpose(1, 2, 0)
        assert min(np.abs(image - (first + other) / 2).max() for other in sources) < 1e-6


def test_options_that_a_fork_does_not_have_are_ignored() -> None:
    cfg = network("mosaic=1\nletter_box=1\nflip=0\nblur=1", "resize=2")
    options = augment.augmentation_of(cfg, PJREDDIE)
    assert (options.mix, options.flip, options.resize) == ("", True, 1)


@pytest.mark.parametrize(
    "label", ["2 .5 .5 .1 .1", "-1 .5 .5 .1 .1", "0 1.2 .5 .1 .1", "0 .5 .5 0 .1", "a b"]
)
def test_a_label_out_of_range_is_an_error(dataset: Callable[..., Path], label: str) -> None:
    with pytest.raises(InputFormError) as error:
        loader(dataset(labels=label), network())
    assert error.value.exit_code == 3
    assert "0.txt" in error.value.found
    assert "1 more" in error.value.found


def test_missing_files_are_errors(dataset: Callable[..., Path]) -> None:
    path = dataset()
    with pytest.raises(InputFormError):
        loader(path.with_name("other.txt"), network())
    path.with_name("1.txt").unlink()
    with pytest.raises(InputFormError) as error:
        loader(path, network())
    assert "1.jpg" in error.value.found


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 no image", None])
def test_an_unreadable_image_is_an_error(
    dataset: Callable[..., Path], content: bytes | None
) -> None:
    path = dataset()
    image = path.with_name("2.jpg")
    if content is None:
        image.unlink()
    else:
        image.write_bytes(content)
    with (
        loader(path, network(), augment=False, in_order=True) as batches,
        pytest.raises(InputFormError) as error,
    ):
        next(batches)
    assert error.value.where == str(path)
    assert "2.jpg" in error.value.found


def test_images_that_do_not_fit_in_memory_are_decoded_again(
    dataset: Callable[..., Path],
) -> None:
    path = dataset([(40, 30)] * 4)
    cache = ImageCache(samples.read(path, 2).paths, limit_bytes=2 * 40 * 30 * 3)
    first = [cache.get(number).copy() for number in range(4)]
    np.testing.assert_array_equal(cache.get(3), first[3])
    for number in range(4):
        path.with_name(f"{number}.jpg").unlink()
    for number in range(2):
        np.testing.assert_array_equal(cache.get(number), first[number])
    with pytest.raises(InputFormError):
        cache.get(2)


def test_no_further_image_is_kept_while_memory_is_short(
    dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what was available at first stays available, whoever uses the rest."""
    monkeypatch.setattr("oiyolo.torch_engine.cache._CHECK_BYTES", 1)
    available = [1 << 30]
    paths = samples.read(dataset([(40, 30)] * 4), 2).paths
    cache = ImageCache(paths, available=lambda: available[0])
    kept = [cache.get(0) is cache.get(0)]
    available[0] = 500 << 20
    kept.append(cache.get(1) is cache.get(1))
    available[0] = 600 << 20
    kept.append(cache.get(2) is cache.get(2))
    assert kept == [True, False, True]
    alone, shared = (ImageCache([], available=lambda: 1 << 30, processes=n)._left for n in (1, 4))
    assert (alone, shared) == (1 << 29, 1 << 27)


def test_sizes_are_a_function_of_the_iteration() -> None:
    fixed = network(size_wh=(96, 64))
    assert size_at(fixed, ALEXEYAB, 40, seed=1) == (96, 64)
    cfg = network("max_batches=4000", "random=1", size_wh=(416, 416))
    sizes = [size_at(cfg, ALEXEYAB, iteration, seed=1) for iteration in range(0, 4000, 10)]
    assert sizes[0] == (608, 608)
    assert set(sizes[-9:]) == {(608, 608)}
    assert {width % 32 for width, _ in sizes} == {0}
    assert {min(sizes), max(sizes)} == {(320, 320), (608, 608)}
    assert len(set(sizes)) > 6
    assert [size_at(cfg, ALEXEYAB, 10 + i, seed=1) for i in range(10)] == sizes[1:2] * 10
    own = {size_at(cfg, PJREDDIE, iteration, seed=1)[0] for iteration in range(0, 3800, 10)}
    assert own == set(range(320, 640, 32))
    assert size_at(cfg, PJREDDIE, 3810, seed=1) == (608, 608)


def test_random_numbers_are_even_and_independent() -> None:
    drawn = samples.uniform(3, np.arange(20_000)[:, None], np.arange(5))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(5), atol=0.03)
    images = (samples.uniform(4, np.arange(20_000), 0) * 10).astype(int)
    np.testing.assert_allclose(np.bincount(images, minlength=10) / 20_000, 0.1, atol=0.01)
