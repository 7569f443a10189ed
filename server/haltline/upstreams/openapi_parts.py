"""What one operation takes: its parameters and body, as arguments of a tool, and the schema that these must fit.

Parameters stand at the top level of the arguments, the body under `body`. Two parameters of one name are told apart by
their place (`id` in the path, `query_id`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from haltline.policy.schemas import compile_schema
from haltline.upstreams.openapi_document import Documents, Unfit
from haltline.upstreams.openapi_request import BODY, FRAMING, Body, Parameter
from haltline.upstreams.openapi_schema import Schemas, without_patterns
from haltline.upstreams.openapi_styles import STYLES

__all__ = ["Context", "Input", "input_of"]

MAX_PARAMETERS = 200
MAX_ARGUMENT = 64
MAX_SAID = 2_000
_PLACES = ("path", "query", "header", "cookie")
_IGNORED_HEADERS = FRAMING | {"accept", "authorization"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+*-]{1,100}/[A-Za-z0-9!#$&^_.+*-]{1,100}")
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Context:
    """The documents, their version, and what configuration sends itself."""

    documents: Documents
    version: str
    taken: frozenset[str]


@dataclass(frozen=True, slots=True)
class Input:
    """What an operation takes."""

    parameters: tuple[Parameter, ...]
    body: Body | None
    accept: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Described:
    raw: Mapping[str, Any]
    at: str
    name: str
    place: str


def input_of(context: Context, operation: Mapping[str, Any], item: Mapping[str, Any], at: str) -> Input:
    """Raises Unfit."""
    schemas = Schemas(context.documents, context.version)
    properties: dict[str, Any] = {}
    required: list[str] = []
    described = _described(context, operation, item, at)
    body = _body(context, schemas, operation, at, properties, required)
    parameters = []
    for one in described:
        argument = _argument(one, properties)
        parameters.append(_parameter(one, argument, schemas, properties))
        if one.place == "path" or one.raw.get("required") is True:
            required.append(argument)
    schema: dict[str, Any] = {"type": "object", "properties": _body_last(properties), "additionalProperties": False}
    if required:
        schema["required"] = sorted(required, key=list(schema["properties"]).index)
    if schemas.definitions:
        schema["$defs"] = schemas.definitions
    return Input(tuple(parameters), body, _accept(context, operation, at), _usable(schema))


def _described(context: Context, operation: Mapping[str, Any], item: Mapping[str, Any], at: str) -> list[_Described]:
    """Those of the path and those of the operation, which win; without those that are not an agent's to send."""
    found: dict[tuple[str, str], _Described] = {}
    for raw in [*_list(item.get("parameters")), *_list(operation.get("parameters"))]:
        one, where = context.documents.follow(raw, at)
        name, place = one.get("name"), one.get("in")
        if not isinstance(name, str) or not name or place not in _PLACES:
            raise Unfit("a parameter has no name or no place")
        found[place, name.lower() if place == "header" else name] = _Described(one, where, name, place)
    if len(found) > MAX_PARAMETERS:
        raise Unfit(f"it has more than {MAX_PARAMETERS} parameters")
    kept = [one for one in found.values() if not _not_an_agents(one, context.taken)]
    if any(one.place == "header" and not _TOKEN.fullmatch(one.name) for one in kept):
        raise Unfit("a header's name is none")
    return sorted(kept, key=lambda one: _PLACES.index(one.place))


def _not_an_agents(one: _Described, taken: frozenset[str]) -> bool:
    name = one.name.lower()
    if one.place == "header":
        return name in _IGNORED_HEADERS or f"header:{name}" in taken
    return f"query:{name}" in taken if one.place == "query" else one.place == "cookie" and "header:cookie" in taken


def _argument(one: _Described, taken: Mapping[str, Any]) -> str:
    plain = _OTHER.sub("_", one.name).strip("_")[:MAX_ARGUMENT] or one.place
    candidates = [plain, f"{one.place}_{plain}"[:MAX_ARGUMENT]]
    candidates += [f"{plain[: MAX_ARGUMENT - 4]}_{number}" for number in range(2, MAX_PARAMETERS + 4)]
    return next(name for name in candidates if name not in taken)


def _parameter(one: _Described, argument: str, schemas: Schemas, properties: dict[str, Any]) -> Parameter:
    raw = one.raw
    content = _mapping(raw.get("content"))
    as_json = bool(content)
    if as_json and not all(_is_json(str(kind)) for kind in content):
        raise Unfit(f"its parameter {one.name[:80]} is written in {next(iter(content))[:60]}")
    media = next(iter(content.values())) if as_json else raw
    schema = schemas.translated(media.get("schema", {}) if isinstance(media, dict) else {}, one.at)
    said = _said(raw, one.name if argument != one.name else "")
    if said:
        schema = {**(schema if isinstance(schema, dict) else {}), "description": said}
    properties[argument] = schema
    default = "simple" if one.place in {"path", "header"} else "form"
    style = raw.get("style", default)
    if not isinstance(style, str) or style not in STYLES[one.place]:
        raise Unfit(f"its parameter {one.name[:80]} has the style {str(style)[:40]}, which is none for a {one.place}")
    explode = raw.get("explode", style == "form")
    reserved = raw.get("allowReserved") is True
    return Parameter(argument, one.name, one.place, style, explode is True, reserved, as_json)  # type: ignore[arg-type]


