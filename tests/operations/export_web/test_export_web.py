"""The page: what is in it, how the runtime is obtained, and bad input."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.server
import json
import re
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

import oiyolo
from oiyolo.core.errors import InputFormError, UnavailableError, UsageError
from oiyolo.inference import half_weights
from oiyolo.net.client import HttpClient
from oiyolo.net.retry import RetryPolicy
from oiyolo.networks import cfg as cfg_file
from oiyolo.networks.weights import Checksum, MirrorUrl, Pretrained
from oiyolo.operations.export_web import packing, runtime
from tests.conftest import TINY_CFG
from tests.support.darknet_parity import seeded_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENTS = {runtime.SCRIPT: b"export const env = {};", runtime.WASM: b"\0asm" + bytes(range(256))}
QUICK = RetryPolicy(max_attempts=1, first_pause_s=0.01, connect_timeout_s=2.0, read_timeout_s=2.0)
NAMES = ('boat</script><img src=x onerror="alert(1)">', "buoy & Boje \u00e4\u4e16")


def published(name: str, url: str) -> Pretrained:
    content = CONTENTS[name]
    checksum = Checksum((hashlib.sha256(content).hexdigest(),))
    return Pretrained(name, len(content), 0, (MirrorUrl(f"{url}/{name}"),), checksum)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of the npm package, of which the contents are ours."""
    stand_in = {name: published(name, "http://127.0.0.1:9") for name in CONTENTS}
    monkeypatch.setattr(runtime, "FILES", stand_in)
    folder = tmp_path / "package" / "dist"
    folder.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    return folder.parent


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the options that name a detector of two classes, in files of a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = TINY_CFG.replace("classes=1", "classes=2").replace("filters=12", "filters=14")
    paths = {name: tmp_path / f"tiny.{name}" for name in ("cfg", "weights", "names")}
    paths["cfg"].write_text(text)
    paths["names"].write_text("\n".join(NAMES), encoding="utf-8")
    paths["weights"].write_bytes(seeded_weights(cfg_file.parse(text, path="tiny.cfg"), 1))
    return dict(paths)


def unpacked(page: str, name: str) -> bytes:
    """Return a packed file in a page, unpacked by rules that are written down here once more."""
    pattern = rf'id="{name}" data-bytes="(\d+)" data-width="(\d)">([^<]*)</script>'
    found = re.search(pattern, page)
    assert found is not None
    byte_count, width, text = int(found[1]), int(found[2]), found[3]
    bits = "".join(f"{ord(character) & 127:07b}" for character in text)
    packed = bytes(int(bits[i : i + 8], 2) for i in range(0, 8 * byte_count, 8))
    content = gzip.decompress(packed)
    rows = len(content) // width
    columns = [content[i * rows : (i + 1) * rows] for i in range(width)]
    return bytes(b for row in zip(*columns, strict=True) for b in row) + content[rows * width :]


def test_the_page_contains_the_detector_and_the_runtime(
    options: dict[str, Any], package: Path, tmp_path: Path
) -> None:
    made = oiyolo.export_web(**options, runtime_path=package)
    assert (made.path, made.is_new, made.class_names) == (tmp_path / "tiny.html", True, NAMES)
    page = made.path.read_text(encoding="utf-8")
    for name, content in (("runtime-script", runtime.SCRIPT), ("runtime-wasm", runtime.WASM)):
        assert unpacked(page, name) == CONTENTS[content]
    model = unpacked(page, "model")
    assert len(model) == made.model_bytes
    onnxruntime.InferenceSession(model)
    modified_at = made.path.stat().st_mtime_ns
    assert not oiyolo.export_web(**options, runtime_path=package).is_new
    assert made.path.stat().st_mtime_ns == modified_at
    assert oiyolo.export_web(**options, runtime_path=package, dry_run=True).actions == []
    made.path.write_text(page[:-1])
    assert oiyolo.export_web(**options, runtime_path=package).is_new
    recipe = tmp_path / ".tiny.html-made-from.json"
    saved = json.loads(recipe.read_text())
    del saved["model_bytes"]
    recipe.write_text(json.dumps(saved))
    assert oiyolo.export_web(**options, runtime_path=package).is_new


def test_names_are_escaped_and_only_our_script_may_run(
    options: dict[str, Any], package: Path
) -> None:
    page = oiyolo.export_web(**options, runtime_path=package).path.read_text(encoding="utf-8")
    assert "<img src=x" not in page
    facts = re.search(r'id="facts">(.*?)</script>', page)
    assert facts is not None
    assert tuple(json.loads(facts[1])["names"]) == NAMES
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    scripts = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1]
    assert "'unsafe-eval'" not in policy[1]
    for (text,) in (scripts, styles):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]


