"""The detector: on one image and on many, in their order, with little memory."""

from __future__ import annotations

import dataclasses
import json
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.imagery.decode import UnreadableImageError
from oiyolo.inference.detected import Detected, Failed
from oiyolo.inference.detector import Detector
from oiyolo.inference.facts import ModelFacts
from oiyolo.inference.session import open_model
from tests.support.models import SIZE_WH, plain_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    Rgb = npt.NDArray[np.uint8]

NAMES = ("boat", "buoy", "gull")
EXIF_ORIENTATION, TURNED = 0x0112, 6
WHITE, GREY = 255, 51
"""With a mean of 0.2, no score of the model is above the default threshold."""


def make_detector(**options: Any) -> Detector:
    facts = options.pop("facts", ModelFacts(NAMES))
    session = open_model(plain_model().SerializeToString(), threads=1)
    return Detector(session, facts, origin="a test", **options)


def plain(level: int = WHITE, wh: tuple[int, int] = (640, 320)) -> Rgb:
    return np.full((wh[1], wh[0], 3), level, np.uint8)


def found(detected: Detected) -> list[tuple[str, float]]:
    return [(detection.name, detection.confidence) for detection in detected]


def test_detections_are_in_pixels_of_the_image() -> None:
    detected = make_detector()(plain())
    assert found(detected) == [("boat", 0.875), ("buoy", 0.75), ("gull", 0.5)]
    assert (detected.width, detected.height, len(detected)) == (640, 320, 3)
    # The third is the first box again, as another class.
    expected = [[80, 80, 240, 240], [440, 120, 520, 200], [80, 80, 240, 240]]
    np.testing.assert_allclose(detected.xyxy, expected, atol=1e-3)


def test_a_letterbox_has_borders_and_a_stretched_image_has_none() -> None:
    square = plain(wh=(320, 320))
    stretched = make_detector(fit="stretch")(square)
    np.testing.assert_allclose(stretched.xyxy[0], [40, 80, 120, 240], atol=1e-3)
    boxed = make_detector(threshold=0.1)(square)
    assert boxed.confidence[0] == pytest.approx(0.875 * 0.75, abs=1e-3)  # half grey, half white
    np.testing.assert_allclose(boxed.xyxy[0], [0, 80, 80, 240], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "count"), [({}, 3), ({"threshold": 0.6}, 2), ({"threshold": 1.0}, 0)]
)
def test_options_of_a_call_replace_those_of_the_detector(
    options: dict[str, Any], count: int
) -> None:
    assert len(make_detector()(plain(), **options)) == count
    assert len(make_detector(**options)(plain())) == count


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["threshold", "nms"])
def test_options_must_be_from_0_to_1(name: str, value: float) -> None:
    with pytest.raises(UsageError):
        make_detector(**{name: value})
    detector = make_detector()
    with pytest.raises(UsageError):
        detector(plain(), **{name: value})  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        detector.stream([], **{name: value})  # type: ignore[arg-type]


def test_facts_of_the_model_are_the_defaults() -> None:
    facts = ModelFacts(NAMES, fit="stretch", threshold=0.6, nms_iou=0.3)
    detector = make_detector(facts=facts)
    assert (detector.fit, detector.threshold, detector.nms_iou) == ("stretch", 0.6, 0.3)
    default = make_detector()
    assert (default.fit, default.threshold, default.nms_iou) == ("letterbox", 0.25, 0.45)


