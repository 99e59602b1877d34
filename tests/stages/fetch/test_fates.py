"""2,000 images of mixed fates: each ends in the right state, with the right reason."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from oiyolo.net.retry import Patience
from oiyolo.stages import fetch as fetch_stage
from tests.stages.fetch.conftest import Listed, Way, md5_of, picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.project.project import Project
    from tests.stages.fetch.conftest import Fates

IMAGES = 2000
LIMIT_BYTES = 300_000
IMPATIENT = functools.partial(
    Patience, attempts=3, first_pause_s=0.01, connect_s=10.0, read_s=1.5, whole_s=6.0
)
PNG = picture(1, "PNG")
PLACEHOLDER = "/images/en-us/photo_unavailable_l.png"
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oiyolo.net.client_pool.Patience", IMPATIENT)
    monkeypatch.setattr("oiyolo.sources.web.MAX_IMAGE_BYTES", LIMIT_BYTES)


@dataclass(frozen=True)
class Fate:
    """What becomes of an image.

    Attributes:
        way: How it is answered, made of its content.
        mirror: Why the mirror's answer is refused; empty where it is taken.
        original: Why the original's is.
        transient: It stays pending.
        attempts: Requests at most.
        weight: How many of all, roughly.
    """

    way: Callable[[bytes], Way]
    mirror: str = ""
    original: str | None = None
    transient: bool = False
    attempts: int = 1
    weight: int = 10

    def reason(self, source: str) -> str:
        return self.mirror if source == "mirror" or self.original is None else self.original


def failing(status: str, **headers: str) -> Way:
    return Way(status=status, headers=headers)


def good_after(*first: Way) -> Callable[[bytes], Way]:
    # Each image needs a list of its own.
    return lambda content: Way(content, first=[Way(status=w.status, headers=w.headers)
                                               for w in first])  # fmt: skip


WRONG_SIZE = "another size than listed"
FATES = {
    "whole": Fate(lambda c: Way(c, headers={"ETag": f'"{md5_of(c)}"'}), weight=40),
    "404": Fate(lambda _: failing("404 Not Found"), "HTTP 404"),
    "410": Fate(lambda _: failing("410 Gone"), "HTTP 410"),
    "403": Fate(lambda _: failing("403 Forbidden"), "HTTP 403"),
    "placeholder": Fate(
        lambda _: failing("302 Found", Location=PLACEHOLDER), "removed by its author"
    ),
    "moved": Fate(
        lambda c: failing("301 Moved Permanently", Location=f"/moved/{md5_of(c)}"), attempts=1
    ),
    "in circles": Fate(lambda _: failing("302 Found", Location="?"), "too many redirects"),
    "to a file": Fate(lambda _: failing("302 Found", Location="file:///etc/passwd"), "not http(s)"),
    "429, at once": Fate(
        good_after(failing("429 Too Many Requests", **{"Retry-After": "0"})),
        attempts=2,
        weight=2,
    ),
    "429, a date": Fate(
        good_after(failing("429 Too Many", **{"Retry-After": formatdate(0, usegmt=True)})),
        attempts=2,
        weight=2,
    ),
    "500, 502": Fate(good_after(failing("500 Error"), failing("502 Bad Gateway")), attempts=3),
    "503, 503": Fate(good_after(*[failing("503 Busy")] * 2), attempts=3, weight=2),
    "503": Fate(lambda _: failing("503 Busy"), "HTTP 503", transient=True, attempts=3, weight=2),
    "reset in the headers": Fate(
        lambda c: Way(c, reset=20), "connection failed", transient=True, attempts=3
    ),
    "reset in the body": Fate(
        lambda c: Way(c, reset=300), "broken off", transient=True, attempts=3
    ),
    "shorter than told": Fate(
        lambda c: Way(c[:-50], length=len(c), close=True), "broken off",
        transient=True, attempts=3,
    ),
    "longer than told": Fate(
        lambda c: Way(c + b"\0" * 40, length=len(c), close=True),
        "broken answer", transient=True, attempts=3,
    ),
    "no length": Fate(lambda c: Way(c, length=-1, close=True)),
    "no length, cut": Fate(
        lambda c: Way(c[:-60], length=-1, close=True), "truncated JPEG", WRONG_SIZE
    ),
    "a page": Fate(
        lambda _: Way(b"<html>sorry</html>", headers=HTML),
        "not a JPEG", "a page instead of an image",
    ),
    "empty": Fate(lambda _: Way(), "empty"),
    "wrong MD5": Fate(
        lambda c: Way(c[:25] + bytes([c[25] ^ 1]) + c[26:], headers={"ETag": f'"{md5_of(c)}"'}),
        "wrong MD5",
        "another MD5 than listed",
        transient=True,
    ),
    "a PNG": Fate(lambda _: Way(PNG, headers={"Content-Type": "image/jpeg"}),
                  "not a JPEG", WRONG_SIZE),
    "a trickle": Fate(
        lambda c: Way(c, length=250_000, trickle=True), "too slow", transient=True, weight=2
    ),
    "a stall": Fate(
        lambda c: Way(c, stall=True), "stalled", transient=True, attempts=3, weight=2
    ),
    "huge": Fate(lambda _: Way(b"x", length=1 << 40, close=True), "too large", weight=5),
    "endless": Fate(lambda _: Way(endless=True), "too large", weight=3),
}  # fmt: skip
PERMANENT_ON_FLICKR = {"wrong MD5"}
"""An original that is another file than listed stays so; a mirror's copy may be read again."""


