"""Write a project that TensorFlow's Object Detection API trains: records, pipeline and commands.

The versions are those that were tried together. TensorFlow 2.16 removed what the API needs, and its
last release on PyPI is of 2022, so nothing newer than 2.15 can work.
"""

from __future__ import annotations

import glob
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oiyolo.interchange import tfrecord_writer
from oiyolo.interchange.exported import SPLIT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from oiyolo.interchange.exported import ExportedDataset, ExportedImage
    from oiyolo.interchange.tfod_pipeline import Edit, Pipeline

MODEL_FOLDER: Final = "model"
"""The folder of the pretrained checkpoint in the project."""
TRAINING_FOLDER: Final = "training"
"""The folder that training writes to."""

_REQUIREMENTS: Final = {
    True: """\
# Python 3.10; install with: uv pip install --override overrides.txt -r requirements.txt
tensorflow-cpu==2.13.1
tensorflow-io==0.34.0
tensorflow-text==2.13.0
tf-models-official==2.13.2
tf-models-research-object-detection==2.8.0.post1
setuptools<70
""",
    False: """\
# Python 3.7; install with: uv pip install --override overrides.txt -r requirements.txt
tensorflow==1.15.5
tf-models-research-object-detection==2.8.0.post1
tf-slim==1.1.0
setuptools<60
""",
}
_OVERRIDES: Final = {
    True: """\
# What the packages above ask for cannot be built any more, or does not fit together.
numpy==1.23.5
opencv-python-headless<4.9
protobuf==3.20.3
pyparsing>=3
pyyaml>=6
tensorflow ; sys_platform == 'never'
""",
    False: """\
# What the packages above ask for cannot be built any more, or does not fit together.
apache-beam ; sys_platform == 'never'
keras ; sys_platform == 'never'
numpy==1.19.5
protobuf==3.20.3
pyyaml>=6
tensorflow-io ; sys_platform == 'never'
tf-models-official ; sys_platform == 'never'
""",
}
_PYTHON: Final = {True: "3.10", False: "3.7"}
_MAIN: Final = {True: "model_main_tf2", False: "model_main"}
_SETUP: Final = {
    True: "",
    False: """\
# The package "nets" of TensorFlow 1 is in the folder of the API.
PYTHONPATH=$(python -c "import object_detection; print(object_detection.__path__[0])")
export PYTHONPATH
""",
}
_TRAIN: Final = """\
#!/bin/sh
# Train, or resume a training that was interrupted. Options are passed on.
set -e
cd "$(dirname "$0")"
{setup}exec python -m object_detection.{main} --pipeline_config_path=pipeline.config \\
    --model_dir={training} --alsologtostderr "$@"
"""
_EVALUATE: Final = """\
#!/bin/sh
# Score each new checkpoint; run it next to a training.
set -e
cd "$(dirname "$0")"
{setup}exec python -m object_detection.model_main_tf2 --pipeline_config_path=pipeline.config \\
    --model_dir={training} --checkpoint_dir={training} --alsologtostderr "$@"
"""
_EXPORT: Final = {
    True: """\
#!/bin/sh
# Write the trained detector as a SavedModel to exported/.
set -e
cd "$(dirname "$0")"
{setup}exec python -m object_detection.exporter_main_v2 --input_type=image_tensor \\
    --pipeline_config_path=pipeline.config --trained_checkpoint_dir={training} \\
    --output_directory=exported "$@"
""",
    False: """\
#!/bin/sh
# Write a checkpoint, such as {training}/model.ckpt-1000, as a frozen graph to exported/.
set -e
cd "$(dirname "$0")"
{setup}exec python -m object_detection.export_inference_graph --input_type=image_tensor \\
    --pipeline_config_path=pipeline.config --trained_checkpoint_prefix="$1" \\
    --output_directory=exported
""",
}
_DOCKERFILE: Final = """\
FROM python:{python}
WORKDIR /tfod
RUN pip install --no-cache-dir uv==0.13.9
COPY requirements.txt overrides.txt ./
RUN uv pip install --system --no-cache --override overrides.txt -r requirements.txt
COPY . .
CMD ["sh", "train.sh"]
"""
_JOB: Final = """\
# Build the image, push it to a registry of yours, and write its name below:
#   docker build -t REGISTRY/oiyolo-tfod . && docker push REGISTRY/oiyolo-tfod
#   kubectl apply -f job.yaml
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: oiyolo-tfod-training
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 20Gi
---
apiVersion: batch/v1
kind: Job
metadata:
  name: oiyolo-tfod
spec:
  backoffLimit: 3  # a training that is started again resumes from its last checkpoint
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: train
          image: REGISTRY/oiyolo-tfod
          resources:
            requests:
              cpu: "4"
              memory: 8Gi
          volumeMounts:
            - name: training
              mountPath: /tfod/{training}
      volumes:
        - name: training
          persistentVolumeClaim:
            claimName: oiyolo-tfod-training
"""
_README: Final = """\
# {title}

A project for TensorFlow's Object Detection API, written by `oiyolo export tfod`: {images}.

| file | content |
|---|---|
| `*.tfrecord` | images and boxes: {patterns} |
| `label_map.pbtxt` | the classes; ids count from 1, because 0 is the background |
| `pipeline.config` | the model and how to train it, edited for this dataset (see below) |
| `{model}/` | the pretrained checkpoint |
| `requirements.txt`, `overrides.txt` | versions that work together |
| `train.sh`, {scripts} | the commands |
| `Dockerfile`, `job.yaml` | the same in a container, or as a job on Kubernetes |

## Train

TensorFlow {tensorflow} needs Python {python}. In this folder:

```sh
uv venv --python {python} .venv && . .venv/bin/activate
uv pip install --override overrides.txt -r requirements.txt
sh train.sh
tensorboard --logdir {training}    # in a second terminal
```

pip has no `--override`, so it cannot install these versions; `pip install uv` gets uv. `train.sh`
writes checkpoints to `{training}/`, and resumes from the last one there. {steps} steps of {batch}
images are {epochs:.1f} epochs. {notes}

## What the path of a checkpoint is

`fine_tune_checkpoint` in `pipeline.config` is {checkpoint}

A checkpoint consists of several files, and the path is what their names have in common, a
*prefix*. No file has exactly this name, and the path is not a folder:

| TensorFlow | on the disk | write |
|---|---|---|
| 2 | `model/ckpt-0.index`, `model/ckpt-0.data-00000-of-00001` | `"model/ckpt-0"` |
| 1 | `model/model.ckpt.index`, `….data-00000-of-00001`, `….meta` | `"model/model.ckpt"` |

The file `checkpoint` next to them is a list of checkpoints, not one itself;
`frozen_inference_graph.pb` and `saved_model/` cannot be trained. A relative path is relative to the
folder in which the command runs, which is this one. Checkpoints of TensorFlow 1 and 2 cannot be
exchanged.

## What was changed in the pipeline

| field | before | now |
|---|---|---|
{edits}

The learning rates are scaled with the batch size. {evaluated}
"""


