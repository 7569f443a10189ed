"""What an address must be that the broker calls by itself. Knows no key of any file."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["web_address"]


def web_address(url: str) -> str | None:
    """What is wrong with an address to call, None if nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is not an address: {error}"
    del port
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "must begin with http:// or https:// and name a host"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user or password (addresses are shown and logged); send them as a header"
    return None
