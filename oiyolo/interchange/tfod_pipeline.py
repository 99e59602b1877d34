"""Edit the pipeline of a pretrained model of TensorFlow's Object Detection API for a dataset.

The models of TensorFlow 1 and 2 share one schema
(https://github.com/tensorflow/models/tree/master/research/object_detection/protos); they differ in
the fields that name the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.core.errors import InputFormError
from oiyolo.interchange import tfrecord_writer
from oiyolo.interchange.text_proto import ANY
from oiyolo.interchange.tfrecord_writer import quoted

if TYPE_CHECKING:
    from oiyolo.interchange.exported import ExportedDataset
    from oiyolo.interchange.text_proto import TextProto

_TRAIN: Final = "train_config"
_RATES: Final = frozenset({"learning_rate_base", "warmup_learning_rate", "initial_learning_rate"})
_CHECKPOINT_FIELDS: Final = (
    *("fine_tune_checkpoint", "fine_tune_checkpoint_type", "fine_tune_checkpoint_version"),
    *("from_detection_checkpoint", "load_all_detection_checkpoint_vars"),
)
_DEFAULT_MAX_BOXES: Final = 100
"""The value of ``max_number_of_boxes`` in the schema (protos/train.proto)."""
_WARMUP_SHARE: Final = 10


@dataclass(frozen=True)
class Edit:
    """A field that was changed.

    Attributes:
        path: Its path, joined with dots.
        before: Its value before; empty if it was missing.
        after: Its value now; empty if it was removed.
    """

    path: str
    before: str
    after: str


@dataclass(frozen=True)
class TrainingSetup:
    """How to train.

    Attributes:
        batch: Images per step.
        steps: Number of steps; ``None`` for that of the pipeline.
        checkpoint: The prefix of the checkpoint's files, as training is to read them; empty to
            train from scratch.
        is_tf2: Whether the model is one of TensorFlow 2.
    """

    batch: int
    steps: int | None
    checkpoint: str
    is_tf2: bool


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that trains on a dataset.

    Attributes:
        text: Content of ``pipeline.config``.
        edits: What was changed in it.
        steps: Number of training steps.
        eval_split: The split that it evaluates on.
    """

    text: str
    edits: tuple[Edit, ...]
    steps: int
    eval_split: str


def adapt(proto: TextProto, dataset: ExportedDataset, setup: TrainingSetup, where: str) -> Pipeline:
    """Return a pipeline that trains on a dataset, which is in the current folder.

    Args:
        proto: The pipeline of the pretrained model, which is edited.
        dataset: The dataset.
        setup: How to train.
        where: Path of the pipeline, for messages.

    Raises:
        InputFormError: It is not a pipeline of a detector of boxes.
    """
    editor = _Editor(proto, where)
    detector = _detector_name(proto, where)
    editor.set(str(len(dataset.class_names)), "model", detector, "num_classes")
    _set_training(editor, dataset, setup, where)
    _set_checkpoint(editor, setup)
    eval_split = next((name for name in ("valid", "test") if name in dataset.splits), "train")
    for reader, split in (("train_input_reader", "train"), ("eval_input_reader", eval_split)):
        pattern = tfrecord_writer.file_pattern(split, dataset.splits[split])
        editor.set(quoted(tfrecord_writer.LABEL_MAP), reader, "label_map_path")
        editor.set(quoted(pattern), reader, "tf_record_input_reader", "input_path")
    if proto.find("eval_config", "num_examples"):
        editor.set(str(dataset.splits[eval_split].images), "eval_config", "num_examples")
    editor.remove("eval_config", "max_evals")
    steps = int(editor.number(_TRAIN, "num_steps"))
    return Pipeline(proto.text, tuple(editor.edits), steps, eval_split)


def is_tf2(proto: TextProto) -> bool:
    """Return whether a pipeline is for a model of TensorFlow 2."""
    kind = proto.value("model", ANY, "feature_extractor", "type") or ""
    version = proto.value(_TRAIN, "fine_tune_checkpoint_version")
    return version == "V2" or kind.endswith("_keras") or bool(proto.find("model", "center_net"))


