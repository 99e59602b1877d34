"""Publish a run's detector: copy it to a bucket, then make it the current one.

The order makes an interruption harmless. Readers of the bucket see the old detector until its last
object, ``current.json``, is replaced, and ``runs/current`` changes only when the bucket has
everything. Until then, the next refresh decides the same again, and sends what is missing. In the
other order, ``runs/current`` would claim that there is nothing left to do.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any, Final, TypedDict

from oiyolo import __version__
from oiyolo.core import files, records
from oiyolo.core.clock import utc_now
from oiyolo.core.errors import InputFormError
from oiyolo.evaluation.figures import HEADLINES
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.operations.export import export_onnx
from oiyolo.operations.refresh.hooks import call_hook
from oiyolo.training.run import set_current_run
from oiyolo.training.run_detector import weights_of
from oiyolo.transfer.upload import upload_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from oiyolo.net.buckets import BucketFolder
    from oiyolo.project.project import Project
    from oiyolo.training.run import Run

_log = logging.getLogger("oiyolo")

RECORD_NAME: Final = "published.json"
"""The file in ``runs/`` that says which detector was published last, and where."""
MANIFEST_NAME: Final = "current.json"
"""The last object that is written to the bucket; readers start there."""
_OPTIONAL_NAMES: Final = ("evaluation.json", "report.html", "run.json")


class _Record(TypedDict):
    """The fields of ``published.json`` on which the program relies."""

    run: str
    to: str | None


class _Difference(TypedDict):
    difference: float | None
    interval: list[float] | None


class ComparisonFields(TypedDict):
    """The fields of ``comparison-<run>.json`` that decide, and that are published."""

    better: str | None
    images: int
    map50: _Difference


def bucket_folder(project: Project) -> BucketFolder | None:
    """Return where ``[refresh] publish_to`` is; ``None`` if it is unset.

    Raises:
        UsageError: It is not a Cloud Storage URL.
    """
    url = project.config.refresh.publish_to
    return None if url is None else parse_bucket_url(url, where="[refresh] publish_to")


def pending_actions(project: Project, run: Run) -> list[str]:
    """Return what is left to do until a run's detector is published, in words."""
    saved = _saved(project)
    folder = bucket_folder(project)
    is_new = saved is None or saved["run"] != run.name
    actions = []
    if folder is not None and (is_new or saved is None or saved["to"] != str(folder)):
        actions.append(f"copy {run.name} to {folder.subfolder(run.name)}")
    return [*actions, f"make {run.name} the current detector"] if is_new else actions


def publish(project: Project, run: Run) -> str | None:
    """Publish a run's detector, as far as that is not done yet.

    ``[refresh] on_new_detector`` is called last, once the detector is the current one.

    Args:
        project: The project.
        run: The run.

    Returns:
        The folder in the bucket that it was copied to; ``None`` if there was nothing to copy.

    Raises:
        UsageError: There is no such bucket.
        UnavailableError: The bucket does not respond, or refuses this user.
        InputFormError: The run has no valid weights.
    """
    saved = _saved(project)
    if not pending_actions(project, run):
        return None
    folder = bucket_folder(project)
    previous = saved["run"] if saved else None
    facts = {
        "run": run.name,
        "date": utc_now(),
        "scores": _scores(run),
        "better_than": _margin(project, previous, run),
        "oiyolo": __version__,
    }
    if folder is not None:
        facts["files"] = _upload(project, run, folder, facts)
    set_current_run(run)
    copied_to = None if folder is None else str(folder.subfolder(run.name))
    if previous != run.name and (hook := project.config.refresh.on_new_detector):
        call_hook(hook, _announcement(project, run, facts, previous=previous, to=copied_to))
    record = {**facts, "to": None if folder is None else str(folder)}
    files.write_json(project.runs_folder / RECORD_NAME, record)
    return copied_to


def _announcement(
    project: Project, run: Run, facts: Mapping[str, Any], *, previous: str | None, to: str | None
) -> dict[str, object]:
    """Return the facts for ``[refresh] on_new_detector``."""
    scores, margin = facts["scores"], facts["better_than"] or {}
    map50 = scores.get("map50")
    score = "" if map50 is None else f", mAP {map50:.3f} on {scores['split']}"
    return {
        "event": "new_detector",
        "text": f"{run.name} is the new detector of {project.folder.name}{score}",
        "project": str(project.folder),
        "run": run.name,
        "folder": str(run.folder),
        "previous": previous,
        "published_to": to,
        "map50": map50,
        "map50_interval": scores.get("map50_interval"),
        "map50_difference": margin.get("map50_difference"),
        "map50_difference_interval": margin.get("map50_difference_interval"),
    }


def _saved(project: Project) -> dict[str, Any] | None:
    return records.find_intact(project.runs_folder / RECORD_NAME, _Record)


def _scores(run: Run) -> dict[str, Any]:
    """Return the scores in ``evaluation.json`` with their intervals; empty if there are none."""
    evaluation = files.read_json(run.evaluation_path)
    if not isinstance(evaluation, dict):
        return {}
    scores = [key for _, key in HEADLINES]
    names = ("split", "images", *scores, *(f"{key}_interval" for key in scores))
    return {name: evaluation.get(name) for name in names}


def _margin(project: Project, previous: str | None, run: Run) -> dict[str, Any] | None:
    """Return by how much a run is better than the one that was published before it, if known."""
    if previous is None or "/" in previous:
        return None
    path = project.runs_folder / previous / f"comparison-{run.name}.json"
    content = records.find_intact(path, ComparisonFields)
    if content is None or content["better"] != run.name:
        return None
    row = content["map50"]
    return {
        "run": previous,
        "images": content["images"],
        "map50_difference": row["difference"],
        "map50_difference_interval": row["interval"],
    }


def _upload(
    project: Project, run: Run, folder: BucketFolder, facts: Mapping[str, Any]
) -> dict[str, str]:
    """Copy a detector to the bucket, and return the SHA-256 of its files by name."""
    from oiyolo.net.gcs import BucketClient  # noqa: PLC0415  (google's libraries are large)

    paths = _detector_files(project, run)
    checksums = {name: files.sha256_of(path) for name, path in paths.items()}
    sent = upload_files(paths, folder.subfolder(run.name), what="publish")
    manifest = json.dumps({**facts, "files": checksums}, indent=2, ensure_ascii=False) + "\n"
    with contextlib.closing(BucketClient(folder, connections=1)) as client:
        client.put(manifest.encode(), MANIFEST_NAME, content_type="application/json")
    _log.info(
        "refresh: published %s in %s: %s files sent, %s unchanged",
        run.name,
        folder,
        sent.files,
        sent.unchanged,
    )
    return checksums


def _detector_files(project: Project, run: Run) -> dict[str, Path]:
    """Return the files that a user of the detector needs, by name; the model is exported first."""
    weights = weights_of(run)
    if weights is None:
        raise InputFormError(
            f"the run {run.name} has no valid weights to publish",
            where=str(run.weights_folder),
            remedy=f"Restore them from a copy, or run `{run.train_command}`, which resumes the run",
        )
    model = export_onnx(project, run=run.name)
    needed = [weights.path, run.cfg_path, run.folder / "obj.names", model.path, model.card]
    optional = [run.folder / name for name in _OPTIONAL_NAMES]
    return {path.name: path for path in (*needed, *(p for p in optional if p.is_file()))}
