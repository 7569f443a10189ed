"""Where a URL leads: what to connect to, and what a request to it says. Looks nothing up."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

__all__ = ["Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a URL leads: what to connect to, and what the request line and the Host header say."""

    host: str
    port: int
    tls: bool
    target: str
    host_header: str

    @classmethod
    def of(cls, url: str) -> Address:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host = parts.hostname or ""
        port = parts.port or (443 if tls else 80)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
        shown = f"[{host}]" if ":" in host else host
        return cls(host, port, tls, target, shown if port == (443 if tls else 80) else f"{shown}:{port}")
