"""The page in Chromium: what `oiyolo predict` finds, no request, no complaint."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import oiyolo
from oiyolo.networks.builders import adapt, build, stock
from oiyolo.operations.export_web import runtime
from tests.support.browser import browser, press_tab, requests_of, screenshot, wait_until
from tests.support.darknet_parity import seeded_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oiyolo.networks.cfg import Cfg

pytestmark = pytest.mark.slow

BUSY = {"waiting", "looking"}
MAX_BOX_PX, MAX_CONFIDENCE = 1.0, 2e-3


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of onnxruntime-web."""
    if shutil.which("npm") is None:
        pytest.skip("npm, which downloads onnxruntime-web, is not installed")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--silent", f"{runtime.PACKAGE}@{runtime.VERSION}"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"npm cannot download onnxruntime-web: {result.stderr.strip()[-200:]}")
    return folder / result.stdout.strip()


def write_detector(folder: Path, cfg: Cfg, names: Sequence[str]) -> dict[str, Any]:
    """Write a network with pseudo-random weights; return the options that name its files."""
    paths: dict[str, Any] = {name: folder / f"net.{name}" for name in ("cfg", "weights", "names")}
    paths["cfg"].write_text(cfg.render())
    paths["weights"].write_bytes(seeded_weights(cfg, 1))
    paths["names"].write_text("\n".join(names))
    return paths


def draw(
    path: Path, size_wh: tuple[int, int], seed: int, *, mode: str = "RGB", **save: Any
) -> Path:
    """Write a picture of coloured patches, which are transparent to some degree in RGBA."""
    random = np.random.default_rng(seed)
    patches = Image.fromarray(random.integers(0, 256, (9, 12, len(mode)), np.uint8), mode)
    patches.resize(size_wh, Image.Resampling.BICUBIC).save(path, quality=95, **save)
    return path