@dataclass(frozen=True)
class TfodProject:
    """What the project is made of besides the dataset.

    Attributes:
        pipeline: The edited pipeline.
        checkpoint: Prefix of the pretrained checkpoint's files on this machine; ``None`` without.
        is_tf2: Whether the model is one of TensorFlow 2.
        batch: Images per step.
        title: Title of its README.
    """

    pipeline: Pipeline
    checkpoint: Path | None
    is_tf2: bool
    batch: int
    title: str

    def write(
        self, images: Iterable[ExportedImage], folder: Path, dataset: ExportedDataset
    ) -> None:
        """Write the records, the pipeline, the checkpoint, and everything that trains with them."""
        tfrecord_writer.write(images, folder, dataset)
        (folder / MODEL_FOLDER).mkdir()
        for path in [] if self.checkpoint is None else checkpoint_files(self.checkpoint):
            shutil.copyfile(path, folder / MODEL_FOLDER / path.name)
        for name, text in self.texts(dataset).items():
            (folder / name).write_text(text, encoding="utf-8")

    def texts(self, dataset: ExportedDataset) -> dict[str, str]:
        """Return the text files by name."""
        names = {
            "python": _PYTHON[self.is_tf2],
            "main": _MAIN[self.is_tf2],
            "training": TRAINING_FOLDER,
            "setup": _SETUP[self.is_tf2],
        }
        texts = {
            "pipeline.config": self.pipeline.text,
            "requirements.txt": _REQUIREMENTS[self.is_tf2],
            "overrides.txt": _OVERRIDES[self.is_tf2],
            "train.sh": _TRAIN.format(**names),
            "export_model.sh": _EXPORT[self.is_tf2].format(**names),
            "Dockerfile": _DOCKERFILE.format(**names),
            ".dockerignore": f"{TRAINING_FOLDER}/\nexported/\n.venv/\n",
            "job.yaml": _JOB.format(**names),
            "README.md": self._readme(dataset, names["python"]),
        }
        if self.is_tf2:  # in TensorFlow 1 the training itself evaluates
            texts["evaluate.sh"] = _EVALUATE.format(**names)
        return texts

    def _readme(self, dataset: ExportedDataset, python: str) -> str:
        patterns = [
            f"`{tfrecord_writer.file_pattern(split, size)}` ({size.images:,} images)"
            for split, size in dataset.splits.items()
        ]
        steps, train = self.pipeline.steps, dataset.splits["train"].images
        scripts = ["`export_model.sh`", *(["`evaluate.sh`"] if self.is_tf2 else [])]
        notes = (
            "Steps run in blocks of 100, so a training of fewer does 100." if self.is_tf2 else ""
        )
        evaluated = (
            f"`evaluate.sh` scores on `{SPLIT_NAMES[self.pipeline.eval_split]}`."
            if self.is_tf2
            else f"Evaluations use `{SPLIT_NAMES[self.pipeline.eval_split]}`."
        )
        return _README.format(
            title=self.title,
            images=f"{len(dataset.class_names):,} classes: {', '.join(dataset.class_names[:20])}"
            if len(dataset.class_names) > 1
            else f"one class, {dataset.class_names[0]}",
            patterns=", ".join(patterns),
            model=MODEL_FOLDER,
            scripts=", ".join(scripts),
            tensorflow="2.13" if self.is_tf2 else "1.15",
            python=python,
            training=TRAINING_FOLDER,
            steps=f"{steps:,}",
            batch=self.batch,
            epochs=steps * self.batch / train,
            notes=notes,
            checkpoint=self._checkpoint_text(),
            edits=_edit_rows(self.pipeline.edits),
            evaluated=evaluated,
        )

    def _checkpoint_text(self) -> str:
        if self.checkpoint is None:
            return (
                "missing here: no checkpoint was found next to the pipeline, so the network is\n"
                "trained from scratch, which needs far more images and steps."
            )
        return f'`"{MODEL_FOLDER}/{self.checkpoint.name}"` here.'


def checkpoint_files(prefix: Path) -> list[Path]:
    """Return the files of a checkpoint."""
    return sorted(
        path
        for path in prefix.parent.glob(f"{glob.escape(prefix.name)}.*")
        if path.is_file()
        and path.name[len(prefix.name) :].startswith((".index", ".data-", ".meta"))
    )


def _edit_rows(edits: Sequence[Edit]) -> str:
    rows = [
        f"| `{edit.path}` | {_code(edit.before)} | {_code(edit.after) or 'removed'} |"
        for edit in edits
    ]
    return "\n".join(rows)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
