"""A refresh that no one watches: hooks, its log, its deadline, and what it prints."""

from __future__ import annotations

import http.server
import json
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import oiyolo
from oiyolo.core import locks
from oiyolo.core.errors import LockedError, UnavailableError
from oiyolo.net.retry import RetryPolicy
from oiyolo.operations.refresh import deadline, hooks, report
from oiyolo.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Cli


class WebHook(http.server.BaseHTTPRequestHandler):
    """Answers with ``status`` and keeps the bodies."""

    status = 200
    bodies: list[Any] = []  # noqa: RUF012  (replaced by the fixture)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.bodies.append(json.loads(self.rfile.read(length)))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web_hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[WebHook]]]:
    monkeypatch.setattr(WebHook, "bodies", [])
    monkeypatch.setattr(WebHook, "status", 200)
    monkeypatch.setattr(hooks, "_POLICY", RetryPolicy(max_attempts=2, first_pause_s=0.01))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebHook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/secret-path", WebHook
        server.shutdown()
        thread.join()


def facts(folder: Path, **more: object) -> dict[str, object]:
    return {"event": "failure", "text": "no\tboats\x00", "project": str(folder), **more}


def test_a_command_gets_the_facts_in_its_environment_and_as_json(tmp_path: Path) -> None:
    command = 'env > env.txt; cat > facts.json; pwd; exit "$OIYOLO_EXIT_CODE"'
    given = facts(tmp_path, exit_code=0, scores=[1, 2], run=None)
    hooks.call_hook(command, given)
    assert json.loads((tmp_path / "facts.json").read_text(encoding="utf-8")) == given
    lines = (tmp_path / "env.txt").read_text(encoding="utf-8").splitlines()
    expected = {"EVENT=failure", "SCORES=[1, 2]", "RUN=", "TEXT=no\tboats\\x00"}
    assert {f"OIYOLO_{line}" for line in expected} <= set(lines)


@pytest.mark.parametrize("command", ["echo why; exit 3", "kill -9 $$", "no-such-tool", "sleep 9"])
def test_a_failing_command_is_only_a_warning(
    tmp_path: Path,
    command: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hooks, "TIMEOUT_S", 0.3)
    with caplog.at_level(logging.WARNING, "oiyolo"):
        hooks.call_hook(command, facts(tmp_path / "absent"))
    assert len(caplog.records) == 1


