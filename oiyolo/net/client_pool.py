"""HTTP client for many small files at once: one event loop, kept-alive connections.

Each site has its own queue, whose pace adapts to what the site sustains (``rate_limit``), and
failed requests are retried (``retry``). The environment's proxies and CA certificates are used as
requests uses them. The client follows redirects itself, so that it can check each URL before it
sends a request there.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import os
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import aiohttp.abc
import requests.utils
import yarl

from oiyolo.net.rate_limit import AimdLimiter, RateLimit
from oiyolo.net.retry import (
    MAX_REDIRECTS,
    USER_AGENT,
    Attempts,
    HttpFailureError,
    RetryPolicy,
)
from oiyolo.net.urls import FLICKR, display_url, site_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from oiyolo.net.workers import WorkerThreads

AUTO_MAX_CONCURRENCY: Final = 256
"""Maximum number of concurrent requests where it is adapted to each site."""
_AUTO_INITIAL_CONCURRENCY: Final = 16
_FLICKR_MAX_CONCURRENCY: Final = 4
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_OVERLOAD_STATUSES: Final = frozenset({429, 503})
_BUFFER_BYTES: Final = 1 << 17
_KEEPALIVE_S: Final = 30.0
_DNS_CACHE_S: Final = 300
_MAX_WAIT_S: Final = 300.0
"""Longest pause requested by a site (``Retry-After``) that is waited for; during a longer one,
requests to the site fail at once and can be retried later."""
_CA_BUNDLE_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Body:
    """A complete response with status 200.

    Attributes:
        content: The body.
        content_type: ``Content-Type``, as sent.
        etag: ``ETag``, as sent.
        attempts: Number of attempts made.
    """

    content: bytes
    content_type: str
    etag: str
    attempts: int = 1


class RejectedRedirectError(HttpFailureError):
    """A redirect to a URL that has no image; the reason says what the redirect means."""


class HttpClientPool:
    """HTTP client for many small bodies; all calls must be made in the same event loop.

    Args:
        threads: Threads for name lookups.
        jobs: Maximum number of concurrent requests over all sites; ``None`` adapts it to each
            site.
        flickr_per_second: Maximum number of requests to Flickr per second; 0 sets no limit.
        retry_policy: Attempts, pauses and timeouts.
        sleep: Coroutine function that pauses between attempts.
    """

    def __init__(
        self,
        threads: WorkerThreads,
        *,
        jobs: int | None = None,
        flickr_per_second: float = 0.0,
        retry_policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.retry_policy = retry_policy or RetryPolicy()
        self._sleep = sleep
        self._threads = threads
        most = jobs or AUTO_MAX_CONCURRENCY
        self._default_limit = RateLimit(
            max_concurrency=most, initial_concurrency=jobs or _AUTO_INITIAL_CONCURRENCY
        )
        flickr_most = min(most, _FLICKR_MAX_CONCURRENCY)
        self._limit_of_site = {
            FLICKR: RateLimit(flickr_most, flickr_most, per_second=flickr_per_second)
        }
        self._shared_queue = _HostQueue(
            "all sites",
            AimdLimiter(
                RateLimit(max_concurrency=most, initial_concurrency=most), time.monotonic()
            ),
        )
        self._queue_of_site: dict[str, _HostQueue] = {}
        self._queue_of_host: dict[tuple[str, int | None], _HostQueue] = {}
        self._proxy_of_origin: dict[tuple[str, str | None, int | None], str | None] = {}
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
        reject_redirect: Callable[[str], str | None] = lambda _url: None,
    ) -> Body:
        """Return a complete body, in memory.

        Args:
            url: An http or https URL.
            limit_bytes: Maximum size of the body; a larger one is an error.
            reject_redirect: Function called with each URL that a redirect leads to; if it returns a
                reason, no request is sent there.

        Raises:
            HttpFailureError: No usable response after all attempts.
        """
        attempts, left_s = Attempts(self.retry_policy), self.retry_policy.total_timeout_s
        while True:
            started_s = time.monotonic()
            request = _Request(url, limit_bytes, left_s, reject_redirect)
            try:
                content, response = await self._follow(request)
            except HttpFailureError as failure:
                left_s -= max(0.0, time.monotonic() - started_s - request.queued_s)
                is_last = left_s <= 0.0 or isinstance(failure, _LongPauseError)
                pause_s = attempts.pause_after(failure, is_last=is_last)
                # After an overload, Retry-After applies to the whole site: its queue waits instead.
                if not isinstance(failure, _OverloadError) or failure.retry_after_s is None:
                    await self._sleep(pause_s)
            else:
                headers = response.headers
                return Body(
                    content=content,
                    content_type=headers.get("Content-Type", ""),
                    etag=headers.get("ETag", ""),
                    attempts=attempts.number,
                )

    async def _follow(self, request: _Request) -> tuple[bytes, aiohttp.ClientResponse]:
        """Send the request and follow at most ``MAX_REDIRECTS`` redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            content, response = await self._send(request)
            if response.status not in _REDIRECTS:
                return content, response
            request.url = _redirect_target(response, request.url)
            if reason := request.reject_redirect(request.url):
                raise RejectedRedirectError(
                    reason, f"{reason}: redirected to {display_url(request.url)}"
                )
        raise HttpFailureError("too many redirects", f"more than {MAX_REDIRECTS} redirects")

    async def _send(self, request: _Request) -> tuple[bytes, aiohttp.ClientResponse]:
        """Send one request when it is its turn in its site's queue and in the shared one."""
        url = _parse_url(request.url)
        queue = self._queue_for(url)
        queued_at_s = time.monotonic()
        await queue.enter()
        try:
            await self._shared_queue.enter()
            try:
                request.queued_s += time.monotonic() - queued_at_s
                result = await self._exchange(url, request)
            except HttpFailureError as failure:
                queue.record(failure)
                raise
            finally:
                self._shared_queue.leave()
            queue.record(None)
            return result
        finally:
            queue.leave()

    def _queue_for(self, url: yarl.URL) -> _HostQueue:
        host = url.host or "", url.explicit_port
        queue = self._queue_of_host.get(host)
        if queue is None:
            site = site_of(*host)
            queue = self._queue_of_site.get(site)
            if queue is None:
                limit = self._limit_of_site.get(site, self._default_limit)
                queue = self._queue_of_site[site] = _HostQueue(
                    site, AimdLimiter(limit, time.monotonic())
                )
            self._queue_of_host[host] = queue
        return queue

    async def _exchange(
        self, url: yarl.URL, request: _Request
    ) -> tuple[bytes, aiohttp.ClientResponse]:
        session = self._session or self._open()
        timeout = aiohttp.ClientTimeout(
            total=max(0.001, request.left_s),
            sock_connect=self.retry_policy.connect_timeout_s,
            sock_read=self.retry_policy.read_timeout_s,
        )
        reached = False
        try:
            async with session.get(
                url,
                timeout=timeout,
                allow_redirects=False,
                proxy=self._proxy_for(url),
                ssl=self._tls if url.scheme == "https" else True,
            ) as response:
                reached = True
                _check_status(response)
                if response.status in _REDIRECTS:
                    return b"", response
                return await _read(response, request.limit_bytes), response
        except asyncio.TimeoutError as error:
            raise _timeout_failure(error, request.left_s, reached=reached) from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise HttpFailureError("unusable URL", _root_cause(error), reached=False) from error
        except aiohttp.ClientPayloadError as error:
            detail = "the body ended before its declared length"
            raise HttpFailureError("interrupted", detail, transient=True) from error
        except aiohttp.ClientResponseError as error:  # its text may hold the whole body
            detail = "the response is not valid HTTP"
            raise HttpFailureError("invalid response", detail, transient=True) from error
        except (aiohttp.ClientError, OSError) as error:
            reason = "interrupted" if reached else "connection failed"
            raise HttpFailureError(
                reason, _root_cause(error), transient=True, reached=reached
            ) from error
        except ValueError as error:  # a header or URL that aiohttp cannot parse
            raise HttpFailureError(
                "invalid response", _root_cause(error), reached=reached
            ) from error

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return _trusted_certificates()

    def _proxy_for(self, url: yarl.URL) -> str | None:
        origin = url.scheme, url.host, url.port
        if origin not in self._proxy_of_origin:
            self._proxy_of_origin[origin] = _environments_proxy(str(url.origin()))
        return self._proxy_of_origin[origin]

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,  # the queues limit concurrency
            ttl_dns_cache=_DNS_CACHE_S,
            keepalive_timeout=_KEEPALIVE_S,
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
class _Request:
    """One attempt at a URL, over all its redirects.

    Attributes:
        url: URL to request next.
        limit_bytes: Maximum size of the body.
        left_s: Time left for the attempt.
        reject_redirect: Function that returns why a redirect must not be followed, or ``None``.
        queued_s: Time spent in queues.
    """

    url: str
    limit_bytes: int
    left_s: float
    reject_redirect: Callable[[str], str | None]
    queued_s: float = 0.0


