"""Initial weights of a training, downloaded from a site that fails in realistic ways."""

from __future__ import annotations

import contextlib
import hashlib
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
from oiyolo.net.client import HttpClient
from oiyolo.net.retry import RetryPolicy
from oiyolo.networks.builders import adapt, build
from oiyolo.networks.layers import expected_weight_bytes, layers
from oiyolo.networks.weights import PRETRAINED, Checksum, MirrorUrl, Pretrained
from oiyolo.training.initial_weights import (
    find_file,
    plan_initial_weights,
    prepare_initial_weights,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oiyolo.networks.cfg import Cfg
    from oiyolo.training.initial_weights import InitialWeights
    from tests.training.conftest import Page as PageOf
    from tests.training.conftest import WeightsSite

NAME = "demo.conv.4"
KEPT = 4
HTML = b"<!DOCTYPE html><html><title>Moved</title></html>"
QUICK = RetryPolicy(max_attempts=2, first_pause_s=0.01, connect_timeout_s=2.0, read_timeout_s=2.0)


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
    weights_site = request.getfixturevalue("weights_site")
    page_type: type[PageOf] = type(weights_site).page_type
    return page_type


@pytest.fixture
def pretrained(weights_site: WeightsSite, cfg: Cfg, good: bytes) -> dict[str, Pretrained]:
    """Weights with two URLs of the file itself and one of the complete network."""
    checksum = Checksum((hashlib.sha512(good).hexdigest(),))
    places = (
        MirrorUrl(f"{weights_site.url}/a"),
        MirrorUrl(f"{weights_site.url}/b"),
        MirrorUrl(f"{weights_site.url}/whole", expected_weight_bytes(cfg)),
    )
    return {NAME: Pretrained(NAME, len(good), KEPT, places, checksum)}


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with contextlib.closing(HttpClient(QUICK)) as http_client:
        yield http_client


@pytest.fixture
def load(cfg: Cfg, pretrained: dict[str, Pretrained], client: HttpClient, tmp_path: Path) -> Loader:
    return Loader(cfg, pretrained, client, tmp_path)


class Loader:
    """``prepare_initial_weights`` with the weights of the test site."""

    def __init__(
        self, cfg: Cfg, pretrained: dict[str, Pretrained], client: HttpClient, folder: Path
    ) -> None:
        self._cfg, self._pretrained, self._client = cfg, pretrained, client
        self.folder = folder

    def __call__(self, weights: str = NAME) -> InitialWeights:
        return prepare_initial_weights(
            weights,
            self._cfg,
            base=self.folder,
            cache_folder=self.folder / "cache",
            pretrained=self._pretrained,
            client=self._client,
        )

    @property
    def cached(self) -> set[str]:
        """The names of the files in the cache, except locks."""
        files = (self.folder / "cache" / "weights").iterdir()
        return {path.name for path in files if path.suffix != ".lock"}


def test_pretrained_weights_are_downloaded_once_and_cached(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes
) -> None:
    weights_site.pages["/a"] = page(good)
    first, second = load(), load()
    assert first.path is not None
    assert first.path.read_bytes() == good
    assert first == second
    assert weights_site.requests == [("/a", "")]
    assert (first.filled_layers, first.layer_count) == (KEPT, len(layers(load._cfg)))
    assert first.origin["url"] == f"{weights_site.url}/a"
    assert first.origin["name"] == NAME
    assert f"the first {KEPT} of {first.layer_count} layers" in first.summary
    assert json.dumps(dict(first.origin))


def test_an_interrupted_download_is_resumed(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes
) -> None:
    weights_site.pages["/a"] = page(good, breaks=[1000])
    assert load().origin["url"] == f"{weights_site.url}/a"
    assert weights_site.requests == [("/a", ""), ("/a", "bytes=1000-")]


def test_a_failed_download_is_resumed_by_the_next_call(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes
) -> None:
    weights_site.pages["/a"] = page(good, breaks=[1000, 0])
    with pytest.raises(UnavailableError) as caught:
        load()
    assert "resume the download" in caught.value.remedy
    assert any(name.endswith(".unfinished") for name in load.cached)
    weights_site.requests.clear()
    start = load()
    assert start.path is not None
    assert start.path.read_bytes() == good
    assert weights_site.requests == [("/a", "bytes=1000-")]
    assert load.cached == {NAME, f"{NAME}.json"}


def test_a_file_that_has_changed_is_downloaded_from_scratch(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes
) -> None:
    weights_site.pages["/a"] = page(b"\x01" * len(good), etag='"0"', breaks=[1000, 0])
    with pytest.raises(UnavailableError):
        load()
    weights_site.pages["/a"] = page(good, etag='"1"')
    start = load()
    assert start.path is not None
    assert start.path.read_bytes() == good


@pytest.mark.parametrize("bad", ["html", "html without length", "403", "short", "long", "noise"])
def test_the_next_url_is_used_after_a_bad_response(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes, bad: str
) -> None:
    weights_site.pages["/a"] = {
        "html": page(HTML),
        "html without length": page(HTML, length=False),
        "403": page(HTML, status=403),
        "short": page(good[:-4]),
        "long": page(good + b"\0\0\0\0"),
        "noise": page(np.random.default_rng(0).bytes(len(good))),
    }[bad]
    weights_site.pages["/b"] = page(good)
    assert load().origin["url"] == f"{weights_site.url}/b"
    assert load.cached == {NAME, f"{NAME}.json"}


def test_the_first_layers_are_cut_from_the_whole_network(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, cfg: Cfg, good: bytes
) -> None:
    whole = weights_of(cfg, seen=32_013_312)
    weights_site.pages["/whole"] = page(whole, breaks=[len(whole) // 2])
    start = load()
    assert start.path is not None
    assert start.path.read_bytes() == good[:12] + bytes(8) + good[20:]
    assert "COCO" in start.summary
    assert load.cached == {NAME, f"{NAME}.json"}


def test_the_error_lists_every_url_if_none_has_the_weights(
    weights_site: WeightsSite, page: type[PageOf], load: Loader
) -> None:
    weights_site.pages["/a"] = page(HTML)
    with pytest.raises(UnavailableError) as caught:
        load()
    message = str(caught.value)
    assert f"{weights_site.url}/a: expected" in message
    assert f"{weights_site.url}/b: " in message
    assert "404" in message
    assert load.cached == set()


def test_a_different_file_of_the_right_size_is_rejected(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes
) -> None:
    weights_site.pages["/a"] = page(good[:20] + struct.pack("<f", 1.0) + good[24:])
    with pytest.raises(UnavailableError) as caught:
        load()
    assert "sha512" in caught.value.found
    assert load.cached == set()


def test_halves_of_two_versions_are_downloaded_again(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes
) -> None:
    weights_site.pages["/a"] = page(good, breaks=[1000, 0])
    with pytest.raises(UnavailableError):
        load()
    (partial,) = (load.folder / "cache" / "weights").glob("*.unfinished")
    partial.write_bytes(b"\x07" * 1000)
    weights_site.requests.clear()
    start = load()
    assert start.path is not None
    assert start.path.read_bytes() == good
    assert weights_site.requests == [("/a", "bytes=1000-"), ("/a", "")]
    assert load.cached == {NAME, f"{NAME}.json"}


@pytest.mark.parametrize("cut_bytes", [0, 4])
def test_a_damaged_cached_file_is_downloaded_again(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes, cut_bytes: int
) -> None:
    weights_site.pages["/a"] = page(good)
    path = load().path
    assert path is not None
    path.write_bytes(good[: -4 - cut_bytes] + b"\0\0\0\0")
    os.utime(path, ns=(1, 1))
    load()
    assert path.read_bytes() == good
    assert len(weights_site.requests) == 2


def test_a_cached_file_with_a_new_timestamp_is_verified_by_its_checksum(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes
) -> None:
    weights_site.pages["/a"] = page(good)
    path = load().path
    assert path is not None
    os.utime(path, ns=(1, 1))
    load()
    assert len(weights_site.requests) == 1
    assert json.loads(path.with_name(f"{NAME}.json").read_text())["mtime_ns"] == 1


def test_a_valid_file_copied_into_the_cache_is_used(
    weights_site: WeightsSite, load: Loader, good: bytes
) -> None:
    path = load.folder / "cache" / "weights" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(good)
    assert "url" not in load().origin
    assert weights_site.requests == []
    # A different file of the same size is rejected.
    path.with_name(f"{NAME}.json").unlink()
    path.write_bytes(good[:20] + good[-4:] + good[24:])
    with pytest.raises(UnavailableError):
        load()


FETCH = """
import sys
from pathlib import Path
from oiyolo.networks.builders import build
from oiyolo.networks.weights import MirrorUrl, Pretrained
from oiyolo.training.initial_weights import prepare_initial_weights
name, url, size, layers, folder = sys.argv[1:]
pretrained = {name: Pretrained(name, int(size), int(layers), (MirrorUrl(url),))}
cfg = build("demo", class_count=1, size_wh=(96, 96))
start = prepare_initial_weights(
    name, cfg, base=Path("."), cache_folder=Path(folder), pretrained=pretrained
)
print(start.path)
"""


def test_a_download_is_resumed_after_a_kill(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes, tmp_path: Path
) -> None:
    # The connection breaks, and each retry fails until the process is killed.
    weights_site.pages["/a"] = page(good, breaks=[1000, *[0] * 50])
    cache = tmp_path / "cache"
    arguments = (NAME, f"{weights_site.url}/a", str(len(good)), str(KEPT), str(cache))
    process = subprocess.Popen([sys.executable, "-c", FETCH, *arguments])
    try:
        until_s = time.monotonic() + 60
        while len(weights_site.requests) < 2 and time.monotonic() < until_s:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.wait(60)
    weights_site.requests.clear()
    weights_site.pages["/a"].breaks.clear()
    assert load().origin["url"] == f"{weights_site.url}/a"
    assert weights_site.requests == [("/a", "bytes=1000-")]
    assert load.cached == {NAME, f"{NAME}.json"}


def test_pretrained_weights_of_another_network_are_refused(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes
) -> None:
    weights_site.pages["/a"] = page(good)
    load._cfg = build("yolov3-tiny", class_count=1, size_wh=(96, 96))
    with pytest.raises(InputFormError) as caught:
        load()
    assert caught.value.where == str(load.folder / "cache" / "weights" / NAME)


def test_none_starts_from_random_weights(load: Loader, weights_site: WeightsSite) -> None:
    start = load("none")
    assert (start.path, weights_site.requests) == (None, [])
    assert "random" in start.summary


def test_a_matching_file_of_the_user_is_used_as_it_is(load: Loader, cfg: Cfg) -> None:
    (load.folder / "mine.weights").write_bytes(weights_of(cfg))
    start = load("mine.weights")
    assert start.path == load.folder / "mine.weights"
    assert start.filled_layers == start.layer_count
    assert start.origin["path"] == str(start.path)
    with pytest.raises(UsageError) as caught:
        load("other.weights")
    assert caught.value.where == str(load.folder / "other.weights")


def test_only_the_first_layers_of_a_file_for_other_classes_are_used(load: Loader, cfg: Cfg) -> None:
    theirs = weights_of(adapt(cfg, class_count=80, size_wh=(96, 96)))
    (load.folder / "coco.weights").write_bytes(theirs)
    starts = [load("coco.weights") for _ in range(2)]
    assert starts[0] == starts[1]
    (start, _) = starts
    assert start.path is not None
    assert start.path.parent == load.folder / "cache" / "weights" / "cut"
    assert 0 < start.filled_layers < start.layer_count
    assert start.path.stat().st_size == expected_weight_bytes(cfg, start.filled_layers)
    assert f"first {start.filled_layers} of {start.layer_count} layers are used" in start.summary
    assert "80 classes" in start.summary
    assert start.origin["path"] == str(load.folder / "coco.weights")
    # A damaged copy is cut again.
    start.path.write_bytes(b"")
    assert load("coco.weights").path == start.path
    assert start.path.stat().st_size == expected_weight_bytes(cfg, start.filled_layers)


# --- a path or a name ---------------------------------------------------------------------------


def test_an_existing_path_is_a_path(load: Loader, good: bytes, weights_site: WeightsSite) -> None:
    path = load.folder / NAME
    path.write_bytes(good)
    start = load()
    assert (start.path, weights_site.requests) == (path, [])
    assert start.origin["path"] == str(path)


def test_a_dangling_link_is_not_replaced_by_a_download(
    load: Loader, weights_site: WeightsSite
) -> None:
    (load.folder / NAME).symlink_to(load.folder / "unmounted")
    with pytest.raises(UsageError) as caught:
        load()
    assert caught.value.where == str(load.folder / NAME)
    assert weights_site.requests == []


def test_keywords_and_missing_names_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    name = "darknet53.conv.74"
    assert [find_file(weights, tmp_path) for weights in ("auto", "none", name)] == [None] * 3
    assert find_file("./none", tmp_path) == tmp_path / "none"
    assert find_file("mine.weights", tmp_path) == tmp_path / "mine.weights"


def test_weights_of_another_network_are_refused_before_the_download(
    weights_site: WeightsSite, load: Loader
) -> None:
    load._cfg = build("yolov3-tiny", class_count=1, size_wh=(96, 96))
    with pytest.raises(InputFormError):
        load()
    assert weights_site.requests == []


def test_a_cached_file_of_an_older_version_is_compared_with_its_checksum(
    weights_site: WeightsSite, page: type[PageOf], load: Loader, good: bytes
) -> None:
    weights_site.pages["/a"] = page(good)
    path = load.folder / "cache" / "weights" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(good[:-4] + good[-8:-4])
    record = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size_bytes": len(good)}
    record["mtime_ns"] = path.stat().st_mtime_ns
    path.with_name(f"{NAME}.json").write_text(json.dumps(record))
    assert load().path == path
    assert path.read_bytes() == good
    assert len(weights_site.requests) == 1
    load()
    assert len(weights_site.requests) == 1


def test_a_plan_downloads_and_writes_nothing(tmp_path: Path) -> None:
    tiny = build("yolov3-tiny", class_count=1, size_wh=(96, 96))
    name = "yolov3-tiny.conv.15"

    def plan(weights: str, cfg: Cfg = tiny) -> tuple[InitialWeights, str]:
        return plan_initial_weights(weights, cfg, base=tmp_path, cache_folder=tmp_path / "cache")

    start, action = plan(name)
    assert start.path == tmp_path / "cache" / "weights" / name
    assert start.filled_layers == PRETRAINED[name].layers
    assert action.startswith(f"download the pretrained weights {name}")
    assert str(tmp_path) in action
    with pytest.raises(InputFormError):
        plan("darknet53.conv.74")
    with pytest.raises(UsageError):
        plan("mine.weights")
    assert plan("none")[0].path is None
    assert not list(tmp_path.iterdir())
    (tmp_path / name).write_bytes(weights_of(tiny, 15))
    start, action = plan(name)
    assert start.path == tmp_path / name
    assert f"the file {tmp_path / name}" in action
    assert "instead of the pretrained weights" in action
    (tmp_path / name).rename(tmp_path / "whole.weights")
    (tmp_path / "whole.weights").write_bytes(
        weights_of(adapt(tiny, class_count=80, size_wh=(96, 96)))
    )
    start, action = plan("whole.weights")
    assert start.path is not None
    assert not start.path.exists()
    assert "80 classes" in action
