"""The arithmetic behind a plan: downloads, disk space, durations and costs."""

from __future__ import annotations

import io
import statistics
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from oiyolo.core.disks import free_bytes, used_bytes
from oiyolo.core.units import cost, format_bytes, format_duration, format_money
from oiyolo.imagery.upright import make_upright
from oiyolo.networks import builders
from oiyolo.networks.layers import expected_weight_bytes
from oiyolo.planning import estimates
from oiyolo.planning.estimates import Amount, Photo, SourceInfo
from oiyolo.sources.web import MIRROR_MEAN_BYTES

if TYPE_CHECKING:
    from pathlib import Path

PHOTOS = [
    Photo("a", "train", 1_000_000),
    Photo("b", "train", 3_000_000),
    Photo("c", "validation", None),
    Photo("d", "test", 2_000_000),
]
MEANS = {"train": 300.0, "validation": 200.0, "test": 100.0}
INFO = SourceInfo(MEANS, 0.25, {"./here": {"a": 500, "d": 700, "other": 9}, "/none": {}})


def test_the_mean_image_sizes_of_the_subsets_agree() -> None:
    means = MIRROR_MEAN_BYTES
    assert {name: round(mean / 1000) for name, mean in means.items()} == {
        "train": 316,
        "validation": 309,
        "test": 309,
    }


@pytest.mark.parametrize(
    ("source", "images", "network_bytes"),
    [
        ("mirror", 4, 300 + 300 + 200 + 100),
        (
            "original",
            4,
            1e6 + 3e6 + 2e6 + 2e6,
        ),  # the one without a size gets the mean of the others
        ("./here", 2, 0),
        ("/none", 0, 0),
        ("/not/configured", 0, 0),
    ],
)
def test_fetching_everything_from_one_source(
    source: str, images: int, network_bytes: float
) -> None:
    amount = estimates.amount_from(source, PHOTOS, INFO)
    assert (amount.images, amount.network_bytes) == (images, network_bytes)
    size = network_bytes or (1200 if source == "./here" else 0)
    assert amount.disk_bytes == size + images * 2048


