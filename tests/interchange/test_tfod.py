"""A project for TensorFlow's Object Detection API: the pipeline that is edited, and its files."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from oiyolo.core.errors import InputFormError
from oiyolo.interchange import tfod_pipeline, tfod_writer
from oiyolo.interchange.exported import ExportedDataset, SplitSize
from oiyolo.interchange.text_proto import ANY, TextProto
from oiyolo.interchange.tfod_pipeline import TrainingSetup
from tests.support.exported_images import dataset_of, exported_images

if TYPE_CHECKING:
    from pathlib import Path

TF1 = """\
# for TensorFlow 1
model {
  ssd {
    num_classes: 90  # of COCO
    feature_extractor { type: 'ssd_inception_v2' }
  }
}
train_config: {
  batch_size: 24
  optimizer {
    rms_prop_optimizer: {
      learning_rate: { exponential_decay_learning_rate { initial_learning_rate: 0.004 } }
    }
  }
  fine_tune_checkpoint: "PATH/model.ckpt"
  from_detection_checkpoint: true
  num_steps: 200000
}
train_input_reader: {
  tf_record_input_reader { input_path: "PATH/train.record" }
  label_map_path: "PATH/map.pbtxt"
}
eval_config: {
  num_examples: 8000
  # for ten evaluations
  max_evals: 10
}
eval_input_reader: {
  tf_record_input_reader { input_path: ["PATH/a.record", "PATH/b.record"] }
  label_map_path: "PATH/map.pbtxt"
  shuffle: false
}
"""
TF2 = """\
model <
  faster_rcnn {
    num_classes: 90,
    feature_extractor { type: 'faster_rcnn_resnet50_keras' }
  }
