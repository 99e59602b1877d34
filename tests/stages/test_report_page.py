"""The report in a real browser: it draws, responds, and asks nobody for anything."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import oiyolo
from oiyolo.evaluation import panel_files
from oiyolo.evaluation.panels import choose_panels, evaluate_images
from oiyolo.evaluation.summary import evaluate_detections
from oiyolo.evaluation.tables import Detections, GroundTruth
from tests.support.browser import browser, requests_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

np = pytest.importorskip("numpy")
HOSTILE = "<img src=x onerror=document.title='hacked'>\u202e"
NAMES = ["Boat", HOSTILE, *(f"class {number}" for number in range(12))]
IMAGES, CHARTS = 40, 5
FIND = """
const found = [];
const search = (root) => { for (const e of root.querySelectorAll("*")) {
  if (e.matches(arguments[0])) found.push(e);
  if (e.shadowRoot) search(e.shadowRoot); } };
search(document);
return found;
"""


def scores() -> tuple[Detections, GroundTruth]:
    """Return a box of a class in each image, half of which are found."""
    ids = tuple(f"{number:016x}" for number in range(IMAGES))
    image = np.arange(IMAGES)
    class_id = image % len(NAMES)
    boxes = np.tile([[0.2, 0.2, 0.6, 0.7]], (IMAGES, 1))
    truth = GroundTruth(
        ids, image, class_id, boxes, np.zeros(IMAGES, dtype=np.bool_),
        sizes_wh=np.full((IMAGES, 2), 96.0),
    )  # fmt: skip
    found = image % 2 == 0
    boxes = boxes[found] + 0.02
    return Detections(ids, image[found], class_id[found], np.full(len(boxes), 0.8), boxes), truth


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of a run with many classes, one of which has a hostile name."""
    folder = tmp_path_factory.mktemp("report")
    oiyolo.init(folder, classes=["Boat"])
    run = folder / "runs" / "tiny-001"
    run.mkdir(parents=True)
    record = {"state": "finished", "network": HOSTILE, "max_batches": 9, "darknet": {}}
    (run / "run.json").write_text(json.dumps(record))
    (run / "network.cfg").write_text("[net]\n")
    (run / "metrics.csv").write_text(
        "iteration,loss,rate,iou,map,valid_map50,train_map50,valid_loss\n"
        + "".join(f"{i},{200 / i},0.001,0.5,,0.5,0.6,\n" for i in range(1, 200))
    )
    detections, truth = scores()
    thresholds = [0.5] * len(NAMES)
    evaluation = evaluate_detections(detections, truth, NAMES, thresholds)
    weights = {"path": HOSTILE, "sha256": "0" * 64, "iteration": 9, "reason": HOSTILE}
    (run / "evaluation.json").write_text(
        json.dumps({"split": "test", "weights": weights, **evaluation.to_json()})
    )
    results = evaluate_images(detections, truth, NAMES, thresholds)
    picture = Image.linear_gradient("L").convert("RGB").resize((400, 300))
    panel_files.save(
        run / "panels", choose_panels(results, NAMES), results,
        split="test", class_names=NAMES, pictures=lambda _: picture,
    )  # fmt: skip
    return oiyolo.report(folder).path