@pytest.mark.parametrize(
    ("sources", "images", "network_bytes"),
    [
        (["mirror", "original"], 4, 900),
        (["original"], 3, 0.75 * 8e6),
        (["original", "mirror"], 4, 0.75 * 8e6 + 0.25 * 900),
        (["./here"], 2, 0),
        (["./here", "mirror"], 4, 300 + 200),
        (["./here", "original", "mirror"], 4, 0.75 * 6e6 + 0.25 * 500),
        (["original", "./here"], 3 + 0.25 * 2, 0.75 * 8e6),
        (["/none", "./here", "mirror"], 4, 500),
        (["original", "original"], 3.75, 0.9375 * 8e6),
        ([], 0, 0),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_each_image_comes_from_the_first_source_that_has_it(
    sources: list[str], images: float, network_bytes: float
) -> None:
    amount = estimates.amount_from_first(sources, PHOTOS, INFO)
    assert amount.images == pytest.approx(images)
    assert amount.network_bytes == pytest.approx(network_bytes)


SOURCES = st.lists(st.sampled_from(["mirror", "original", "./here", "/none"]), max_size=4)


@given(sources=SOURCES, missing_share=st.floats(0, 1))
def test_no_order_of_sources_yields_more_images_than_are_selected(
    sources: list[str], missing_share: float
) -> None:
    info = SourceInfo(MEANS, missing_share, INFO.folders)
    amount = estimates.amount_from_first(sources, PHOTOS, info)
    assert 0 <= amount.images <= len(PHOTOS) + 1e-9
    assert amount.disk_bytes >= amount.network_bytes >= 0
    more = estimates.amount_from_first([*sources, "mirror"], PHOTOS, info)
    assert more.images == pytest.approx(len(PHOTOS))


@pytest.mark.parametrize("source", ["mirror", "original", "./here"])
def test_no_images_need_no_resources(source: str) -> None:
    assert estimates.amount_from(source, [], INFO) == Amount()
    assert estimates.amount_from_first([source], [], INFO) == Amount()


def test_originals_count_as_zero_bytes_if_no_size_is_listed() -> None:
    amount = estimates.amount_from("original", [Photo("a", "train", None)], INFO)
    assert (amount.images, amount.network_bytes) == (1, 0)


@pytest.mark.parametrize(
    ("size_wh", "fit", "measured"),
    # Means of 100 photographs from the mirror, at quality 90.
    [
        ((96, 96), "stretch", 4468),
        ((224, 224), "stretch", 18_668),
        ((320, 320), "stretch", 34_873),
        ((416, 416), "stretch", 56_960),
        ((608, 608), "stretch", 111_927),
        ((832, 832), "stretch", 190_417),
        ((320, 320), "letterbox", 27_739),
        ((416, 416), "letterbox", 44_051),
        ((608, 608), "letterbox", 88_549),
        ((416, 416), "none", 210_116),
    ],
)
def test_prepared_sizes_match_the_measurements(
    size_wh: tuple[int, int], fit: str, measured: int
) -> None:
    assert estimates.prepared_bytes(size_wh, fit, 328_568) == pytest.approx(measured, rel=0.06)


def test_prepared_sizes_match_real_photographs(real: Path) -> None:
    photographs = sorted((real / "alpaca" / "images").glob("*.jpg"))[:20]
    sizes = [len(make_upright(path, 0, (416, 416), "stretch").jpeg) for path in photographs]
    estimated = estimates.prepared_bytes((416, 416), "stretch", 0.0)
    assert statistics.mean(sizes) == pytest.approx(estimated, rel=0.15)


def test_an_image_without_detail_is_smaller_than_estimated(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (640, 480), "navy").save(data, "JPEG")
    (tmp_path / "a.jpg").write_bytes(data.getvalue())
    upright = make_upright(tmp_path / "a.jpg", 0, (416, 416), "stretch")
    assert len(upright.jpeg) < estimates.prepared_bytes((416, 416), "stretch", 0.0)


@pytest.mark.parametrize(
    ("fork", "max_batches", "files"),
    [
        # 100, 200, ... 900; backup; best; final
        ("pjreddie", 50, 2),
        ("pjreddie", 100, 1 + 3),
        ("pjreddie", 999, 9 + 3),
        ("pjreddie", 6000, 9 + 3),
        ("pjreddie", 20_382, 9 + 2 + 3),
        # 1000, 2000, ...; last; best; final
        ("alexeyab", 50, 2),
        ("alexeyab", 6000, 6 + 3),
        ("alexeyab", 9999, 9 + 3),
        ("alexeyab", 10_000, 1 + 3),
        ("alexeyab", 20_382, 2 + 3),
        ("hank", 6000, 6 + 3),
    ],
)
def test_each_fork_of_darknet_leaves_its_own_number_of_weights_files(
    fork: Any, max_batches: int, files: int
) -> None:
    assert estimates.weights_file_count(fork, max_batches) == files


def test_the_estimated_weights_of_yolov3_match_its_published_file() -> None:
    cfg = builders.build("yolov3", class_count=80, size_wh=(416, 416))
    assert expected_weight_bytes(cfg) == 248_007_048


def test_log_size_grows_with_iterations_heads_and_subdivisions() -> None:
    assert estimates.log_bytes(300, 1, 1) == 300 * 490
    assert estimates.log_bytes(10, 3, 16) == 10 * (250 + 48 * 240)
    assert estimates.log_bytes(0, 3, 16) == 0


@pytest.mark.parametrize(
    ("images", "dataset", "training", "keep", "peak"),
    [
        (800, 150, 300, True, 1250),
        (800, 150, 300, False, 800),
        (400, 150, 300, False, 450),
        (0, 0, 300, False, 300),
        (0, 0, 0, True, 0),
    ],
)
def test_originals_count_towards_the_peak_until_they_are_deleted(
    images: float, dataset: float, training: float, *, keep: bool, peak: float
) -> None:
    assert estimates.peak_bytes(images, dataset, training, keep_originals=keep) == peak


@pytest.mark.parametrize(("needed", "expected"), [(0, 0), (1000, 1250), (1, 201.05)])
def test_a_margin_is_added_only_if_space_is_needed(needed: float, expected: float) -> None:
    assert estimates.with_margin(needed, 200) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size", "bandwidth", "seconds"),
    [(100, 50.0, 2.0), (0, None, 0.0), (100, None, None), (0, 5.0, 0.0)],
)
def test_a_duration_needs_a_bandwidth_unless_there_is_nothing_to_download(
    size: float, bandwidth: float | None, seconds: float | None
) -> None:
    assert estimates.duration_s(size, bandwidth) == seconds


@pytest.mark.parametrize(
    ("parts", "expected"), [((1.0, 2.0), 3.0), ((1.0, None), None), ((), 0), ((None,), None)]
)
def test_a_total_is_unknown_if_a_part_is_unknown(
    parts: tuple[float | None, ...], expected: float | None
) -> None:
    assert estimates.total(parts) == expected


def test_one_hour_costs_the_hourly_price() -> None:
    assert cost(3600, 1.2) == 1.2
    assert cost(3600, 0) == 0  # a machine may be free
    assert cost(None, 1.2) is None


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (512, "512 B"), (4100, "4.1 kB"), (73_200_000, "73.2 MB"), (8.054e9, "8.05 GB"),
     (1.2e12, "1.20 TB"), (None, "?")],
)  # fmt: skip
def test_bytes_are_formatted_in_a_suitable_unit(size: float | None, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.23, "4.2 s"), (60, "1 min"), (1859, "31 min"), (25_500, "7 h 05 min"),
     (3600, "1 h 00 min"), (735_000, "8 d 12 h"), (172_799, "48 h 00 min"), (None, "?")],
)  # fmt: skip
def test_durations_are_formatted_in_a_suitable_unit(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(34.123, "EUR", "34.12 EUR"), (1234.5, "", "1,234.50"), (None, "EUR", "? EUR")],
)
def test_money_is_formatted_with_its_currency(
    amount: float | None, currency: str, text: str
) -> None:
    assert format_money(amount, currency) == text


def test_disk_usage_counts_whole_blocks_and_is_zero_for_a_missing_folder(
    tmp_path: Path,
) -> None:
    assert used_bytes(tmp_path / "nothing") == 0
    (tmp_path / "below").mkdir()
    for name in ("a", "below/b"):
        (tmp_path / name).write_bytes(b"x" * 10_000)
    (tmp_path / "link").symlink_to(tmp_path)
    assert 20_000 <= used_bytes(tmp_path) < 40_000
    assert free_bytes(tmp_path / "not" / "there" / "yet") > 0
