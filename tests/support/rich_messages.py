"""What the rich upstream sends: every field that revisions of MCP know, fields that none knows, nulls, big numbers.

One table for both sides of a comparison: a tool's, prompt's or resource's name leads to what is answered.
"""

from __future__ import annotations

from typing import Any

__all__ = ["CAPABILITIES", "LISTS", "NOTICES", "PROMPTS", "READ", "RESULTS", "TOOLS"]

BIG = 2**63 + 12345678901234567890
ODD: dict[str, Any] = {
    "null": None,
    "big": BIG,
    "small": -BIG,
    "int": 1,
    "float": 1.0,
    "tiny": 5e-324,
    "exact": 0.1,
    "bool": True,
    "empty": {},
    "none": [],
    "deep": [[[{"a": [None, False, "", 0]}]]],
    "text": '\u0000\u001f\u2028\u202e\ufeff é 😀 <&>\\"/',
    "": "an empty key",
    "constructor": {"__proto__": 1},
}
SEEN = {key: value for key, value in ODD.items() if key != "text"} | {"text": 'é 😀 <&>\\"/'}
"""Without characters that hide: a definition that holds such is looked at before it is served."""
ICONS = [{"src": "data:image/png;base64,AA==", "mimeType": "image/png", "sizes": ["48x48", "any"], "theme": "dark"}]
NOTES = {"audience": ["user", "assistant"], "priority": 1, "lastModified": "2026-01-12T15:00:58Z", "x-more": ODD}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"thing": {"type": ["string", "null"], "default": None, "x-vendor": None}},
    "properties": {"a": {"$ref": "#/$defs/thing"}, "n": {"type": "integer", "maximum": 2**80, "title": "N"}},
    "additionalProperties": True,
    "x-vendor": SEEN,
}
CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": True, "x-more": ODD},
    "prompts": {"listChanged": False},
    "resources": {"subscribe": False, "listChanged": False},
    "completions": {},
    "logging": {},
    "experimental": {"x/feature": ODD},
    "extensions": {"x/extension": {"on": True}},
}