def _body(
    context: Context,
    schemas: Schemas,
    operation: Mapping[str, Any],
    at: str,
    properties: dict[str, Any],
    required: list[str],
) -> Body | None:
    if "requestBody" not in operation:
        return None
    raw, where = context.documents.follow(operation["requestBody"], at)
    content = _mapping(raw.get("content"))
    kinds = list(content)
    chosen = _chosen(kinds)
    if chosen is None:
        if (kinds and raw.get("required") is True) or any(_is_file(kind) for kind in kinds):
            raise Unfit(f"its body is {', '.join(kind[:60] for kind in kinds[:3])}; JSON, forms and text are sent")
        return None
    kind, media_type = chosen
    media, where = context.documents.follow(content[media_type], where)
    schema = {"type": "string"} if kind == "text" else schemas.translated(media.get("schema", {}), where)
    said = _said(raw, "")
    properties[BODY] = {**schema, "description": said} if said and isinstance(schema, dict) else schema
    if raw.get("required") is True:
        required.append(BODY)
    sent = (
        {"json": _JSON, "form": _FORM, "text": "text/plain; charset=utf-8"}[kind] if "*" in media_type else media_type
    )
    return Body(sent, kind, _encoding(media) if kind == "form" else {})  # type: ignore[arg-type]


def _chosen(kinds: list[str]) -> tuple[str, str] | None:
    usable = [kind for kind in kinds if _MEDIA_TYPE.fullmatch(_bare(kind)) and kind.isprintable()]
    for name, fits in (
        ("json", lambda kind: _bare(kind) == _JSON),
        ("json", _is_json),
        ("form", lambda kind: _bare(kind) == _FORM),
        ("text", lambda kind: _bare(kind).startswith("text/")),
        ("json", lambda kind: _bare(kind) == "*/*"),
    ):
        found = next((kind for kind in usable if fits(kind)), None)
        if found is not None:
            return name, found
    return None


def _encoding(media: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    raw = media.get("encoding")
    styles: dict[str, tuple[str, bool]] = {}
    for name, one in raw.items() if isinstance(raw, dict) else ():
        if isinstance(one, dict) and ("style" in one or "explode" in one):
            style = one.get("style", "form")
            if not isinstance(style, str) or style not in STYLES["query"]:
                raise Unfit(f"the style {str(style)[:40]} is none for a form")
            styles[name] = (style, one.get("explode", style == "form") is True)
    return styles


def _accept(context: Context, operation: Mapping[str, Any], at: str) -> str:
    """What it answers with, JSON first; anything else is taken too."""
    responses = operation.get("responses")
    kinds: list[str] = []
    for status, raw in responses.items() if isinstance(responses, dict) else ():
        if str(status)[:1] == "2":
            try:
                response, _ = context.documents.follow(raw, at)
            except Unfit:
                continue  # nothing about an answer keeps a call from being made
            kinds += _mapping(response.get("content"))
    json = [kind for kind in dict.fromkeys(kinds) if _is_json(kind) and _MEDIA_TYPE.fullmatch(kind)]
    return ", ".join([*(json[:3] or [_JSON]), "*/*;q=0.1"])


def _usable(schema: dict[str, Any]) -> dict[str, Any]:
    """Checked as it will be for each call: an argument schema that cannot be compiled would refuse every one."""
    try:
        compile_schema(schema)
    except ValueError:
        bare: dict[str, Any] = without_patterns(schema)
        try:
            compile_schema(bare)
        except ValueError as error:
            raise Unfit(f"the schema of its arguments cannot be used: {str(error)[:200]}") from error
        return bare
    return schema


def _said(raw: Mapping[str, Any], name: str) -> str:
    said = raw.get("description")
    text = said.strip()[:MAX_SAID] if isinstance(said, str) else ""
    return f"{text} (sent as {name})".strip() if name else text


def _body_last(properties: dict[str, Any]) -> dict[str, Any]:
    rest = {name: schema for name, schema in properties.items() if name != BODY}
    return {**rest, BODY: properties[BODY]} if BODY in properties else rest


def _bare(kind: str) -> str:
    return kind.partition(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    bare = _bare(kind)
    return bare == _JSON or bare.endswith(("+json", "/json"))


def _is_file(kind: str) -> bool:
    return _bare(kind).startswith(("multipart/", "application/octet-stream", "image/", "audio/", "video/"))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else ()
