"""Debian's Chromium without a window, for tests of pages."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OWN_SCHEMES = ("blob:", "data:", "file:")
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextlib.contextmanager
def browser(
    downloads: Path, *, size_wh: tuple[int, int] = (1280, 900), dark: bool = False
) -> Iterator[Any]:
    """Yield a driver of Chromium; skip the test if it is not installed.

    Args:
        downloads: Folder for the files that pages save.
        size_wh: Width and height of the window in pixels.
        dark: Whether the user prefers dark pages.
    """
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    options = webdriver.ChromeOptions()
    for option in _OPTIONS:
        options.add_argument(option)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        width, height = size_wh
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        behaviour = {"behavior": "allow", "downloadPath": str(downloads)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
        yield driver
    finally:
        driver.quit()


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "the page did not do it in time"
        time.sleep(0.05)


def requests_of(driver: Any) -> list[str]:
    """Return the URLs outside of the page that it has requested since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [
        str(message["params"]["request"]["url"])
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith(OWN_SCHEMES)]


def screenshot(driver: Any, path: Path) -> None:
    """Write a picture of what the window shows."""
    picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    path.write_bytes(base64.b64decode(picture["data"]))


def press_tab(driver: Any) -> None:
    """Press the tabulator key, which moves the focus."""
    key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    for kind in ("keyDown", "keyUp"):
        driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, **key})
