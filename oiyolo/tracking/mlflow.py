"""Send runs to MLflow: one request for up to 1,000 values, with the iteration as step.

MLflow's own variables apply: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` or ``_ID``,
``MLFLOW_RUN_NAME`` and those of its client. Without an experiment, it is named after the project.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from oiyolo import __version__
from oiyolo.core import files
from oiyolo.net.urls import without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import Run

    from oiyolo.tracking.outbox import Row
    from oiyolo.tracking.tracker import RunFacts, TrackerRecord

_MAX_VALUES: Final = 1000
_MAX_PARAMETERS: Final = 100
_MAX_TEXT: Final = 500  # of older servers; newer ones accept 6,000
_KEY_TAG: Final = "oiyolo.key"
_EXPERIMENT_TAGS: Final = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow show its pages for model training, not those for language models."""
_STATES: Final = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_ENVIRONMENT: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""The sender tries again itself; MLflow would try for minutes."""


class MLflowTracker:
    """A client of MLflow for one run."""

    batch_values = _MAX_VALUES

    def __init__(self) -> None:
        self._run_id = ""
        self._client: MlflowClient | None = None

    @property
    def _api(self) -> MlflowClient:
        assert self._client is not None  # noqa: S101  (set by open)
        return self._client

    def open(self, facts: RunFacts, status: TrackerRecord) -> int | None:
        """Create the run, or find it by its id or key."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if not os.environ.get("MLFLOW_TRACKING_URI") and status.address:
            mlflow.set_tracking_uri(status.address)
        uri = mlflow.get_tracking_uri()
        self._client = MlflowClient(tracking_uri=uri)
        if status.run_id:
            run = self._api.get_run(status.run_id)
        else:
            run = self._find_or_create(facts, status.key)
        self._run_id = run.info.run_id
        status.run_id = self._run_id
        status.address = without_secrets(uri)
        if uri.startswith("http"):
            page = f"/#/experiments/{run.info.experiment_id}/runs/{self._run_id}"
            status.url = status.address.rstrip("/") + page
        return None

    def _find_or_create(self, facts: RunFacts, key: str) -> Run:
        """Return the run with the key, which an earlier call may have created; else a new one."""
        experiment_id = self._experiment_id(facts.project)
        found = self._api.search_runs([experiment_id], f"tags.`{_KEY_TAG}` = '{key}'")
        if found:
            return found[0]
        tags = {
            _KEY_TAG: key,
            "oiyolo.version": __version__,
            **facts.labels,
            "mlflow.source.name": "oiyolo train",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": getpass.getuser(),
        }
        name = os.environ.get("MLFLOW_RUN_NAME") or facts.name
        start_ms = round(facts.began_at_s * 1000) or None
        return self._api.create_run(experiment_id, start_ms, tags, name)

    def _experiment_id(self, project: str) -> str:
        if own := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return own
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or project
        found = self._api.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._api.create_experiment(name, tags=_EXPERIMENT_TAGS))
        except MlflowException:  # another run has just created it
            found = self._api.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def send_parameters(self, facts: RunFacts) -> None:
        """Send the parameters; MLflow accepts equal values again."""
        parameters = [Param(name, str(v)[:_MAX_TEXT]) for name, v in facts.parameters.items()]
        for start in range(0, len(parameters), _MAX_PARAMETERS):
            batch = parameters[start : start + _MAX_PARAMETERS]
            self._api.log_batch(self._run_id, params=batch)

    def send_points(self, rows: Sequence[Row], first: int, *, may_repeat: bool) -> None:  # noqa: ARG002  (points have no numbers in MLflow)
        """Send points as metrics; of those that it may have, the ones that it has not."""
        metrics = [
            Metric(tag, value, round(row.time_s * 1000), row.iteration)
            for row in rows
            for tag, value in row.values.items()
        ]
        if may_repeat:
            known = {key: self._known(key) for key in {metric.key for metric in metrics}}
            metrics = [m for m in metrics if (m.step, m.timestamp) not in known[m.key]]
        for start in range(0, len(metrics), _MAX_VALUES):
            batch = metrics[start : start + _MAX_VALUES]
            self._api.log_batch(self._run_id, metrics=batch)

    def _known(self, key: str) -> set[tuple[int, int]]:
        """Return the steps and times of the values that MLflow has of a metric."""
        return {(m.step, m.timestamp) for m in self._api.get_metric_history(self._run_id, key)}

    def send_files(self, names: Sequence[str], facts: RunFacts) -> None:
        """Send files as artifacts in the folders of their names."""
        for name in names:
            folder, _, file_name = name.rpartition("/")
            with tempfile.TemporaryDirectory(dir=facts.folder) as link_folder:
                link = Path(link_folder, file_name)  # an artifact has the name of its file
                files.link_or_copy(facts.files[name], link)
                self._api.log_artifact(self._run_id, str(link), folder or None)

    def send_state(self, state: str) -> None:
        """Set the status of the run: running, finished, failed or killed."""
        if state in _STATES:
            self._api.set_terminated(self._run_id, _STATES[state])
        else:
            self._api.update_run(self._run_id, status="RUNNING")

    def close(self, state: str) -> None:
        """Do nothing: each request has been answered."""
