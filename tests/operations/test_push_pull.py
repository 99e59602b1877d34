"""push and pull: the same project elsewhere, only the changes, and no half of anything."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core import disks
from oiyolo.core.errors import (
    InputFormError,
    LockedError,
    UnavailableError,
    UsageError,
)
from oiyolo.net.gcs import BucketClient
from oiyolo.project.ledger import EXCLUDED, Change
from oiyolo.stages.evaluate import inputs
from oiyolo.training.run import Run
from oiyolo.transfer import local, manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from oiyolo.core.errors import OiyoloError
    from tests.conftest import Cli, Shell
    from tests.support.bucket_emulator import Emulator

IMAGES = 10
RUN = "runs/demo-001"
MANIFEST = f"one/dataset/{manifest.NAME}"
OBJECTS = "data/dataset/obj"


@dataclass(frozen=True)
class Pushed:
    """A project that was pushed, without options, to ``url``."""

    project: Path
    bucket: Any
    url: str

    def objects(self) -> dict[str, bytes]:
        return {blob.name: blob.download_as_bytes() for blob in self.bucket.list_blobs()}

    @contextlib.contextmanager
    def replaced(self, name: str, content: bytes) -> Iterator[None]:
        """Replace an object while the block runs."""
        blob = self.bucket.blob(name)
        before = blob.download_as_bytes()
        blob.upload_from_string(content)
        yield
        blob.upload_from_string(before)


@pytest.fixture(scope="module")
def pushed(make_project: Callable[..., Path], emulator_process: Emulator) -> Iterator[Pushed]:
    """A pushed project with a few images and a run; tests must not change it."""
    project = make_project(limit=IMAGES)
    oiyolo.fetch(project)
    oiyolo.split(project)
    weights = project / RUN / "weights"
    (weights / "kept").mkdir(parents=True)
    record = {"state": "finished", "network": "tiny", "max_batches": 9, "darknet": {}}
    (project / RUN / "run.json").write_text(json.dumps(record))
    (project / RUN / "train_log.txt").write_bytes(b"1: 2.0\n")
    (weights / "network_final.weights").write_bytes(b"w" * 100)
    (weights / "kept" / "last-9.weights").write_bytes(b"w" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", emulator_process.url)
        bucket = emulator_process.make_bucket({"one/theirs": b"not ours"})
        url = f"gs://{bucket.name}/one"
        oiyolo.push(url, project)
        yield Pushed(project, bucket, url)


@pytest.fixture
def pulled(pushed: Pushed, tmp_path: Path) -> Path:
    folder = tmp_path / "pulled"
    oiyolo.pull(pushed.url, folder)
    return folder


@pytest.fixture
def own(pushed: Pushed, emulator: Emulator, tmp_path: Path) -> Pushed:
    """A copy of the project, whose dataset was pushed to a bucket of its own."""
    project = tmp_path / "own"
    shutil.copytree(pushed.project, project)
    shutil.rmtree(project / "runs")
    shutil.rmtree(project / "data" / "pushed")
    bucket = emulator.make_bucket()
    url = f"gs://{bucket.name}/one"
    oiyolo.push(url, project)
    return Pushed(project, bucket, url)


def contents(folder: Path, *, but: str = "data/pushed") -> dict[str, bytes]:
    """Return the files of a project, with a comparable copy of its ledger."""
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith((".lock", "ledger.sqlite"))
    }
    found = {n: p.read_bytes() for n, p in paths.items() if not n.startswith(but)}
    with local.derived_files(oiyolo.open_project(folder)) as derived:
        return found | {name: path.read_bytes() for name, path in derived.items()}


def change(project: Path, message: str = "changed") -> str:
    """Change an image's label and the ledger, as another ``prepare`` would; return its id."""
    with oiyolo.open_project(project).ledger() as ledger:
        image_id = ledger.ids("train")[0]
        ledger.record("prepare", [Change(image_id, "train", message)])
    (project / OBJECTS / f"{image_id}.txt").write_text(f"0 0.5 0.5 0.{len(message)} 0.5\n")
    return image_id


def test_a_pulled_project_has_the_same_content(pushed: Pushed, pulled: Path) -> None:
    theirs, ours = contents(pulled), contents(pushed.project)

    left_out = {name for name in ours if name not in theirs}
    assert {name: content for name, content in ours.items() if name not in left_out} == theirs
    assert all(
        name.startswith(("data/images/", "data/fetch.json", "data/plan.json"))
        or name == f"{RUN}/weights/kept/last-9.weights"
        for name in left_out
    )
    assert not any("/.lock" in name or "/kept/last" in name for name in pushed.objects())
    assert (
        oiyolo.status(pulled).as_dict()["states"]
        == (oiyolo.status(pushed.project).as_dict()["states"])
    )
    assert oiyolo.split(pulled, check=True).as_dict()["sound"] is True
    image_id = next(iter((pulled / OBJECTS).glob("*.jpg"))).stem
    assert oiyolo.why(image_id, pulled).events == oiyolo.why(image_id, pushed.project).events