class _LongPauseError(HttpFailureError):
    """The site asks for a longer pause than is waited for."""


class _HostQueue:
    """First-in, first-out queue of the requests to a site, which start as its limiter allows."""

    def __init__(self, site: str, limiter: AimdLimiter) -> None:
        self._site, self._limiter = site, limiter
        self._in_flight = 0
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self) -> None:
        """Wait until a request may start; call ``leave`` when it has ended.

        Raises:
            HttpFailureError: The site asks for a longer pause than is waited for.
        """
        now_s = time.monotonic()
        pause_s = self._limiter.pause_left_s(now_s)
        if pause_s > _MAX_WAIT_S:
            raise _LongPauseError(
                "Retry-After too long",
                f"{self._site} asks for a pause of {pause_s:.0f} s",
                transient=True,
            )
        if not self._waiting and self._has_slot() and self._limiter.delay_s(now_s) <= 0.0:
            self._take_slot(now_s)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Free the slot of a request that has ended, and admit the next one."""
        self._in_flight -= 1
        if self._waiting:
            self._admit()

    def record(self, failure: HttpFailureError | None) -> None:
        """Adapt the limiter to the outcome of a request; ``None`` is a success."""
        now_s = time.monotonic()
        if failure is None or not isinstance(failure, _OverloadError):
            self._limiter.on_response(now_s)
            return
        self._limiter.on_overload(now_s)
        if failure.retry_after_s is not None:
            self._limiter.pause_for(now_s, failure.retry_after_s)

    def _has_slot(self) -> bool:
        return self._in_flight < self._limiter.window

    def _take_slot(self, now_s: float) -> None:
        self._in_flight += 1
        self._limiter.on_start(now_s, self._in_flight)

    def _admit(self) -> None:
        while self._waiting and self._has_slot():
            if self._waiting[0].done():  # its request was cancelled
                self._waiting.popleft()
                continue
            now_s = time.monotonic()
            delay_s = self._limiter.delay_s(now_s)
            if delay_s > 0.0:
                self._admit_in(delay_s)
                return
            self._take_slot(now_s)
            self._waiting.popleft().set_result(None)

    def _admit_in(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._admit)


class _OverloadError(HttpFailureError):
    """A response that suggests an overloaded site: 429, 503, a timeout."""


class _Resolver(aiohttp.abc.AbstractResolver):
    """Resolves host names in daemon threads, which cannot delay the end of the process."""

    def __init__(self, threads: WorkerThreads) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        """Return the addresses of a host."""
        addresses = await self._threads.run(
            lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        )
        return [
            aiohttp.abc.ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=address_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address_family, _, protocol, _, address in addresses
        ]

    async def close(self) -> None:
        """Do nothing; the owner of the threads closes them."""


def _environments_proxy(url: str) -> str | None:
    """Return the URL of the proxy that requests would use; ``None`` for a direct connection."""
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _trusted_certificates() -> ssl.SSLContext:
    """Return an SSL context with the certificates that requests trusts."""
    named = (os.environ.get(name) for name in _CA_BUNDLE_VARIABLES)
    bundle = next(filter(None, named), requests.utils.DEFAULT_CA_BUNDLE_PATH)
    is_folder = os.path.isdir(bundle)  # noqa: PTH112  (a text from the environment)
    return ssl.create_default_context(
        cafile=None if is_folder else bundle, capath=bundle if is_folder else None
    )


def _parse_url(url: str) -> yarl.URL:
    """Parse a URL for aiohttp, without changing its percent escapes.

    Raises:
        HttpFailureError: It is not a valid http or https URL.
    """
    try:
        parsed = yarl.URL(url, encoded="%" in url and url.isascii())
        host = parsed.host
    except ValueError as error:
        raise HttpFailureError("unusable URL", _root_cause(error), reached=False) from error
    if parsed.scheme not in {"http", "https"}:
        detail = f"not an http(s) URL: {display_url(url)}"
        raise HttpFailureError("not http(s)", detail, reached=False)
    if not host:
        raise HttpFailureError("unusable URL", f"no host: {display_url(url)}", reached=False)
    return parsed


def _redirect_target(response: aiohttp.ClientResponse, url: str) -> str:
    """Return the URL that a redirect leads to."""
    location = response.headers.get("Location", "")
    try:
        if location:
            return str(yarl.URL(url).join(yarl.URL(location)))
    except ValueError:
        pass
    raise HttpFailureError(f"HTTP {response.status}", "redirect without a valid Location")


def _check_status(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status == _OK or status in _REDIRECTS:
        return
    kind = _OverloadError if status in _OVERLOAD_STATUSES else HttpFailureError
    raise kind.of_status(status, response.reason or "", response.headers.get("Retry-After", ""))


async def _read(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Return a body of at most ``limit_bytes``; aiohttp checks it against Content-Length."""
    too_large = HttpFailureError("too large", f"more than {limit_bytes} bytes")
    if (response.content_length or 0) > limit_bytes:
        raise too_large
    pieces, size_bytes = [], 0
    while piece := await response.content.readany():
        pieces.append(piece)
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            raise too_large
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _timeout_failure(error: BaseException, left_s: float, *, reached: bool) -> HttpFailureError:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return _OverloadError(
            "connection failed", "connection timed out", transient=True, reached=False
        )
    if isinstance(error, aiohttp.SocketTimeoutError):
        return _OverloadError("stalled", "no data within the read timeout", transient=True)
    detail = f"not complete after {left_s:.3g} s"
    return _OverloadError("too slow", detail, transient=True, reached=reached)


def _root_cause(error: BaseException) -> str:
    """Return the first line of the message of the underlying error."""
    cause: Any = getattr(error, "os_error", None) or error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).partition("\n")[0]
