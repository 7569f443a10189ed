"""The receiver of alerts: a real HTTP server on loopback that stands for a pager.

Owns what arrived and checks its signature. Knows nothing of how alerts come to be.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import anyio
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Arrived", "Receiver", "receiving"]

LOOK_EVERY_S = 0.02
MAX_BODY_BYTES = 1_000_000
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Arrived:
    """One delivery: when (monotonic seconds), its headers with names in lower case, and its body."""

    at: float
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        content = orjson.loads(self.raw)
        return content if isinstance(content, dict) else {}

    def signed(self, secret: str) -> bool:
        """Whether `X-Haltline-Signature: t=<unix time>,v1=<hex HMAC-SHA-256 of "<t>.<body>">` was made with `secret`."""
        given = dict(part.partition("=")[::2] for part in self.headers.get("x-haltline-signature", "").split(","))
        wanted = hmac.new(secret.encode(), given.get("t", "").encode() + b"." + self.raw, hashlib.sha256).hexdigest()
        return hmac.compare_digest(wanted, given.get("v1", ""))

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return list(self.body.get("alerts", []))


class Receiver:
    """Where alerts go, and what has arrived so far."""

    def __init__(self) -> None:
        self.url = ""
        self.arrived: list[Arrived] = []

    async def wait(
        self, wanted: Callable[[dict[str, Any]], bool], within_s: float
    ) -> tuple[Arrived, dict[str, Any]] | None:
        """The first alert that is wanted, with its delivery, once it is there; None when it does not come in time."""
        with anyio.move_on_after(within_s):
            while True:
                for arrived in list(self.arrived):
                    for alert in arrived.alerts:
                        if wanted(alert):
                            return arrived, alert
                await anyio.sleep(LOOK_EVERY_S)
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    receiver: Receiver

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY_BYTES:
            self.send_error(413)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.receiver.arrived.append(Arrived(time.monotonic(), headers, self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server uses
        """What arrived is in `arrived`."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A running receiver on a free loopback port."""
    receiver = Receiver()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"receiver": receiver}))
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/alerts"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": POLL_S}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