>
train_config {
  fine_tune_checkpoint_version: V2
  fine_tune_checkpoint: "PATH/"
                        "ckpt-0"
  fine_tune_checkpoint_type: "classification"
  batch_size: 64; num_steps: 25000
  use_bfloat16: true
  optimizer {
    momentum_optimizer {
      learning_rate {
        cosine_decay_learning_rate {
          learning_rate_base: .04
          total_steps: 25000
          warmup_learning_rate: .013333
          warmup_steps: 2000
        }
      }
    }
  }
  max_number_of_boxes: 100
}
train_input_reader { label_map_path: "PATH/map.txt" tf_record_input_reader { input_path: "x" } }
eval_config { metrics_set: "coco_detection_metrics" }
eval_input_reader { tf_record_input_reader { input_path: "PATH/val-?????-of-00032.tfrecord" } }
"""
DATASET = ExportedDataset(
    class_names=("Boat", "Cat"),
    label_names=("/m/019jd", "/m/01yrx"),
    splits={"train": SplitSize(4000, 10**9), "valid": SplitSize(500, 10**8)},
    max_boxes=250,
)


def adapted(
    text: str, checkpoint: str = "model/ckpt-0", steps: int | None = 1000
) -> tuple[TextProto, tfod_pipeline.Pipeline]:
    proto = TextProto(text, "pipeline.config")
    setup = TrainingSetup(8, steps, checkpoint, tfod_pipeline.is_tf2(proto))
    pipeline = tfod_pipeline.adapt(proto, DATASET, setup, "pipeline.config")
    return TextProto(pipeline.text, "again"), pipeline


def values(proto: TextProto, *paths: str) -> list[str | None]:
    return [proto.value(*path.split(".")) for path in paths]


def test_the_pipeline_of_a_model_of_tensorflow_1_is_edited() -> None:
    proto, pipeline = adapted(TF1, "model/model.ckpt", steps=None)
    assert values(
        proto,
        "model.ssd.num_classes",
        "train_config.batch_size",
        "train_config.num_steps",
        "train_config.fine_tune_checkpoint",
        "train_config.fine_tune_checkpoint_type",
        "train_config.from_detection_checkpoint",
        "train_config.max_number_of_boxes",
        "eval_config.num_examples",
        "eval_config.max_evals",
        "eval_input_reader.shuffle",
    ) == ["2", "8", "200000", "model/model.ckpt", "detection", "true", "250", "500", None, "false"]
    for reader, pattern in (
        ("train_input_reader", "train-?????-of-00005.tfrecord"),
        ("eval_input_reader", "val-?????-of-00001.tfrecord"),
    ):
        assert proto.value(reader, "label_map_path") == "label_map.pbtxt"
        assert proto.value(reader, "tf_record_input_reader", "input_path") == pattern
    path = ("train_config", "optimizer", "rms_prop_optimizer", "learning_rate", ANY)
    assert float(proto.value(*path, "initial_learning_rate") or 0) == pytest.approx(0.004 / 3, 1e-4)
    assert "# of COCO" in pipeline.text
    assert (pipeline.steps, pipeline.eval_split) == (200000, "valid")


def test_the_pipeline_of_a_model_of_tensorflow_2_is_edited() -> None:
    proto, pipeline = adapted(TF2)
    assert values(
        proto,
        "model.faster_rcnn.num_classes",
        "train_config.batch_size",
        "train_config.num_steps",
        "train_config.fine_tune_checkpoint",
        "train_config.fine_tune_checkpoint_type",
        "train_config.fine_tune_checkpoint_version",
        "train_config.use_bfloat16",
        "train_config.from_detection_checkpoint",
        "eval_input_reader.label_map_path",
    ) == ["2", "8", "1000", "model/ckpt-0", "detection", "V2", "false", None, "label_map.pbtxt"]
    schedule = (
        *("train_config", "optimizer", "momentum_optimizer", "learning_rate"),
        "cosine_decay_learning_rate",
    )
    names = ("learning_rate_base", "total_steps", "warmup_learning_rate", "warmup_steps")
    numbers = [float(proto.value(*schedule, name) or 0) for name in names]
    assert numbers == pytest.approx([0.005, 1000, 0.013333 / 8, 100], rel=1e-4)
    edited = {edit.path: (edit.before, edit.after) for edit in pipeline.edits}
    assert edited["model.faster_rcnn.num_classes"] == ("90", "2")
    assert edited["eval_input_reader.label_map_path"] == ("", '"label_map.pbtxt"')


def test_without_a_checkpoint_nothing_refers_to_one() -> None:
    for text in (TF1, TF2):
        assert "checkpoint" not in adapted(text, checkpoint="")[1].text


def test_other_fields_stay_as_they_are_byte_by_byte() -> None:
    _, pipeline = adapted(TF1, "PATH/model.ckpt", steps=200000)
    before, after = TF1.splitlines(), pipeline.text.splitlines()
    assert after[:3] == before[:3]
    assert "    num_classes: 2  # of COCO" in after
    assert "  # for ten evaluations" in after
    assert after[-2:] == before[-2:]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model { ssd {", 1),
        ("model {\n  ssd }\n", 2),
        ("model {}\n<html>", 2),
        ("a: 'x\n", 1),
        ("a: [1, 2\n", 2),
        ("a:", 1),
    ],
)
def test_a_file_of_another_format_is_rejected_with_its_line(text: str, line: int) -> None:
    with pytest.raises(InputFormError) as caught:
        TextProto(text, "some.config")
    assert caught.value.where == f"some.config:{line}"


@pytest.mark.parametrize(
    "text",
    [
        "train_config { }",
        "model { ssd { num_classes: 90 } }",
        TF1.replace("num_steps: 200000", ""),
        TF1.replace("0.004", "fast"),
        TF1.replace("label_map_path", "load_instance_masks: true label_map_path"),
        TF1.replace("ssd {", "center_net { keypoint_estimation_task { }"),
    ],
)
def test_a_pipeline_that_does_not_train_a_detector_of_boxes_is_rejected(text: str) -> None:
    with pytest.raises(InputFormError):
        adapted(text, steps=None)


def test_a_missing_message_is_created() -> None:
    proto = TextProto("a { b: 1 }", "x")
    proto.set("2", "c", "d", "e")
    proto.set("3", "a", "f")
    assert [proto.value("c", "d", "e"), proto.value("a", "f"), proto.value("a", "b")] == [
        *("2", "3", "1")
    ]


@pytest.mark.parametrize("is_tf2", [True, False])
def test_the_project_is_complete(tmp_path: Path, *, is_tf2: bool) -> None:
    prefix = tmp_path / "download" / "ckpt-0"
    prefix.parent.mkdir()
    parts = [f"ckpt-0{suffix}" for suffix in (".data-00000-of-00001", ".index")]
    for name in (*parts, "ckpt-01.index", "checkpoint"):
        (prefix.parent / name).write_text(name)
    images = exported_images()
    folder = tmp_path / "project"
    folder.mkdir()
    project = tfod_writer.TfodProject(
        adapted(TF2 if is_tf2 else TF1)[1], prefix, is_tf2=is_tf2, batch=8, title="a model"
    )
    project.write(iter(images), folder, dataset_of(images))
    assert sorted(path.name for path in (folder / "model").iterdir()) == parts
    names = {path.name for path in folder.iterdir()}
    assert {"pipeline.config", "label_map.pbtxt", "train.sh", "Dockerfile", "job.yaml"} <= names
    assert ("evaluate.sh" in names) == is_tf2
    for tool, pattern in (("shellcheck", "*.sh"), ("hadolint", "Dockerfile")):
        if program := shutil.which(tool):
            command = [program, *map(str, folder.glob(pattern))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout
    readme = (folder / "README.md").read_text()
    assert '"model/ckpt-0"' in readme
    assert not [line for name in names if (folder / name).suffix in {".sh", ".md", ".yaml"}
                for line in (folder / name).read_text().splitlines() if "{" in line]  # fmt: skip