class _Editor:
    """Edits the message in a file, and records what changes."""

    def __init__(self, proto: TextProto, where: str) -> None:
        self.proto, self._where = proto, where
        self.edits: list[Edit] = []

    def set(self, value: str, *path: str) -> None:
        """Set a field."""
        before = self._raw(*path)
        if before != value:
            self.proto.set(value, *path)
            self.edits.append(Edit(".".join(path), before, value))

    def remove(self, *path: str) -> None:
        """Remove a field, if there is one."""
        if before := self._raw(*path):
            self.proto.remove(*path)
            self.edits.append(Edit(".".join(path), before, ""))

    def number(self, *path: str) -> float:
        """Return the value of a field; 0 if it is missing."""
        value = self.proto.value(*path)
        try:
            return float(value or 0)
        except ValueError:
            raise InputFormError(
                f"invalid {'.'.join(path)}",
                where=self._where,
                expected="a number",
                found=repr(value),
            ) from None

    def _raw(self, *path: str) -> str:
        found = self.proto.find(*path)
        return self.proto.text[slice(*found[-1].value)] if found else ""


def _detector_name(proto: TextProto, where: str) -> str:
    """Return the kind of detector, such as "ssd"; raise unless it is trained with boxes only."""
    kinds = [field.name for field in proto.find("model", ANY)]
    names = [kind for kind in kinds if proto.find("model", kind, "num_classes")]
    if not names or not proto.find(_TRAIN):
        raise InputFormError(
            "not the pipeline of a detector",
            where=where,
            expected="model { ... { num_classes: ... } } and train_config { ... }",
            remedy="Pass the pipeline.config of a model of TensorFlow's Object Detection API",
        )
    needs = {
        "masks": proto.value("train_input_reader", "load_instance_masks") == "true",
        "keypoints": bool(proto.find("model", ANY, "keypoint_estimation_task")),
    }
    if needed := [name for name, is_needed in needs.items() if is_needed]:
        raise InputFormError(
            f"the model is trained with {needed[0]}, which this dataset does not have",
            where=where,
            expected="a model that detects boxes, such as an SSD, EfficientDet or Faster R-CNN",
        )
    return names[0]


def _set_training(
    editor: _Editor, dataset: ExportedDataset, setup: TrainingSetup, where: str
) -> None:
    """Set the batch size, the number of steps, and the schedule that depends on them."""
    proto = editor.proto
    old_batch = editor.number(_TRAIN, "batch_size")
    editor.set(str(setup.batch), _TRAIN, "batch_size")
    steps = setup.steps or int(editor.number(_TRAIN, "num_steps"))
    if not steps:
        raise InputFormError(
            "the pipeline does not say how many steps to train",
            where=where,
            expected="num_steps in train_config",
            remedy="Set it with --steps",
        )
    editor.set(str(steps), _TRAIN, "num_steps")
    for path in proto.scalar_paths(_TRAIN, "optimizer"):
        if path[-1] in _RATES and old_batch:
            editor.set(f"{editor.number(*path) * setup.batch / old_batch:.6g}", *path)
        elif path[-1] == "total_steps":
            editor.set(str(steps), *path)
        elif path[-1] == "warmup_steps" and editor.number(*path) >= steps:
            editor.set(str(steps // _WARMUP_SHARE), *path)
    if proto.find(_TRAIN, "use_bfloat16"):
        editor.set("false", _TRAIN, "use_bfloat16")  # only TPUs compute with it
    limit = editor.number(_TRAIN, "max_number_of_boxes") or _DEFAULT_MAX_BOXES
    if dataset.max_boxes > limit:
        editor.set(str(dataset.max_boxes), _TRAIN, "max_number_of_boxes")


def _set_checkpoint(editor: _Editor, setup: TrainingSetup) -> None:
    if not setup.checkpoint:
        for name in _CHECKPOINT_FIELDS:
            editor.remove(_TRAIN, name)
        return
    editor.set(quoted(setup.checkpoint), _TRAIN, "fine_tune_checkpoint")
    editor.set('"detection"', _TRAIN, "fine_tune_checkpoint_type")
    if setup.is_tf2:
        editor.set("V2", _TRAIN, "fine_tune_checkpoint_version")
        editor.remove(_TRAIN, "from_detection_checkpoint")
    else:
        editor.set("true", _TRAIN, "from_detection_checkpoint")
