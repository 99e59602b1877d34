"""Download of published detectors: their files by URL and checksum, without a second mechanism."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.net.client import HttpClient
from oiyolo.net.retry import RetryPolicy
from oiyolo.networks.builders import build
from oiyolo.networks.layers import expected_weight_bytes, layers
from oiyolo.networks.published import DETECTORS, FILES, PublishedDetector
from oiyolo.networks.weights import CHECKSUMS, Checksum, MirrorUrl, Pretrained
from oiyolo.training.published_detectors import find_detector, missing_files, obtain_detector
from tests.training.conftest import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oiyolo.training.published_detectors import ReadyDetector
    from tests.training.conftest import WeightsSite

REAL = Path(__file__).parents[3] / "shared" / "real" / "pretrained"
TINY = PublishedDetector("tiny", "tiny.weights", 2, (96, 96), cfg="tiny.cfg", names="tiny.names")
QUICK = RetryPolicy(max_attempts=1, first_pause_s=0.01, connect_timeout_s=2.0, read_timeout_s=2.0)


@pytest.fixture
def contents() -> dict[str, bytes]:
    cfg = build("demo", class_count=2, size_wh=(96, 96))
    count = (expected_weight_bytes(cfg) - 20) // 4
    numbers = np.abs(np.random.default_rng(1).normal(0, 0.1, count)).astype("<f4")
    return {
        "tiny.weights": struct.pack("<3iQ", 0, 2, 0, 64) + numbers.tobytes(),
        "tiny.cfg": cfg.render().encode(),
        "tiny.names": b"boat\nduck\n",
    }


@pytest.fixture
def files(
    contents: dict[str, bytes], weights_site: WeightsSite, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Pretrained]:
    """The files of ``TINY``, each at two URLs; only the second has them."""
    published = {}
    for name, content in contents.items():
        mirrors = (
            MirrorUrl(f"{weights_site.url}/gone/{name}"),
            MirrorUrl(f"{weights_site.url}/{name}"),
        )
        weights_site.pages[f"/{name}"] = Page(content)
        checksum = Checksum((hashlib.sha256(content).hexdigest(),))
        count = 5 if name.endswith(".weights") else 0
        published[name] = Pretrained(name, len(content), count, mirrors, checksum)
    monkeypatch.setattr("oiyolo.networks.published.FILES", published)
    return published


@pytest.fixture
def load(files: dict[str, Pretrained], tmp_path: Path) -> Iterator[Callable[[], ReadyDetector]]:
    with contextlib.closing(HttpClient(QUICK)) as client:
        yield lambda: obtain_detector(TINY, cache_folder=tmp_path, files=files, client=client)


def test_each_file_is_downloaded_once(
    load: Callable[[], ReadyDetector],
    weights_site: WeightsSite,
    contents: dict[str, bytes],
    tmp_path: Path,
) -> None:
    assert len(missing_files(TINY, tmp_path)) == 3
    detector = load()
    assert (detector.names, detector.cfg.size_wh) == (("boat", "duck"), (96, 96))
    assert detector.sha256 == hashlib.sha256(contents["tiny.weights"]).hexdigest()
    count = len(weights_site.requests)
    assert (missing_files(TINY, tmp_path), load()) == ([], detector)
    assert len(weights_site.requests) == count


@pytest.mark.parametrize("name", ["tiny.weights", "tiny.cfg", "tiny.names"])
def test_another_file_of_the_same_size_is_refused_and_no_cached_file_is_trusted_blindly(
    name: str,
    load: Callable[[], ReadyDetector],
    weights_site: WeightsSite,
    contents: dict[str, bytes],
    tmp_path: Path,
) -> None:
    other = contents[name][:-8] + contents[name][:8]
    weights_site.pages[f"/{name}"] = Page(other)
    with pytest.raises(UnavailableError) as caught:
        load()
    assert str(tmp_path / "weights" / name) in caught.value.remedy
    assert not (tmp_path / "weights" / name).exists()
    # By other means, as the remedy says; a damaged copy is downloaded again.
    (tmp_path / "weights" / name).write_bytes(contents[name])
    load()
    (tmp_path / "weights" / name).write_bytes(other)
    with pytest.raises(UnavailableError):
        load()


def test_the_published_detectors_are_described_consistently(tmp_path: Path) -> None:
    for detector in DETECTORS.values():
        weights = FILES[detector.weights]
        assert weights.checksum is not None
        assert weights.checksum.digests == CHECKSUMS[weights.name].digests
        if detector.cfg:
            continue
        cfg = detector.read_cfg(tmp_path)
        assert expected_weight_bytes(cfg) == weights.size_bytes
        assert len(layers(cfg)) == weights.layers
        assert cfg.size_wh == detector.size_wh
    assert all(file.checksum and file.mirrors for file in FILES.values())


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    for name in ("yolov4-tinny", "run-1", str(tmp_path)):
        with pytest.raises(UsageError) as caught:
            find_detector(name)
        assert caught.value.remedy


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/real/pretrained")
def test_the_real_files_are_the_published_ones(tmp_path: Path) -> None:
    detector = DETECTORS["yolo-fastest-xl"]
    (tmp_path / "weights").mkdir()
    for file in detector.files:
        (tmp_path / "weights" / file.name).symlink_to(REAL / file.name)
    ready = obtain_detector(detector, cache_folder=tmp_path)
    assert ready.cfg.size_wh == detector.size_wh
    assert len(ready.names) == detector.class_count
    checksum = FILES[detector.weights].checksum
    assert checksum is not None
    assert checksum.digests == (ready.sha256,)
