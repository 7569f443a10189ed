"""Serving the two listeners: sockets, TLS, who may be answered at all, and which path leads where. Knows no MCP method.

Agents reach `/mcp` on the one; operators reach `/mcp`, `/metrics`, `/healthz` and `/readyz` on the other. Neither credential class is
valid on the other listener; that is decided by the faces.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from haltline.errors import ConfigError
from haltline.wire.http import LINE, WHOLE, Line, Receive, Scope, Send, send_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from haltline.setup.listeners import Listener
    from haltline.wire.guard import Guard

    Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["Routes", "Server", "bind", "text_route", "url_of"]

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that it is they who close them."""
BACKLOG = 1024


class Routes:
    """A plain ASGI application: one guard before every path, exact paths, everything else is 404."""

    def __init__(self, guard: Guard, routes: Mapping[str, Asgi]) -> None:
        self._guard = guard
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refused = self._guard.of_request(scope["headers"])
        if refused is not None:
            await send_reply(send, 403, refused.encode())
            return
        route = self._routes.get(scope["path"])
        if route is None:
            await send_reply(send, 404, f"not here; try {', '.join(self._routes)}\n".encode())
        else:
            await route(scope, receive, send)


def text_route(answer: Callable[[], tuple[int, str]]) -> Asgi:
    """A route that says one word, without a credential and so without detail."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        status, text = answer() if scope["method"] in {"GET", "HEAD"} else (405, "GET only")
        await send_reply(send, status, f"{text}\n".encode())

    return respond


def bind(listener: Listener, key: str) -> socket.socket:
    """A listening socket. Raises ConfigError that says what to do when the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        bound = socket.create_server((listener.host, listener.port), family=family, backlog=BACKLOG)
    except OSError as error:
        where = f"{listener.host}:{listener.port}"
        raise ConfigError(
            f"cannot listen on {where} for {key}: {error.strerror or error}; stop what is using it, or choose another "
            f"address with --{key} HOST:PORT or in haltline.yaml"
        ) from error
    bound.setblocking(False)
    return bound


def url_of(listener: Listener, bound: socket.socket) -> str:
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    return f"{'https' if listener.tls_cert else 'http'}://{host}:{bound.getsockname()[1]}"


class _OneWrite:
    """A transport that writes in one go what a turn of the event loop brought: a reply's head and body are one system call."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiting: list[bytes] = []
        self._soon = asyncio.get_running_loop().call_soon

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._soon(self._flush)
        self._waiting.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        data, self._waiting = self._waiting, []
        if data:
            self._transport.write(data[0] if len(data) == 1 else b"".join(data))


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with what it knows in the scope of each request: its `Line`, and whether its body is here to the end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = Line()
        super().connection_made(cast("asyncio.Transport", _OneWrite(cast("asyncio.Transport", transport))))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("Scope", self.scope)[LINE] = self._line

    def on_message_complete(self) -> None:
        super().on_message_complete()
        cast("Scope", self.scope)[WHOLE] = True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._line.close()


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process and ends when told to."""

    def __init__(self, routes: Routes, listener: Listener) -> None:
        super().__init__(
            uvicorn.Config(
                routes,
                lifespan="off",
                http=_Protocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=listener.behind_proxy,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=2,
                ssl_certfile=str(listener.tls_cert) if listener.tls_cert else None,
                ssl_keyfile=str(listener.tls_key) if listener.tls_key else None,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
