"""Which Host and Origin headers a listener answers to: exact, parsed values, an empty list admits none (DNS rebinding).

The MCP specification asks for it of every local server; prefix matches have been bypassed before (promises, row 32).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Guard"]

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)(:(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"https?://(?P<host>[^/?#@\s]+)")
_ONCE = frozenset({b"host", b"origin"})
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """`of_request` says why a request may not be answered, None when it may."""

    def __init__(self, host: str, port: int, *, hosts: Iterable[str], origins: Iterable[str]) -> None:
        own = f"[{host}]" if ":" in host else host
        names = {own, *_LOOPBACK} if own in _LOOPBACK else {own}
        wanted = {f"{name}:{port}".lower() for name in names} | {name.lower() for name in hosts}
        self._hosts = {one for one in wanted if _HOST.fullmatch(one)}
        self._origins = {one for one in map(str.lower, origins) if _ORIGIN.fullmatch(one)}

    def of_request(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """By its raw headers, whose names are in lower case."""
        host: str | None = None
        origin: str | None = None
        for name, value in headers:
            if name == b"host" and host is None:
                host = value.decode("latin-1")
            elif name == b"origin" and origin is None:
                origin = value.decode("latin-1")
            elif name in _ONCE:  # which of them counts would be a guess (RFC 9112, section 3.2)
                return "this request has more than one Host or Origin header"
        return self.refusal(host, origin)

    def refusal(self, host: str | None, origin: str | None) -> str | None:
        if host is None or host.lower() not in self._hosts:
            return "this listener does not answer to that Host; add it to allowed_hosts in haltline.yaml"
        if origin is not None and origin.lower() not in self._origins:
            return "this Origin may not call this listener; add it to allowed_origins in haltline.yaml"
        return None
