"""The model card of a run's detector: its training, scores and licences, where known."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.inference.facts import ModelFacts
from oiyolo.provenance import records
from oiyolo.provenance.model_card import ModelCard, render
from oiyolo.training.run import Run, fingerprint_of_images
from tests.provenance.conftest import IDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oiyolo.provenance.dataset import Dataset

WEIGHTS = "ab" * 32
START = {"url": "https://example.org/darknet53.conv.74", "sha256": "cd" * 32, "layers": 75}


def evaluation(sha256: str) -> dict[str, Any]:
    scores = dict.fromkeys(("map50", "map50_95", "openimages_map"), 0.5)
    counts = {"images": 12, "boxes": 34, "group_of_boxes": 0, "detections": 50}
    row = dict.fromkeys(("true_positives", "false_positives", "false_negatives"), 1)
    ratios = dict.fromkeys(("precision", "recall", "f1", "average_iou"), 0.5)
    return {
        "split": "test",
        "thresholds_from": "valid",
        "weights": {"path": "x", "sha256": sha256, "iteration": 7},
        **scores,
        **counts,
        "map50_interval": [0.4321, 0.6],
        "classes": {
            "Boat": {**scores, **counts, **row, **ratios, "score_threshold": None, "curve": {}}
        },
    }


@pytest.fixture
def card(tmp_path: Path, make_dataset: Callable[..., Dataset]) -> ModelCard:
    """Return the card of a run on the dataset that the project still has."""
    dataset = make_dataset()
    for name, text in records.render(dataset).items():
        (dataset.folder / name).write_text(text, encoding="utf-8")
    run = Run(tmp_path / "runs" / "tiny-001")
    run.folder.mkdir(parents=True)
    lists = {"train": IDS[:2], "valid": IDS[2:3]}
    for name, ids in lists.items():
        text = "".join(f"/old/obj/{image_id}.jpg\n" for image_id in ids)
        (dataset.folder / f"{name}.txt").write_text(text, encoding="utf-8")
        (run.folder / f"{name}.txt").write_text(text * 3, encoding="utf-8")
    fingerprints = {name: fingerprint_of_images(ids) for name, ids in lists.items()}
    run.write_record(list_fingerprints=fingerprints, start=START, outcome="trained <b>all</b>")
    run.evaluation_path.write_text(json.dumps(evaluation(WEIGHTS)), encoding="utf-8")
    model = tmp_path / "tiny.onnx"
    model.write_bytes(b"model")
    facts = ModelFacts(("Boat", "a | b\n# c"), threshold=0.25, description="tiny")
    form, size = "Its outputs are in order", (64, 48)
    return ModelCard(
        "tiny", model, size, form, facts, "0" * 64, WEIGHTS, run=run, dataset_folder=dataset.folder
    )


def test_a_card_has_scores_with_intervals_and_origins(card: ModelCard) -> None:
    text = render(card)
    assert "| mAP@0.5 | 0.500 | 0.432 to 0.600 |" in text
    assert "12 images with 34 boxes" in text
    assert "Trained on 2 images" in text
    assert "Boat from Open Images" in text
    assert f"[darknet53\\.conv\\.74]({START['url']})" in text
    assert "[CC BY 4\\.0](https://creativecommons.org/licenses/by/4.0/)" in text
    for digest in (WEIGHTS, START["sha256"], hashlib.sha256(b"model").hexdigest()):
        assert str(digest) in text
    assert "<b>" not in text
    assert "\n# c" not in text


def test_scores_of_other_weights_are_not_those_of_the_model(card: ModelCard) -> None:
    assert card.run is not None
    card.run.evaluation_path.write_text(json.dumps(evaluation("0" * 64)), encoding="utf-8")
    assert "mAP@0.5" not in render(card)


def test_a_dataset_that_has_changed_since_is_not_described(card: ModelCard) -> None:
    assert card.dataset_folder is not None
    (card.dataset_folder / "train.txt").write_text(f"obj/{IDS[3]}.jpg\n", encoding="utf-8")
    text = render(card)
    assert "Boat from Open Images" not in text
    assert "Trained on 2 images" in text


def test_missing_lists_and_damaged_scores_are_not_fatal(card: ModelCard) -> None:
    assert card.run is not None
    (card.run.folder / "train.txt").unlink()
    card.run.evaluation_path.write_text("{}", encoding="utf-8")
    text = render(card)
    assert "Trained on" not in text
    assert "mAP@0.5" not in text
