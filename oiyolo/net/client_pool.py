"""The door to the web for many small bodies at once: one event loop, kept-alive connections.

Every site is asked at its own pace (``politeness``), and as patiently as ``patience`` has it. The
environment's proxies and certificates are used as requests uses them. Redirects are followed by
hand, so that each address on the way can be looked at before it is asked.
"""

from __future__ import annotations

import asyncio
import collections
import os
import socket
import ssl
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import aiohttp.abc
import yarl

from oiyolo.net.download import HttpFailureError
from oiyolo.net.rate_limit import Manners, Pace
from oiyolo.net.retry import MAX_REDIRECTS, USER_AGENT, Patience, may_pass, retry_after_s
from oiyolo.net.urls import FLICKR, shown, site_of, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from oiyolo.net.workers import Threads

_AUTO_MOST: Final = 128
_AUTO_FIRST: Final = 16
_FLICKR_MOST: Final = 4
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_COMPLAINTS: Final = frozenset({429, 503})
_LONGEST_TOLD: Final = 200
_BUFFER_BYTES: Final = 1 << 17
_IDLE_S: Final = 30.0
_DNS_CACHED_S: Final = 300
_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Body:
    """A whole answer with status 200."""

    content: bytes
    content_type: str
    etag: str
    final_url: str
    attempts: int = 1


class DeadEndError(HttpFailureError):
    """A redirect led to where no image is; the reason says what that means."""


class ManyWeb:
    """Asks for many small bodies; it belongs to the event loop that first asks it.

    Args:
        threads: Where names are looked up.
        jobs: Requests at once, over all sites; ``None`` finds out what each site sustains.
        flickr_per_second: Requests begun in a second for all of Flickr; 0 sets no limit.
        patience: Attempts, pauses and deadlines.
    """

    def __init__(
        self,
        threads: Threads,
        *,
        jobs: int | None = None,
        flickr_per_second: float = 0.0,
        patience: Patience | None = None,
    ) -> None:
        self.patience = patience or Patience()
        self._threads = threads
        most = jobs or _AUTO_MOST
        self._usual = Manners(most=most, first=jobs or _AUTO_FIRST)
        gentle = min(most, _FLICKR_MOST)
        self._of_site = {FLICKR: Manners(gentle, gentle, per_second=flickr_per_second)}
        in_all = jobs or 2 * most
        self._all = _Gate("all sites", Pace(Manners(most=in_all, first=in_all), _now()))
        self._gates: dict[str, _Gate] = {}
        self._gate_of_host: dict[tuple[str, int | None], _Gate] = {}
        self._trusted: ssl.SSLContext | None = None
        self._proxies = _Proxies()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def get(
        self,
        url: str,
        *,
        limit_bytes: int,
        dead_end: Callable[[str], str | None] = lambda _url: None,
    ) -> Body:
        """Give a whole body, kept in memory.

        Args:
            url: An http or https address.
            limit_bytes: A longer body is cut off and refused.
            dead_end: Is asked of every address that a redirect leads to; where it gives a reason,
                that address is not asked.

        Raises:
            HttpFailureError: Nothing usable after all attempts.
        """
        attempt, left_s = 0, self.patience.whole_s
        while True:
            attempt += 1
            began_s = _now()
            asked = _Asked(url, limit_bytes, left_s, dead_end)
            try:
                content, answer = await self._follow(asked)
            except HttpFailureError as failure:
                failure.attempts = attempt
                if not failure.transient or attempt >= self.patience.attempts:
                    raise
                left_s -= max(0.0, _now() - began_s - asked.waited_s)
                if left_s <= 0.0 or isinstance(failure, _ClosedError):
                    raise
                # A pause that was asked for is the whole site's, and its gate keeps it.
                if failure.retry_after_s is None:
                    await asyncio.sleep(self.patience.pause_s(attempt, None))
            else:
                headers = answer.headers
                return Body(
                    content=content,
                    content_type=headers.get("Content-Type", ""),
                    etag=headers.get("ETag", ""),
                    final_url=asked.url,
                    attempts=attempt,
                )

    async def _follow(self, asked: _Asked) -> tuple[bytes, aiohttp.ClientResponse]:
        """Ask, and ask where the answer leads, so often at most."""
        for _ in range(MAX_REDIRECTS + 1):
            content, answer = await self._ask(asked)
            if answer.status not in _REDIRECTS:
                return content, answer
            asked.url = _leads_to(answer, asked.url)
            if reason := asked.dead_end(asked.url):
                raise DeadEndError(reason, f"{reason}: redirected to {shown(asked.url)}")
        raise HttpFailureError("too many redirects", f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, asked: _Asked) -> tuple[bytes, aiohttp.ClientResponse]:
        """Ask one address once, when its site's turn has come."""
        url = _checked(asked.url)
        gate = self._gate_of(url)
        waits_s = _now()
        await gate.enter()
        try:
            await self._all.enter()
            try:
                asked.waited_s += _now() - waits_s
                answered = await self._answer(url, asked)
            except HttpFailureError as failure:
                gate.note(failure)
                raise
            finally:
                self._all.leave()
            gate.note(None)
            return answered
        finally:
            gate.leave()

    def _gate_of(self, url: yarl.URL) -> _Gate:
        host = url.host or "", url.explicit_port
        gate = self._gate_of_host.get(host)
        if gate is None:
            site = site_of(*host)
            gate = self._gates.get(site)
            if gate is None:
                manners = self._of_site.get(site, self._usual)
                gate = self._gates[site] = _Gate(site, Pace(manners, _now()))
            self._gate_of_host[host] = gate
        return gate

    async def _answer(self, url: yarl.URL, asked: _Asked) -> tuple[bytes, aiohttp.ClientResponse]:
        session = self._session or self._open()
        timeout = aiohttp.ClientTimeout(
            total=max(0.001, asked.left_s),
            sock_connect=self.patience.connect_s,
            sock_read=self.patience.read_s,
        )
        is_answered = False
        try:
            async with session.get(
                url,
                timeout=timeout,
                allow_redirects=False,
                proxy=self._proxies.of(url),
                ssl=self._trust() if url.scheme == "https" else True,
            ) as answer:
                is_answered = True
                _check_status(answer)
                if answer.status in _REDIRECTS:
                    return b"", answer
                return await _read(answer, asked.limit_bytes), answer
        except asyncio.TimeoutError as error:
            raise _timed_out(error, asked.left_s, reached=is_answered) from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise HttpFailureError("unusable address", _plainly(error), reached=False) from error
        except aiohttp.ClientPayloadError as error:
            told = "the body ended too soon"
            raise HttpFailureError("broken off", told, transient=True) from error
        except aiohttp.ClientResponseError as error:  # its text may hold the whole body
            told = "the answer is not as HTTP has it"
            raise HttpFailureError("broken answer", told, transient=True) from error
        except (aiohttp.ClientError, OSError) as error:
            reason = "broken off" if is_answered else "connection failed"
            raise HttpFailureError(
                reason, _plainly(error), transient=True, reached=is_answered
            ) from error
        except ValueError as error:  # a header or address that aiohttp cannot make anything of
            raise HttpFailureError("broken answer", _plainly(error), reached=is_answered) from error

    def _trust(self) -> ssl.SSLContext:
        if self._trusted is None:
            self._trusted = _certificates()
        return self._trusted

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,  # the gates count
            ttl_dns_cache=_DNS_CACHED_S,
            keepalive_timeout=_IDLE_S,
            resolver=_Resolver(self._threads),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_BUFFER_BYTES,
        )
        return self._session


