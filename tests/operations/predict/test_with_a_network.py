"""predict with a network: the options reach the detector, and its detections the outputs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import oiyolo
from oiyolo.core.errors import InputFormError, UsageError
from oiyolo.networks import cfg as cfg_file
from tests.conftest import TINY_CFG
from tests.operations.predict.conftest import save
from tests.support.darknet_parity import seeded_weights

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli


@pytest.fixture
def network(here: Path) -> dict[str, Any]:
    """Return the options that name a network with random weights."""
    files = {name: here / f"tiny.{name}" for name in ("cfg", "weights", "names")}
    files["cfg"].write_text(TINY_CFG, encoding="utf-8")
    files["weights"].write_bytes(seeded_weights(cfg_file.parse(TINY_CFG, path="tiny.cfg"), 1))
    files["names"].write_text("boat\n", encoding="utf-8")
    return files


def test_the_command_prints_what_the_detector_finds(
    here: Path, cli: Cli, network: dict[str, Any]
) -> None:
    paths = [save(here / "photos" / f"{name}.jpg") for name in "abc"]
    detector = oiyolo.load_detector(**network, threshold=0.2, nms=0.9, fit="stretch")
    expected = [detector(path, tile=True) for path in paths]
    words = [word for name, path in network.items() for word in (f"--{name}", path)]
    words += ["--threshold", "0.2", "--nms", "0.9", "--fit", "stretch", "--tile", "--batch", "2"]
    done = cli.ok("predict", *paths, *words, "--format", "json", "--json")
    printed = json.loads(done.out)["images"]
    assert json.loads((here / "predictions" / "predictions.json").read_text())["images"] == printed
    assert [image["source"] for image in printed] == [str(path) for path in paths]
    for image, detected in zip(printed, expected, strict=True):
        assert len(detected)
        corners = [found["xyxy"] for found in image["detections"]]
        assert np.allclose(corners, detected.xyxy, atol=0.05)
    plan = json.loads(cli.ok("predict", paths[0], *words, "--dry-run", "--json").out)
    assert detector.origin in plan["would"][0]


def test_the_size_of_a_batch_does_not_matter(here: Path, network: dict[str, Any]) -> None:
    paths = [save(here / f"{n}.jpg") for n in range(5)]
    tables = [
        oiyolo.predict(paths, **network, threshold=0.0, batch=batch, formats=()).table
        for batch in (1, 2, 8)
    ]
    for table in tables[1:]:
        assert np.allclose(table["confidence"], tables[0]["confidence"], atol=1e-5)


def test_an_invalid_detector_or_option_writes_nothing(here: Path, network: dict[str, Any]) -> None:
    path = save(here / "a.jpg")
    options: list[dict[str, Any]] = [
        {"threshold": 1.5},
        {"nms": float("nan")},
        {"fit": "none"},
        {"device": "tpu"},
        {"exif": "maybe"},
    ]
    for option in options:
        with pytest.raises(UsageError):
            oiyolo.predict(path, **network, **option)
    with pytest.raises(UsageError):
        oiyolo.predict(path)
    network["weights"].write_bytes(network["weights"].read_bytes()[:-4])
    with pytest.raises(InputFormError):
        oiyolo.predict(path, **network)
    assert not (here / "predictions").exists()
