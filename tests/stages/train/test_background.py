"""What a training in the background receives from the command that starts it."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING

from oiyolo.project import config
from oiyolo.project.project import Project
from oiyolo.stages.train.background import _NewScores
from oiyolo.stages.train.call_options import option_variables, option_words
from oiyolo.training.monitors import WeightsScored
from oiyolo.training.run import Run

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
        "log_to": ["mlflow", "wandb"],
    }
    given = config.load(path, options, {})
    variables = option_variables(Project(tmp_path, given))
    assert config.load(path, {}, variables) == given
    assert "OIYOLO_TRAIN_WEIGHTS" not in variables  # as in the file


def test_the_command_that_resumes_a_run_has_the_options_of_its_call(tmp_path: Path) -> None:
    path = tmp_path / config.FILE_NAME
    path.write_text('[train]\nnetwork = "yolov4"\npatience = 7\n')
    options = {
        "network": "yolov3-tiny",
        "patience": 7,  # as in the file
        "anchors": [1.5, 2, 3, 4],
        "colours": True,
        "weights": "my weights.74",
        "log_to": ["mlflow", "wandb"],
        "mirror_url": "http://127.0.0.1",
        "executable": "/opt/darknet",
        "source_url": "https://user:secret@example.org/darknet.git",
    }
    words = option_words(Project(tmp_path, config.load(path, options, {})))
    assert shlex.join(words) == (
        "--network yolov3-tiny --weights 'my weights.74' --anchors 1.5,2.0,3.0,4.0 --colours "
        "--log-to mlflow --log-to wandb --executable /opt/darknet"
    )


def test_options_that_are_unset_and_contradictions_of_the_file_are_no_obstacle(
    tmp_path: Path,
) -> None:
    path = tmp_path / config.FILE_NAME
    path.write_text('[train]\ngpus = "0,1"\n[split]\ntrain = 0.9\n')
    variables = {"OIYOLO_TRAIN_GPUS": "", "OIYOLO_SPLIT_VALID": "0.05", "OIYOLO_SPLIT_TEST": "0.05"}
    words = option_words(Project(tmp_path, config.load(path, {}, variables)))
    assert words == ["--gpus", ""]


def test_who_follows_a_training_sees_each_new_score_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    new_scores = _NewScores(run)
    assert new_scores() == []
    entries = []
    for number, iteration in enumerate((100, 200)):
        scores = {"iteration": iteration, "valid_map50": 0.25, "train_map50": None}
        entries.append({**scores, "valid_map50_interval": None})
        run.scores_path.write_text(json.dumps({"checkpoints": entries}))
        os.utime(run.scores_path, ns=(number + 1, number + 1))
        assert new_scores() == [WeightsScored(iteration, 0.25)]
        assert new_scores() == []