@dataclass
class _Asked:
    """One attempt: where it stands, and what it may take."""

    url: str
    limit_bytes: int
    left_s: float
    dead_end: Callable[[str], str | None]
    waited_s: float = 0.0


class _ClosedError(HttpFailureError):
    """The site wants to be left alone for longer than anybody waits."""


class _Gate:
    """Lets requests to one site begin when its pace allows, in the order in which they came."""

    def __init__(self, site: str, pace: Pace) -> None:
        self._site, self._pace = site, pace
        self._under_way = 0
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def enter(self) -> None:
        """Wait for one of the site's places; ``leave`` gives it back.

        Raises:
            HttpFailureError: The site wants to be left alone for longer than anybody waits.
        """
        now_s = _now()
        closed_s = self._pace.closed_s(now_s)
        if closed_s > self._pace.manners.longest_wait_s:
            raise _ClosedError(
                "asked to come back later",
                f"{self._site} wants to be left alone for {closed_s:.0f} s more",
                transient=True,
            )
        if not self._waiting and self._has_place() and self._pace.delay_s(now_s) <= 0.0:
            self._take_place(now_s)
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._let_in()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to who waits longest."""
        self._under_way -= 1
        if self._waiting:
            self._let_in()

    def note(self, failure: HttpFailureError | None) -> None:
        """Adapt to how a request ended."""
        now_s = _now()
        if failure is None or not isinstance(failure, _ComplaintError):
            self._pace.answered(now_s)
            return
        self._pace.complained(now_s)
        if failure.retry_after_s is not None:
            self._pace.close_for(now_s, failure.retry_after_s)

    def _has_place(self) -> bool:
        return self._under_way < self._pace.window

    def _take_place(self, now_s: float) -> None:
        self._under_way += 1
        self._pace.began(now_s, self._under_way)

    def _let_in(self) -> None:
        while self._waiting and self._has_place():
            if self._waiting[0].done():  # who waited was cancelled
                self._waiting.popleft()
                continue
            now_s = _now()
            delay_s = self._pace.delay_s(now_s)
            if delay_s > 0.0:
                self._wake_in(delay_s)
                return
            self._take_place(now_s)
            self._waiting.popleft().set_result(None)

    def _wake_in(self, delay_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(delay_s, self._let_in)


class _ComplaintError(HttpFailureError):
    """A site that is asked too much of: 429, 503, a time-out."""


class _Proxies:
    """What proxy the environment names for an address, looked up once a host."""

    def __init__(self) -> None:
        self._named = urllib.request.getproxies()
        self._of_host: dict[tuple[str, str], str | None] = {}

    def of(self, url: yarl.URL) -> str | None:
        """Give the proxy's address; ``None`` to go without."""
        if not self._named:
            return None
        key = (url.scheme, url.host or "")
        if key not in self._of_host:
            named = self._named.get(url.scheme) or self._named.get("all")
            passes = not named or urllib.request.proxy_bypass(key[1])
            self._of_host[key] = None if passes else _with_scheme(str(named))
        return self._of_host[key]


