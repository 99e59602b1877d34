"""fetch --transfer: a service copies originals into a bucket, and fetch takes them from there."""

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
from oiyolo.net.buckets import bucket_place
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
def place(emulator: Any) -> str:
    return f"gs://{emulator.make_bucket().name}/boats"


def noted(project: Path) -> dict[str, Any]:
    (only,) = json.loads((project / "data" / "transfer.json").read_text()).values()
    assert isinstance(only, dict)
    return only


def of_bucket(project: Path, place: str) -> int:
    with oiyolo.open_project(project).ledger(read_only=True) as ledger:
        return list(ledger.facts("source", "fetched").values()).count(place)


@pytest.mark.usefixtures("transfers")
def test_images_come_through_the_bucket_and_the_sums_close(project: Path, place: str) -> None:
    done = oiyolo.fetch(project, transfer=place)
    assert isinstance(done, Fetched)
    run = noted(project)

    assert run["images"] == run["found"] == run["copied"] + run["failed"]
    assert 0 < run["failed"] < run["copied"]
    assert of_bucket(project, place) == run["copied"]
    assert done.new == done.counts.states["fetched"] == sum(done.by_source.values())
    assert done.new + sum(done.counts.excluded.values()) == done.counts.selected
    for path in (project / "data" / "images").iterdir():
        assert path.read_bytes()[-2:] == b"\xff\xd9"


def test_the_job_names_list_and_sink_and_overwrites_nothing(
    project: Path, transfers: Any, place: str, emulator: Any
) -> None:
    oiyolo.fetch(project, transfer=place + "/")

    ((name, job),) = transfers.jobs.items()
    place_of = bucket_place(place)
    assert name.startswith("transferJobs/oiyolo-")
    assert job["projectId"] == PROJECT
    assert job["status"] == 1
    spec = job["transferSpec"]
    assert spec["gcsDataSink"] == {"bucketName": place_of.bucket, "path": "boats/"}
    assert not spec["transferOptions"].get("overwriteObjectsAlreadyExistingInSink")
    bucket, _, listed = spec["httpDataSource"]["listUrl"].removeprefix("gs://").partition("/")
    sent = emulator.client().bucket(bucket).blob(listed).download_as_bytes()
    assert sent == (project / "data" / "selection" / "url-list-0001.tsv").read_bytes()


@pytest.mark.usefixtures("transfers")
def test_why_tells_what_the_service_could_not_copy(project: Path, place: str) -> None:
    oiyolo.fetch(project, transfer=place)

    ((trouble),) = noted(project)["troubles"]
    url, told = trouble["examples"][0]
    selection = oiyolo.select(project)
    assert isinstance(selection, Selection)
    table = selection.images
    image_id = table.loc[table["OriginalURL"] == url, "ImageID"].item()
    story = str(oiyolo.why(image_id, project=project))
    assert f"Storage Transfer could not copy it: NOT_FOUND, {told}" in story


def test_a_second_run_asks_nobody(project: Path, transfers: Any, place: str) -> None:
    oiyolo.fetch(project, transfer=place)
    before = list(transfers.asked)

    done = oiyolo.fetch(project, transfer=place)

    assert "nothing to do" in str(done)
    assert transfers.asked == before


def test_a_transfer_that_went_through_is_not_run_again_for_images_that_are_still_missing(
    project: Path, transfers: Any, place: str
) -> None:
    oiyolo.fetch(project, transfer=place)
    (project / "data" / "ledger.sqlite").unlink()  # all are pending again
    before = list(transfers.asked)

    oiyolo.fetch(project, transfer=place)

    assert transfers.asked == before


def test_retry_runs_it_again_and_passes_over_what_was_copied(
    project: Path, transfers: Any, place: str
) -> None:
    oiyolo.fetch(project, transfer=place)
    first = noted(project)

    oiyolo.fetch(project, transfer=place, retry="failed")
    again = noted(project)

    assert transfers.count("POST", ":run") == 2
    assert len(transfers.jobs) == 1
    assert (again["copied"], again["skipped"]) == (0, first["copied"])


def test_a_killed_run_finds_its_job_again(
    project: Path, transfers: Any, place: str, shell: Any, wait_until: Any
) -> None:
    transfers.held.set()
    process = shell.start("fetch", "--project", project, "--transfer", place)
    wait_until((project / "data" / "transfer.json").is_file)
    process.kill()
    process.wait()
    (project / "data" / "transfer.json").unlink()  # as if it had been killed a moment earlier
    transfers.held.clear()

    oiyolo.fetch(project, transfer=place)

    assert transfers.count("POST", "/transferJobs") == 1
    assert transfers.count("POST", ":run") == 1
    assert of_bucket(project, place) == noted(project)["copied"]


