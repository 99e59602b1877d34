from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import InputFormError, UnavailableError, UsageError
from oiyolo.net.ranges import Version
from oiyolo.networks.cfg import parse
from oiyolo.networks.layers import expected_weight_bytes, layers
from oiyolo.networks.weights import (
    PRETRAINED,
    Place,
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
    """Make a good file: small numbers, variances above 0, known ones at the beginning."""
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
def test_headers(tmp_path: Path, start: bytes, seen: int, header_bytes: int) -> None:
    header = read_header(written(tmp_path, start + bytes(400)))
    assert (header.seen, header.header_bytes) == (seen, header_bytes)
    assert header.iteration(8) == seen // 8


def test_good_weights(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg, seen=80))
    report = check_weights(path, cfg, expected_bytes=expected_weight_bytes(cfg))
    assert (report.filled_layers, report.layer_count, report.whole) == (4, 4, True)
    assert report.header.seen == 80
    assert not check_weights(path).whole


def test_the_first_layers_are_good_weights_too(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg, 2))
    assert filled_layers(path, cfg) == 2
    report = check_weights(path, cfg)
    assert (report.filled_layers, report.whole) == (2, False)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "0 bytes"),
        (b"\0" * 15, "15 bytes"),
        (struct.pack("<3i", 0, 2, 0) + b"\0" * 5, "17 bytes"),
        (b"<!DOCTYPE html><html>" + b" " * 400, "a page of HTML"),
        (b"\n  <HTML><head>" + b" " * 400, "a page of HTML"),
        (b"Moved Permanently. Redirecting to ...", "version"),
        (struct.pack("<3iQ", 0, 2, 0, 0), "0 bytes after the header"),
        (struct.pack("<3iQ", 0, 2, 0, 0) + b"abc", "3 bytes after"),
        (struct.pack("<3iQ", 0, 2, 0, 0) + bytes(400), "nothing but zeros"),
        (struct.pack("<3iQ2f", 0, 2, 0, 0, 1, np.nan), "not finite"),
        (struct.pack("<3iQ2f", 0, 2, 0, 0, 1, -np.inf), "not finite"),
        (struct.pack("<3iQ2f", 0, 2, 0, 0, 1, 1e20), r"1e\+20"),
        (struct.pack("<3iQ3f", 0, 2, 0, 0, 1, 1e-35, 1e-36), "far too small"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, data: bytes, found: str) -> None:
    with pytest.raises(InputFormError, match=f"some.weights.*cannot be used.*found .*{found}"):
        check_weights(written(tmp_path, data))


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such weights file"):
        check_weights(tmp_path / "none.weights")


def test_random_bytes_and_text_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    header = struct.pack("<3iQ", 0, 2, 0, 0)
    for body in (rng.bytes(4000), b"not weights at all, but text " * 100):
        with pytest.raises(InputFormError):
            check_weights(written(tmp_path, header + body))


def test_weights_of_another_size_are_refused(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg)[:-4])
    with pytest.raises(InputFormError, match=r"expected 1,516 bytes, found 1,512 bytes"):
        check_weights(path, expected_bytes=expected_weight_bytes(cfg))


def test_weights_that_end_within_a_layer_are_refused(tmp_path: Path, cfg: Cfg) -> None:
    path = written(tmp_path, weights_bytes(cfg)[:-8])
    assert filled_layers(path, cfg) == 2
    with pytest.raises(InputFormError, match=r"an end within layer 2.*other classes"):
        check_weights(path, cfg)


def test_weights_of_a_network_with_more_classes_are_refused(
    tmp_path: Path, cfg: Cfg, small_text: str
) -> None:
    path = written(tmp_path, weights_bytes(cfg))
    fewer = small_text.replace("filters=14", "filters=12").replace("classes=2", "classes=1")
    with pytest.raises(InputFormError, match="behind the last layer"):
        check_weights(path, parse(fewer, path="n.cfg"))


def test_weights_of_another_network_show_in_negative_variances(tmp_path: Path, cfg: Cfg) -> None:
    data = bytearray(weights_bytes(cfg))
    # Behind the header come 8 biases, 8 scales, 8 means and 8 variances.
    data[20 + 4 * 30 : 20 + 4 * 31] = struct.pack("<f", -0.5)
    with pytest.raises(InputFormError, match="negative variances in layer 0"):
        check_weights(written(tmp_path, bytes(data)), cfg)