def rotated() -> dict[str, Any]:
    """Return how a picture is saved that must be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


def open_page(driver: Any, path: Path) -> None:
    driver.get(path.as_uri())
    wait_until(lambda: driver.execute_script("return document.body.dataset.state") == "ready")


def look_at(driver: Any, images: Iterable[Path]) -> list[str]:
    """Give photographs to the page; return what it says about each."""
    paths = [str(path) for path in images]
    driver.find_element("id", "files").send_keys("\n".join(paths))

    def summaries() -> list[str]:
        return [item.text for item in driver.find_elements("css selector", ".summary")]

    wait_until(lambda: len(summaries()) >= len(paths) and not BUSY & set(summaries()))
    return summaries()


def save_json(driver: Any, folder: Path) -> dict[str, Any]:
    path = folder / "predictions.json"
    path.unlink(missing_ok=True)
    driver.find_element("id", "save-json").click()
    wait_until(lambda: path.exists() and path.stat().st_size > 0)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def assert_same(found: dict[str, Any], detector: Any, images: Sequence[Path]) -> int:
    """Compare with the Python implementation; return the number of detections."""
    count = 0
    for shown, path in zip(found["images"], images, strict=True):
        expected = detector(path, threshold=detector.threshold - MAX_CONFIDENCE)
        assert (shown["source"], shown["width"]) == (path.name, expected.width)
        is_open = np.ones(len(expected), bool)
        for detection in shown["detections"]:
            edges = np.abs(expected.xyxy - detection["xyxy"]).max(axis=1)
            confidence = np.abs(expected.confidence - detection["confidence"])
            is_same = (edges <= MAX_BOX_PX) & (confidence <= MAX_CONFIDENCE)
            near = np.flatnonzero(is_same & is_open & (expected.class_id == detection["class_id"]))
            assert len(near), (path.name, detection)
            is_open[near[0]] = False
            count += 1
        sure = expected.confidence > detector.threshold + MAX_CONFIDENCE
        assert not (is_open & sure).any(), path.name
    return count


@pytest.mark.parametrize("half", [False, True])
def test_drawn_pictures(package: Path, tmp_path: Path, *, half: bool) -> None:
    cfg = build("demo", class_count=2, size_wh=(96, 96))
    options = write_detector(tmp_path, cfg, ["boat", "<b>buoy</b>"])
    made = oiyolo.export_web(**options, runtime_path=package, half=half, out=tmp_path / "net.html")
    assert made.path.stat().st_size < made.model_bytes + 6_000_000
    images = [
        draw(tmp_path / "wide.jpg", (200, 120), 1),
        draw(tmp_path / "upright.jpg", (200, 120), 2, **rotated()),
        draw(tmp_path / "clear.png", (90, 130), 3, mode="RGBA"),
    ]
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    with browser(tmp_path) as driver:
        open_page(driver, made.path)
        said = look_at(driver, [*images, tmp_path / "text.jpg", tmp_path / "photo.heic"])
        assert "not an image" in said[3]
        assert "HEIC" in said[4]
        saved = save_json(driver, tmp_path)
        assert list(saved["failed"]) == ["text.jpg", "photo.heic"]
        if not half:
            detector = oiyolo.load_detector(**options, threshold=0.25)
            assert assert_same(saved, detector, images) > 5
        slider = driver.find_element("id", "threshold")
        driver.execute_script(
            "arguments[0].value = 0.95; arguments[0].dispatchEvent(new Event('input'))", slider
        )
        assert all(not entry["detections"] for entry in save_json(driver, tmp_path)["images"])
        assert driver.get_log("browser") == []
        assert requests_of(driver) == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width_px", [390, 1280])
def test_the_page_fits_the_window_and_is_used_with_the_keyboard(
    package: Path, tmp_path: Path, width_px: int, *, dark: bool
) -> None:
    cfg = build("demo", class_count=2, size_wh=(96, 96))
    options = write_detector(tmp_path, cfg, ["boat", "a name of many characters " * 9])
    made = oiyolo.export_web(**options, runtime_path=package, out=tmp_path / "net.html")
    with browser(tmp_path, size_wh=(width_px, 900), dark=dark) as driver:
        open_page(driver, made.path)
        look_at(driver, [draw(tmp_path / f"{'long' * 20}.jpg", (1600, 900), 4)])
        for summary in driver.find_elements("css selector", "summary"):
            driver.execute_script("arguments[0].click()", summary)
        overflow = "return document.documentElement.scrollWidth - window.innerWidth"
        assert driver.execute_script(overflow) <= 0
        reached = set()
        for _ in range(8):
            press_tab(driver)
            focused = driver.switch_to.active_element
            reached.add(focused.get_attribute("id") or focused.text)
        assert {"files", "threshold", "save-json", "Save picture"} <= reached
        driver.execute_script("document.querySelector('#photos button').click()")
        wait_until(lambda: any(tmp_path.glob("*-detected.jpg")))
        if folder := os.environ.get("OIYOLO_TEST_PICTURES"):
            screenshot(driver, Path(folder) / f"page-{width_px}-{'dark' if dark else 'light'}.png")


@pytest.mark.parametrize("name", ["yolo-fastest-1.1-xl", "yolov4-tiny", "demo"])
def test_real_photographs(package: Path, real: Path, tmp_path: Path, name: str) -> None:
    pretrained = real / "pretrained"
    sizes_wh = {"yolov4-tiny": (416, 416), "demo": (96, 96)}
    if name in sizes_wh:
        cfg = adapt(stock(name), class_count=3, size_wh=sizes_wh[name])
        options = write_detector(tmp_path, cfg, ["one", "two", "three"])
    else:
        options = {
            "cfg": pretrained / f"{name}.cfg",
            "weights": pretrained / f"{name}.weights",
            "names": pretrained / "coco.names",
        }
    made = oiyolo.export_web(**options, runtime_path=package, out=tmp_path / "page.html")
    assert made.path.stat().st_size < made.model_bytes + 6_000_000
    images = [p for p in sorted((real / "alpaca" / "images").glob("*.jpg")) if not has_profile(p)]
    images = images[:19]
    with Image.open(images[0]) as picture:
        path = tmp_path / "upright.jpg"
        picture.rotate(90, expand=True).save(path, quality=95, **rotated())
    images.append(path)
    with browser(tmp_path) as driver:
        open_page(driver, made.path)
        look_at(driver, images)
        saved = save_json(driver, tmp_path)
        assert assert_same(saved, oiyolo.load_detector(**options, threshold=0.25), images) > 40
        assert driver.get_log("browser") == []
        assert requests_of(driver) == []


def has_profile(path: Path) -> bool:
    """Return whether a photograph has colours other than sRGB.

    Pillow's conversion and the browser's differ by one level of 255 in some pixels.
    """
    with Image.open(path) as picture:
        return "icc_profile" in picture.info
