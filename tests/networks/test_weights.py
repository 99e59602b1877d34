"""Validation of weights files, and download of pretrained ones."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.networks.cfg import parse, read
from oiyolo.networks.layers import expected_weight_bytes, layers
from oiyolo.networks.weights import (
    CHECKSUMS,
    PRETRAINED,
    Checksum,
    check_weights,
    read_header,
)

if TYPE_CHECKING:
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.networks.weights import WeightsReport

FIRST = (-4.25, 0.5, 1.75)


@pytest.fixture
def cfg(small_text: str) -> Cfg:
    return parse(small_text, path="n.cfg")


def weights_bytes(cfg: Cfg, layer_count: int | None = None, *, seen: int = 0) -> bytes:
    """Return a valid file: small numbers, no negative variances, FIRST at the start."""
    rng = np.random.default_rng(3)
    parts = [
        np.abs(numbers) if segment.name == "variances" else numbers
        for layer in layers(cfg)[:layer_count]
        for segment in layer.segments
        for numbers in [rng.normal(0, 0.1, segment.count)]
    ]
    numbers = np.concatenate(parts).astype("<f4")
    numbers[:3] = FIRST
    return struct.pack("<3iQ", 0, 2, 0, seen) + numbers.tobytes()


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "some.weights"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("start", "seen", "header_bytes"),
    [
        (struct.pack("<3iQ", 0, 2, 0, 2400), 2400, 20),
        (struct.pack("<3iQ", 0, 2, 5, 2**33), 2**33, 20),
        (struct.pack("<3iI", 0, 1, 0, 2400), 2400, 16),
    ],
)
def test_short_and_long_headers_are_read(
    tmp_path: Path, start: bytes, seen: int, header_bytes: int
) -> None:
    header = read_header(written(tmp_path, start + bytes(400)))
    assert (header.seen, header.header_bytes) == (seen, header_bytes)
    assert header.iteration(8) == seen // 8


def test_valid_weights_are_accepted(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg, seen=80))
    report = check_weights(path, cfg, expected_bytes=expected_weight_bytes(cfg))
    assert (report.filled_layers, report.layer_count, report.is_complete) == (4, 4, True)
    assert report.header.seen == 80
    assert not check_weights(path).is_complete


def test_a_file_of_the_first_layers_is_valid(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg, 2))
    report = check_weights(path, cfg)
    assert (report.filled_layers, report.is_complete) == (2, False)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "0 bytes"),
        (b"\0" * 15, "15 bytes"),
        (struct.pack("<3i", 0, 2, 0) + b"\0" * 5, "17 bytes"),
        (b"<!DOCTYPE html><html>" + b" " * 400, "an HTML page"),
        (b"\n  <HTML><head>" + b" " * 400, "an HTML page"),
        (b"Moved Permanently. Redirecting to ...", "version"),
        (struct.pack("<3iQ", 0, 2, 0, 0), "0 bytes after the header"),
        (struct.pack("<3iQ", 0, 2, 0, 0) + b"abc", "3 bytes after"),
        (struct.pack("<3iQ", 0, 2, 0, 0) + bytes(400), "only zeros"),
        (struct.pack("<3iQ2f", 0, 2, 0, 0, 1, np.nan), "not finite"),
        (struct.pack("<3iQ2f", 0, 2, 0, 0, 1, -np.inf), "not finite"),
        (struct.pack("<3iQ2f", 0, 2, 0, 0, 1, 1e20), "1e+20"),
        (struct.pack("<3iQ3f", 0, 2, 0, 0, 1, 1e-35, 1e-36), "far too small"),
    ],
)
def test_a_file_that_is_not_weights_is_rejected(tmp_path: Path, data: bytes, found: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(InputFormError) as caught:
        check_weights(path)
    assert caught.value.where == str(path)
    assert found in caught.value.found


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        check_weights(tmp_path / "none.weights")
    assert caught.value.where == str(tmp_path / "none.weights")


def test_random_bytes_and_text_are_rejected(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    header = struct.pack("<3iQ", 0, 2, 0, 0)
    for body in (rng.bytes(4000), b"not weights at all, but text " * 100):
        with pytest.raises(InputFormError):
            check_weights(written(tmp_path, header + body))


def test_weights_of_another_size_are_rejected(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg)[:-4])
    with pytest.raises(InputFormError) as caught:
        check_weights(path, expected_bytes=expected_weight_bytes(cfg))
    assert (caught.value.expected, caught.value.found) == ("1,516 bytes", "1,512 bytes")


def test_weights_that_end_within_a_layer_are_rejected(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg)[:-8])
    with pytest.raises(InputFormError) as caught:
        check_weights(path, cfg)
    assert "within layer 2" in caught.value.found


def test_weights_of_a_network_with_more_classes_are_rejected(
    tmp_path: Path, cfg: Cfg, small_text: str
) -> None:
    path = written(tmp_path, weights_bytes(cfg))
    fewer = small_text.replace("filters=14", "filters=12").replace("classes=2", "classes=1")
    with pytest.raises(InputFormError) as caught:
        check_weights(path, parse(fewer, path="n.cfg"))
    assert "after the last layer" in caught.value.found


def test_weights_with_negative_variances_are_rejected(tmp_path: Path, cfg: Cfg) -> None:
    data = bytearray(weights_bytes(cfg))
    # The header is followed by 8 biases, 8 scales, 8 means and 8 variances.
    data[20 + 4 * 30 : 20 + 4 * 31] = struct.pack("<f", -0.5)
    with pytest.raises(InputFormError) as caught:
        check_weights(written(tmp_path, bytes(data)), cfg)
    assert "variances in layer 0" in caught.value.found


@pytest.mark.parametrize("change_bytes", [-1, 1, -4, 4])
def test_complete_weights_have_exactly_the_size_of_their_network(
    tmp_path: Path, cfg: Cfg, change_bytes: int
) -> None:
    data = weights_bytes(cfg)
    assert check_weights(written(tmp_path, data), cfg, complete=True).is_complete
    path = written(tmp_path, (data + data[20:24])[: len(data) + change_bytes])
    with pytest.raises(InputFormError) as caught:
        check_weights(path, cfg, complete=True)
    assert caught.value.expected == f"{len(data):,} bytes"
    with pytest.raises(InputFormError):
        check_weights(path, cfg)
    first_layers = written(tmp_path, weights_bytes(cfg, 2))
    assert check_weights(first_layers, cfg).filled_layers == 2
    with pytest.raises(InputFormError):
        check_weights(first_layers, cfg, complete=True)


def test_a_well_known_name_is_verified_by_its_checksum(
    tmp_path: Path, cfg: Cfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = weights_bytes(cfg)
    path = written(tmp_path, data)
    same, other = (hashlib.sha512(content).hexdigest() for content in (data, b""))
    newer = hashlib.sha256(data).hexdigest()

    def check_with(*digests: str, is_confirmed: bool = True) -> WeightsReport:
        table = {path.name: Checksum(digests, is_confirmed)}
        monkeypatch.setattr("oiyolo.networks.weights.CHECKSUMS", table)
        return check_weights(path, cfg)

    for digests in ((same,), (other[:64], newer)):
        report = check_with(*digests)
        assert (report.is_published, report.warning) == (True, "")
    report = check_with(other, is_confirmed=False)
    assert not report.is_published
    assert str(path) in report.warning
    with pytest.raises(InputFormError) as caught:
        check_with(other)
    assert caught.value.where == str(path)
    assert "rename" in caught.value.remedy
    assert check_weights(path, cfg, checksum=None).is_complete


@pytest.mark.parametrize("name", ["yolo-fastest-1.1.weights", "yolo-fastest-1.1-xl.weights"])
def test_a_real_file_has_its_published_checksum(real: Path, name: str) -> None:
    path = real / "pretrained" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    network = read(path.with_suffix(".cfg"))
    report = check_weights(path, network, complete=True)
    assert report.is_published


# --- pretrained weights -------------------------------------------------------------------------


def test_the_table_of_pretrained_weights_is_consistent() -> None:
    for checksum in CHECKSUMS.values():
        lengths = {"sha256": 64, "sha512": 128}
        assert all(len(d) == lengths[checksum.algorithm] for d in checksum.digests)
        assert all(set(d) <= set("0123456789abcdef") for d in checksum.digests)
    for name, entry in PRETRAINED.items():
        assert entry.name == name
        assert entry.checksum == CHECKSUMS.get(name)
        assert all(m.checksum is not None for m in entry.mirrors if m.full_network_bytes)
        assert all(mirror.url.startswith("https://") for mirror in entry.mirrors)
        assert not entry.mirrors[0].full_network_bytes
        assert [bool(p.note) for p in entry.mirrors] == [
            bool(p.full_network_bytes) for p in entry.mirrors
        ]