# --- pretrained weights -------------------------------------------------------------------------


class Site:
    """Stands for the network: addresses with what they answer."""

    def __init__(self, pages: Mapping[str, bytes]) -> None:
        self.pages = pages
        self.asked: list[str] = []

    def fetch(
        self,
        url: str,
        part: Path,
        *,
        held: Version | None,
        expected_bytes: int,
        begin: Callable[[Version, int], None],
    ) -> None:
        assert expected_bytes > 0
        self.asked.append(url)
        if url not in self.pages:
            raise UnavailableError("no answer", found="404")
        begin(Version(), 0)
        if held is None:
            part.write_bytes(self.pages[url])
        else:
            with part.open("ab") as file:
                file.write(self.pages[url][part.stat().st_size :])


@pytest.fixture
def known(cfg: Cfg) -> dict[str, Pretrained]:
    entry = Pretrained(
        "small.conv.2",
        expected_weight_bytes(cfg, 2),
        2,
        (Place("http://a"), Place("http://b"), Place("http://c", expected_weight_bytes(cfg))),
        FIRST,
    )
    return {entry.name: entry}


def test_pretrained_weights_are_fetched_once(
    tmp_path: Path, cfg: Cfg, known: dict[str, Pretrained]
) -> None:
    site = Site({"http://a": weights_bytes(cfg, 2)})
    for _ in range(2):
        path = obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
        assert path == tmp_path / "small.conv.2"
        assert path.read_bytes() == weights_bytes(cfg, 2)
    assert site.asked == ["http://a"]
    assert origin(path)["url"] == "http://a"
    assert "note" not in origin(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.conv.2", "small.conv.2.json"]


@pytest.mark.parametrize(
    "bad",
    [b"<html>gone</html>", b"", b"\0" * 1012, struct.pack("<3iQ", 0, 2, 0, 0) + b"\1" * 992],
)
def test_the_next_place_is_tried_after_a_bad_answer(
    tmp_path: Path, cfg: Cfg, known: dict[str, Pretrained], bad: bytes
) -> None:
    site = Site({"http://a": bad, "http://b": weights_bytes(cfg, 2)})
    path = obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
    assert origin(path)["url"] == "http://b"
    assert site.asked == ["http://a", "http://b"]


def test_first_layers_are_cut_from_a_whole_network(
    tmp_path: Path, cfg: Cfg, known: dict[str, Pretrained]
) -> None:
    site = Site({"http://c": weights_bytes(cfg, seen=32_013_312)})
    path = obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
    report = check_weights(path, cfg)
    assert (report.filled_layers, report.header.seen) == (2, 0)
    assert path.read_bytes()[20:] == weights_bytes(cfg)[20 : path.stat().st_size]
    assert "COCO" in origin(path)["note"]


def test_every_place_and_its_reason_is_named(tmp_path: Path, known: dict[str, Pretrained]) -> None:
    site = Site({"http://b": b"<html>"})
    with pytest.raises(UnavailableError) as caught:
        obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
    text = str(caught.value)
    assert "http://a: no answer (404); http://b: expected" in text
    assert "a page of HTML" in text
    assert "http://c: no answer" in text
    assert "[train] weights" in text
    assert '"none"' in text
    assert list(tmp_path.iterdir()) == []


def test_another_file_of_the_right_size_is_not_taken(
    tmp_path: Path, cfg: Cfg, known: dict[str, Pretrained]
) -> None:
    data = bytearray(weights_bytes(cfg, 2))
    data[20:24] = struct.pack("<f", 1)
    site = Site({"http://a": bytes(data)})
    with pytest.raises(UnavailableError, match=r"another file: its numbers begin with 1, 0\.5"):
        obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)


@pytest.mark.parametrize("cut", [0, 4])
def test_a_damaged_cache_is_fetched_again(
    tmp_path: Path, cfg: Cfg, known: dict[str, Pretrained], cut: int
) -> None:
    site = Site({"http://a": weights_bytes(cfg, 2)})
    path = obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
    data = path.read_bytes()
    path.write_bytes(data[: -4 - cut] + b"\0\0\0\0")
    os.utime(path, ns=(1, 1))
    obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
    assert path.read_bytes() == data
    assert len(site.asked) == 2


