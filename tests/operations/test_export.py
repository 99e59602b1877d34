"""Export to ONNX: the file, what other programs make of it, and bad input."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import oiyolo
from oiyolo.core.errors import InputFormError, UnavailableError, UsageError
from oiyolo.inference.model_file import facts_of
from oiyolo.networks import cfg as cfg_file
from oiyolo.networks.cfg import CfgError
from oiyolo.operations.detectors import to_onnx
from tests.conftest import TINY_CFG
from tests.support.darknet_parity import seeded_images, seeded_weights

if TYPE_CHECKING:
    import numpy.typing as npt

    from oiyolo.inference.facts import Layout
    from oiyolo.operations.detectors import DetectorFiles
    from tests.conftest import Cli

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
SIZE_PX = 32
OPSET, IR_VERSION = 17, 8
"""What onnxruntime 1.20 and OpenVINO accept, as docs/export.md states."""


@dataclass(frozen=True)
class Files:
    """A darknet detector of two classes, in files of a folder of its own."""

    folder: Path

    @property
    def options(self) -> dict[str, Any]:
        """The options that name the files."""
        return {
            "cfg": self.folder / "tiny.cfg",
            "weights": self.folder / "tiny_last.weights",
            "names": self.folder / "tiny.names",
        }

    def write(self, text: str = TINY_CFG) -> Files:
        text = text.replace("classes=1", "classes=2").replace("filters=12", "filters=14")
        options = self.options
        options["cfg"].write_text(text)
        options["names"].write_text("boat\nbuoy\n")
        weights = seeded_weights(cfg_file.parse(text, path="tiny.cfg"), 1)
        options["weights"].write_bytes(weights)
        return self

    def set_parameter(self, position: int, value: float) -> None:
        """Change one of the parameters in the weights file."""
        with self.options["weights"].open("r+b") as file:
            file.seek(4 * position, 0 if position >= 0 else 2)
            file.write(struct.pack("<f", value))

    @property
    def pictures(self) -> npt.NDArray[np.uint8]:
        """Two pictures of the size of the network, shape (2, height, width, 3)."""
        return seeded_images(cfg_file.read(self.options["cfg"]), 3, 2)


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    (tmp_path / "detector").mkdir()
    monkeypatch.chdir(tmp_path)
    return Files(tmp_path / "detector").write()


def outputs(path: Path, pictures: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    session = onnxruntime.InferenceSession(path)
    pixels = pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": pixels}), strict=True))


def test_a_detector_is_exported_outside_of_projects(detector: Files, tmp_path: Path) -> None:
    exported = oiyolo.export_onnx(**detector.options)
    assert exported.path == tmp_path / "tiny_last.onnx"
    assert exported.size_wh == (SIZE_PX, SIZE_PX)
    assert exported.class_names == ("boat", "buoy")
    assert (exported.box_difference_px, exported.score_difference) == (0, 0)
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [opset.version for opset in model.opset_import]) == (
        IR_VERSION,
        [OPSET],
    )
    facts = facts_of({entry.key: entry.value for entry in model.metadata_props})
    assert facts is not None
    assert facts.names == ("boat", "buoy")
    returned = outputs(exported.path, detector.pictures)
    assert {name: array.shape for name, array in returned.items()} == {
        "boxes": (2, 32, 4),
        "scores": (2, 32, 2),
    }


def test_layouts_and_precisions_describe_the_same_boxes(detector: Files, tmp_path: Path) -> None:
    paths = {}
    kinds: list[tuple[Layout, bool]] = [("darknet", False), ("yolov8", False), ("darknet", True)]
    for layout, half in kinds:
        out = tmp_path / f"{layout}-{half}.onnx"
        exported = oiyolo.export_onnx(**detector.options, layout=layout, half=half, out=out)
        assert (exported.score_difference > 0) == half
        assert exported.box_difference_px < 0.1
        paths[layout, half] = exported.path
    plain, yolov8, half_plain = (outputs(p, detector.pictures) for p in paths.values())
    (output0,) = yolov8.values()
    assert output0.shape == (2, 4 + 2, 32)
    np.testing.assert_allclose(output0[:, :4], plain["boxes"].swapaxes(1, 2) * SIZE_PX, rtol=1e-5)
    np.testing.assert_allclose(output0[:, 4:], plain["scores"].swapaxes(1, 2), rtol=1e-5)
    assert {array.dtype for array in half_plain.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(half_plain["scores"], plain["scores"], atol=0.01)
    assert paths["darknet", True].stat().st_size < paths["darknet", False].stat().st_size


def test_a_second_export_does_nothing_until_something_changes(
    detector: Files, cli: Cli, tmp_path: Path
) -> None:
    words = [f"--{name}={path}" for name, path in detector.options.items()]
    first = cli.ok("export", "onnx", *words, "--json").json
    path = tmp_path / "tiny_last.onnx"
    assert (first["path"], first["is_new"]) == (str(path), True)
    before = path.stat()
    assert cli.ok("export", "onnx", *words, "--dry-run", "--json").json["would"] == []
    assert cli.ok("export", "onnx", *words, "--json").json == {**first, "is_new": False}
    assert path.stat() == before
    path.write_bytes(path.read_bytes()[:-1])
    assert cli.ok("export", "onnx", *words, "--json").json == first
    detector.options["names"].write_text("boat\ncanoe\n")
    assert cli.ok("export", "onnx", *words, "--json").json["class_names"] == ["boat", "canoe"]
    files = {p.name for p in tmp_path.iterdir() if p.name != "detector"}
    assert files == {"tiny_last.onnx", ".tiny_last.onnx-made-from.json", "tiny_last.md"}


def test_a_dry_run_writes_nothing(detector: Files, tmp_path: Path) -> None:
    plan = oiyolo.export_onnx(**detector.options, out=tmp_path / "new" / "a.onnx", dry_run=True)
    model, card = plan.actions
    assert str(tmp_path / "new" / "a.onnx") in model
    assert str(tmp_path / "new" / "a.md") in card
    assert list(tmp_path.iterdir()) == [detector.folder]


def test_the_card_of_a_model_follows_it_unless_it_is_the_users(
    detector: Files, tmp_path: Path
) -> None:
    exported = oiyolo.export_onnx(**detector.options)
    text = exported.card.read_text(encoding="utf-8")
    assert hashlib.sha256(exported.path.read_bytes()).hexdigest() in text
    exported.card.write_text(text.replace("boat", "ship"), encoding="utf-8")
    assert len(oiyolo.export_onnx(**detector.options, dry_run=True).actions) == 1
    oiyolo.export_onnx(**detector.options)
    assert exported.card.read_text(encoding="utf-8") == text
    (tmp_path / "notes.md").write_text("my notes", encoding="utf-8")
    other = oiyolo.export_onnx(**detector.options, out=tmp_path / "notes.onnx")
    assert other.card.read_text(encoding="utf-8") == "my notes"


def test_a_run_is_exported_into_its_folder_with_what_is_known_about_it(
    detector: Files, cli: Cli, tmp_path: Path
) -> None:
    oiyolo.init(tmp_path / "project", classes=["Boat"])
    run = tmp_path / "project" / "runs" / "tiny-001"
    (run / "weights").mkdir(parents=True)
    names = {"cfg": "network.cfg", "weights": "weights/network_final.weights", "names": "obj.names"}
    for option, name in names.items():
        (run / name).write_bytes(detector.options[option].read_bytes())
    record = {"state": "finished", "made_from": {"images": {"fit": "stretch"}}}
    (run / "run.json").write_text(json.dumps({**record, "darknet": {"fork": "alexeyab"}}))
    exported = cli.ok("export", "onnx", "--json", project=tmp_path / "project").json
    assert exported["path"] == str(run / "export" / "tiny-001.onnx")
    metadata = onnx.load(exported["path"]).metadata_props
    facts = facts_of({entry.key: entry.value for entry in metadata})
    assert facts is not None
    assert (facts.fit, facts.fork, facts.names) == ("stretch", "alexeyab", ("boat", "buoy"))
    assert facts.licence


def test_weights_that_do_not_fit_are_refused(detector: Files, tmp_path: Path) -> None:
    weights = detector.options["weights"]
    content = weights.read_bytes()
    for damaged in (content[:-4], content + b"\0" * 4, content[:-2]):
        weights.write_bytes(damaged)
        with pytest.raises(InputFormError) as caught:
            oiyolo.export_onnx(**detector.options)
        assert caught.value.where == str(weights)
        assert f"{len(damaged):,}" in caught.value.found
    weights.write_bytes(content)
    detector.set_parameter(-3, float("nan"))
    with pytest.raises(InputFormError):
        oiyolo.export_onnx(**detector.options)
    assert list(tmp_path.iterdir()) == [detector.folder]


def test_names_that_do_not_fit_are_refused_with_both_numbers(detector: Files) -> None:
    detector.options["names"].write_text("boat\nbuoy\ncanoe\n")
    for dry_run in (True, False):
        with pytest.raises(InputFormError) as caught:
            oiyolo.export_onnx(**detector.options, dry_run=dry_run)
        assert "2" in caught.value.expected
        assert "3" in caught.value.found


def test_a_layer_that_is_not_known_is_refused_with_its_line(detector: Files) -> None:
    text = TINY_CFG.replace("[maxpool]", "[crnn]")
    detector.write()
    detector.options["cfg"].write_text(text)
    with pytest.raises(CfgError) as caught:
        oiyolo.export_onnx(**detector.options)
    assert caught.value.line == text.splitlines().index("[crnn]") + 1


def test_outputs_that_are_not_finite_are_refused(detector: Files, tmp_path: Path) -> None:
    text = detector.options["cfg"].read_text()
    network = cfg_file.parse(text, path="tiny.cfg")
    first_bias = 5 + 4 * 8 + 8 * 3 * 9  # after the header and the first convolution
    assert network.layers[2].kind == "convolutional"
    detector.set_parameter(first_bias + 2, 1e4)  # the width of the first anchor's box: exp(1e4)
    with pytest.raises(InputFormError) as caught:
        oiyolo.export_onnx(**detector.options)
    assert caught.value.where == str(detector.options["weights"])
    assert list(tmp_path.iterdir()) == [detector.folder]


@pytest.mark.parametrize("options", [{"layout": "yolov8"}, {"half": True}])
def test_a_model_that_returns_something_else_does_not_replace_the_file(
    detector: Files, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    path = oiyolo.export_onnx(**detector.options).path
    before = path.read_bytes()
    wrong = detector.folder / "wrong.weights"
    network = cfg_file.read(detector.options["cfg"])
    wrong.write_bytes(seeded_weights(network, 2))

    def convert_wrongly(source: DetectorFiles, **kind: Any) -> bytes:
        return to_onnx(replace(source, weights_path=wrong) if kind else source, **kind)

    monkeypatch.setattr("oiyolo.operations.export.to_onnx", convert_wrongly)
    with pytest.raises(InputFormError):
        oiyolo.export_onnx(**detector.options, **options)
    assert path.read_bytes() == before


def test_a_full_disk_is_an_error_that_names_the_folder(
    detector: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("oiyolo.operations.export.check_form", fail)
    with pytest.raises(UnavailableError) as caught:
        oiyolo.export_onnx(**detector.options)
    assert caught.value.where == str(tmp_path)
    assert list(tmp_path.iterdir()) == [detector.folder]


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "yolov5"},
        {"out": "model.pb"},
        {"cfg": "absent.cfg"},
        {"weights": "absent.weights"},
        {"names": "absent.names"},
        {"run": "tiny-001"},
        {"weights": None},
        {"cfg": None},
    ],
)
def test_wrong_options_are_usage_errors(detector: Files, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        oiyolo.export_onnx(**{**detector.options, **options})


def docs_blocks() -> list[str]:
    """Return the Python examples of docs/export.md."""
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_the_script_in_the_docs_finds_what_the_detector_finds(
    detector: Files, tmp_path: Path, fit: Any
) -> None:
    oiyolo.export_onnx(**detector.options, out="boats.onnx")
    script, border, *_ = docs_blocks()
    if fit == "letterbox":
        script = script.replace("pixels =", f"{border}pixels =", 1)
    Image.fromarray(detector.pictures[0]).save("photo.png")  # of the input's size: no resizing
    (tmp_path / "script.py").write_text(script.replace("photo.jpg", "photo.png"))
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, check=True, timeout=60
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    found = oiyolo.load_detector(model="boats.onnx", fit=fit)("photo.png")
    assert [row[0] for row in rows] == [detection.name for detection in found]
    assert [float(row[1]) for row in rows] == pytest.approx(found.confidence, abs=1e-4)
    assert len(rows) > 1


@pytest.mark.slow
def test_openvino_returns_what_the_docs_promise(detector: Files, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    oiyolo.export_onnx(**detector.options, out="boats.onnx")
    pictures = detector.pictures
    expected = outputs(tmp_path / "boats.onnx", pictures)
    (code,) = (block for block in docs_blocks() if "openvino" in block)
    pixels = pictures[0].transpose(2, 0, 1).astype(np.float32) / 255
    script = "import numpy as np\npixels = np.load('pixels.npy')\n" + code
    np.save("pixels.npy", pixels)
    (tmp_path / "script.py").write_text(script + "np.savez('outputs.npz', boxes, scores)\n")
    subprocess.run([sys.executable, "script.py"], check=True, timeout=240)
    boxes, scores = np.load("outputs.npz").values()
    np.testing.assert_allclose(boxes, expected["boxes"][:1], atol=0.01)  # float16 parameters
    np.testing.assert_allclose(scores, expected["scores"][:1], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "half", "tolerance"),
    [("darknet", False, 1e-5), ("yolov8", False, 1e-3), ("darknet", True, 5e-3)],
)
def test_openvino_returns_what_onnxruntime_returns(
    real: Path, tmp_path: Path, layout: Layout, *, half: bool, tolerance: float
) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    folder = real / "pretrained"
    exported = oiyolo.export_onnx(
        cfg=folder / "yolo-fastest-1.1-xl.cfg",
        weights=folder / "yolo-fastest-1.1-xl.weights",
        names=folder / "coco.names",
        layout=layout,
        half=half,
        out=tmp_path,
    )
    with Image.open(min((real / "alpaca" / "images").glob("*.jpg"))) as photo:
        picture = np.asarray(photo.convert("RGB").resize(exported.size_wh))
    pictures = np.stack([picture, picture[:, ::-1]])
    pixels = pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255
    core = openvino.Core()
    network = core.compile_model(exported.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = outputs(exported.path, pictures)
    for name, array in zip(expected, network(pixels).values(), strict=True):
        np.testing.assert_allclose(array, expected[name], atol=tolerance, err_msg=name)