def test_paths_and_pillow_images_are_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(plain(wh=(320, 640)))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = TURNED
    path = tmp_path / "photo.png"
    image.save(path, exif=exif)
    detector = make_detector()
    for given in (path, str(path), Image.open(path)):
        detected = detector(given)
        assert (detected.source, detected.width, detected.height) == (str(path), 640, 320)
        assert len(detected) == 3
        assert detected.plot().size == (640, 320)
    assert detector(image.convert("L").rotate(90, expand=True)).width == 640


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    detector = make_detector()
    with pytest.raises(UsageError):
        detector(tmp_path / "absent.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(InputFormError) as caught:
        detector(tmp_path / "text.jpg")
    assert caught.value.where == str(tmp_path / "text.jpg")
    wrong: Any
    for wrong in (plain()[..., 0], plain().astype(float), plain()[:0], [[1, 2]], 3, None):
        with pytest.raises(UsageError):
            detector(wrong)


def item(number: int, level: int = WHITE) -> tuple[str, Callable[[], Rgb]]:
    scale = 1 + number % 5
    return str(number), partial(plain, level, (64 * scale, 32 * scale))


@pytest.mark.parametrize("batch", [None, 1, 3, 8])
def test_a_stream_keeps_the_order_and_names_failures(batch: int | None) -> None:
    def fail(error: Exception) -> Rgb:
        raise error

    items = [item(number, WHITE if number % 3 else GREY) for number in range(40)]
    items[7] = ("7", partial(fail, UnreadableImageError("damaged")))
    items[8] = ("8", partial(fail, FileNotFoundError(2, "No such file or directory")))
    items[39] = ("39", partial(fail, MemoryError()))
    results = list(make_detector().stream(items, batch=batch))
    assert [result.source for result in results] == [str(number) for number in range(40)]
    failed = {result.source: result.reason for result in results if isinstance(result, Failed)}
    assert failed == {"7": "damaged", "8": "No such file or directory", "39": "out of memory"}
    detected = [(r.width, len(r)) for r in results if isinstance(r, Detected)]
    numbers = [number for number in range(39) if number not in {7, 8}]
    assert detected == [(64 * (1 + n % 5), 3 if n % 3 else 0) for n in numbers]


def test_a_stream_reads_few_images_ahead() -> None:
    loaded = 0
    lock = threading.Lock()

    def load(number: int) -> Rgb:
        nonlocal loaded
        with lock:
            loaded += 1
        return item(number)[1]()

    numbers = iter(range(10_000))
    results = make_detector().stream((str(n), partial(load, n)) for n in numbers)
    for _ in range(10):
        next(results)
    results.close()
    assert loaded < 10 + 3 * 8  # eight workers at most
    assert next(numbers) <= 10 + 3 * 8


def test_a_closed_stream_closes_its_items_before_it_waits_for_those_in_work() -> None:
    stopped = threading.Event()

    def wait() -> Rgb:
        assert stopped.wait(60)
        raise UnreadableImageError("stopped")

    def items() -> Iterator[tuple[str, Callable[[], Rgb]]]:
        try:
            yield "0", plain
            while True:
                yield "1", wait
        finally:
            stopped.set()

    results = make_detector().stream(items())
    next(results)
    assert not stopped.is_set()
    results.close()
    assert stopped.is_set()


def test_errors_of_the_network_end_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = make_detector()
    monkeypatch.setattr(detector, "size_wh", (SIZE_WH[0] * 2, SIZE_WH[1]))
    with pytest.raises(InputFormError):
        list(detector.stream([item(0), item(1)]))
    with pytest.raises(UsageError):
        detector.stream([item(0)], batch=0)


def test_single_images_and_empty_streams() -> None:
    detector = make_detector()
    assert list(detector.stream([])) == []
    assert [len(result) for result in detector.stream([item(0)]) if isinstance(result, Detected)]


def test_tiles_find_what_the_whole_image_shows_too_small() -> None:
    """Each white tile has detections of its own in place of those of the whole image."""
    detector = make_detector(threshold=0.8)
    whole, tiled = detector(plain()), detector(plain(), tile=True)
    assert len(whole) == 1
    assert len(tiled) > 10
    assert tiled.xyxy.min() >= 0
    assert (tiled.xyxy[:, 2:] <= (640, 320)).all()
    (streamed,) = detector.stream([("0", plain)], tile=True)
    assert isinstance(streamed, Detected)
    np.testing.assert_array_equal(streamed.xyxy, tiled.xyxy)


def test_a_detector_can_be_called_from_several_threads() -> None:
    detector, results = make_detector(), []
    threads = [
        threading.Thread(target=lambda: results.append(found(detector(plain())))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [results[0]] * 4


def test_detections_as_json_table_text_and_html() -> None:
    detected = make_detector()(plain())
    value = detected.as_dict()
    assert json.loads(json.dumps(value)) == value
    assert list(value) == ["source", "width", "height", "detections"]
    detections: Any = value["detections"]
    assert detections[0] == {
        "class": "boat",
        "class_id": 0,
        "confidence": 0.875,
        "xyxy": [80.0, 80.0, 240.0, 240.0],
    }
    frame = dataclasses.replace(detected, frame=3, time_s=0.1)
    assert {"frame": 3, "time_s": 0.1}.items() <= frame.as_dict().items()
    table = detected.table
    assert list(table["class"]) == ["boat", "buoy", "gull"]
    assert list(table.columns) == [
        *("class", "class_id", "confidence"),
        *("left", "top", "right", "bottom"),
    ]
    assert "1 boat, 1 buoy, 1 gull" in str(detected)
    assert "data:image/" in detected._repr_html_()
    nothing = make_detector()(plain(GREY))
    assert not len(nothing)
    assert nothing
    assert len(nothing.table) == 0
    assert nothing.as_dict()["detections"] == []


def test_a_picture_is_drawn_on_a_copy() -> None:
    pixels = plain()
    detected = make_detector()(pixels)
    drawn = np.asarray(detected.plot())
    assert (drawn != pixels).any()
    assert (pixels == WHITE).all()
    without = dataclasses.replace(detected, load=None)
    with pytest.raises(ValueError, match="not available"):
        without.plot()
    assert "<img" not in without._repr_html_()


def test_names_cannot_control_a_terminal_or_a_page() -> None:
    facts = ModelFacts(("\x1b[31mboat", "<script>", "gull\u202e"))
    detected = make_detector(facts=facts)(plain())
    assert not {"\x1b", "\u202e"} & set(str(detected) + repr(detected))
    assert "<script>" not in detected._repr_html_()
