"""Validation of weights files, and download of pretrained ones."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import InputFormError, UnavailableError, UsageError
from oiyolo.net.ranges import FileVersion
from oiyolo.networks.cfg import parse
from oiyolo.networks.layers import expected_weight_bytes, layers
from oiyolo.networks.weights import (
    PRETRAINED,
    MirrorUrl,
    Pretrained,
    check_weights,
    filled_layers,
    obtain,
    origin,
    read_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg

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
    assert filled_layers(path, cfg) == 2
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
        (struct.pack("<3iQ2f", 0, 2, 0, 0, 1, 1e20), r"1e\+20"),
        (struct.pack("<3iQ3f", 0, 2, 0, 0, 1, 1e-35, 1e-36), "far too small"),
    ],
)
def test_a_file_that_is_not_weights_is_rejected(tmp_path: Path, data: bytes, found: str) -> None:
    with pytest.raises(InputFormError, match=f"some.weights.*cannot be used.*found .*{found}"):
        check_weights(written(tmp_path, data))


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="weights file not found"):
        check_weights(tmp_path / "none.weights")


def test_random_bytes_and_text_are_rejected(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    header = struct.pack("<3iQ", 0, 2, 0, 0)
    for body in (rng.bytes(4000), b"not weights at all, but text " * 100):
        with pytest.raises(InputFormError):
            check_weights(written(tmp_path, header + body))


def test_weights_of_another_size_are_rejected(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg)[:-4])
    with pytest.raises(InputFormError, match=r"expected 1,516 bytes, found 1,512 bytes"):
        check_weights(path, expected_bytes=expected_weight_bytes(cfg))


def test_weights_that_end_within_a_layer_are_rejected(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg)[:-8])
    assert filled_layers(path, cfg) == 2
    with pytest.raises(InputFormError, match=r"an end within layer 2.*other classes"):
        check_weights(path, cfg)


def test_weights_of_a_network_with_more_classes_are_rejected(
    tmp_path: Path, cfg: Cfg, small_text: str
) -> None:
    path = written(tmp_path, weights_bytes(cfg))
    fewer = small_text.replace("filters=14", "filters=12").replace("classes=2", "classes=1")
    with pytest.raises(InputFormError, match="after the last layer"):
        check_weights(path, parse(fewer, path="n.cfg"))


def test_weights_with_negative_variances_are_rejected(tmp_path: Path, cfg: Cfg) -> None:
    data = bytearray(weights_bytes(cfg))
    # The header is followed by 8 biases, 8 scales, 8 means and 8 variances.
    data[20 + 4 * 30 : 20 + 4 * 31] = struct.pack("<f", -0.5)
    with pytest.raises(InputFormError, match="negative variances in layer 0"):
        check_weights(written(tmp_path, bytes(data)), cfg)


# --- pretrained weights -------------------------------------------------------------------------


class FakeServer:
    """Stands for all mirrors: a response for each URL."""

    def __init__(self, pages: Mapping[str, bytes]) -> None:
        self.pages = pages
        self.requested: list[str] = []

    def fetch(
        self,
        url: str,
        part: Path,
        *,
        partial_version: FileVersion | None,
        expected_bytes: int,
        on_start: Callable[[FileVersion, int], None],
    ) -> None:
        assert expected_bytes > 0
        self.requested.append(url)
        if url not in self.pages:
            raise UnavailableError("no answer", found="404")
        on_start(FileVersion(), 0)
        if partial_version is None:
            part.write_bytes(self.pages[url])
        else:
            with part.open("ab") as file:
                file.write(self.pages[url][part.stat().st_size :])


@pytest.fixture
def pretrained(cfg: Cfg) -> dict[str, Pretrained]:
    entry = Pretrained(
        "small.conv.2",
        expected_weight_bytes(cfg, 2),
        2,
        (
            MirrorUrl("http://a"),
            MirrorUrl("http://b"),
            MirrorUrl("http://c", expected_weight_bytes(cfg)),
        ),
        FIRST,
    )
    return {entry.name: entry}


def test_pretrained_weights_are_downloaded_once(
    tmp_path: Path, cfg: Cfg, pretrained: dict[str, Pretrained]
) -> None:
    server = FakeServer({"http://a": weights_bytes(cfg, 2)})
    for _ in range(2):
        path = obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
        assert path == tmp_path / "small.conv.2"
        assert path.read_bytes() == weights_bytes(cfg, 2)
    assert server.requested == ["http://a"]
    assert origin(path)["url"] == "http://a"
    assert "note" not in origin(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.conv.2", "small.conv.2.json"]


@pytest.mark.parametrize(
    "bad",
    [b"<html>gone</html>", b"", b"\0" * 1012, struct.pack("<3iQ", 0, 2, 0, 0) + b"\1" * 992],
)
def test_the_next_mirror_is_tried_after_an_invalid_response(
    tmp_path: Path, cfg: Cfg, pretrained: dict[str, Pretrained], bad: bytes
) -> None:
    server = FakeServer({"http://a": bad, "http://b": weights_bytes(cfg, 2)})
    path = obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
    assert origin(path)["url"] == "http://b"
    assert server.requested == ["http://a", "http://b"]


def test_the_first_layers_are_extracted_from_a_full_network(
    tmp_path: Path, cfg: Cfg, pretrained: dict[str, Pretrained]
) -> None:
    server = FakeServer({"http://c": weights_bytes(cfg, seen=32_013_312)})
    path = obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
    report = check_weights(path, cfg)
    assert (report.filled_layers, report.header.seen) == (2, 0)
    assert path.read_bytes()[20:] == weights_bytes(cfg)[20 : path.stat().st_size]
    assert "COCO" in origin(path)["note"]


def test_the_error_lists_every_mirror_with_its_reason(
    tmp_path: Path, pretrained: dict[str, Pretrained]
) -> None:
    server = FakeServer({"http://b": b"<html>"})
    with pytest.raises(UnavailableError) as caught:
        obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
    text = str(caught.value)
    assert "http://a: no answer (404); http://b: expected" in text
    assert "an HTML page" in text
    assert "http://c: no answer" in text
    assert "[train] weights" in text
    assert '"none"' in text
    assert list(tmp_path.iterdir()) == []


def test_a_different_file_of_the_right_size_is_rejected(
    tmp_path: Path, cfg: Cfg, pretrained: dict[str, Pretrained]
) -> None:
    data = bytearray(weights_bytes(cfg, 2))
    data[20:24] = struct.pack("<f", 1)
    server = FakeServer({"http://a": bytes(data)})
    with pytest.raises(UnavailableError, match=r"a different file: it starts with 1, 0\.5"):
        obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)


@pytest.mark.parametrize("cut", [0, 4])
def test_a_damaged_cached_file_is_downloaded_again(
    tmp_path: Path, cfg: Cfg, pretrained: dict[str, Pretrained], cut: int
) -> None:
    server = FakeServer({"http://a": weights_bytes(cfg, 2)})
    path = obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
    data = path.read_bytes()
    path.write_bytes(data[: -4 - cut] + b"\0\0\0\0")
    os.utime(path, ns=(1, 1))
    obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
    assert path.read_bytes() == data
    assert len(server.requested) == 2


def test_a_cached_file_with_a_new_timestamp_is_verified_by_its_checksum(
    tmp_path: Path, cfg: Cfg, pretrained: dict[str, Pretrained]
) -> None:
    server = FakeServer({"http://a": weights_bytes(cfg, 2)})
    path = obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
    os.utime(path, ns=(1, 1))
    obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
    assert len(server.requested) == 1
    assert json.loads((tmp_path / "small.conv.2.json").read_text())["mtime_ns"] == 1


def test_a_valid_file_copied_into_the_cache_is_used(
    tmp_path: Path, cfg: Cfg, pretrained: dict[str, Pretrained]
) -> None:
    server = FakeServer({})
    (tmp_path / "small.conv.2").write_bytes(weights_bytes(cfg, 2))
    path = obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
    assert server.requested == []
    assert "url" not in origin(path)
    # A different file of the same size is rejected.
    (tmp_path / "small.conv.2.json").unlink()
    path.write_bytes(struct.pack("<3iQ", 0, 2, 0, 0) + b"\0\0\x80\x3f" * 248)
    with pytest.raises(UnavailableError):
        obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)


def test_an_interrupt_leaves_no_file_with_the_final_name(
    tmp_path: Path, pretrained: dict[str, Pretrained]
) -> None:
    def interrupted(
        url: str,
        part: Path,
        *,
        partial_version: FileVersion | None,
        expected_bytes: int,
        on_start: Callable[[FileVersion, int], None],
    ) -> None:
        entry = pretrained["small.conv.2"]
        assert (url, partial_version, expected_bytes) == (
            entry.mirrors[0].url,
            None,
            entry.size_bytes,
        )
        on_start(FileVersion(etag='"1"'), 0)
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain("small.conv.2", cache=tmp_path, fetch=interrupted, pretrained=pretrained)
    assert {path.name.rpartition(".unfinished")[2] for path in tmp_path.iterdir()} == {"", ".json"}


def test_halves_of_two_versions_are_downloaded_again(
    tmp_path: Path, cfg: Cfg, pretrained: dict[str, Pretrained]
) -> None:
    good = weights_bytes(cfg, 2)
    first = FakeServer({"http://a": good[:40]})
    for url in ("http://b", "http://c"):
        first.pages = {**first.pages, url: b"<html>"}
    with pytest.raises(UnavailableError):
        obtain("small.conv.2", cache=tmp_path, fetch=first.fetch, pretrained=pretrained)
    # The short file was rejected and deleted. Leave a partial download of another version.
    partial = tmp_path / next(p.name for p in partial_paths(tmp_path, pretrained))
    partial.write_bytes(b"\x07" * 40)
    partial.with_name(partial.name + ".json").write_text(
        json.dumps({"url": "http://a", "version": FileVersion(etag='"0"').as_dict()})
    )
    server = FakeServer({"http://a": good})
    path = obtain("small.conv.2", cache=tmp_path, fetch=server.fetch, pretrained=pretrained)
    assert path.read_bytes() == good
    assert server.requested == ["http://a", "http://a"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.conv.2", "small.conv.2.json"]


def partial_paths(folder: Path, pretrained: dict[str, Pretrained]) -> list[Path]:
    """Return the path of the partial download from each mirror."""
    (entry,) = pretrained.values()
    digests = [hashlib.sha256(mirror.url.encode()).hexdigest()[:8] for mirror in entry.mirrors]
    return [folder / f"{entry.name}.{digest}.unfinished" for digest in digests]


def test_a_file_of_another_size_is_rejected_before_its_download(
    tmp_path: Path, pretrained: dict[str, Pretrained]
) -> None:
    read = []

    def fetch(
        url: str,
        part: Path,
        *,
        partial_version: FileVersion | None,
        expected_bytes: int,
        on_start: Callable[[FileVersion, int], None],
    ) -> None:
        assert (partial_version, expected_bytes > 0, part.exists()) == (None, True, False)
        on_start(FileVersion(size_bytes=7000), 0)
        read.append(url)

    with pytest.raises(UnavailableError, match="found 7,000 bytes"):
        obtain("small.conv.2", cache=tmp_path, fetch=fetch, pretrained=pretrained)
    assert read == []


def test_the_table_of_pretrained_weights_is_consistent() -> None:
    for name, entry in PRETRAINED.items():
        assert entry.name == name
        assert all(mirror.url.startswith("https://") for mirror in entry.mirrors)
        assert not entry.mirrors[0].full_network_bytes
        assert [bool(p.note) for p in entry.mirrors] == [
            bool(p.full_network_bytes) for p in entry.mirrors
        ]