class _Resolver(aiohttp.abc.AbstractResolver):
    """Looks names up in threads that hold up nobody's end."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        """See aiohttp."""
        found = await self._threads.run(
            lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        )
        return [
            aiohttp.abc.ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=of_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """See aiohttp."""


def _now() -> float:
    return time.monotonic()


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _certificates() -> ssl.SSLContext:
    """Trust whom requests trusts: the environment's bundle, or else certifi's."""
    named = next((os.environ[name] for name in _BUNDLES if os.environ.get(name)), None)
    if named is None:
        import certifi  # noqa: PLC0415  (only where no bundle is named)

        named = certifi.where()
    is_folder = os.path.isdir(named)  # noqa: PTH112  (a text from the environment)
    return ssl.create_default_context(
        cafile=None if is_folder else named, capath=named if is_folder else None
    )


def _checked(url: str) -> yarl.URL:
    """Give an address as the client takes it; percent signs stay as they are."""
    try:
        made = yarl.URL(url, encoded="%" in url and url.isascii())
        host = made.host
    except ValueError as error:
        raise HttpFailureError("unusable address", _plainly(error), reached=False) from error
    if made.scheme not in {"http", "https"}:
        told = f"not an http(s) address: {shown(url)}"
        raise HttpFailureError("not http(s)", told, reached=False)
    if not host:
        raise HttpFailureError("unusable address", f"no host: {shown(url)}", reached=False)
    return made


def _leads_to(answer: aiohttp.ClientResponse, url: str) -> str:
    """Give the address that a redirect leads to."""
    location = answer.headers.get("Location", "")
    try:
        if location:
            return str(yarl.URL(url).join(yarl.URL(location)))
    except ValueError:
        pass
    raise HttpFailureError(f"HTTP {answer.status}", "a redirect to nowhere")


def _check_status(answer: aiohttp.ClientResponse) -> None:
    status = answer.status
    if status == _OK or status in _REDIRECTS:
        return
    kind = _ComplaintError if status in _COMPLAINTS else HttpFailureError
    raise kind(
        f"HTTP {status}",
        f"HTTP {status} {answer.reason or ''}".rstrip(),
        transient=may_pass(status),
        retry_after_s=retry_after_s(answer.headers.get("Retry-After", "")),
    )


async def _read(answer: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Read a body up to a limit; aiohttp compares what came with Content-Length."""
    too_large = HttpFailureError("too large", f"more than {limit_bytes} bytes")
    if (answer.content_length or 0) > limit_bytes:
        raise too_large
    pieces, size_bytes = [], 0
    while piece := await answer.content.readany():
        pieces.append(piece)
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            raise too_large
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _timed_out(error: BaseException, left_s: float, *, reached: bool) -> HttpFailureError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return _ComplaintError(
            "connection failed", "no connection in time", transient=True, reached=False
        )
    if isinstance(error, aiohttp.SocketTimeoutError):
        return _ComplaintError("stalled", "nothing came for too long", transient=True)
    told = f"not complete after {left_s:.3g} s"
    return _ComplaintError("too slow", told, transient=True, reached=reached)


def _plainly(error: BaseException) -> str:
    """Give the innermost cause, without the secrets that an address may hold."""
    cause: Any = getattr(error, "os_error", None) or error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return without_secrets(text.partition("\n")[0])[:_LONGEST_TOLD]