def test_a_touched_cache_is_known_by_its_checksum(
    tmp_path: Path, cfg: Cfg, known: dict[str, Pretrained]
) -> None:
    site = Site({"http://a": weights_bytes(cfg, 2)})
    path = obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
    os.utime(path, ns=(1, 1))
    obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
    assert len(site.asked) == 1
    assert json.loads((tmp_path / "small.conv.2.json").read_text())["mtime_ns"] == 1


def test_a_good_file_put_into_the_cache_by_hand_is_used(
    tmp_path: Path, cfg: Cfg, known: dict[str, Pretrained]
) -> None:
    site = Site({})
    (tmp_path / "small.conv.2").write_bytes(weights_bytes(cfg, 2))
    path = obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
    assert site.asked == []
    assert "url" not in origin(path)
    # Another one of the same size is not.
    (tmp_path / "small.conv.2.json").unlink()
    path.write_bytes(struct.pack("<3iQ", 0, 2, 0, 0) + b"\0\0\x80\x3f" * 248)
    with pytest.raises(UnavailableError):
        obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)


def test_an_interrupt_leaves_nothing_under_the_final_name(
    tmp_path: Path, known: dict[str, Pretrained]
) -> None:
    def interrupted(
        url: str,
        part: Path,
        *,
        held: Version | None,
        expected_bytes: int,
        begin: Callable[[Version, int], None],
    ) -> None:
        wanted = known["small.conv.2"]
        assert (url, held, expected_bytes) == (wanted.places[0].url, None, wanted.size_bytes)
        begin(Version(etag='"1"'), 0)
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain("small.conv.2", cache=tmp_path, fetch=interrupted, known=known)
    assert {path.name.rpartition(".unfinished")[2] for path in tmp_path.iterdir()} == {"", ".json"}


def test_halves_of_two_versions_are_fetched_anew(
    tmp_path: Path, cfg: Cfg, known: dict[str, Pretrained]
) -> None:
    good = weights_bytes(cfg, 2)
    first = Site({"http://a": good[:40]})
    for url in ("http://b", "http://c"):
        first.pages = {**first.pages, url: b"<html>"}
    with pytest.raises(UnavailableError):
        obtain("small.conv.2", cache=tmp_path, fetch=first.fetch, known=known)
    # What was short was refused and is gone; what is left of a break is held, and is another one.
    left = tmp_path / next(p.name for p in unfinished_of(tmp_path, known))
    left.write_bytes(b"\x07" * 40)
    left.with_name(left.name + ".json").write_text(
        json.dumps({"url": "http://a", "version": Version(etag='"0"').as_dict()})
    )
    site = Site({"http://a": good})
    path = obtain("small.conv.2", cache=tmp_path, fetch=site.fetch, known=known)
    assert path.read_bytes() == good
    assert site.asked == ["http://a", "http://a"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.conv.2", "small.conv.2.json"]


def unfinished_of(folder: Path, known: dict[str, Pretrained]) -> list[Path]:
    """Give where what comes from each place waits."""
    (entry,) = known.values()
    digests = [hashlib.sha256(place.url.encode()).hexdigest()[:8] for place in entry.places]
    return [folder / f"{entry.name}.{digest}.unfinished" for digest in digests]


def test_a_page_is_refused_before_it_is_read(tmp_path: Path, known: dict[str, Pretrained]) -> None:
    read = []

    def fetch(
        url: str,
        part: Path,
        *,
        held: Version | None,
        expected_bytes: int,
        begin: Callable[[Version, int], None],
    ) -> None:
        assert (held, expected_bytes > 0, part.exists()) == (None, True, False)
        begin(Version(size_bytes=7000), 0)
        read.append(url)

    with pytest.raises(UnavailableError, match="found 7,000 bytes"):
        obtain("small.conv.2", cache=tmp_path, fetch=fetch, known=known)
    assert read == []


def test_the_table_of_pretrained_weights_is_in_order() -> None:
    for name, entry in PRETRAINED.items():
        assert entry.name == name
        assert all(place.url.startswith("https://") for place in entry.places)
        assert not entry.places[0].whole_bytes
        assert [bool(p.note) for p in entry.places] == [bool(p.whole_bytes) for p in entry.places]
