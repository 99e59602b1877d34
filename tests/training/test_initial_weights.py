"""What a training starts from, fetched from a site that fails as sites do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import InputFormError, UnavailableError, UsageError
from oiyolo.net.client import Patience, Web
from oiyolo.networks.builders import adapt, build
from oiyolo.networks.layers import expected_weight_bytes, layers
from oiyolo.networks.weights import Place, Pretrained
from oiyolo.training.initial_weights import start_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.training.initial_weights import Start
    from tests.training.conftest import Page as PageOf
    from tests.training.conftest import Site

NAME = "demo.conv.4"
KEPT = 4
HTML = b"<!DOCTYPE html><html><title>Moved</title></html>"
QUICK = Patience(attempts=2, first_pause_s=0.01, connect_s=2.0, read_s=2.0)


@pytest.fixture(scope="module")
def cfg() -> Cfg:
    return build("demo", class_count=1, size_wh=(96, 96))


def weights_of(cfg: Cfg, layer_count: int | None = None, *, seen: int = 64) -> bytes:
    rng = np.random.default_rng(1)
    count = sum(layer.parameter_count for layer in layers(cfg))
    numbers = np.abs(rng.normal(0, 0.1, count)).astype("<f4")
    whole = struct.pack("<3iQ", 0, 2, 0, seen) + numbers.tobytes()
    return whole[: expected_weight_bytes(cfg, layer_count)]


@pytest.fixture
def good(cfg: Cfg) -> bytes:
    return weights_of(cfg, KEPT)


@pytest.fixture
def page(request: pytest.FixtureRequest) -> type[PageOf]:
    site = request.getfixturevalue("site")
    made: type[PageOf] = type(site).page_type
    return made


@pytest.fixture
def known(site: Site, cfg: Cfg, good: bytes) -> dict[str, Pretrained]:
    """Weights with two places and one that has the whole network."""
    first = tuple(float(number) for number in np.frombuffer(good, "<f4", 3, offset=20))
    places = (
        Place(f"{site.url}/a"),
        Place(f"{site.url}/b"),
        Place(f"{site.url}/whole", expected_weight_bytes(cfg)),
    )
    return {NAME: Pretrained(NAME, len(good), KEPT, places, first)}


@pytest.fixture
def web() -> Iterator[Web]:
    with contextlib.closing(Web(QUICK)) as made:
        yield made


@pytest.fixture
def begin(cfg: Cfg, known: dict[str, Pretrained], web: Web, tmp_path: Path) -> Beginning:
    return Beginning(cfg, known, web, tmp_path)


class Beginning:
    """``start_weights`` with the site's weights."""

    def __init__(self, cfg: Cfg, known: dict[str, Pretrained], web: Web, folder: Path) -> None:
        self._cfg, self._known, self._web = cfg, known, web
        self.folder = folder

    def __call__(self, weights: str = NAME) -> Start:
        return start_weights(
            weights,
            self._cfg,
            base=self.folder,
            cache_folder=self.folder / "cache",
            known=self._known,
            web=self._web,
        )

    @property
    def cached(self) -> set[str]:
        """What the cache holds, but for locks."""
        files = (self.folder / "cache" / "weights").iterdir()
        return {path.name for path in files if path.suffix != ".lock"}


def test_they_are_fetched_once_and_remembered(
    site: Site, page: type[PageOf], begin: Beginning, good: bytes
) -> None:
    site.pages["/a"] = page(good)
    first, second = begin(), begin()
    assert first.path is not None
    assert first.path.read_bytes() == good
    assert first == second
    assert site.asked == [("/a", "")]
    assert (first.filled_layers, first.layer_count) == (KEPT, len(layers(begin._cfg)))
    assert first.origin["url"] == f"{site.url}/a"
    assert first.origin["name"] == NAME
    assert f"the first {KEPT} of {first.layer_count} layers" in first.told
    assert json.dumps(dict(first.origin))


def test_a_connection_that_breaks_off_is_gone_on_with(
    site: Site, page: type[PageOf], begin: Beginning, good: bytes
) -> None:
    site.pages["/a"] = page(good, breaks=[1000])
    assert begin().origin["url"] == f"{site.url}/a"
    assert site.asked == [("/a", ""), ("/a", "bytes=1000-")]


def test_what_came_is_kept_for_the_next_call(
    site: Site, page: type[PageOf], begin: Beginning, good: bytes
) -> None:
    site.pages["/a"] = page(good, breaks=[1000, 0])
    with pytest.raises(UnavailableError, match="goes on with what came"):
        begin()
    assert any(name.endswith(".unfinished") for name in begin.cached)
    site.asked.clear()
    start = begin()
    assert start.path is not None
    assert start.path.read_bytes() == good
    assert site.asked == [("/a", "bytes=1000-")]
    assert begin.cached == {NAME, f"{NAME}.json"}


def test_a_file_that_changed_meanwhile_is_fetched_anew(
    site: Site, page: type[PageOf], begin: Beginning, good: bytes
) -> None:
    site.pages["/a"] = page(b"\x01" * len(good), etag='"0"', breaks=[1000, 0])
    with pytest.raises(UnavailableError):
        begin()
    site.pages["/a"] = page(good, etag='"1"')
    start = begin()
    assert start.path is not None
    assert start.path.read_bytes() == good


