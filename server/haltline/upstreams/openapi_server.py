"""Where an API is, and what it says it wants to be shown: `servers` and `securitySchemes` of a document.

Decides when a document may name the server, which decides who receives the configured credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from haltline.upstreams.model import UpstreamSpec
from haltline.upstreams.openapi_document import Documents, Unfit, Unreadable

__all__ = ["base_url", "security_schemes"]

MAX_SCHEMES = 10


def base_url(spec: UpstreamSpec, root: Mapping[str, Any]) -> str:
    """The configured one, else the document's first server where that is absolute. Raises Unreadable."""
    source = spec.openapi
    assert source is not None
    if source.base_url is not None:
        return source.base_url
    url = _first_server(root)
    parts = _parts(url)
    if parts is None:
        raise Unreadable("it names no absolute address of a server; set base_url")
    home = _parts(source.document)
    if home is not None and home != parts and (spec.headers or source.query):
        # Else whoever writes the document decides who is sent the credentials.
        raise Unreadable(
            f"it comes from {home[1]} and names a server at {parts[1]}; set base_url to send credentials there"
        )
    return url


def security_schemes(documents: Documents) -> tuple[str, ...]:
    """What the document asks for, in words: `bearerAuth (http bearer)`, `key (apiKey in header X-Key)`."""
    components = documents.root.get("components")
    schemes = components.get("securitySchemes") if isinstance(components, dict) else None
    if not isinstance(schemes, dict):
        return ()
    return tuple(_described(documents, name, raw) for name, raw in list(schemes.items())[:MAX_SCHEMES])


def _described(documents: Documents, name: str, raw: Any) -> str:
    try:
        scheme, _ = documents.follow(raw, documents.home)
    except Unfit:
        return name[:60]
    kind = str(scheme.get("type", ""))[:20]
    if kind == "apiKey":
        kind += f" in {str(scheme.get('in', ''))[:10]} {str(scheme.get('name', ''))[:60]}"
    elif kind == "http":
        kind += f" {str(scheme.get('scheme', ''))[:20]}"
    return f"{name[:60]} ({kind})"


def _first_server(root: Mapping[str, Any]) -> str:
    servers = root.get("servers")
    first = servers[0] if isinstance(servers, list) and servers else None
    url = first.get("url") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(url, str):
        return ""
    variables = first.get("variables")
    for name, one in variables.items() if isinstance(variables, dict) else ():
        if isinstance(one, dict) and isinstance(one.get("default"), str):
            url = url.replace(f"{{{name}}}", one["default"])
    return url


def _parts(url: str) -> tuple[str, str] | None:
    """(scheme, host and port) of an absolute address that holds no user and no blanks."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    plain = url.isascii() and url.isprintable() and not any(mark in url for mark in ' @{}<>"\\')
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain or port == 0:
        return None
    return parts.scheme, parts.netloc.lower()