@pytest.fixture(scope="module", params=[(1280, False), (390, True)], ids=["wide", "phone, dark"])
def opened(page: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield a browser that has opened the page."""
    width, dark = request.param
    with browser(page.parent, size_wh=(width, 900), dark=dark) as driver:
        driver.get(page.as_uri())
        script = "return document.querySelectorAll('figure.live').length"
        wait_until(lambda: driver.execute_script(script) == CHARTS)
        wait_until(lambda: len(driver.execute_script(FIND, "canvas")) >= CHARTS)
        yield driver


@pytest.mark.slow
def test_the_page_asks_nobody_and_complains_of_nothing(opened: Any) -> None:
    assert requests_of(opened) == []
    messages = [entry for entry in opened.get_log("browser") if entry["level"] != "INFO"]
    assert messages == []
    assert "hacked" not in opened.title
    width = "return [document.documentElement.scrollWidth, innerWidth]"
    shown, available = opened.execute_script(width)
    assert shown <= available


@pytest.mark.slow
def test_tables_sort_and_filter(opened: Any) -> None:
    column = """
    const tables = [...document.querySelectorAll("table")];
    const table = tables.find((t) => t.textContent.includes("AP@0.5"));
    const cells = (n) => [...table.tBodies[0].rows].filter((r) => !r.hidden)
      .map((r) => r.cells[n].textContent);
    """
    names = opened.execute_script(column + "return cells(0)")
    assert names == NAMES
    press = "table.tHead.rows[0].cells[1].querySelector('button').click(); return cells(1)"
    rising = opened.execute_script(column + press)
    assert [float(text.rstrip("%")) for text in rising] == sorted(
        float(t.rstrip("%")) for t in rising
    )
    falling = opened.execute_script(column + press)
    assert falling == rising[::-1] or sorted(falling) == sorted(rising)
    sort_state = "return table.tHead.rows[0].cells[1].getAttribute('aria-sort')"
    assert opened.execute_script(column + sort_state) == "descending"
    search = """
    const input = table.parentElement.previousElementSibling.querySelector("input");
    input.value = "CLASS 1"; input.dispatchEvent(new Event("input")); return cells(0)"""
    assert sorted(opened.execute_script(column + search)) == ["class 1", "class 10", "class 11"]


def shown_ids(driver: Any) -> Any:
    return driver.execute_script(
        "const items = [...document.querySelectorAll('.item')].filter(i => !i.hidden);"
        "return items.map(i => i.dataset.id)"
    )


@pytest.mark.slow
def test_pictures_are_filtered_and_searched(opened: Any) -> None:
    first = shown_ids(opened)
    assert len(first) == 24
    opened.execute_script("document.querySelector('.more').click()")
    assert len(shown_ids(opened)) == IMAGES
    choose = """
    const form = document.querySelector(".filters");
    const set = (name, value) => { form.elements[name].value = value;
      form.dispatchEvent(new Event("input")); };
    """
    opened.execute_script(choose + "set('errors', 'errors:false negative')")
    assert len(shown_ids(opened)) == IMAGES // 2
    opened.execute_script(choose + "set('class', 'class:class 3')")
    assert 0 < len(shown_ids(opened)) < IMAGES // 4
    opened.execute_script(choose + "set('class', ''); set('search', '00000000000000FF')")
    assert shown_ids(opened) == []
    assert opened.execute_script("return document.querySelector('.nothing').hidden") is False
    opened.execute_script(choose + "set('errors', ''); set('search', '000000000000001')")
    assert len(shown_ids(opened)) == 17  # ids 1 and 10 to 1f
    opened.execute_script(choose + "set('search', '')")


@pytest.mark.slow
def test_a_picture_opens_and_keys_lead_on(opened: Any) -> None:
    opened.execute_script("document.querySelector('button.picture').click()")
    title = "return document.querySelector('dialog .title').textContent"
    before = opened.execute_script(title)
    press(opened, "ArrowRight")
    after = opened.execute_script(title)
    assert after != before
    assert "(2 of" in after
    size = "return document.querySelector('.stage .picture').getBoundingClientRect().width"
    small = opened.execute_script(size)
    press(opened, "+")
    assert opened.execute_script(size) > small
    hide = """
    const boxes = [...document.querySelectorAll("dialog input")];
    boxes.forEach((box) => box.click());
    const shown = [...document.querySelectorAll(".stage g")].map(g => getComputedStyle(g).display);
    boxes.forEach((box) => box.click());
    return shown"""
    assert set(opened.execute_script(hide)) == {"none"}
    cut_off = """
    const drawing = document.querySelector(".stage svg");
    const label = document.createElementNS("http://www.w3.org/2000/svg", "text");
    label.setAttribute("x", drawing.viewBox.baseVal.width - 5);
    label.textContent = "a long label";
    const box = document.querySelector(".item svg").appendChild(label);
    const left = new KeyboardEvent("keydown", {key: "ArrowLeft"});
    document.querySelector("dialog").dispatchEvent(left);
    const right = [...document.querySelectorAll(".stage text")].map((t) => t.getBBox())
      .map((b) => b.x + b.width);
    box.remove();
    return right.filter((x) => x > drawing.viewBox.baseVal.width + 1);"""
    assert opened.execute_script(cut_off) == []
    press(opened, "Escape")
    assert opened.execute_script("return document.querySelector('dialog').open") is False
    focused = "return document.activeElement.className"
    wait_until(lambda: bool(opened.execute_script(focused) == "picture"))


def press(driver: Any, key: str) -> None:
    codes = {"ArrowRight": 39, "Escape": 27, "+": 187}
    event = {"key": key, "windowsVirtualKeyCode": codes[key]}
    if key == "+":
        event["text"] = "+"
    for kind in ("keyDown", "keyUp"):
        driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, **event})


@pytest.mark.slow
def test_charts_show_figures_near_the_pointer_and_zoom(opened: Any) -> None:
    script = """
    const chart = document.getElementById("chart-iou");
    chart.scrollIntoView({block: "center", behavior: "instant"});
    const r = chart.getBoundingClientRect();
    return [r.left + r.width / 2, r.top + r.height / 2, r.width, r.height];"""

    def move(at: list[float], kind: str, dx: float, dy: float, button: str = "none") -> None:
        x, y = at[0] + dx, at[1] + dy
        event = {"type": kind, "x": x, "y": y, "button": button, "clickCount": 1}
        opened.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def has_tooltip() -> bool:
        at = opened.execute_script(script)  # a chart above it may still have grown
        for step in range(-60, 61, 4):  # somewhere the pointer is on the line
            move(at, "mouseMoved", 0, step)
            time.sleep(0.02)
            found = opened.execute_script(FIND, ".bk-tooltip-content")
            if any("mean IOU" in e.get_attribute("textContent") for e in found):
                return True
        return False

    wait_until(has_tooltip, timeout_s=20)
    ends = """
    const find = (m) => m.type === "Figure" && m.left[0].axis_label === "mean IOU";
    const plot = Bokeh.documents.flatMap(d => d.roots()).find(find);
    return plot.x_range.end - plot.x_range.start;"""
    full = opened.execute_script(ends)
    at = opened.execute_script(script)
    width, height = at[2:]
    move(at, "mousePressed", -width / 5, -height / 8, "left")
    move(at, "mouseMoved", 0, 0, "left")
    move(at, "mouseMoved", width / 8, height / 8, "left")
    move(at, "mouseReleased", width / 8, height / 8, "left")
    wait_until(lambda: opened.execute_script(ends) < full, timeout_s=20)


@pytest.mark.slow
def test_without_scripts_everything_is_a_picture_or_a_table(page: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as driver:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        driver.get(page.as_uri())
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        visible = """
        const found = [...document.querySelectorAll(arguments[0])];
        return found.filter((e) => e.checkVisibility()).length"""
        assert driver.execute_script(visible, ".item") == IMAGES
        assert driver.execute_script(visible, ".item rect") > IMAGES
        assert driver.execute_script(visible, "figure[data-chart] .still") == 1  # precision, recall
        assert driver.execute_script(visible, ".filters") == 0
        assert driver.execute_script(visible, "td") > len(NAMES)


@pytest.mark.slow
def test_fingers_find_what_can_be_pressed(page: Path, tmp_path: Path) -> None:
    low = """
    const pressed = "button, summary, select, input, nav a";
    return [...document.querySelectorAll(pressed)].map((e) => [e, e.getBoundingClientRect().height])
      .filter(([, height]) => height > 0 && height < 40)
      .map(([e, height]) => `${e.localName} ${e.textContent.trim()}: ${height}`);
    """
    with browser(tmp_path, size_wh=(390, 900)) as driver:
        touch = {"enabled": True, "maxTouchPoints": 5}
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", touch)
        driver.get(page.as_uri())
        coarse = "return matchMedia('(pointer: coarse)').matches"
        assert driver.execute_script(coarse)
        wait_until(lambda: driver.execute_script("return !!document.querySelector('th button')"))
        assert driver.execute_script(low) == []


@pytest.mark.slow
def test_the_page_prints(opened: Any, tmp_path: Path) -> None:
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    path = tmp_path / "report.pdf"
    path.write_bytes(base64.b64decode(printed["data"]))
    assert path.read_bytes().startswith(b"%PDF")
    assert path.stat().st_size > 20_000