def test_packing_adds_a_sixth_at_most_and_nothing_that_html_changes() -> None:
    random = np.random.default_rng(0)
    weights = random.normal(0, 0.1, 300_000).astype(np.float32).tobytes()
    text = packing.pack(weights, width=4).text
    assert len(text) < len(weights)
    assert not set(text) & {0, 13, 60}
    noise = random.integers(0, 256, 300_000, np.uint8).tobytes()
    assert len(packing.pack(noise).text) < 1.18 * len(noise)


def test_half_weights_are_stored_in_half_the_space(options: dict[str, Any], package: Path) -> None:
    whole = oiyolo.export_web(**options, runtime_path=package)
    halved = oiyolo.export_web(**options, runtime_path=package, half=True, out="half.html")
    assert halved.model_bytes < whole.model_bytes
    models = [unpacked(made.path.read_text("utf-8"), "model") for made in (whole, halved)]
    images = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    outputs = [onnxruntime.InferenceSession(m).run(None, {"images": images}) for m in models]
    for exact, rounded in zip(*outputs, strict=True):
        np.testing.assert_allclose(rounded, exact, atol=2e-3)
    assert half_weights.with_half_weights(models[1]) == models[1]


def test_a_model_of_export_onnx_is_accepted_and_others_are_refused(
    options: dict[str, Any], package: Path
) -> None:
    plain = oiyolo.export_onnx(**options).path
    assert oiyolo.export_web(model=plain, runtime_path=package).class_names == NAMES
    other = oiyolo.export_onnx(**options, layout="yolov8", out="other.onnx").path
    with pytest.raises(InputFormError) as caught:
        oiyolo.export_web(model=other, runtime_path=package)
    assert caught.value.where == str(other)
    with pytest.raises(UsageError):
        oiyolo.export_web(model=plain, cfg=options["cfg"], runtime_path=package)


def test_a_network_that_is_too_large_is_refused(
    options: dict[str, Any], package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("oiyolo.operations.export_web._MAX_MODEL_BYTES", 100)
    for dry_run in (True, False):
        with pytest.raises(InputFormError):
            oiyolo.export_web(**options, runtime_path=package, dry_run=dry_run)
    assert not list(tmp_path.glob("*.html*"))


def test_an_archive_of_the_package_is_read(
    options: dict[str, Any], package: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "runtime.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(package, "package")
    assert oiyolo.export_web(**options, runtime_path=archive).is_new


@pytest.mark.parametrize("damage", ["missing", "other", "no archive", "no file"])
def test_another_runtime_is_refused(
    options: dict[str, Any], package: Path, tmp_path: Path, damage: str
) -> None:
    path, wasm = package, package / "dist" / runtime.WASM
    if damage == "missing":
        wasm.unlink()
    elif damage == "other":
        wasm.write_bytes(CONTENTS[runtime.WASM][:-1] + b"x")
    else:
        path = tmp_path / "runtime.tgz"
        if damage == "no archive":
            path.write_bytes(b"no archive")
    for dry_run in (True, False):
        with pytest.raises(UsageError if damage == "no file" else InputFormError) as caught:
            oiyolo.export_web(**options, runtime_path=path, dry_run=dry_run)
        assert "npm pack" in caught.value.remedy
    assert not (tmp_path / "tiny.html").exists()


class _Site(http.server.BaseHTTPRequestHandler):
    paths: list[str]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        content = CONTENTS[self.path[1:]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, list[str]]]:
    paths: list[str] = []
    handler = type("Handler", (_Site,), {"paths": paths})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()
        thread.join()


def test_the_runtime_is_downloaded_once(site: tuple[str, list[str]], tmp_path: Path) -> None:
    url, paths = site
    wanted = {name: published(name, url) for name in CONTENTS}
    with contextlib.closing(HttpClient(QUICK)) as client:
        for _ in range(2):
            got = runtime.download(tmp_path, files_by_name=wanted, client=client)
            assert got == tuple(CONTENTS.values())
    assert len(paths) == 2


def test_without_a_network_the_message_says_how_to_get_the_runtime(
    options: dict[str, Any], package: Path, tmp_path: Path
) -> None:
    assert package.is_dir()
    with contextlib.closing(HttpClient(QUICK)) as client, pytest.raises(UnavailableError) as caught:
        runtime.download(tmp_path / "cache", files_by_name=runtime.FILES, client=client)
    assert "npm pack" in caught.value.remedy
    assert "--runtime" in caught.value.remedy
    plan = oiyolo.export_web(**options, dry_run=True)
    assert [action.split()[0] for action in plan.actions] == ["download", "download", "write"]
