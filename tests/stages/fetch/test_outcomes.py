"""Each of 2,000 images, served well or badly, ends in the right state for the right reason."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.net.retry import RetryPolicy
from oiyolo.stages import fetch as fetch_stage
from tests.stages.fetch.conftest import Answer, ImageRow, make_image, md5_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.project.project import Project
    from tests.stages.fetch.conftest import ScriptedSite

IMAGES = 2000
LIMIT_BYTES = 300_000
LONG_S, SHORT_S = 120.0, 0.5
"""Timeouts: never reached even on a busy machine, and reached by a site that hangs."""
PNG = make_image(1, "PNG")
PLACEHOLDER = "/images/en-us/photo_unavailable_l.png"
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture(autouse=True)
def set_timeouts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make all timeouts long and pauses short; return a function that shortens some timeouts."""
    monkeypatch.setattr("oiyolo.sources.web.MAX_IMAGE_BYTES", LIMIT_BYTES)

    def set_policy(*, read_s: float = LONG_S, total_s: float = LONG_S) -> None:
        policy = functools.partial(
            RetryPolicy,
            max_attempts=3,
            first_pause_s=0.01,
            connect_timeout_s=LONG_S,
            read_timeout_s=read_s,
            total_timeout_s=total_s,
        )
        monkeypatch.setattr("oiyolo.net.client_pool.RetryPolicy", policy)

    set_policy()
    return set_policy


@dataclass(frozen=True)
class Case:
    """How an image is served, and the expected outcome.

    Attributes:
        answer: Function that returns the answer for an image's content.
        mirror: Expected reason for rejecting the mirror's answer; empty if it is accepted.
        original: Expected reason for rejecting the original; ``None`` if as for the mirror.
        transient: Whether the image stays pending.
        attempts: Maximum number of requests.
        weight: Relative frequency.
    """

    answer: Callable[[bytes], Answer]
    mirror: str = ""
    original: str | None = None
    transient: bool = False
    attempts: int = 1
    weight: int = 10

    def reason(self, source: str) -> str:
        return self.mirror if source == "mirror" or self.original is None else self.original


def failing(status: str, **headers: str) -> Answer:
    return Answer(status=status, headers=headers)


def good_after(*first: Answer) -> Callable[[bytes], Answer]:
    # Each image needs its own list, which the site consumes.
    return lambda content: Answer(content, first=[Answer(status=w.status, headers=w.headers)
                                               for w in first])  # fmt: skip


WRONG_SIZE = "OriginalSize mismatch"
CASES = {
    "whole": Case(lambda c: Answer(c, headers={"ETag": f'"{md5_of(c)}"'}), weight=40),
    "404": Case(lambda _: failing("404 Not Found"), "HTTP 404"),
    "410": Case(lambda _: failing("410 Gone"), "HTTP 410"),
    "403": Case(lambda _: failing("403 Forbidden"), "HTTP 403"),
    "placeholder": Case(
        lambda _: failing("302 Found", Location=PLACEHOLDER), "removed by its author"
    ),
    "redirected": Case(
        lambda c: failing("301 Moved Permanently", Location=f"/moved/{md5_of(c)}"), attempts=1
    ),
    "redirect loop": Case(lambda _: failing("302 Found", Location="?"), "too many redirects"),
    "redirect to a file": Case(
        lambda _: failing("302 Found", Location="file:///etc/passwd"), "not http(s)"
    ),
    "429, retry at once": Case(
        good_after(failing("429 Too Many Requests", **{"Retry-After": "0"})),
        attempts=2,
        weight=2,
    ),
    "429, retry after a date": Case(
        good_after(failing("429 Too Many", **{"Retry-After": formatdate(0, usegmt=True)})),
        attempts=2,
        weight=2,
    ),
    "500, 502": Case(good_after(failing("500 Error"), failing("502 Bad Gateway")), attempts=3),
    "503, 503": Case(good_after(*[failing("503 Busy")] * 2), attempts=3, weight=2),
    "503": Case(lambda _: failing("503 Busy"), "HTTP 503", transient=True, attempts=3, weight=2),
    "reset in the headers": Case(
        lambda c: Answer(c, reset=20), "connection failed", transient=True, attempts=3
    ),
    "reset in the body": Case(
        lambda c: Answer(c, reset=300), "interrupted", transient=True, attempts=3
    ),
    "shorter than announced": Case(
        lambda c: Answer(c[:-50], length=len(c), close=True), "interrupted",
        transient=True, attempts=3,
    ),
    "longer than announced": Case(
        lambda c: Answer(c + b"\0" * 40, length=len(c), close=True),
        "invalid response", transient=True, attempts=3,
    ),
    "no length": Case(lambda c: Answer(c, length=-1, close=True)),
    "no length, cut": Case(
        lambda c: Answer(c[:-60], length=-1, close=True), "truncated JPEG", WRONG_SIZE
    ),
    "HTML page": Case(
        lambda _: Answer(b"<html>sorry</html>", headers=HTML),
        "not a JPEG", "HTML instead of an image",
    ),
    "empty": Case(lambda _: Answer(), "empty"),
    "wrong MD5": Case(
        lambda c: Answer(c[:25] + bytes([c[25] ^ 1]) + c[26:], headers={"ETag": f'"{md5_of(c)}"'}),
        "wrong MD5",
        "OriginalMD5 mismatch",
        transient=True,
    ),
    "PNG": Case(lambda _: Answer(PNG, headers={"Content-Type": "image/jpeg"}),
                  "not a JPEG", WRONG_SIZE),
    "huge": Case(lambda _: Answer(b"x", length=1 << 40, close=True), "too large", weight=5),
    "endless": Case(lambda _: Answer(endless=True), "too large", weight=3),
}  # fmt: skip
HANGING = {
    "trickle": Case(
        lambda c: Answer(c, length=250_000, trickle=True), "too slow", transient=True
    ),
    "stall": Case(lambda c: Answer(c, stall=True), "stalled", transient=True, attempts=3),
}  # fmt: skip
PERMANENT_ON_FLICKR = {"wrong MD5"}
"""An original that differs from the listed file stays so; a mirror's copy may be retried."""


