"""export tfod: write a project that TensorFlow's Object Detection API trains.

The user downloads a pretrained model, whose ``pipeline.config`` and checkpoint are adapted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oiyolo.core import files
from oiyolo.core.errors import UsageError
from oiyolo.interchange import tfod_pipeline
from oiyolo.interchange.text_proto import TextProto
from oiyolo.interchange.tfod_writer import MODEL_FOLDER, TfodProject, checkpoint_files
from oiyolo.operations.export_dataset import Format, export_dataset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oiyolo.core.results import Plan
    from oiyolo.interchange.exported import ExportedDataset, ExportedImage
    from oiyolo.operations.export_dataset import DatasetExported
    from oiyolo.operations.export_dataset.contents import Pixels
    from oiyolo.project.project import ProjectLike

_NAME: Final = "tfod"
_PIPELINE: Final = "pipeline.config"
_INDEX: Final = ".index"
_CHECKPOINT_PARTS: Final = (_INDEX, ".data-", ".meta")
_DEFAULT_BATCH: Final = 8
_MODELS: Final = (
    "Download a model of the TensorFlow 2 Detection Model Zoo (tensorflow/models on GitHub, "
    "research/object_detection/g3doc/tf2_detection_zoo.md), unpack it, and pass its folder with "
    "--pipeline"
)


def export_tfod(
    project: ProjectLike = ".",
    *,
    pipeline: str | Path | None = None,
    checkpoint: str | Path | None = None,
    batch: int = _DEFAULT_BATCH,
    steps: int | None = None,
    out: str | Path | None = None,
    images: Pixels = "original",
    dry_run: bool = False,
) -> DatasetExported | Plan:
    """Write a project that TensorFlow's Object Detection API trains.

    It has the dataset as TFRecord files, the edited ``pipeline.config`` and the checkpoint of a
    pretrained model, the commands, versions that work together, a Dockerfile and a Kubernetes job.

    Args:
        project: An open project or its folder.
        pipeline: The folder of a downloaded model, or its ``pipeline.config``.
        checkpoint: The model's checkpoint: one of its files, or the prefix of their names; by
            default the one next to the pipeline or in ``checkpoint/``. Without any, the network is
            trained from scratch.
        batch: Images per step; learning rates are scaled with it.
        steps: Number of steps; that of the pipeline by default.
        out: The folder; ``exports/tfod`` in the project by default.
        images: As for ``export_coco``.
        dry_run: Whether to only report what would be done.

    Raises:
        UsageError: There is no such pipeline or checkpoint, or as for ``export_coco``.
        InputFormError: The pipeline is not that of a detector of boxes, or as for ``export_coco``.
    """
    if batch < 1 or (steps is not None and steps < 1):
        raise UsageError("invalid batch or number of steps", expected="a number from 1")
    config = _find_pipeline(pipeline)
    prefix = _find_checkpoint(config, checkpoint)
    form = _TfodFormat(config, prefix, batch=batch, steps=steps)
    return export_dataset(
        Format(_NAME, form.write, recipe=form.recipe),
        project,
        split=None,
        out=out,
        images=images,
        dry_run=dry_run,
    )


class _TfodFormat:
    """The format, for one pretrained model.

    Raises:
        InputFormError: The pipeline is not in protobuf's text format.
    """

    def __init__(self, config: Path, prefix: Path | None, *, batch: int, steps: int | None) -> None:
        self._config, self._prefix = config, prefix
        self._text = files.read_text(config, errors="replace")
        proto = TextProto(self._text, str(config))
        self._setup = tfod_pipeline.TrainingSetup(
            batch=batch,
            steps=steps,
            checkpoint="" if prefix is None else f"{MODEL_FOLDER}/{prefix.name}",
            is_tf2=tfod_pipeline.is_tf2(proto),
        )

    @property
    def recipe(self) -> dict[str, object]:
        """What the project is made from, apart from the dataset."""
        parts: list[Any] = []
        if self._prefix is not None:
            parts = [[p.name, files.sha256_of(p)] for p in checkpoint_files(self._prefix)]
        return {
            "the pipeline": self._text,
            "the checkpoint": parts,
            "batch": self._setup.batch,
            "steps": self._setup.steps or 0,
        }

    def write(
        self, images: Iterable[ExportedImage], folder: Path, dataset: ExportedDataset
    ) -> None:
        """Write the project."""
        if "train" not in dataset.splits:
            raise UsageError("the dataset has no images to train on", remedy="Run `oiyolo split`")
        proto = TextProto(self._text, str(self._config))
        adapted = tfod_pipeline.adapt(proto, dataset, self._setup, str(self._config))
        TfodProject(
            pipeline=adapted,
            checkpoint=self._prefix,
            is_tf2=self._setup.is_tf2,
            batch=self._setup.batch,
            title=self._config.absolute().parent.name,
        ).write(images, folder, dataset)


def _find_pipeline(pipeline: str | Path | None) -> Path:
    """Return the path of a pipeline.

    Raises:
        UsageError: None is named, or there is none.
    """
    if pipeline is None:
        raise UsageError("no pretrained model is named", where="--pipeline", remedy=_MODELS)
    path = Path(pipeline)
    path = path / _PIPELINE if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            "no such pipeline",
            where=str(path),
            expected=f"a {_PIPELINE}, or the folder of a model that has one",
            remedy=_MODELS,
        )
    return path


def _find_checkpoint(config: Path, checkpoint: str | Path | None) -> Path | None:
    """Return the prefix of a checkpoint's files; ``None`` if there are none next to a pipeline.

    Raises:
        UsageError: The checkpoint that was named does not exist, or several may be meant.
    """
    if checkpoint is not None:
        path = Path(checkpoint)
        found = _prefixes(path) if path.is_dir() else [_without_suffix(path)]
        found = [prefix for prefix in found if checkpoint_files(prefix)]
    else:
        path = config.parent
        found = _prefixes(path / "checkpoint") or _prefixes(path)
        if not found:
            return None
    if len(found) == 1:
        return found[0]
    raise UsageError(
        "cannot tell which checkpoint is meant",
        where=str(path),
        expected="the common beginning of the names of its files, such as checkpoint/ckpt-0",
        found=", ".join(prefix.name for prefix in found) or "no checkpoint",
        remedy="Name it with --checkpoint",
    )


def _prefixes(folder: Path) -> list[Path]:
    return [path.with_name(path.name.removesuffix(_INDEX)) for path in folder.glob(f"*{_INDEX}")]


def _without_suffix(path: Path) -> Path:
    """Return the prefix of a checkpoint, if one of its files is named."""
    for part in _CHECKPOINT_PARTS:
        head, found, _ = path.name.rpartition(part)
        if found:
            return path.with_name(head)
    return path
