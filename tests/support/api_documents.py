"""OpenAPI documents for tests: one with every style of parameter, and an upstream made from any of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from haltline.upstreams.model import OpenApiSource, UpstreamSpec
from haltline.upstreams.openapi import OpenApiUpstream

__all__ = ["document", "every_style", "opened", "written_to"]

OBJECT = {"type": "object", "additionalProperties": True}
ARRAY = {"type": "array", "items": {"type": "string"}}


def document(paths: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"openapi": "3.0.3", "info": {"title": "t", "version": "1"}, "paths": paths, **more}


def every_style() -> dict[str, Any]:
    """Operations `query`, `path`, `header`, `cookie`, each with a parameter for each style, and bodies of each kind."""

    def one(place: str, name: str, schema: Any, **more: Any) -> dict[str, Any]:
        return {"name": name, "in": place, "schema": schema, "required": place == "path", **more}

    query = [one("query", f"{style}_{kind}", schema, style=style, explode=explode)
             for style, explode in (("form", True), ("spaceDelimited", False), ("pipeDelimited", False))
             for kind, schema in (("list", ARRAY),)]  # fmt: skip
    query += [
        one("query", "plain", {"type": "string"}),
        one("query", "flat_list", ARRAY, explode=False),
        one("query", "flat_object", OBJECT, explode=False),
        one("query", "open_object", OBJECT),
        one("query", "deep", OBJECT, style="deepObject", explode=True),
        one("query", "free", {"type": "string"}, allowReserved=True),
        {"name": "filter", "in": "query", "content": {"application/json": {"schema": OBJECT}}},
    ]
    path = [
        one("path", "simple", {"type": "string"}),
        one("path", "label", ARRAY, style="label", explode=True),
        one("path", "matrix", ARRAY, style="matrix"),
    ]

    def body(kind: str, schema: Any, **more: Any) -> dict[str, Any]:
        return {"content": {kind: {"schema": schema, **more}}, "required": True}

    form = body(
        "application/x-www-form-urlencoded", OBJECT, encoding={"deep": {"style": "deepObject", "explode": True}}
    )
    return document(
        {
            "/query": {"get": {"operationId": "query", "parameters": query}},
            "/path/{simple}/{label}/x{matrix}": {"get": {"operationId": "path", "parameters": path}},
            "/header": {
                "get": {
                    "operationId": "header",
                    "parameters": [
                        one("header", "X-Plain", {"type": "string"}),
                        one("header", "X-List", ARRAY),
                        one("header", "X-Object", OBJECT, explode=True),
                        one("cookie", "session", {"type": "string"}),
                        one("cookie", "tags", ARRAY, explode=False),
                    ],
                }
            },
            "/json": {"post": {"operationId": "json", "requestBody": body("application/json", {})}},
            "/vendor": {"put": {"operationId": "vendor", "requestBody": body("application/vnd.x+json", OBJECT)}},
            "/form": {"post": {"operationId": "form", "requestBody": form}},
            "/text": {"post": {"operationId": "text", "requestBody": body("text/plain", {"type": "string"})}},
            "/any": {method: {"operationId": method} for method in ("get", "head", "post", "patch", "delete", "options")},
        }
    )  # fmt: skip


def written_to(folder: Path, content: dict[str, Any], name: str = "api.json") -> str:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return str(folder / name)


@asynccontextmanager
async def opened(
    content: dict[str, Any] | str,
    url: str | None,
    folder: Path,
    *,
    headers: dict[str, str] | None = None,
    source: dict[str, Any] | None = None,
    tls: Any = None,
    **more: Any,
) -> AsyncIterator[Any]:
    """An upstream `crm` whose tools have been listed, with private addresses allowed."""
    at = content if isinstance(content, str) else written_to(folder, content)
    described = OpenApiSource(at, **{"base_url": url, "allow_private": True, **(source or {})})
    upstream = OpenApiUpstream(UpstreamSpec("crm", headers=headers or {}, openapi=described, **more), tls=tls)
    try:
        await upstream.list_tools()
        yield upstream
    finally:
        await upstream.aclose()
