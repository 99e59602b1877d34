"""The one door to a Dask cluster: work that its workers do, and that outlives some of them.

The cluster is the user's own; nothing here starts one. Workers need the same oiyolo.
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
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from oiyolo import __version__
from oiyolo.core.errors import OiyoloError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

_SCHEMES: Final = frozenset({"tcp", "tls"})
_CONNECT_S: Final = 10.0
_FIRST_WORKER_S: Final = 30.0
_STOP_POLL_S: Final = 0.5
_TRIES: Final = 3
"""A task that raises is tried as often, mostly on another worker."""
_WITHOUT_WORKERS_S: Final = 300.0
"""Clusters that grow and shrink by themselves take some minutes for a new worker."""
_AGAIN: Final = "Look at the cluster, then give the same command again; what was done stays done"
_SAME: Final = ("oiyolo", "distributed", "python")
_AHEAD: Final = 4
"""Tasks handed over for each thread of the workers: more would only fill the scheduler's memory."""


def work_all(
    address: str,
    work: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    *,
    every_s: float,
    meanwhile: Callable[[], None],
) -> Generator[Any, None, None]:
    """Let workers call ``work(stop, *task)`` for every task, and give what they return.

    A task whose worker dies goes to another one. When the caller stops (an exception, Ctrl-C), the
    ``threading.Event`` that each call got as ``stop`` is set within a second.

    Args:
        address: The scheduler's, as ``tcp://host:8786``.
        work: A function that workers can import.
        tasks: The arguments of each call, taken as workers have time for them.
        every_s: How often ``meanwhile`` is called.
        meanwhile: What the caller does while it waits.

    Raises:
        UnavailableError: There is no scheduler, no worker, or other versions; the cluster went
            away; a task's workers died again and again.
        UsageError: The address is none, or Dask is not installed.
        OiyoloError: What a task raised, last.
    """
    _check_address(address)
    with _connected(address) as client:
        _check_workers(client, address)
        with _stopping(client) as stop_name:
            waits = functools.partial(_wait, client, every_s=every_s, meanwhile=meanwhile)
            yield from _results(client, functools.partial(_work, work, stop_name), tasks, waits)


def check(address: str) -> None:
    """Complain about what ``work_all`` could not begin with, and ask nobody.

    Raises:
        UsageError: The address is none, or Dask is not installed.
    """
    _check_address(address)
    _library()