def test_a_second_time_nothing_is_transferred(pushed: Pushed, pulled: Path) -> None:
    before = {blob.name: blob.generation for blob in pushed.bucket.list_blobs()}

    assert not any(part.files for part in oiyolo.push(pushed.url, pushed.project).parts.values())
    assert not any(part.files for part in oiyolo.pull(pushed.url, pulled).parts.values())
    assert not oiyolo.push(pushed.url, pulled, dry_run=True).as_dict()["would"]
    assert not oiyolo.pull(pushed.url, pulled, dry_run=True).as_dict()["would"]
    assert {blob.name: blob.generation for blob in pushed.bucket.list_blobs()} == before


def test_only_a_change_is_transferred(own: Pushed, tmp_path: Path) -> None:
    other = tmp_path / "other"
    oiyolo.pull(own.url, other)
    change(own.project)

    assert oiyolo.push(own.url, own.project).parts["the dataset"].files == 2
    assert oiyolo.pull(own.url, other).parts["the dataset"].files == 2
    assert contents(other) == {
        name: content
        for name, content in contents(own.project).items()
        if not name.startswith(("data/images/", "data/fetch.json", "data/plan.json"))
    }


def test_an_image_that_left_the_dataset_is_deleted_on_the_other_side(
    own: Pushed, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    oiyolo.pull(own.url, other)
    with oiyolo.open_project(own.project).ledger() as ledger:
        image_id = ledger.ids("train")[0]
        ledger.record("fetch", [Change(image_id, EXCLUDED, "gone", reason="gone")])
    oiyolo.split(own.project)
    own.bucket.blob("one/dataset/notes.txt").upload_from_string("theirs")

    assert oiyolo.push(own.url, own.project).deleted == 2
    assert oiyolo.pull(own.url, other).deleted == 2
    assert not list((other / OBJECTS).glob(f"{image_id}.*"))
    names = own.objects()
    assert not any(image_id in name for name in names)
    assert "one/dataset/notes.txt" in names


def interrupt(monkeypatch: pytest.MonkeyPatch, method: str, after: int) -> None:
    """Make the client fail after some transfers, as if the process had been killed."""
    original, done, lock = getattr(BucketClient, method), list[Any](), threading.Lock()

    def limited(*arguments: Any) -> None:
        with lock:
            if len(done) >= after:
                raise KeyboardInterrupt
            original(*arguments)
            done.append(arguments)

    monkeypatch.setattr(BucketClient, method, limited)


def test_an_interrupted_push_is_never_pulled_and_continues(
    own: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{own.url}/two"
    with monkeypatch.context() as patch:
        interrupt(patch, "send_file", after=5)
        with pytest.raises(KeyboardInterrupt):
            oiyolo.push(url, own.project)
    with pytest.raises(UsageError):
        oiyolo.pull(url, tmp_path / "other")
    sent = len(list(own.bucket.list_blobs(prefix="one/two")))
    again = oiyolo.push(url, own.project).parts["the dataset"]
    assert again.unchanged == sent <= 5
    assert again.files > sent

    change(own.project)
    with monkeypatch.context() as patch:
        interrupt(patch, "send_file", after=1)
        with pytest.raises(KeyboardInterrupt):
            oiyolo.push(url, own.project)
    with pytest.raises(UnavailableError):
        oiyolo.pull(url, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_interrupted_pull_is_no_dataset_and_continues(
    pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "other"
    with monkeypatch.context() as patch:
        interrupt(patch, "receive_file", after=12)
        with pytest.raises(KeyboardInterrupt):
            oiyolo.pull(pushed.url, folder)
    assert not (folder / "oiyolo.toml").exists()
    assert not (folder / "data" / "ledger.sqlite").exists()
    present = [*(folder / OBJECTS).glob("*.*"), *(folder / "data/pushed/incoming").rglob("*.*")]
    received: list[str] = []
    original = BucketClient.receive_file

    def counted(client: BucketClient, name: str, *arguments: Any) -> None:
        received.append(name)
        original(client, name, *arguments)

    monkeypatch.setattr(BucketClient, "receive_file", counted)
    parts = oiyolo.pull(pushed.url, folder).parts.values()
    total = sum(part.files + part.unchanged for part in parts) - 1  # both have the options
    assert len(received) == total - len(present) < total
    assert oiyolo.split(folder, check=True).as_dict()["sound"] is True
    assert not (folder / "data" / "pushed" / "incoming" / "dataset").exists()


def test_a_split_can_be_scored_elsewhere(pushed: Pushed, tmp_path: Path) -> None:
    folder = tmp_path / "laptop"
    oiyolo.push(pushed.url, pushed.project, split="test")
    oiyolo.pull(pushed.url, folder, split="test", run="demo-001")

    whole, part = (oiyolo.open_project(path) for path in (pushed.project, folder))
    names = {path.rpartition("/")[2] for path in inputs.split_paths(whole, "test")}
    assert names
    assert {path.rpartition("/")[2] for path in inputs.split_paths(part, "test")} == names
    assert {p.name for p in (folder / OBJECTS).glob("*.jpg")} == names
    with part.ledger(read_only=True) as ledger:
        counts = ledger.counts()
    assert counts.selected == counts.states["test"] == len(names)
    assert oiyolo.why(min(names)[:16], folder).row["split"] == "test"
    with pytest.raises(UsageError):
        oiyolo.pull(pushed.url, folder, split="valid")

    oiyolo.pull(pushed.url, folder)  # the whole dataset
    assert contents(folder)["data/ledger.sqlite"] == contents(whole.folder)["data/ledger.sqlite"]
    with pytest.raises(UsageError):  # a part would replace the whole
        oiyolo.pull(pushed.url, tmp_path / "laptop", split="test", overwrite=False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"format": 2}, InputFormError),
        ({"project": "x"}, InputFormError),
        ({"part": "runs/demo-001"}, InputFormError),
        ({"files": {"../evil": [1, "AAAAAA=="]}}, InputFormError),
        ({"files": {"data/dataset/obj/evil.jpg": [1, "AAAAAA=="]}}, InputFormError),
        ({"files": {"oiyolo.toml": [-1, "AAAAAA=="]}}, InputFormError),
        ({"files": {"oiyolo.toml": [3, "AAAAAA=="]}}, UnavailableError),
        ({"files": {"data/withdrawn.csv": [3, "AAAAAA=="]}}, UnavailableError),
    ],
)
def test_a_wrong_manifest_changes_nothing(
    changes: dict[str, Any], error: type[OiyoloError], pushed: Pushed, tmp_path: Path
) -> None:
    content = json.loads(pushed.bucket.blob(MANIFEST).download_as_bytes())
    with pushed.replaced(MANIFEST, json.dumps({**content, **changes}).encode()):
        with pytest.raises(error) as caught:
            oiyolo.pull(pushed.url, tmp_path / "new")
        assert caught.value.where.startswith(f"{pushed.url}/dataset")
    assert not list(tmp_path.iterdir())


def test_a_damaged_object_is_not_pulled(pushed: Pushed, tmp_path: Path) -> None:
    name = next(name for name in pushed.objects() if name.endswith(".jpg"))
    with pushed.replaced(name, b"\xff\xd8 something else"), pytest.raises(UnavailableError) as e:
        oiyolo.pull(pushed.url, tmp_path / "new")
    assert name.removeprefix("one/dataset/") in e.value.found
    assert not list(tmp_path.iterdir())


def test_a_push_during_a_pull_is_noticed(
    own: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = BucketClient.receive_file

    def receive(client: BucketClient, name: str, *arguments: Any) -> None:
        original(client, name, *arguments)
        if name == "oiyolo.toml":
            content = own.bucket.blob(MANIFEST).download_as_bytes()
            own.bucket.blob(MANIFEST).upload_from_string(content + b"\n")

    monkeypatch.setattr(BucketClient, "receive_file", receive)
    with pytest.raises(UnavailableError):
        oiyolo.pull(own.url, tmp_path / "new")
    assert not (tmp_path / "new" / "oiyolo.toml").exists()


def test_a_project_is_not_mixed_with_another(
    pushed: Pushed, own: Pushed, make_project: Callable[..., Path]
) -> None:
    before = contents(own.project, but="data/pushed/")
    for call in (oiyolo.push, oiyolo.pull):
        with pytest.raises(UsageError):
            call(pushed.url, own.project)
        with pytest.raises(UsageError):
            call(pushed.url, own.project, overwrite=True)
    assert contents(own.project, but="data/pushed/") == before

    new = make_project()  # with options only, which are not replaced
    with pytest.raises(UsageError) as caught:
        oiyolo.pull(pushed.url, new)
    assert "oiyolo.toml" in caught.value.found
    oiyolo.pull(pushed.url, new, overwrite=True)
    assert contents(new)["oiyolo.toml"] == contents(pushed.project)["oiyolo.toml"]


def test_changes_on_both_sides_are_a_conflict(own: Pushed, tmp_path: Path) -> None:
    other = tmp_path / "other"
    oiyolo.pull(own.url, other)
    change(own.project, "there")
    change(other, "over here")
    kept = oiyolo.pull(own.url, other)  # changed here only
    assert not kept.parts["the dataset"].files

    oiyolo.push(own.url, own.project)
    before = contents(other)
    for call in (oiyolo.pull, oiyolo.push):
        with pytest.raises(UsageError):
            call(own.url, other)
    assert contents(other) == before
    oiyolo.pull(own.url, other, overwrite=True)
    assert contents(other)["data/ledger.sqlite"] == contents(own.project)["data/ledger.sqlite"]


def test_a_locked_dataset_or_run_is_not_transferred(cli: Cli, pushed: Pushed, pulled: Path) -> None:
    for project, command in ((pushed.project, "push"), (pulled, "pull")):
        with oiyolo.open_project(project).data_lock("fetch"):
            assert cli(command, pushed.url, project=project).code == LockedError.exit_code
        with Run(project / RUN).lock("train"):
            words = (command, pushed.url, "--run", "demo-001")
            assert cli(*words, project=project).code == LockedError.exit_code
    with Run(pushed.project / RUN).lock("train"):
        assert list(oiyolo.push(pushed.url, pushed.project).parts) == ["the dataset"]


def test_space_is_checked_before_anything_is_received(
    pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "free_bytes", lambda _: 1000)
    with pytest.raises(UnavailableError):
        oiyolo.pull(pushed.url, tmp_path / "new")
    assert not list((tmp_path / "new").rglob("*.jpg"))


def test_exit_codes(cli: Cli, pushed: Pushed, tmp_path: Path, faulty_bucket: Any) -> None:
    faulty_bucket.responses[""] = [(403, b"no", {})]
    faulty_bucket.responses[f"one/dataset/{manifest.NAME}"] = [(403, b"no", {})]
    assert cli("push", "gs://photos/one", project=pushed.project).code == UnavailableError.exit_code
    done = cli("pull", "gs://photos/one", "--split", "test", "--json", project=tmp_path / "new")
    assert done.code == UsageError.exit_code
    assert "roles" not in done.json["remedy"]  # nothing was pushed
    assert cli("pull", "photos/one", project=tmp_path / "new").code == UsageError.exit_code
    assert not list(tmp_path.iterdir())


def test_a_missing_bucket_is_named(cli: Cli, pushed: Pushed, tmp_path: Path) -> None:
    for command, project in (("push", pushed.project), ("pull", tmp_path / "new")):
        done = cli(command, "gs://no-such-bucket/x", "--json", project=project)
        assert done.code == UsageError.exit_code
        assert "gs://no-such-bucket" in done.json["where"]


def test_a_dry_run_writes_nothing(pushed: Pushed, emulator: Emulator, tmp_path: Path) -> None:
    bucket = emulator.make_bucket()
    project = tmp_path / "copy"
    shutil.copytree(pushed.project, project)
    before = contents(project, but="none")

    plan = oiyolo.push(f"gs://{bucket.name}", project, dry_run=True)
    assert isinstance(plan, oiyolo.Plan)
    assert len(plan.actions) == 2
    assert not list(bucket.list_blobs())
    assert contents(project, but="none") == before
    assert str(oiyolo.pull(pushed.url, tmp_path / "new", dry_run=True)).startswith("pull would")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_kills_at_any_moment_leave_nothing_half_transferred(
    own: Pushed, shell: Shell, tmp_path: Path, wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    url, folder = f"{own.url}/killed", tmp_path / "new"

    def kill_when(words: tuple[str | Path, ...], count: Callable[[], int], least: int) -> None:
        process = shell.start(*words)
        wait_until(lambda: count() >= least or process.poll() is not None)
        process.kill()
        process.wait()

    push = ("push", url, "--project", own.project)
    pull = ("pull", url, "--project", folder)

    def sent() -> int:
        return len(list(own.bucket.list_blobs(prefix="one/killed")))

    def received() -> int:
        return len(list(folder.rglob("*.*")))

    for least in (1, 12):
        kill_when(push, sent, least)
    assert shell(*push).code == 0
    for least in (1, 12):
        kill_when(pull, received, least)
    assert shell(*pull).code == 0
    assert oiyolo.split(folder, check=True).as_dict()["sound"] is True
    assert not list(folder.rglob("*.part"))