def test_a_url_gets_the_facts_as_json(
    web_hook: tuple[str, type[WebHook]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, server = web_hook
    hooks.call_hook(url, facts(tmp_path, text="帆"))
    assert server.bodies == [facts(tmp_path, text="帆")]
    assert not caplog.records


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (302, 1), (503, 2)])
def test_a_server_that_refuses_is_only_a_warning_without_the_secret_path(
    web_hook: tuple[str, type[WebHook]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
    tries: int,
) -> None:
    url, server = web_hook
    server.status = status
    with caplog.at_level(logging.WARNING, "oiyolo"):
        hooks.call_hook(url, facts(tmp_path))
    assert len(server.bodies) == tries
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


@pytest.fixture
def folder(make_project: Callable[..., Path]) -> Path:
    return make_project(limit=10, tolerance=1.0)


def log_of(folder: Path) -> list[str]:
    return (folder / "data" / "refresh.log").read_text(encoding="utf-8").splitlines()


def test_a_failure_is_one_line_a_log_line_and_a_call_of_the_hook(folder: Path, cli: Cli) -> None:
    hook = "cat > failure.json"
    with locks.exclusive(folder / "data" / ".lock", what="the dataset", operation="split"):
        failed = cli("refresh", "-q", "--on-failure", hook, project=folder)
    assert (failed.code, failed.out, failed.err.count("\n")) == (6, "", 1)
    assert "split" in failed.err
    assert "since" in failed.err
    (line,) = log_of(folder)
    assert "exit code 6" in line
    given = json.loads((folder / "failure.json").read_text(encoding="utf-8"))
    assert (given["event"], given["exit_code"]) == ("failure", 6)
    assert given["project"] == str(folder)
    assert given["error"] in failed.err


def test_a_failing_hook_does_not_change_the_exit_code(folder: Path, cli: Cli) -> None:
    with locks.exclusive(folder / "data" / ".lock", what="the dataset", operation="split"):
        failed = cli("refresh", "-q", "--on-failure", "exit 9", project=folder)
    assert (failed.code, failed.err.count("\n")) == (6, 1)


def test_success_is_quiet_if_asked_to_be_and_is_logged(folder: Path, cli: Cli) -> None:
    done = cli("refresh", "-q", "--on-failure", "touch called", project=folder)
    assert (done.code, done.out, done.err) == (0, "", "")
    printed = cli.ok("refresh", project=folder).out
    first, second = log_of(folder)
    assert first != second
    assert second.endswith(printed.rstrip("\n"))
    assert not (folder / "called").exists()
    assert json.loads(cli.ok("refresh", "-q", "--json", project=folder).out)["up_to_date"]


def test_warnings_and_unexpected_errors_are_explained_in_the_log(folder: Path) -> None:
    def fail() -> oiyolo.Refreshed:
        logging.getLogger("oiyolo").warning("a boat is missing")
        raise ZeroDivisionError("no boats")

    with pytest.raises(ZeroDivisionError):
        report.with_report(open_project(folder), fail)
    # Nothing has been fetched, so there is no folder for a log.
    assert not (folder / "data").exists()
    (folder / "data").mkdir()
    with pytest.raises(ZeroDivisionError):
        report.with_report(open_project(folder), fail)
    line, warning, *details = log_of(folder)
    assert "exit code 1" in line
    assert "a boat is missing" in warning
    assert any("test_unattended.py" in detail for detail in details)
    assert all(detail.startswith("    ") for detail in details)


def test_the_log_is_rotated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data").mkdir()
    monkeypatch.setattr(report, "MAX_BYTES", 150)
    done = oiyolo.refresh(folder, print_cron=True)
    for _ in range(12):
        report.with_report(open_project(folder), lambda: done)
    logs = sorted(path.name for path in (folder / "data").glob("refresh.log*"))
    assert logs == ["refresh.log", "refresh.log.1", "refresh.log.2", "refresh.log.3"]
    assert all((folder / "data" / name).stat().st_size < 600 for name in logs)


def test_a_log_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "refresh.log").symlink_to(tmp_path / "elsewhere")
    report.with_report(open_project(folder), lambda: oiyolo.refresh(folder, print_cron=True))
    assert not (tmp_path / "elsewhere").exists()


def test_a_refresh_stops_at_its_deadline_and_the_next_one_continues(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = oiyolo.stages.fetch.run

    def slow_fetch(*arguments: Any, **options: Any) -> Any:
        done = fetch(*arguments, **options)
        os.kill(os.getpid(), signal.SIGALRM)
        time.sleep(60)
        return done

    with monkeypatch.context() as patch:
        patch.setattr("oiyolo.stages.fetch.run", slow_fetch)
        stopped = cli("refresh", "--deadline", "5m", project=folder)
    assert (stopped.code, stopped.out, stopped.err.count("\n")) == (4, "", 1)
    assert "fetch" in stopped.err
    assert cli.ok("status", "--json", project=folder).json["states"]["fetched"] > 5
    assert cli.ok("refresh", "--deadline", "5m", project=folder).out.startswith("+")
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_an_interruption_before_the_deadline_is_not_one(folder: Path, cli: Cli) -> None:
    (folder / "data").mkdir()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oiyolo.stages.select.run", interrupted)
        stopped = cli("refresh", "--deadline", "5m", "--on-failure", "touch called", project=folder)
    assert stopped.code == 130
    assert "interrupted" in log_of(folder)[0]
    assert not (folder / "called").exists()


def test_outside_the_main_thread_a_refresh_stops_between_two_steps() -> None:
    late = deadline.Deadline("1s", time.monotonic() - 2)
    caught: list[BaseException] = []

    def work() -> None:
        with late.enforced():
            try:
                late.begin("prepare")
            except UnavailableError as error:
                caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [error.exit_code for error in caught if isinstance(error, UnavailableError)] == [4]


def test_a_lock_of_a_dead_process_never_blocks(folder: Path, cli: Cli) -> None:
    (folder / "data").mkdir()
    lock = folder / "data" / ".lock"
    lock.write_text(f"oiyolo refresh, process {os.getpid()}, since 2020-01-01 00:00:00 UTC\n")
    with locks.exclusive(lock, what="x", operation="y"), pytest.raises(LockedError):
        oiyolo.refresh(folder)
    assert cli("refresh", project=folder).code == 0
