"""Whether the places that images, labels and weights come from can be reached."""

from __future__ import annotations

import contextlib
import itertools
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from oiyolo.core.errors import OiyoloError
from oiyolo.net.buckets import bucket_place, is_bucket
from oiyolo.net.download import HttpFailureError
from oiyolo.net.retry import Patience
from oiyolo.networks import builders
from oiyolo.networks.weights import PRETRAINED
from oiyolo.openimages.releases import release
from oiyolo.operations.doctor.facts import DARKNET_SOURCES, Reached
from oiyolo.operations.doctor.parallel import Silent, gather
from oiyolo.training.plan import NO_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from oiyolo.project.project import Project

DEADLINE_S: Final = 8.0
_CONNECT_S: Final = 3.0
_READ_S: Final = 4.0
_FOUND: Final = frozenset({200, 206})
_FLICKR: Final = "https://live.staticflickr.com/"
_FROM_FLICKR: Final = frozenset({"original", "thumbnail"})
_NETWORK: Final = "and whether this machine is on the network or needs HTTPS_PROXY"


def reached(
    project: Project, sources_url: str = "", *, deadline_s: float = DEADLINE_S
) -> list[Reached]:
    """Ask all places at once whether they answer; nothing is fetched.

    Args:
        project: Its options name the places.
        sources_url: Where darknet's sources would be fetched from; empty: they are not needed.
        deadline_s: How long to wait for all of them.
    """
    asked = list(_places(project))
    if sources_url.startswith(("http://", "https://")):
        place = Reached(DARKNET_SOURCES, sources_url, remedy=f"Look {_NETWORK[4:]}")
        asked.append((place, partial(_answer, place, sources_url, ())))
    answers = gather({str(n): ask for n, (_, ask) in enumerate(asked)}, deadline_s=deadline_s)
    return [
        _silent(place, answer) if isinstance(answer, Silent) else answer
        for (place, _), answer in zip(asked, answers.values(), strict=True)
    ]


def _silent(place: Reached, answer: Silent) -> Reached:
    return Reached(place.what, place.place, problem=str(answer), remedy=place.remedy)


def _places(project: Project) -> Iterator[tuple[Reached, Callable[[], Reached]]]:
    """Give what to ask: as it stands before there is an answer, and the question."""
    options = project.config
    base_url = options.openimages.base_url.rstrip("/")
    official = release(options.openimages.release).files(options.dataset.subsets)
    place = Reached("annotations", base_url, remedy=f"Check [openimages] base_url, {_NETWORK}")
    yield place, partial(_answer, place, f"{base_url}/{next(iter(official)).path}", _FOUND)
    sources = options.images.sources
    if "mirror" in sources:
        url = options.images.mirror_url.rstrip("/") + "/"
        place = Reached("mirror", url, remedy=f"Check [images] mirror_url, {_NETWORK}")
        yield place, partial(_answer, place, url, ())
    if _FROM_FLICKR.intersection(sources):
        place = Reached("originals", _FLICKR, remedy=f"Check [images] sources, {_NETWORK}")
        yield place, partial(_answer, place, _FLICKR, ())
    for name in sources:
        if is_bucket(name):
            place = Reached("bucket", name, remedy="Check the name and who may read it")
            yield place, partial(_bucket, place)
        elif name.startswith((".", "/", "~")):
            place = Reached("folder", name, remedy="Check [images] sources")
            yield place, partial(_folder, place, project.folder / Path(name).expanduser())
    if (weights := _weights_named(project)) is not None:
        place = Reached("weights", weights, remedy="Give [train] weights a file that you have, or "
                        '"none"')  # fmt: skip
        yield place, partial(_weights, place, project.cache_folder / "weights" / weights)


def _answer(place: Reached, url: str, wanted: Collection[int]) -> Reached:
    """Ask an address; any answer will do where no status is wanted."""
    status, _ = _status(url)
    if status >= 500 or (wanted and status not in wanted):  # noqa: PLR2004  (the server's faults)
        return Reached(place.what, url, problem=f"answers HTTP {status}", remedy=place.remedy)
    return Reached(place.what, place.place, answer="answers")


def _status(url: str) -> tuple[int, str]:
    """Give the status and the kind of content of an answer, without reading its body."""
    from oiyolo.net.client import Web  # noqa: PLC0415  (requests takes long to import)

    web = Web(Patience(attempts=1, connect_s=_CONNECT_S, read_s=_READ_S))
    with contextlib.closing(web):
        try:
            with web.opened(url, {}) as answer:
                return answer.status, answer.headers.get("Content-Type", "")
        except HttpFailureError as failure:
            told = failure.reason.removeprefix("HTTP ")
            if told != failure.reason and told.isdigit():
                return int(told), ""
            raise


def _folder(place: Reached, folder: Path) -> Reached:
    if folder.is_dir():
        return Reached(place.what, str(folder))
    return Reached(place.what, str(folder), problem="no such folder", remedy=place.remedy)


def _bucket(place: Reached) -> Reached:
    from oiyolo.net.gcs import BucketClient  # noqa: PLC0415  (google's libraries are large)

    patience = Patience(attempts=1, connect_s=_CONNECT_S, read_s=_READ_S)
    client = BucketClient(bucket_place(place.place), connections=1, patience=patience)
    with contextlib.closing(client):
        try:
            first = list(itertools.islice(client.names(most=1), 1))
        except OiyoloError as error:
            told = ": ".join(part for part in (error.what, error.found) if part)
            return Reached(place.what, place.place, problem=told, remedy=place.remedy)
    return Reached(place.what, place.place, answer="answers" if first else "answers, and is empty")


def _weights_named(project: Project) -> str | None:
    """Give the pretrained weights that a training would fetch; ``None`` if none."""
    options = project.config.train
    if options.weights in PRETRAINED:
        return options.weights
    if options.weights != "auto":
        return None
    network = builders.NETWORKS.get(options.network)
    wanted = (network.pretrained if network else None) or NO_WEIGHTS
    return wanted if wanted in PRETRAINED else None


def _weights(place: Reached, kept: Path) -> Reached:
    """Ask the addresses of pretrained weights, until one has them."""
    if kept.is_file():
        return Reached(place.what, str(kept), answer="is here")
    urls = [found.url for found in PRETRAINED[place.place].places]
    answers = gather({url: partial(_status, url) for url in urls}, deadline_s=_CONNECT_S + _READ_S)
    told = {}
    for url, answer in answers.items():
        host = urlsplit(url).netloc
        if isinstance(answer, Silent):
            told[host] = str(answer)
        elif answer[0] not in _FOUND:
            told[host] = f"HTTP {answer[0]}"
        elif "html" in answer[1]:
            told[host] = "a page of HTML in their place"
        else:
            return Reached(place.what, url, answer="answers")
    problem = "; ".join(f"{host}: {why}" for host, why in told.items())
    return Reached(place.what, place.place, problem=problem, remedy=place.remedy)