@pytest.mark.parametrize("bad", ["html", "html without length", "403", "short", "long", "noise"])
def test_the_next_place_is_asked_after_a_bad_answer(
    site: Site, page: type[PageOf], begin: Beginning, good: bytes, bad: str
) -> None:
    site.pages["/a"] = {
        "html": page(HTML),
        "html without length": page(HTML, length=False),
        "403": page(HTML, status=403),
        "short": page(good[:-4]),
        "long": page(good + b"\0\0\0\0"),
        "noise": page(np.random.default_rng(0).bytes(len(good))),
    }[bad]
    site.pages["/b"] = page(good)
    assert begin().origin["url"] == f"{site.url}/b"
    assert begin.cached == {NAME, f"{NAME}.json"}


def test_the_first_layers_are_cut_from_the_whole_network(
    site: Site, page: type[PageOf], begin: Beginning, cfg: Cfg, good: bytes
) -> None:
    whole = weights_of(cfg, seen=32_013_312)
    site.pages["/whole"] = page(whole, breaks=[len(whole) // 2])
    start = begin()
    assert start.path is not None
    assert start.path.read_bytes() == good[:12] + bytes(8) + good[20:]
    assert "COCO" in start.told
    assert begin.cached == {NAME, f"{NAME}.json"}


def test_no_place_has_them(site: Site, page: type[PageOf], begin: Beginning) -> None:
    site.pages["/a"] = page(HTML)
    with pytest.raises(UnavailableError) as caught:
        begin()
    told = str(caught.value)
    assert f"{site.url}/a: expected" in told
    assert f"{site.url}/b: " in told
    assert "404" in told
    assert begin.cached == set()


FETCH = """
import sys
from pathlib import Path
from oiyolo.networks.builders import build
from oiyolo.networks.weights import Place, Pretrained
from oiyolo.training.initial_weights import start_weights
name, url, size, layers, folder = sys.argv[1:]
known = {name: Pretrained(name, int(size), int(layers), (Place(url),))}
cfg = build("demo", class_count=1, size_wh=(96, 96))
print(start_weights(name, cfg, base=Path("."), cache_folder=Path(folder), known=known).path)
"""


def test_a_kill_in_the_middle_loses_nothing(
    site: Site, page: type[PageOf], begin: Beginning, good: bytes, tmp_path: Path
) -> None:
    # It breaks off, and is told to go on after a pause that outlasts the process.
    site.pages["/a"] = page(good, breaks=[1000, *[0] * 50])
    cache = tmp_path / "cache"
    arguments = (NAME, f"{site.url}/a", str(len(good)), str(KEPT), str(cache))
    process = subprocess.Popen([sys.executable, "-c", FETCH, *arguments])
    try:
        until_s = time.monotonic() + 60
        while len(site.asked) < 2 and time.monotonic() < until_s:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.wait(60)
    site.asked.clear()
    site.pages["/a"].breaks.clear()
    assert begin().origin["url"] == f"{site.url}/a"
    assert site.asked == [("/a", "bytes=1000-")]
    assert begin.cached == {NAME, f"{NAME}.json"}


def test_pretrained_weights_that_fill_less_than_a_layer_are_refused(
    site: Site, page: type[PageOf], begin: Beginning, good: bytes
) -> None:
    """They are what was asked for, but for another network than this one."""
    site.pages["/a"] = page(good)
    begin._cfg = build("yolov3-tiny", class_count=1, size_wh=(96, 96))
    with pytest.raises(InputFormError, match="cannot be used"):
        begin()


def test_none_starts_from_noise(begin: Beginning, site: Site) -> None:
    start = begin("none")
    assert (start.path, site.asked) == (None, [])
    assert "noise" in start.told


def test_a_file_of_ones_own_is_used_as_it_is(begin: Beginning, cfg: Cfg) -> None:
    (begin.folder / "mine.weights").write_bytes(weights_of(cfg))
    start = begin("mine.weights")
    assert start.path == begin.folder / "mine.weights"
    assert start.filled_layers == start.layer_count
    assert start.origin["path"] == str(start.path)
    with pytest.raises(UsageError, match="no such weights"):
        begin("other.weights")


def test_of_a_file_for_other_classes_the_first_layers_are_used(begin: Beginning, cfg: Cfg) -> None:
    theirs = weights_of(adapt(cfg, class_count=80, size_wh=(96, 96)))
    (begin.folder / "coco.weights").write_bytes(theirs)
    starts = [begin("coco.weights") for _ in range(2)]
    assert starts[0] == starts[1]
    (start, _) = starts
    assert start.path is not None
    assert start.path.parent == begin.folder / "cache" / "weights" / "cut"
    assert 0 < start.filled_layers < start.layer_count
    assert start.path.stat().st_size == expected_weight_bytes(cfg, start.filled_layers)
    assert f"first {start.filled_layers} of {start.layer_count} layers are used" in start.told
    assert "80 classes" in start.told
    assert start.origin["path"] == str(begin.folder / "coco.weights")
    # What was damaged since is cut anew.
    start.path.write_bytes(b"")
    assert begin("coco.weights").path == start.path
    assert start.path.stat().st_size == expected_weight_bytes(cfg, start.filled_layers)
