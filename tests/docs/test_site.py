"""The documentation site: it builds without a warning and needs nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import oiyolo
from tests.support.browser import browser, requests_of, wait_until

ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc=["']([^"']*)|<link\b[^>]*?\bhref=["']([^"']*)"""
)
IN_STYLE = re.compile(r"""(?:url\(|@import )\s*["']?([^"')\s]+)""")
PAGES = ("index", "configuration", "commands", "api", "training")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="the documentation is built with Python 3.11 or newer")
    folder = tmp_path_factory.mktemp("site")
    options = ("--fail-on-warning", "--keep-going", "--quiet", "--doctree-dir", f"{folder}/trees")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(folder / "html")],
        capture_output=True, text=True, check=False, timeout=280, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_the_site_documents_every_public_name(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    documented = set(re.findall(r'id="oiyolo\.(\w+)"', page))
    assert set(oiyolo.__all__) - {"__version__"} - documented == set()
    assert "mailto:" not in page


def test_every_page_is_a_link_in_the_navigation(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    pages -= {"index.html", "search.html", "genindex.html", "py-modindex.html"}
    assert pages - set(re.findall(r'<a class="reference internal" href="([^"#]+)"', start)) == set()


def test_no_page_or_style_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = {
        (path.name, next(filter(None, match.groups()), ""))
        for pattern, suffix in ((LOADED, "html"), (IN_STYLE, "css"))
        for path in site.rglob(f"*.{suffix}")
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    }
    assert len(loaded) > 10
    assert [x for x in loaded if re.match(r"(https?:)?//", x[1])] == []


def test_pages_are_readable_on_a_phone_and_the_search_works_offline(
    site: Path, tmp_path: Path
) -> None:
    with browser(tmp_path, size_wh=(390, 800), dark=True) as driver:
        for page in PAGES:
            driver.get((site / f"{page}.html").as_uri())
            width = driver.execute_script("return document.documentElement.scrollWidth")
            assert width <= 390, page
            assert driver.find_elements("class name", "copybtn"), page
            assert driver.get_log("browser") == []
            shade = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert max(map(int, re.findall(r"\d+", shade)[:3])) < 64, "not dark"
        driver.get((site / "search.html").as_uri() + "?q=patience")
        wait_until(lambda: "Training" in driver.find_element("id", "search-results").text)
        assert requests_of(driver) == []