@dataclass(frozen=True)
class Photo:
    image_id: str
    source: str
    name: str
    content: bytes

    @property
    def case(self) -> Case:
        return (CASES | HANGING)[self.name]

    @property
    def is_fetched(self) -> bool:
        return not self.case.reason(self.source)

    @property
    def transient(self) -> bool:
        is_permanent = self.source == "original" and self.name in PERMANENT_ON_FLICKR
        return self.case.transient and not is_permanent

    @property
    def path(self) -> str:
        return f"/{'train' if self.source == 'mirror' else 'o'}/{self.image_id}.jpg"

    @property
    def reason(self) -> str:
        """The ledger's reason, if the image is not fetched."""
        reason = self.case.reason(self.source)
        if self.source == "mirror":
            return f"mirror: {reason}, original: no URL"
        return f"mirror: HTTP 404, original: {reason}"


def random_photos() -> list[Photo]:
    rng = random.Random(4)
    names = rng.choices(list(CASES), [case.weight for case in CASES.values()], k=IMAGES)
    return [
        Photo(f"{number * 7919:016x}", rng.choice(["mirror", "original"]), name, make_image(number))
        for number, name in enumerate(names, start=1)
    ]


def set_up(site: ScriptedSite, photos: list[Photo]) -> list[ImageRow]:
    """Script the site's answers for these images, and return their rows."""
    site.answers[PLACEHOLDER] = Answer(PNG)
    rows = []
    for photo in photos:
        site.answers[photo.path] = photo.case.answer(photo.content)
        site.answers[f"/moved/{md5_of(photo.content)}"] = Answer(photo.content)
        url = f"{site.url}{photo.path}" if photo.source == "original" else ""
        rows.append(ImageRow(photo.image_id, url, photo.content if url else b""))
    return rows


def check_row(row: dict[str, Any], photo: Photo, message: str) -> None:
    actual = row["state"], row["reason"], row["source"], row["bytes"], row["md5"]
    if photo.is_fetched:
        expected = "fetched", "", photo.source, len(photo.content), md5_of(photo.content)
        assert actual == expected, f"{photo.name}: {message}"
    else:
        state = "pending" if photo.transient else "excluded"
        assert actual == (state, photo.reason, None, None, None), f"{photo.name}: {message}"
    extra = 1 if photo.source == "original" else 0  # the mirror's 404
    assert extra < row["attempts"] <= photo.case.attempts + extra, f"{photo.name}: {message}"


def check_files(project: Project, photos: list[Photo]) -> None:
    files = {path.name: path.read_bytes() for path in project.images_folder.iterdir()}
    assert files == {f"{p.image_id}.jpg": p.content for p in photos if p.is_fetched}


def check_outcomes(project: Project, photos: list[Photo]) -> None:
    with project.ledger(read_only=True) as ledger:
        for photo in photos:
            row = ledger.row(photo.image_id)
            assert row is not None
            check_row(row, photo, ledger.events(photo.image_id)[-1][2])
    check_files(project, photos)


def check_next_fetch(site: ScriptedSite, project: Project, photos: list[Photo]) -> None:
    """Check that the next fetch requests the images with transient failures, and no others."""
    for photo in photos:
        site.answers[photo.path] = Answer(photo.content)
    site.requests.clear()
    fetch_stage.run(project)
    pending = {photo.path for photo in photos if not photo.is_fetched and photo.transient}
    assert {path for path in site.requests if path in site.answers} == pending


