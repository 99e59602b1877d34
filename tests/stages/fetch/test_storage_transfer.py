"""fetch --transfer: a service copies originals into a bucket, and fetch downloads them from it."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core.errors import UnavailableError, UsageError
from oiyolo.net.buckets import parse_bucket_url
from oiyolo.net.storage_transfer import TransferService
from oiyolo.stages.fetch import Fetched
from oiyolo.stages.select import Selection

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = "boats-123"
CREATE = "POST /v1/transferJobs"


@pytest.fixture(scope="module")
def selected(make_project: Callable[..., Path]) -> Path:
    folder = make_project(sources=["mirror"], limit=20)
    oiyolo.select(folder)
    return folder


@pytest.fixture
def project(selected: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(selected, tmp_path / "project"))


@pytest.fixture
def destination(emulator: Any) -> str:
    return f"gs://{emulator.make_bucket().name}/boats"


def transfer_state(project: Path) -> dict[str, Any]:
    (state,) = json.loads((project / "data" / "transfer.json").read_text()).values()
    assert isinstance(state, dict)
    return state


def count_from(project: Path, destination: str) -> int:
    with oiyolo.open_project(project).ledger(read_only=True) as ledger:
        return list(ledger.column("source", "fetched").values()).count(destination)


@pytest.mark.usefixtures("transfers")
def test_images_are_fetched_through_the_bucket_and_the_counts_add_up(
    project: Path, destination: str
) -> None:
    done = oiyolo.fetch(project, transfer=destination)
    assert isinstance(done, Fetched)
    state = transfer_state(project)

    assert state["images"] == state["found"] == state["copied"] + state["failed"]
    assert 0 < state["failed"] < state["copied"]
    assert count_from(project, destination) == state["copied"]
    assert done.new == done.counts.states["fetched"] == sum(done.by_source.values())
    assert done.new + sum(done.counts.excluded.values()) == done.counts.selected
    for path in (project / "data" / "images").iterdir():
        assert path.read_bytes()[-2:] == b"\xff\xd9"


def test_the_job_names_the_list_and_the_destination_and_overwrites_nothing(
    project: Path, transfers: Any, destination: str, emulator: Any
) -> None:
    oiyolo.fetch(project, transfer=destination + "/")

    ((name, job),) = transfers.jobs.items()
    folder = parse_bucket_url(destination)
    assert name.startswith("transferJobs/oiyolo-")
    assert job["projectId"] == PROJECT
    assert job["status"] == 1
    spec = job["transferSpec"]
    assert spec["gcsDataSink"] == {"bucketName": folder.bucket, "path": "boats/"}
    assert not spec["transferOptions"].get("overwriteObjectsAlreadyExistingInSink")
    bucket, _, list_name = spec["httpDataSource"]["listUrl"].removeprefix("gs://").partition("/")
    uploaded = emulator.client().bucket(bucket).blob(list_name).download_as_bytes()
    assert uploaded == (project / "data" / "selection" / "url-list-0001.tsv").read_bytes()


@pytest.mark.usefixtures("transfers")
def test_why_shows_that_the_service_could_not_copy_an_image(
    project: Path, destination: str
) -> None:
    oiyolo.fetch(project, transfer=destination)

    ((trouble),) = transfer_state(project)["troubles"]
    url, message = trouble["examples"][0]
    selection = oiyolo.select(project)
    assert isinstance(selection, Selection)
    table = selection.images
    image_id = table.loc[table["OriginalURL"] == url, "ImageID"].item()
    history = str(oiyolo.why(image_id, project=project))
    assert f"Storage Transfer could not copy it: NOT_FOUND, {message}" in history


def test_a_second_run_does_not_contact_the_service(
    project: Path, transfers: Any, destination: str
) -> None:
    oiyolo.fetch(project, transfer=destination)
    before = list(transfers.requests)

    done = oiyolo.fetch(project, transfer=destination)

    assert "nothing to do" in str(done)
    assert transfers.requests == before


def test_a_complete_transfer_is_not_repeated_for_images_that_are_still_missing(
    project: Path, transfers: Any, destination: str
) -> None:
    oiyolo.fetch(project, transfer=destination)
    (project / "data" / "ledger.sqlite").unlink()  # all are pending again
    before = list(transfers.requests)

    oiyolo.fetch(project, transfer=destination)

    assert transfers.requests == before


def test_a_state_file_with_the_old_key_told_is_read(
    project: Path, transfers: Any, destination: str
) -> None:
    oiyolo.fetch(project, transfer=destination)
    path = project / "data" / "transfer.json"
    state = json.loads(path.read_text())
    ((key, entry),) = state.items()
    assert "message" in entry
    path.write_text(json.dumps({key: {**entry, "told": entry.pop("message")}}))

    (project / "data" / "ledger.sqlite").unlink()  # all are pending again
    before = list(transfers.requests)

    planned = oiyolo.fetch(project, transfer=destination, dry_run=True)
    oiyolo.fetch(project, transfer=destination)

    assert "upload" not in str(planned)
    assert transfers.requests == before


def test_a_dry_run_of_a_retry_says_that_the_transfer_is_repeated(
    project: Path, transfers: Any, destination: str
) -> None:
    oiyolo.fetch(project, transfer=destination)
    before = list(transfers.requests)
    planned = oiyolo.fetch(project, transfer=destination, retry="all", dry_run=True)
    assert "upload" in str(planned)
    assert transfers.requests == before
    oiyolo.fetch(project, transfer=destination, retry="all")
    assert transfers.requests != before


def test_a_dry_run_of_a_retry_counts_what_is_left_to_retry(
    project: Path, transfers: Any, destination: str, tmp_path: Path
) -> None:
    oiyolo.fetch(project, transfer=destination)
    with oiyolo.open_project(project).ledger(read_only=True) as ledger:
        failed, fetched = ledger.ids("excluded"), ledger.ids("fetched")
    planned = oiyolo.fetch(project, transfer=destination, retry="failed", dry_run=True)
    assert planned.facts["pending"] == len(failed) > 0  # still missing, but it is tried again
    for image_id in failed:
        copy = project / "data" / "images" / f"{fetched[0]}.jpg"
        shutil.copy(copy, tmp_path / f"{image_id}.jpg")
    oiyolo.fetch(project, sources=[str(tmp_path)], retry="failed")
    before = list(transfers.requests)
    options: dict[str, Any] = {"transfer": destination, "retry": "failed"}
    planned = oiyolo.fetch(project, **options, dry_run=True)
    assert (planned.facts["pending"], planned.actions) == (0, [])
    assert oiyolo.fetch(project, **options).new == 0
    assert transfers.requests == before


def test_retry_runs_the_job_again_and_skips_existing_objects(
    project: Path, transfers: Any, destination: str
) -> None:
    oiyolo.fetch(project, transfer=destination)
    first = transfer_state(project)

    oiyolo.fetch(project, transfer=destination, retry="failed")
    again = transfer_state(project)

    assert transfers.count("POST", ":run") == 2
    assert len(transfers.jobs) == 1
    assert (again["copied"], again["skipped"]) == (0, first["copied"])


def test_a_killed_run_finds_its_job_again(
    project: Path, transfers: Any, destination: str, shell: Any, wait_until: Any
) -> None:
    transfers.paused.set()
    process = shell.start("fetch", "--project", project, "--transfer", destination)
    wait_until((project / "data" / "transfer.json").is_file)
    process.kill()
    process.wait()
    (project / "data" / "transfer.json").unlink()  # as if it had been killed a moment earlier
    transfers.paused.clear()

    oiyolo.fetch(project, transfer=destination)

    assert transfers.count("POST", "/transferJobs") == 1
    assert transfers.count("POST", ":run") == 1
    assert count_from(project, destination) == transfer_state(project)["copied"]


def test_a_job_that_was_created_but_not_started_is_started(
    project: Path, transfers: Any, destination: str
) -> None:
    transfers.error_responses[":run"] = [(403, "no")]
    with pytest.raises(UnavailableError) as caught:
        oiyolo.fetch(project, transfer=destination)
    assert "403" in caught.value.found

    oiyolo.fetch(project, transfer=destination)

    assert transfers.count("POST", "/transferJobs") == 2  # the second answer is that it exists
    assert len(transfers.jobs) == 1
    assert len(transfers.runs) == 1


def test_an_interrupt_leaves_the_transfer_running_with_a_message(
    project: Path, transfers: Any, destination: str, shell: Any, wait_until: Any
) -> None:
    transfers.paused.set()
    process = shell.start("fetch", "--project", project, "--transfer", destination)
    wait_until(lambda: any(a.startswith("GET /v1/transferOperations/") for a in transfers.requests))
    process.send_signal(signal.SIGINT)
    done = shell.end_of(process)

    assert done.code == 130
    assert "continues at Google" in done.err
    (run,) = transfers.runs
    assert f"gcloud transfer operations cancel {run}" in done.err
    assert not any("cancel" in asked for asked in transfers.requests)


def test_a_failed_transfer_is_an_error_and_the_next_command_repeats_it(
    project: Path, transfers: Any, destination: str
) -> None:
    transfers.abort_message = "the list is gone"
    with pytest.raises(UnavailableError) as raised:
        oiyolo.fetch(project, transfer=destination)
    message = str(raised.value)
    assert "did not complete" in message
    assert "the list is gone" in message
    assert not count_from(project, destination)

    transfers.abort_message = ""
    oiyolo.fetch(project, transfer=destination)
    assert count_from(project, destination) == transfer_state(project)["copied"] > 0


REFUSALS = {
    "GET /v1/googleServiceAccounts": (
        (403, "API not used"),
        ["services enable storagetransfer.googleapis.com", "roles/storagetransfer.user"],
    ),
    CREATE: (
        (400, "the service account lacks permission storage.buckets.get"),
        [
            "project-7@storage-transfer-service",
            "roles/storage.legacyBucketWriter",
            "roles/storage.objectViewer",
        ],
    ),
    f"{CREATE}/": ((400, "bad list_url"), ["bad list_url", "docs/buckets.md"]),
    "GET /v1/transferOperations/": ((404, "gone"), ["same command"]),
}


@pytest.mark.parametrize("request_", REFUSALS)
def test_errors_of_the_service_come_with_a_remedy(
    request_: str, project: Path, transfers: Any, destination: str
) -> None:
    answer, expected = REFUSALS[request_]
    transfers.error_responses[request_] = [answer]

    with pytest.raises((UnavailableError, UsageError)) as raised:
        oiyolo.fetch(project, transfer=destination)

    assert all(part in str(raised.value) for part in expected), raised.value


def test_a_transient_error_of_the_service_is_retried(
    project: Path, transfers: Any, destination: str
) -> None:
    transfers.error_responses["GET /v1/transferOperations/"] = [(503, "later"), (503, "later")]

    oiyolo.fetch(project, transfer=destination)

    assert transfer_state(project)["went_through"]


def test_a_deleted_job_is_created_again_under_another_name(
    project: Path, transfers: Any, destination: str
) -> None:
    transfers.abort_message = "no"
    with pytest.raises(UnavailableError):
        oiyolo.fetch(project, transfer=destination)
    transfers.abort_message = ""
    ((first, job),) = transfers.jobs.items()
    job["status"] = 3

    oiyolo.fetch(project, transfer=destination)

    assert list(transfers.jobs) == [first, f"{first}-2"]


def test_an_operation_started_by_another_process_is_joined(transfers: Any, emulator: Any) -> None:
    bucket = emulator.make_bucket({"list.tsv": b"TsvHttpData-1.0\nhttp://127.0.0.1:1/a\t1\tx\n"})
    transfers.paused.set()
    service = TransferService(None, PROJECT)
    sink = parse_bucket_url(f"gs://{bucket.name}")
    service.create("transferJobs/a", f"gs://{bucket.name}/list.tsv", sink, "a test")

    assert service.start("transferJobs/a") == service.start("transferJobs/a")


@pytest.mark.usefixtures("transfers")
def test_the_error_without_the_extra_says_what_to_install(
    project: Path, destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.storage_transfer_v1", None)

    with pytest.raises(UsageError) as caught:
        oiyolo.fetch(project, transfer=destination)
    assert "pip install 'oiyolo[gcp]'" in caught.value.remedy


def test_the_error_without_a_cloud_project_says_where_to_set_it(
    project: Path, transfers: Any, destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    with pytest.raises(UsageError) as caught:
        oiyolo.fetch(project, transfer=destination)
    assert "--transfer-project" in caught.value.remedy
    assert not transfers.requests

    oiyolo.fetch(project, transfer=destination, transfer_project=PROJECT)
    assert {job["projectId"] for job in transfers.jobs.values()} == {PROJECT}


def test_a_transfer_needs_credentials(project: Path, destination: str) -> None:
    with pytest.raises(UsageError) as caught:
        oiyolo.fetch(project, transfer=destination, transfer_project=PROJECT)
    assert caught.value.where == destination
    assert "gcloud auth application-default login" in caught.value.remedy


def test_a_dry_run_shows_the_plan_and_does_nothing(
    project: Path, transfers: Any, destination: str, cli: Any
) -> None:
    out = cli.ok("fetch", "--transfer", destination, "--dry-run", project=project).out

    assert "upload url-list-0001.tsv" in out
    assert f"to {destination}, in project boats-123" in out
    assert f"from {destination}, mirror" in out
    assert not transfers.requests


@pytest.mark.parametrize("wrong", ["", "boats", "s3://b/c", "gs://", "gs://B", "gs://ok/../a"])
def test_an_invalid_bucket_url_is_an_error(wrong: str, cli: Any, project: Path) -> None:
    done = cli("fetch", "--transfer", wrong, project=project)

    assert done.code == 2
    assert "gs://bucket" in done.err