def _check_address(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    with contextlib.suppress(ValueError):  # of a port that is no number
        if parts.scheme in _SCHEMES and parts.hostname and parts.port:
            return
    raise UsageError(
        "wrong --cluster",
        expected="the address of a Dask scheduler, as tcp://host:8786",
        found=repr(address),
    )


def _library() -> Any:  # noqa: ANN401  (it has no types, and may be missing)
    if find_spec("distributed") is None:
        raise UsageError(
            "--cluster needs Dask, which is not installed",
            remedy="Install it: pip install 'oiyolo[cluster]'",
        )
    import distributed  # noqa: PLC0415  (it takes half a second)

    return distributed


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    library = _library()
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    remedy = "Start one with `dask scheduler`, or check the address and the way to it"
    try:
        # Dask's own client goes on trying in the background after it has given up.
        socket.create_connection((parts.hostname or "", parts.port or 0), _CONNECT_S).close()
        client = library.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UnavailableError(
            "no Dask scheduler answers", where=address, found=str(error), remedy=remedy
        ) from error
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.close(timeout=_CONNECT_S)


def _check_workers(client: Any, address: str) -> None:  # noqa: ANN401
    """See that somebody works there, with what we have.

    Raises:
        UnavailableError: Nobody, or with something else.
    """
    try:
        client.wait_for_workers(1, timeout=_FIRST_WORKER_S)
    except (TimeoutError, concurrent.futures.TimeoutError):
        raise UnavailableError(
            "the Dask scheduler has no workers",
            where=address,
            remedy=f"Start some: `dask worker {address}`",
        ) from None
    versions = client.get_versions(packages=["oiyolo"])
    ours = {**versions["client"]["packages"], "oiyolo": __version__}
    for where, of in {"scheduler": versions["scheduler"], **versions["workers"]}.items():
        names = ("distributed", "python") if where == "scheduler" else _SAME
        theirs = of["packages"] if isinstance(of, dict) else {}
        for name in names:
            wanted, found = (_release(name, of_them.get(name)) for of_them in (ours, theirs))
            if wanted != found:
                raise UnavailableError(
                    f"the Dask cluster has another {name}",
                    where=str(where),
                    expected=f"{name} {wanted}, as here",
                    found=found or "none",
                    remedy=f"Install {name} {wanted} on the scheduler and on every worker",
                )


def _release(name: str, version: str | None) -> str:
    """Give what has to be the same of a version: of Python's 3.11.7.final.0 it is 3.11."""
    return ".".join((version or "").split(".")[:2]) if name == "python" else version or ""


@contextlib.contextmanager
def _stopping(client: Any) -> Iterator[str]:  # noqa: ANN401
    """Tell the workers when the caller stops, by an event that the scheduler keeps."""
    event = _library().Event(f"oiyolo-stop-{uuid.uuid4().hex}", client=client)
    try:
        yield event.name
    except BaseException:
        # In a thread, because it waits for ever where the cluster is what went away.
        telling = threading.Thread(target=event.set, name="oiyolo-stop", daemon=True)
        telling.start()
        telling.join(2 * _STOP_POLL_S)
        raise


def _results(
    client: Any,  # noqa: ANN401
    work: Callable[[Sequence[Any]], Any],
    tasks: Iterable[tuple[Any, ...]],
    wait: Callable[[set[Any]], None],
) -> Iterator[Any]:
    left = iter(tasks)
    running: set[Any] = set()
    seen_s = time.monotonic()
    try:
        while True:
            threads = sum(client.nthreads().values())
            seen_s = time.monotonic() if threads else seen_s
            if time.monotonic() - seen_s > _WITHOUT_WORKERS_S:
                raise UnavailableError(
                    f"the Dask cluster had no workers for {_WITHOUT_WORKERS_S:.0f} s", remedy=_AGAIN
                )
            most = max(1, threads) * _AHEAD
            for task in itertools.islice(left, max(0, most - len(running))):
                running.add(client.submit(work, task, pure=False, retries=_TRIES - 1))
            if not running:
                return
            wait(running)
            for future in [future for future in running if future.done()]:
                running.discard(future)
                yield _result(future)
    finally:
        if running:
            with contextlib.suppress(Exception):  # the cluster may be what went away
                client.cancel(list(running), force=True)


def _wait(
    client: Any,  # noqa: ANN401
    running: set[Any],
    *,
    every_s: float,
    meanwhile: Callable[[], None],
) -> None:
    """Wait for one of them, or for so long."""
    with contextlib.suppress(TimeoutError, concurrent.futures.TimeoutError), client.as_current():
        _library().wait(running, timeout=every_s, return_when="FIRST_COMPLETED")
    meanwhile()


def _result(future: Any) -> Any:  # noqa: ANN401
    library = _library()
    try:
        return future.result(timeout=_CONNECT_S)
    except OiyoloError:
        raise
    except library.KilledWorker as error:
        raise UnavailableError(
            "the workers that did the same part died one after the other",
            found=str(error).split(".")[0],
            remedy=_AGAIN,
        ) from error
    except (OSError, TimeoutError, concurrent.futures.CancelledError, ImportError) as error:
        raise UnavailableError(
            "the Dask cluster did not do a part of the work",
            found=f"{type(error).__name__}: {error}",
            remedy=_AGAIN,
        ) from error


def _work(work: Callable[..., Any], stop_name: str, task: Sequence[Any]) -> Any:  # noqa: ANN401
    """Do one task, on a worker, and watch for the caller's stop."""
    library = _library()
    stop, ended = threading.Event(), threading.Event()
    with library.worker_client(separate_thread=False) as client:
        event = library.Event(stop_name, client=client)

        def watch() -> None:
            with contextlib.suppress(Exception):  # without a scheduler nobody waits for us
                while not ended.is_set() and not stop.is_set():
                    if event.wait(timeout=_STOP_POLL_S):
                        stop.set()

        watching = threading.Thread(target=watch, name="oiyolo-stop", daemon=True)
        watching.start()
        try:
            return work(stop, *task)
        finally:
            ended.set()
            watching.join(2 * _STOP_POLL_S)