@pytest.mark.slow
def test_2000_images_end_in_the_right_states(
    scripted_site: ScriptedSite, make_selected_project: Callable[..., Project]
) -> None:
    photos = random_photos()
    assert {photo.name for photo in photos} == set(CASES)
    project = make_selected_project(
        set_up(scripted_site, photos), mirror_url=scripted_site.url, jobs=64
    )
    done = fetch_stage.run(project)
    check_outcomes(project, photos)
    with project.ledger(read_only=True) as ledger:
        counts = ledger.counts()
    fetched = sum(photo.is_fetched for photo in photos)
    assert done.new == counts.states["fetched"] == fetched
    assert sum(counts.states.values()) + sum(counts.excluded.values()) == IMAGES
    assert sum(done.failed.values()) == sum(done.missing.values()) == IMAGES - fetched
    assert scripted_site.requests[PLACEHOLDER] == 0

    check_next_fetch(scripted_site, project, photos)
    # The others need --retry failed; then all images are present.
    again = fetch_stage.run(project, retry="failed")
    assert again.counts.states["fetched"] == IMAGES
    assert not again.missing
    assert len(list(project.images_folder.iterdir())) == IMAGES


@pytest.mark.parametrize(
    ("name", "timeouts"), [("trickle", {"total_s": SHORT_S}), ("stall", {"read_s": SHORT_S})]
)
def test_images_of_a_site_that_hangs_stay_pending(
    scripted_site: ScriptedSite,
    make_selected_project: Callable[..., Project],
    set_timeouts: Callable[..., None],
    *,
    name: str,
    timeouts: dict[str, float],
) -> None:
    photos = [Photo(f"{n:016x}", "mirror", name, make_image(n)) for n in range(1, 31)]
    project = make_selected_project(
        set_up(scripted_site, photos), mirror_url=scripted_site.url, jobs=64
    )
    set_timeouts(**timeouts)
    assert fetch_stage.run(project).new == 0
    check_outcomes(project, photos)
    set_timeouts()
    check_next_fetch(scripted_site, project, photos)


def test_a_png_listed_as_the_original_is_stored_unchanged(
    scripted_site: ScriptedSite, make_selected_project: Callable[..., Project]
) -> None:
    scripted_site.answers["/o.jpg"] = Answer(PNG, headers={"Content-Type": "image/png"})
    rows = [ImageRow("00000000000000aa", f"{scripted_site.url}/o.jpg", PNG)]
    project = make_selected_project(rows, mirror_url=scripted_site.url)
    assert fetch_stage.run(project).by_source == {"original": 1}
    assert (project.images_folder / "00000000000000aa.jpg").read_bytes() == PNG


@pytest.mark.parametrize(
    ("rotation", "thumbnail", "reason"),
    [
        ("0.0", "/t.jpg", ""),
        ("0", "/t.jpg", ""),
        ("90.0", "/t.jpg", "rotated"),
        ("", "/t.jpg", "rotation unknown"),
        ("nan", "/t.jpg", "rotation unknown"),
        ("0.0", "", "no URL"),
        ("0.0", "/gone.jpg", "HTTP 404"),
    ],
)
def test_a_thumbnail_is_used_only_for_upright_images(
    scripted_site: ScriptedSite,
    make_selected_project: Callable[..., Project],
    rotation: str,
    thumbnail: str,
    reason: str,
) -> None:
    scripted_site.answers["/t.jpg"] = Answer(make_image(5))
    scripted_site.answers["/train/00000000000000ab.jpg"] = Answer(make_image(6))
    url = f"{scripted_site.url}{thumbnail}" if thumbnail else ""
    # Sources without any of the images would be refused.
    rows = [
        ImageRow("00000000000000aa", thumbnail=url, rotation=rotation),
        ImageRow("00000000000000ab"),
    ]
    project = make_selected_project(
        rows, mirror_url=scripted_site.url, sources=["mirror", "original", "thumbnail"]
    )
    done = fetch_stage.run(project)
    with project.ledger(read_only=True) as ledger:
        row, story = ledger.row("00000000000000aa"), ledger.events("00000000000000aa")
    assert row is not None
    if reason:
        assert row["state"] == "excluded"
        expected = f"mirror: HTTP 404, original: no URL, thumbnail: {reason}"
        assert row["reason"] == expected
        return
    assert row["source"] == "thumbnail"
    assert "a small copy, for which Open Images lists no checksum" in story[-1][2]
    assert "1 of them are thumbnails" in str(done)
    assert done.as_dict()["sources"] == {"thumbnail": 1, "mirror": 1}
