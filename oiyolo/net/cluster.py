"""Client for a Dask cluster: runs tasks on its workers and survives the loss of some of them.

The cluster is the user's own; nothing here starts one. Workers need the same version of oiyolo.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from oiyolo import __version__
from oiyolo.core import extras
from oiyolo.core.errors import OiyoloError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

_SCHEMES: Final = frozenset({"tcp", "tls"})
_CONNECT_S: Final = 10.0
_FIRST_WORKER_TIMEOUT_S: Final = 30.0
_STOP_POLL_S: Final = 0.5
_MAX_ATTEMPTS: Final = 3
"""A task that raises is retried, usually on another worker."""
_NO_WORKERS_TIMEOUT_S: Final = 300.0
"""Clusters that scale automatically take some minutes to start a new worker."""
_RESUME: Final = "Check the cluster, then run the same command again; finished work is kept"
_PACKAGES: Final = ("oiyolo", "distributed", "python")
_TASKS_PER_THREAD: Final = 4
"""Tasks submitted for each thread of the workers: more would only fill the scheduler's memory."""


def run_tasks(
    address: str,
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    *,
    tick_s: float,
    on_tick: Callable[[], None],
) -> Generator[Any, None, None]:
    """Call ``function(stop, *task)`` on a worker for every task; yield the results in any order.

    A task whose worker dies moves to another one. When the caller stops (an exception, Ctrl-C), the
    ``threading.Event`` that each call received as ``stop`` is set within a second.

    Args:
        address: Address of the scheduler, ``tcp://host:8786``.
        function: A function that the workers can import.
        tasks: Arguments of each call, taken as the workers have time for them.
        tick_s: Maximum number of seconds between calls of ``on_tick``.
        on_tick: Function called regularly while this waits for results.

    Raises:
        UnavailableError: There is no scheduler or no worker, or their versions differ; the cluster
            became unreachable; the workers of a task died again and again.
        UsageError: The address is invalid, or Dask is not installed.
        OiyoloError: A task raised it in its last attempt.
    """
    with _connection(address) as client:
        _check_workers(client, address)
        with _stop_event(client) as stop_name:
            work = functools.partial(_work, function, stop_name)
            yield from _results(client, work, tasks, tick_s, on_tick)


def check(address: str) -> None:
    """Check what ``run_tasks`` needs on this machine, without contacting the cluster.

    Raises:
        UsageError: The address is invalid, or Dask is not installed.
    """
    _host_and_port(address)
    _library()


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    with contextlib.suppress(ValueError):  # the port is not a number
        if parts.scheme in _SCHEMES and parts.hostname and parts.port:
            return parts.hostname, parts.port
    raise UsageError(
        "invalid --cluster",
        expected="the address of a Dask scheduler, such as tcp://host:8786",
        found=repr(address),
    )


def _library() -> Any:  # noqa: ANN401  (it has no types, and may be missing)
    with extras.required("cluster", library="Dask", by="--cluster"):
        import distributed  # noqa: PLC0415  (it takes half a second)

    return distributed


@contextlib.contextmanager
def _connection(address: str) -> Iterator[Any]:
    host_and_port, library = _host_and_port(address), _library()
    remedy = "Start one with `dask scheduler`, or check the address and the network"
    try:
        # Dask's own client keeps trying in the background after it has raised.
        socket.create_connection(host_and_port, _CONNECT_S).close()
        client = library.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UnavailableError(
            "no Dask scheduler responds", where=address, found=str(error), remedy=remedy
        ) from error
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.close(timeout=_CONNECT_S)


def _check_workers(client: Any, address: str) -> None:  # noqa: ANN401
    """Raise if there are no workers, or if the cluster's versions differ from ours.

    Raises:
        UnavailableError: There are no workers, or versions differ.
    """
    try:
        client.wait_for_workers(1, timeout=_FIRST_WORKER_TIMEOUT_S)
    except (TimeoutError, concurrent.futures.TimeoutError):
        raise UnavailableError(
            "the Dask scheduler has no workers",
            where=address,
            remedy=f"Start some: `dask worker {address}`",
        ) from None
    versions = client.get_versions(packages=["oiyolo"])
    ours = {**versions["client"]["packages"], "oiyolo": __version__}
    for where, node in {"scheduler": versions["scheduler"], **versions["workers"]}.items():
        names = ("distributed", "python") if where == "scheduler" else _PACKAGES
        theirs = node["packages"] if isinstance(node, dict) else {}
        for name in names:
            expected, found = (_release(name, packages.get(name)) for packages in (ours, theirs))
            if expected != found:
                raise UnavailableError(
                    f"the Dask cluster has another version of {name}",
                    where=str(where),
                    expected=f"{name} {expected}, as here",
                    found=found or "none",
                    remedy=f"Install {name} {expected} on the scheduler and on every worker",
                )


