"""Check whether the sources of images, labels and weights can be reached."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.core.errors import OiyoloError
from oiyolo.net.buckets import is_bucket, parse_bucket_url
from oiyolo.net.retry import HttpFailureError, RetryPolicy
from oiyolo.net.urls import display_url
from oiyolo.networks import builders
from oiyolo.networks.weights import PRETRAINED
from oiyolo.openimages.releases import release
from oiyolo.operations.doctor.facts import DARKNET_SOURCES, Endpoint
from oiyolo.operations.doctor.parallel import NoAnswer, gather
from oiyolo.planning.estimates import is_folder
from oiyolo.project.value_types import AUTO
from oiyolo.training.initial_weights import NO_WEIGHTS, find_file
from oiyolo.training.pretrained import is_cached

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from oiyolo.project.project import Project

DEADLINE_S: Final = 8.0
_CONNECT_S: Final = 3.0
_READ_S: Final = 4.0
_OK_STATUSES: Final = frozenset({200, 206})
_FLICKR: Final = "https://live.staticflickr.com/"
_FROM_FLICKR: Final = frozenset({"original", "thumbnail"})
_NETWORK: Final = "and whether this machine has a network connection or needs HTTPS_PROXY"


def check_endpoints(
    project: Project, sources_url: str = "", *, deadline_s: float = DEADLINE_S
) -> list[Endpoint]:
    """Check in parallel whether all endpoints respond; nothing is fetched.

    Args:
        project: The project whose options name the endpoints.
        sources_url: URL of darknet's sources; empty if they are not needed.
        deadline_s: Maximum time to wait for all of them.
    """
    checks = list(_endpoint_checks(project))
    if sources_url.startswith(("http://", "https://")):
        place = display_url(sources_url)
        endpoint = Endpoint(DARKNET_SOURCES, place, remedy=f"Check {_NETWORK[4:]}")
        checks.append((endpoint, partial(_check_url, endpoint, sources_url, ())))
    answers = gather({str(n): check for n, (_, check) in enumerate(checks)}, deadline_s=deadline_s)
    return [
        replace(endpoint, problem=str(answer)) if isinstance(answer, NoAnswer) else answer
        for (endpoint, _), answer in zip(checks, answers.values(), strict=True)
    ]


def _endpoint_checks(project: Project) -> Iterator[tuple[Endpoint, Callable[[], Endpoint]]]:
    """Yield each endpoint, before it has responded, with the function that checks it."""

    def pair(
        check: Callable[..., Endpoint], what: str, place: str, remedy: str, *more: object
    ) -> tuple[Endpoint, Callable[[], Endpoint]]:
        endpoint = Endpoint(what, display_url(place), remedy=remedy)
        return endpoint, partial(check, endpoint, *more)

    yield from _open_images_checks(project, pair) if project.uses_open_images else ()
    if (weights := _pretrained_weights(project)) is not None:
        remedy = 'Set [train] weights to an existing file or to "none"'
        cached_path = project.cache_folder / "weights" / weights
        yield pair(_check_weights, "weights", weights, remedy, cached_path)


def _open_images_checks(
    project: Project, pair: Callable[..., tuple[Endpoint, Callable[[], Endpoint]]]
) -> Iterator[tuple[Endpoint, Callable[[], Endpoint]]]:
    """Yield the checks of the annotations, and of the sources of images."""
    options = project.config
    base_url = options.openimages.base_url.rstrip("/")
    official = release(options.openimages.release).files(options.dataset.subsets)
    remedy = f"Check [openimages] base_url, {_NETWORK}"
    url = f"{base_url}/{next(iter(official)).path}"
    yield pair(_check_url, "annotations", base_url, remedy, url, _OK_STATUSES)
    sources = options.images.sources
    if "mirror" in sources:
        url = options.images.mirror_url.rstrip("/") + "/"
        yield pair(_check_url, "mirror", url, f"Check [images] mirror_url, {_NETWORK}", url, ())
    if _FROM_FLICKR.intersection(sources):
        remedy = f"Check [images] sources, {_NETWORK}"
        yield pair(_check_url, "originals", _FLICKR, remedy, _FLICKR, ())
    for name in sources:
        if is_bucket(name):
            yield pair(_check_bucket, "bucket", name, "Check the name and the read permission")
        elif is_folder(name):
            folder = project.folder / Path(name).expanduser()
            yield pair(_check_folder, "folder", name, "Check [images] sources", folder)


def _check_url(endpoint: Endpoint, url: str, expected_statuses: Collection[int]) -> Endpoint:
    """Request a URL; any response below 500 is fine if no status is expected."""
    status, _ = _status(url)
    # A status from 500 on is a server error.
    if status >= 500 or (expected_statuses and status not in expected_statuses):  # noqa: PLR2004
        return replace(endpoint, place=display_url(url), problem=f"answers HTTP {status}")
    return replace(endpoint, answer="answers", remedy="")


def _status(url: str) -> tuple[int, str]:
    """Return the status and content type of a response without reading its body."""
    from oiyolo.net.client import HttpClient  # noqa: PLC0415  (requests takes long to import)

    client = HttpClient(
        RetryPolicy(max_attempts=1, connect_timeout_s=_CONNECT_S, read_timeout_s=_READ_S)
    )
    with contextlib.closing(client):
        try:
            with client.open(url, {}) as answer:
                return answer.status, answer.headers.get("Content-Type", "")
        except HttpFailureError as failure:
            status_text = failure.reason.removeprefix("HTTP ")
            if status_text != failure.reason and status_text.isdigit():
                return int(status_text), ""
            raise


def _check_folder(endpoint: Endpoint, folder: Path) -> Endpoint:
    if folder.is_dir():
        return replace(endpoint, place=str(folder), remedy="")
    return replace(endpoint, place=str(folder), problem="no such folder")


def _check_bucket(endpoint: Endpoint) -> Endpoint:
    from oiyolo.net.gcs import BucketClient  # noqa: PLC0415  (google's libraries are large)

    retry_policy = RetryPolicy(max_attempts=1, connect_timeout_s=_CONNECT_S, read_timeout_s=_READ_S)
    client = BucketClient(
        parse_bucket_url(endpoint.place), connections=1, retry_policy=retry_policy
    )
    with contextlib.closing(client):
        try:
            first = list(itertools.islice(client.list_names(limit=1), 1))
        except OiyoloError as error:
            message = ": ".join(part for part in (error.what, error.found) if part)
            return replace(endpoint, problem=message)
    return replace(endpoint, answer="answers" if first else "answers, and is empty", remedy="")


def _pretrained_weights(project: Project) -> str | None:
    """Return the name of the pretrained weights that ``train`` would fetch; ``None`` if none."""
    options = project.config.train
    name = options.weights
    if name == AUTO:
        network = builders.NETWORKS.get(options.network)
        name = (network.pretrained if network else None) or NO_WEIGHTS
    is_download = name in PRETRAINED and find_file(name, project.folder) is None
    return name if is_download else None


def _check_weights(endpoint: Endpoint, cached_path: Path) -> Endpoint:
    """Check whether the weights are cached or any of their URLs provides them."""
    entry = PRETRAINED[endpoint.place]
    if is_cached(cached_path, entry):
        return replace(endpoint, place=str(cached_path), answer="is cached", remedy="")
    urls = [mirror.url for mirror in entry.mirrors]
    answers = gather({url: partial(_status, url) for url in urls}, deadline_s=_CONNECT_S + _READ_S)
    problems = {}
    for url, answer in answers.items():
        host = urlsplit(url).netloc
        if isinstance(answer, NoAnswer):
            problems[host] = str(answer)
        elif answer[0] not in _OK_STATUSES:
            problems[host] = f"HTTP {answer[0]}"
        elif "html" in answer[1]:
            problems[host] = "an HTML page instead of the weights"
        else:
            return replace(endpoint, place=url, answer="answers", remedy="")
    return replace(endpoint, problem="; ".join(f"{host}: {why}" for host, why in problems.items()))
