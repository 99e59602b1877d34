"""The modules of the page, run by Node's test runner against the Python implementation."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oiyolo.inference.placement import fit_image, to_image, unit_wh
from oiyolo.inference.suppression import suppress
from oiyolo.operations import export_web
from oiyolo.operations.export_web import page
from oiyolo.operations.export_web.packing import pack

if TYPE_CHECKING:
    from oiyolo.inference.facts import InputFit, NmsKind

TESTS = Path(__file__).with_name("modules.test.mjs")
MODULES = Path(export_web.__file__).parent / "assets"
FITS: tuple[InputFit, ...] = ("letterbox", "stretch")
KINDS: tuple[NmsKind, ...] = ("greedy", "diou")
IMAGES_WH = ((40, 30), (31, 64), (7, 3), (1, 1), (200, 3), (64, 64), (301, 199))
SIZES_WH = ((64, 64), (96, 32))

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def packed_cases(random: np.random.Generator) -> list[dict[str, Any]]:
    cases = []
    for size, width in ((0, 1), (1, 1), (1000, 4), (1003, 2), (300_000, 4)):
        content = random.integers(0, 256, size, np.uint8).tobytes()
        text, byte_count, _ = pack(content, width=width)
        cases.append(
            {
                "text": text.decode(),
                "bytes": byte_count,
                "width": width,
                "content": encoded(content),
            }
        )
    return cases


def image_cases(random: np.random.Generator) -> list[dict[str, Any]]:
    cases = []
    for image_wh in IMAGES_WH:
        rgba = random.integers(0, 256, (image_wh[1], image_wh[0], 4), np.uint8)
        for size_wh in SIZES_WH:
            for fit in FITS:
                planes = np.empty((3, size_wh[1], size_wh[0]), np.float32)
                fit_image(np.ascontiguousarray(rgba[..., :3]), size_wh, fit, planes)
                cases.append(
                    {
                        "image_wh": image_wh,
                        "rgba": encoded(rgba.tobytes()),
                        "size_wh": size_wh,
                        "fit": fit,
                        "planes": encoded(planes.tobytes()),
                    }
                )
    return cases


def box_cases(random: np.random.Generator) -> list[dict[str, Any]]:
    cases = []
    for image_wh in IMAGES_WH:
        for fit in FITS:
            cxcywh = random.uniform(-0.1, 1.1, (4, 4))
            xyxy = to_image(cxcywh, image_wh, SIZES_WH[1], fit)
            cases += [
                {
                    "cxcywh": box.tolist(),
                    "image_wh": image_wh,
                    "size_wh": SIZES_WH[1],
                    "fit": fit,
                    "xyxy": corners.tolist(),
                }
                for box, corners in zip(cxcywh, xyxy, strict=True)
            ]
    return cases


def suppression_cases(random: np.random.Generator) -> list[dict[str, Any]]:
    cases = []
    for number in range(40):
        count, classes = int(random.integers(1, 60)), int(random.integers(1, 4))
        centres = random.uniform(0.3, 0.7, (count, 2))
        boxes = np.concatenate((centres, random.uniform(0.1, 0.4, (count, 2))), 1).astype("f4")
        # Some scores are equal, as they are where a network has no opinion.
        scores = np.round(random.uniform(0, 1, (count, classes)), 1 + number % 3).astype("f4")
        kind = KINDS[number % 2]
        nms_iou = (0.45, 0.0, 0.6)[number % 3]
        unit = unit_wh((40, 30), SIZES_WH[1], FITS[number % 2])
        kept = suppress(
            boxes, scores, threshold=0.3, nms_iou=nms_iou, kind=kind, beta=0.6, unit_wh=unit
        )
        cases.append(
            {
                "boxes": encoded(boxes.tobytes()),
                "scores": encoded(scores.tobytes()),
                "options": {
                    "threshold": 0.3,
                    "nmsIou": nms_iou,
                    "kind": kind,
                    "beta": 0.6,
                    "unitWh": unit,
                },
                "kept": [
                    {"class_id": class_id, "confidence": confidence, "cxcywh": box}
                    for class_id, confidence, box in zip(
                        kept.class_id.tolist(),
                        kept.confidence.tolist(),
                        kept.cxcywh.tolist(),
                        strict=True,
                    )
                ],
            }
        )
    return cases


@needs_node
def test_the_modules_compute_what_python_computes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cases = {
        "packed": packed_cases(random),
        "images": image_cases(random),
        "boxes": box_cases(random),
        "suppressed": suppression_cases(random),
    }
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(cases))
    result = subprocess.run(
        ["node", "--test", "--test-reporter=tap", str(TESTS)],
        env={**os.environ, "CASES": str(path), "MODULES": str(MODULES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


@needs_node
def test_the_modules_are_valid_as_one_script(tmp_path: Path) -> None:
    path = tmp_path / "page.mjs"
    path.write_text(page.script())
    result = subprocess.run(
        ["node", "--check", str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "import " not in page.script().replace("await import(", "")