def _text(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


BLOCKS = [
    _text("plain"),
    _text("noted", annotations=NOTES, _meta={"x/y": ODD}, **{"x-more": ODD}),
    {"type": "image", "data": "AA==", "mimeType": "image/png", "annotations": {"priority": 0.5}, "_meta": {"n": None}},
    {"type": "audio", "data": "AA==", "mimeType": "audio/wav", "annotations": None},
    {
        "type": "resource_link", "uri": "x://a?b#c", "name": "a", "title": "A", "description": "d", "mimeType": "a/b",
        "size": BIG, "icons": ICONS, "annotations": NOTES, "_meta": {}, "x-more": None,
    },
    {"type": "resource", "resource": {"uri": "x://t", "mimeType": None, "text": "t", "_meta": {"a": None}, "x": ODD}},
    {"type": "resource", "resource": {"uri": "x://b", "mimeType": "a/b", "blob": "AA=="}, "annotations": NOTES},
    {"type": "x-hologram", "beam": ODD},
    {"type": None, "odd": True},
]  # fmt: skip

RESULTS: dict[str, dict[str, Any]] = {
    "every_block": {"result": {"content": BLOCKS, "isError": False, "_meta": {"x/y": ODD, "n": None}, "x-more": ODD}},
    "structured": {"result": {"content": [_text("{}")], "structuredContent": ODD}},
    "structured_list": {"result": {"content": [], "structuredContent": [1, None, BIG]}},
    "structured_null": {"result": {"content": [], "structuredContent": None, "isError": None}},
    "structured_text": {"result": {"content": [], "structuredContent": "text"}},
    "no_content": {"result": {"structuredContent": {"a": 1}}},
    "nothing": {"result": {}},
    "failed": {"result": {"content": [_text("it failed")], "isError": True, "_meta": {"why": None}}},
    "of_another_type": {"result": {"resultType": "x-vendor", "content": [_text("as it is")], "x": ODD}},
    "with_hints": {"result": {"content": [], "ttlMs": 60_000, "cacheScope": "public", "nextCursor": None}},
    "megabyte": {"result": {"content": [_text("é" * 524_288)]}},
    "error": {"error": {"code": -32602, "message": "no such thing", "data": {"uri": None, "more": ODD}}},
    "error_null": {"error": {"code": -1, "message": "", "data": None}},
    "error_bare": {"error": {"code": 12345, "message": "their own code", "x-more": ODD}},
    "params": {},
    "talks": {"result": {"content": [_text("after all that")]}},
}
"""By tool. `params` answers with what it was sent, `talks` sends the notices first."""

NOTICES: list[dict[str, Any]] = [
    {"method": "notifications/progress", "params": {"progressToken": "TOKEN", "progress": 1}},
    {"method": "notifications/progress", "params": {"progressToken": "TOKEN", "progress": 1.0, "total": 10, "x": ODD}},
    {"method": "notifications/progress", "params": {"progressToken": "TOKEN", "progress": 2, "total": None, "message": "é"}},
    {"method": "notifications/message", "params": {"level": "info", "logger": None, "data": ODD, "_meta": {"a": None}}},
    {"method": "notifications/message", "params": {"level": "emergency", "data": "a string", "x-more": ODD}},
    {"method": "notifications/message", "params": {"level": "debug", "data": None}, "x-top": 1},
    {"method": "notifications/x-vendor", "params": ODD},
    {"method": "notifications/x-vendor"},
    *(
        {"method": "notifications/progress", "params": {"progressToken": "TOKEN", "progress": 3 + number}}
        for number in range(200)
    ),
]  # fmt: skip

TOOLS: list[dict[str, Any]] = [
    {
        "name": "every_block",
        "title": "Every block",
        "description": "All that there is.\n\tWith lines.",
        "icons": ICONS,
        "inputSchema": SCHEMA,
        "outputSchema": None,
        "annotations": {
            "title": "T", "readOnlyHint": True, "destructiveHint": None, "idempotentHint": False, "openWorldHint": True,
            "x-hint": SEEN,
        },
        "execution": {"taskSupport": "optional", "x-more": None},
        "_meta": {"x/y": SEEN, "null": None},
        "x-unknown": SEEN,
        "x-null": None,
    },
    {
        "name": "structured",
        "description": None,
        "inputSchema": {"type": "object", "properties": {}},
        "outputSchema": {"type": "object", "x-vendor": SEEN},
        "title": None,
    },
    *({"name": name, "inputSchema": {"type": "object"}} for name in RESULTS if name not in {"every_block", "structured"}),
]  # fmt: skip

PROMPT_LIST = [
    {
        "name": "ask", "title": "Ask", "description": None, "icons": ICONS, "_meta": {"x": ODD}, "x-more": ODD,
        "arguments": [{"name": "a", "title": "A", "description": "d", "required": True, "x-more": None}],
    },
    {"name": "bare"},
]  # fmt: skip
RESOURCE_LIST = [
    {
        "uri": "x://every", "name": "every", "title": "E", "description": "d", "mimeType": "text/plain", "size": BIG,
        "icons": ICONS, "annotations": NOTES, "_meta": {"x": None}, "x-more": ODD,
    },
    {"uri": "x://bare", "name": "bare"},
]  # fmt: skip
TEMPLATE_LIST = [
    {
        "uriTemplate": "x://{id}/more{?q}", "name": "t", "title": None, "description": "d", "mimeType": "a/b",
        "icons": ICONS, "annotations": NOTES, "_meta": {"x": ODD}, "x-more": ODD,
    }
]  # fmt: skip
LISTS = {
    "tools/list": ("tools", TOOLS),
    "prompts/list": ("prompts", PROMPT_LIST),
    "resources/list": ("resources", RESOURCE_LIST),
    "resources/templates/list": ("resourceTemplates", TEMPLATE_LIST),
}
PROMPTS = {
    "ask": {
        "description": None,
        "messages": [{"role": role, "content": block, "x": None} for block in BLOCKS for role in ("user", "assistant")],
        "_meta": {"x": ODD},
        "x-more": ODD,
    },
    "bare": {"messages": []},
}
READ = {
    "x://every": {
        "contents": [
            {"uri": "x://every", "mimeType": None, "text": "t\r\n", "_meta": {"x": ODD}, "x-more": ODD},
            {"uri": "x://every#b", "mimeType": "a/b", "blob": "AA=="},
        ],
        "_meta": {"null": None},
        "x-more": ODD,
        "ttlMs": 5,
        "cacheScope": "public",
    },
    "x://bare": {"contents": []},
    "x://7/more?q=1": {"contents": [{"uri": "x://7/more?q=1", "text": "by template"}]},
}
