"""What the doctor sees of an HTTP API: whether its document can be used, where it leads, what credentials it asks for.

Reads a document that is a file, and fetches none.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from haltline.setup.doctor.finding import Finding
from haltline.setup.listeners import is_loopback
from haltline.upstreams.model import OpenApiSource, UpstreamSpec
from haltline.upstreams.openapi_document import MAX_JSON_BYTES, Documents, Unreadable, parse, version_of
from haltline.upstreams.openapi_server import base_url, security_schemes
from haltline.upstreams.openapi_source import is_address

__all__ = ["description"]


def description(spec: UpstreamSpec) -> Finding:
    source = spec.openapi
    assert source is not None
    if is_address(source.document):
        return _leading(spec, source, source.base_url or source.document, ())
    try:
        root = _read(Path(source.document))
        url = base_url(spec, root)
    except Unreadable as error:
        to_do = "name a file that is there" if not Path(source.document).exists() else "mend it, or name another"
        return Finding("upstreams", "fail", f"{spec.name}: {source.document}: {error}", to_do)
    return _leading(spec, source, url, security_schemes(Documents(source.document, root)))


def _leading(spec: UpstreamSpec, source: OpenApiSource, url: str, schemes: tuple[str, ...]) -> Finding:
    parts = urlsplit(url)
    shown = f"{spec.name}: {parts.scheme}://{parts.netloc}"
    carries = bool(spec.headers or source.query or spec.credentials)
    if carries and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        return Finding("upstreams", "warn", f"{shown}: its headers and query travel in the clear", "use https://")
    if schemes and not carries:
        text = f"{shown}: it asks for {' or '.join(schemes)}, and no headers or query are configured"
        return Finding("upstreams", "warn", text, "give it a credential under headers or query, if it needs one")
    return Finding("upstreams", "ok", f"{shown}, described by {Path(source.document).name}")


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as opened:
            root = parse(opened.read(MAX_JSON_BYTES + 1))
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    version_of(root)
    return dict(root)