@dataclass(frozen=True)
class Photo:
    image_id: str
    source: str
    name: str
    content: bytes

    @property
    def fate(self) -> Fate:
        return FATES[self.name]

    @property
    def came(self) -> bool:
        return not self.fate.reason(self.source)

    @property
    def transient(self) -> bool:
        lasts = self.source == "original" and self.name in PERMANENT_ON_FLICKR
        return self.fate.transient and not lasts

    @property
    def path(self) -> str:
        return f"/{'train' if self.source == 'mirror' else 'o'}/{self.image_id}.jpg"

    @property
    def reason(self) -> str:
        """What the ledger says, if it did not come."""
        reason = self.fate.reason(self.source)
        if self.source == "mirror":
            return f"mirror: {reason}, original: no address"
        return f"mirror: HTTP 404, original: {reason}"


def photos() -> list[Photo]:
    rng = random.Random(4)
    fates = rng.choices(list(FATES), [f.weight for f in FATES.values()], k=IMAGES)
    return [
        Photo(f"{number * 7919:016x}", rng.choice(["mirror", "original"]), name, picture(number))
        for number, name in enumerate(fates, start=1)
    ]


def laid_out(site: Fates, wanted: list[Photo]) -> list[Listed]:
    """Let the site do to each image what its fate is; give the list."""
    site.ways[PLACEHOLDER] = Way(PNG)
    listed = []
    for photo in wanted:
        site.ways[photo.path] = photo.fate.way(photo.content)
        site.ways[f"/moved/{md5_of(photo.content)}"] = Way(photo.content)
        url = f"{site.url}{photo.path}" if photo.source == "original" else ""
        listed.append(Listed(photo.image_id, url, photo.content if url else b""))
    return listed


def check_row(row: dict[str, Any], photo: Photo, told: str) -> None:
    found = row["state"], row["reason"], row["source"], row["bytes"], row["md5"]
    if photo.came:
        expected = "fetched", "", photo.source, len(photo.content), md5_of(photo.content)
        assert found == expected, f"{photo.name}: {told}"
    else:
        state = "pending" if photo.transient else "excluded"
        assert found == (state, photo.reason, None, None, None), f"{photo.name}: {told}"
    others = 1 if photo.source == "original" else 0  # the mirror's 404
    assert others < row["attempts"] <= photo.fate.attempts + others, f"{photo.name}: {told}"


def check_disk(project: Project, wanted: list[Photo]) -> None:
    here = {path.name: path.read_bytes() for path in project.images_folder.iterdir()}
    assert here == {f"{p.image_id}.jpg": p.content for p in wanted if p.came}


@pytest.mark.usefixtures("impatient")
def test_each_of_2000_images_ends_as_it_should(
    fates: Fates, make_selected: Callable[..., Project]
) -> None:
    wanted = photos()
    assert {photo.name for photo in wanted} == set(FATES)
    project = make_selected(laid_out(fates, wanted), mirror_url=fates.url, jobs=64)
    done = fetch_stage.run(project)
    with project.ledger(read_only=True) as ledger:
        for photo in wanted:
            row = ledger.row(photo.image_id)
            assert row is not None
            check_row(row, photo, ledger.story(photo.image_id)[-1][2])
        counts = ledger.counts()
    came = sum(photo.came for photo in wanted)
    assert done.new == counts.states["fetched"] == came
    assert sum(counts.states.values()) + sum(counts.excluded.values()) == IMAGES
    assert sum(done.failed.values()) == sum(done.missing.values()) == IMAGES - came
    assert fates.asked[PLACEHOLDER] == 0
    check_disk(project, wanted)

    # What failed for now is asked for again by the next run, and nothing else.
    for photo in wanted:
        fates.ways[photo.path] = Way(photo.content)
    fates.asked.clear()
    fetch_stage.run(project)
    pending = {photo.path for photo in wanted if not photo.came and photo.transient}
    own = {path for path in fates.asked if path in fates.ways}
    assert own == pending
    # The rest needs to be asked for; then all are here.
    again = fetch_stage.run(project, retry="failed")
    assert again.counts.states["fetched"] == IMAGES
    assert not again.missing
    assert len(list(project.images_folder.iterdir())) == IMAGES


@pytest.mark.usefixtures("impatient")
def test_a_png_that_is_listed_as_the_original_is_taken_as_it_is(
    fates: Fates, make_selected: Callable[..., Project]
) -> None:
    fates.ways["/o.jpg"] = Way(PNG, headers={"Content-Type": "image/png"})
    listed = [Listed("00000000000000aa", f"{fates.url}/o.jpg", PNG)]
    project = make_selected(listed, mirror_url=fates.url)
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
        ("0.0", "", "no address"),
        ("0.0", "/gone.jpg", "HTTP 404"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_thumbnail_is_the_last_resort_for_images_that_are_upright(
    fates: Fates,
    make_selected: Callable[..., Project],
    rotation: str,
    thumbnail: str,
    reason: str,
) -> None:
    fates.ways["/t.jpg"] = Way(picture(5))
    url = f"{fates.url}{thumbnail}" if thumbnail else ""
    listed = [Listed("00000000000000aa", thumbnail=url, rotation=rotation)]
    project = make_selected(
        listed, mirror_url=fates.url, sources=["mirror", "original", "thumbnail"]
    )
    done = fetch_stage.run(project)
    with project.ledger(read_only=True) as ledger:
        row, story = ledger.row("00000000000000aa"), ledger.story("00000000000000aa")
    assert row is not None
    if reason:
        assert row["state"] == "excluded"
        expected = f"mirror: HTTP 404, original: no address, thumbnail: {reason}"
        assert row["reason"] == expected
        return
    assert row["source"] == "thumbnail"
    assert "a small copy that no list vouches for" in story[-1][2]
    assert "1 of them are thumbnails" in str(done)
    assert done.as_dict()["sources"] == {"thumbnail": 1}