def _release(name: str, version: str | None) -> str:
    """Return the part of a version that must be the same: 3.11 of Python's 3.11.7.final.0."""
    return ".".join((version or "").split(".")[:2]) if name == "python" else version or ""


@contextlib.contextmanager
def _stop_event(client: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the name of an event on the scheduler, which is set when the caller stops."""
    event = _library().Event(f"oiyolo-stop-{uuid.uuid4().hex}", client=client)
    try:
        yield event.name
    except BaseException:
        # In a thread, because set() never returns if the cluster has become unreachable.
        setter = threading.Thread(target=event.set, name="oiyolo-stop", daemon=True)
        setter.start()
        setter.join(2 * _STOP_POLL_S)
        raise


def _results(
    client: Any,  # noqa: ANN401
    function: Callable[[Sequence[Any]], Any],
    tasks: Iterable[tuple[Any, ...]],
    tick_s: float,
    on_tick: Callable[[], None],
) -> Iterator[Any]:
    timeouts = (TimeoutError, concurrent.futures.TimeoutError)
    left = iter(tasks)
    running: set[Any] = set()
    last_workers_s = time.monotonic()
    try:
        while True:
            threads = sum(client.nthreads().values())
            last_workers_s = time.monotonic() if threads else last_workers_s
            if time.monotonic() - last_workers_s > _NO_WORKERS_TIMEOUT_S:
                raise UnavailableError(
                    f"the Dask cluster has had no workers for {_NO_WORKERS_TIMEOUT_S:.0f} s",
                    remedy=_RESUME,
                )
            max_running = max(1, threads) * _TASKS_PER_THREAD
            for task in itertools.islice(left, max(0, max_running - len(running))):
                running.add(client.submit(function, task, pure=False, retries=_MAX_ATTEMPTS - 1))
            if not running:
                return
            with contextlib.suppress(*timeouts), client.as_current():
                _library().wait(running, timeout=tick_s, return_when="FIRST_COMPLETED")
            on_tick()
            for future in [future for future in running if future.done()]:
                running.discard(future)
                yield _result(future)
    finally:
        if running:
            with contextlib.suppress(Exception):  # the cluster may be unreachable
                client.cancel(list(running), force=True)


def _result(future: Any) -> Any:  # noqa: ANN401
    library = _library()
    try:
        return future.result(timeout=_CONNECT_S)
    except OiyoloError:
        raise
    except library.KilledWorker as error:
        raise UnavailableError(
            "the workers that ran the same task died one after the other",
            found=str(error).split(".")[0],
            remedy=_RESUME,
        ) from error
    except (OSError, TimeoutError, concurrent.futures.CancelledError, ImportError) as error:
        raise UnavailableError(
            "the Dask cluster did not complete a task",
            found=f"{type(error).__name__}: {error}",
            remedy=_RESUME,
        ) from error


def _work(function: Callable[..., Any], stop_name: str, task: Sequence[Any]) -> Any:  # noqa: ANN401
    """Run one task on a worker; set its stop event when the caller stops."""
    library = _library()
    stop, ended = threading.Event(), threading.Event()
    with library.worker_client(separate_thread=False) as client:
        event = library.Event(stop_name, client=client)

        def watch() -> None:
            with contextlib.suppress(Exception):  # without a scheduler there is no caller
                while not ended.is_set() and not stop.is_set():
                    if event.wait(timeout=_STOP_POLL_S):
                        stop.set()

        watcher = threading.Thread(target=watch, name="oiyolo-stop", daemon=True)
        watcher.start()
        try:
            return function(stop, *task)
        finally:
            ended.set()
            watcher.join(2 * _STOP_POLL_S)
