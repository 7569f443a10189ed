"""One HTTP POST of an alert: says which answers mean taken, later and never, and keeps the address to itself.

Shared by every channel that posts; the only module of the alerts that knows httpx. No redirects, bounded in time and in
what is read of an answer.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import anyio
import httpx

from haltline.alerts.model import Later, Never
from haltline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Post"]

_TRY_LATER = {408, 425, 429}
_ANSWER_MAX_BYTES = 16_384
"""An answer is not read for what it says, only so far that its connection can be used again."""
_ANSWER_TIMEOUT_S = 1.0
_DIGITS_MAX = 10
_WHY = (
    (httpx.ConnectTimeout, "it does not accept the connection in time"),
    (httpx.PoolTimeout, "no connection came free in time"),
    (httpx.TimeoutException, "it does not answer in time"),
    (httpx.ConnectError, "it cannot be reached"),
    (httpx.ProxyError, "the proxy does not let us through"),
    (httpx.RemoteProtocolError, "it ended the connection or does not speak HTTP"),
)


class Post:
    """Where one channel posts to. Raises ConfigError for an address that cannot be posted to, without repeating it."""

    def __init__(self, channel: str, url: str, timeout_s: float, *, basic: tuple[str, str] | None = None) -> None:
        self._timeout_s = timeout_s
        self._origin, self._target, authorization = _address(channel, url)
        self._authorization = authorization if basic is None else _basic(*basic)
        self._client = httpx.AsyncClient(follow_redirects=False, timeout=timeout_s, headers={"User-Agent": "haltline"})

    async def send(self, content: bytes, headers: Mapping[str, str], now_us: int) -> None:
        """Return once it was taken. Raises `Later` or `Never`."""
        given = dict(headers) if self._authorization is None else {**headers, "Authorization": self._authorization}
        # The client's own log names the request's URL; a path can be a secret (many services'), so it only knows the origin.
        request = self._client.build_request(
            "POST", self._origin, content=content, headers=given, extensions={"target": self._target}
        )
        try:
            with anyio.fail_after(self._timeout_s):
                answer = await self._client.send(request, stream=True)
        except TimeoutError:
            raise Later("it does not answer in time") from None
        except httpx.TransportError as error:
            raise Later(_why(error)) from None
        await _let_go(answer)
        _judge(answer, now_us)

    async def aclose(self) -> None:
        await self._client.aclose()


async def _let_go(answer: httpx.Response) -> None:
    """The status is there, so nothing that goes wrong from here on changes the outcome."""
    with anyio.move_on_after(_ANSWER_TIMEOUT_S):
        try:
            async for _ in answer.aiter_raw():
                if answer.num_bytes_downloaded > _ANSWER_MAX_BYTES:
                    break
        except httpx.TransportError:
            pass
    with anyio.CancelScope(shield=True), anyio.move_on_after(_ANSWER_TIMEOUT_S):
        await answer.aclose()


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _address(channel: str, address: str) -> tuple[httpx.URL, bytes, str | None]:
    """Origin, request target, and the authorization that the user and password in the URL stand for."""
    here = f"alert channel {channel}"
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, TypeError):
        raise ConfigError(f"{here}: its url is not a URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(f"{here}: its url must start with http:// or https:// and name a host")
    authorization = None
    if url.userinfo:
        authorization = _basic(url.username, url.password)
    origin = httpx.URL(scheme=url.scheme, host=url.host, port=url.port, path="/")
    return origin, url.raw_path, authorization


def _judge(answer: httpx.Response, now_us: int) -> None:
    """Taken, or `Later`, or `Never`. Nothing that the receiver wrote is repeated: it may repeat what we sent."""
    status = answer.status_code
    if answer.is_success:
        return
    if answer.is_redirect or 300 <= status < 400:
        raise Never(f"HTTP {status}: it redirects, which is not followed; configure the final address")
    if status in _TRY_LATER or status >= 500:
        raise Later(f"HTTP {status}", _retry_after_s(answer.headers.get("Retry-After"), now_us))
    raise Never(f"HTTP {status}: it will not take this, however often it is sent")


def _retry_after_s(value: str | None, now_us: int) -> float | None:
    """Seconds or a date (RFC 9110, section 10.2.3); None when absent or neither."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:_DIGITS_MAX])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.fromtimestamp(now_us / 1_000_000, UTC)).total_seconds())


def _why(error: httpx.TransportError) -> str:
    """Our own words and the system's; the library's could name the address."""
    said = next(
        (text for kind, text in _WHY if isinstance(error, kind)), f"the connection failed ({type(error).__name__})"
    )
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError | socket.gaierror) and cause.strerror:
            return f"{said}: {cause.strerror}"
        if isinstance(cause, OSError) and cause.errno:
            return f"{said}: {os.strerror(cause.errno)}"
        cause = cause.__cause__ or cause.__context__
    return said
