"""What a training in the background receives from the command that starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oiyolo.project import config
from oiyolo.project.project import Project
from oiyolo.stages.train.background import option_variables

if TYPE_CHECKING:
    from pathlib import Path


def test_every_option_arrives_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / config.FILE_NAME
    path.write_text('[train]\npatience = 7\ncurrency = "EUR"\nweights = "none"\n')
    options = {
        "classes": ["Boat, sailing", 'a "b"', "[x]", "Duck"],
        "sources": ["/data/a,b", "mirror"],
        "size": (64, 96),
        "anchors": [1.5, 2, 3, 4],
        "arch": ["7.5", "86"],
        "keep_originals": False,
        "gpus": "0,1",
        "price_per_hour": 0.1,
        "patience": 0,
        "currency": "",
        "backup_to": "gs://bucket/p",
    }
    given = config.load(path, options, {})
    variables = option_variables(Project(tmp_path, given))
    assert config.load(path, {}, variables) == given
    assert "OIYOLO_TRAIN_WEIGHTS" not in variables  # as in the file