def test_a_job_that_was_made_and_not_started_is_started(
    project: Path, transfers: Any, place: str
) -> None:
    transfers.refused[":run"] = [(403, "no")]
    with pytest.raises(UnavailableError, match="refuses"):
        oiyolo.fetch(project, transfer=place)

    oiyolo.fetch(project, transfer=place)

    assert transfers.count("POST", "/transferJobs") == 2  # the second is told that it exists
    assert len(transfers.jobs) == 1
    assert len(transfers.runs) == 1


def test_an_interrupt_leaves_the_transfer_running_and_says_so(
    project: Path, transfers: Any, place: str, shell: Any, wait_until: Any
) -> None:
    transfers.held.set()
    process = shell.start("fetch", "--project", project, "--transfer", place)
    wait_until(lambda: any(a.startswith("GET /v1/transferOperations/") for a in transfers.asked))
    process.send_signal(signal.SIGINT)
    done = shell.end_of(process)

    assert done.code == 130
    assert "goes on at Google" in done.err
    (run,) = transfers.runs
    assert f"gcloud transfer operations cancel {run}" in done.err
    assert not any("cancel" in asked for asked in transfers.asked)


def test_a_transfer_that_fails_ends_the_command_and_is_run_again_by_the_next(
    project: Path, transfers: Any, place: str
) -> None:
    transfers.aborts_with = "the list is gone"
    with pytest.raises(UnavailableError) as raised:
        oiyolo.fetch(project, transfer=place)
    told = str(raised.value)
    assert "did not go through" in told
    assert "the list is gone" in told
    assert not of_bucket(project, place)

    transfers.aborts_with = ""
    oiyolo.fetch(project, transfer=place)
    assert of_bucket(project, place) == noted(project)["copied"] > 0


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
def test_what_the_service_refuses_is_told_with_what_to_do(
    request_: str, project: Path, transfers: Any, place: str
) -> None:
    answer, expected = REFUSALS[request_]
    transfers.refused[request_] = [answer]

    with pytest.raises((UnavailableError, UsageError)) as raised:
        oiyolo.fetch(project, transfer=place)

    assert all(part in str(raised.value) for part in expected), raised.value


def test_a_service_that_stumbles_is_asked_again(project: Path, transfers: Any, place: str) -> None:
    transfers.refused["GET /v1/transferOperations/"] = [(503, "later"), (503, "later")]

    oiyolo.fetch(project, transfer=place)

    assert noted(project)["went_through"]


def test_a_job_that_somebody_deleted_is_made_under_another_name(
    project: Path, transfers: Any, place: str
) -> None:
    transfers.aborts_with = "no"
    with pytest.raises(UnavailableError):
        oiyolo.fetch(project, transfer=place)
    transfers.aborts_with = ""
    ((first, job),) = transfers.jobs.items()
    job["status"] = 3

    oiyolo.fetch(project, transfer=place)

    assert list(transfers.jobs) == [first, f"{first}-2"]


def test_a_run_that_somebody_else_started_is_joined(transfers: Any, emulator: Any) -> None:
    bucket = emulator.make_bucket({"list.tsv": b"TsvHttpData-1.0\nhttp://127.0.0.1:1/a\t1\tx\n"})
    transfers.held.set()
    service = TransferService(None, PROJECT)
    sink = bucket_place(f"gs://{bucket.name}")
    service.create("transferJobs/a", f"gs://{bucket.name}/list.tsv", sink, "a test")

    assert service.start("transferJobs/a") == service.start("transferJobs/a")


@pytest.mark.usefixtures("transfers")
def test_without_the_extra_it_says_how_to_get_it(
    project: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.storage_transfer_v1", None)

    with pytest.raises(UsageError, match=r"pip install 'oiyolo\[gcp\]'"):
        oiyolo.fetch(project, transfer=place)


def test_without_a_project_it_says_where_to_name_it(
    project: Path, transfers: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    with pytest.raises(UsageError, match="--transfer-project"):
        oiyolo.fetch(project, transfer=place)
    assert not transfers.asked

    oiyolo.fetch(project, transfer=place, transfer_project=PROJECT)
    assert {job["projectId"] for job in transfers.jobs.values()} == {PROJECT}


def test_nobody_in_particular_cannot_have_a_transfer(project: Path, place: str) -> None:
    with pytest.raises(UsageError, match="gcloud auth application-default login"):
        oiyolo.fetch(project, transfer=place, transfer_project=PROJECT)


def test_a_dry_run_tells_and_does_nothing(
    project: Path, transfers: Any, place: str, cli: Any
) -> None:
    told = cli.ok("fetch", "--transfer", place, "--dry-run", project=project).out

    assert "upload url-list-0001.tsv" in told
    assert f"to {place}, in project boats-123" in told
    assert f"from {place}, mirror" in told
    assert not transfers.asked


@pytest.mark.parametrize("wrong", ["", "boats", "s3://b/c", "gs://", "gs://B", "gs://ok/../a"])
def test_a_place_that_is_none_is_refused_first(wrong: str, cli: Any, project: Path) -> None:
    done = cli("fetch", "--transfer", wrong, project=project)

    assert done.code == 2
    assert "gs://bucket" in done.err
