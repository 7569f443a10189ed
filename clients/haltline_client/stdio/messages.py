"""JSON-RPC messages as the bridge sees them: the bytes that travel on unchanged, and the few members it steers by."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

__all__ = ["IDEMPOTENCY_KEY", "Message", "Unreadable", "line", "parse", "read"]

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
IDEMPOTENCY_KEY = "io.haltline/idempotency-key"
KEYED_METHODS = frozenset({"tools/call", "prompts/get", "resources/read"})
PARSE_ERROR, INVALID_REQUEST = -32700, -32600
INTEGER_DIGITS_MAX = 4_000
"""Longer ones are never computed with here, and Python would refuse to read them."""


class Message(NamedTuple):
    """`method` is None for a response, `id` for a notification; `version` is set at 2026-07-28 alone."""

    raw: bytes
    id: int | str | None
    method: str | None
    params: dict[str, Any]
    version: str | None

    @property
    def key(self) -> str | None:
        """Its idempotency key: with one it can be sent again, and outlives its connection at the broker."""
        meta = self.params.get("_meta") if self.method in KEYED_METHODS else None
        key = meta.get(IDEMPOTENCY_KEY) if isinstance(meta, dict) else None
        return key if isinstance(key, str) else None


class Unreadable(NamedTuple):
    """What is wrong with a line, as a JSON-RPC error; `id` where one could be read."""

    code: int
    text: str
    id: int | str | None = None


def parse(text: bytes) -> Any:
    """The value of a JSON text. Raises ValueError."""
    try:
        return _DECODER.decode(text.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read(raw: bytes) -> Message | Unreadable:
    """One line of the host."""
    try:
        value = parse(raw)
    except ValueError:
        return Unreadable(PARSE_ERROR, "this line is not JSON: send one JSON-RPC message a line, in UTF-8")
    if not isinstance(value, dict):
        return Unreadable(INVALID_REQUEST, "send one JSON-RPC object a line; batches are not accepted")
    identifier, method, params = value.get("id"), value.get("method"), value.get("params")
    if "id" in value and (isinstance(identifier, bool) or not isinstance(identifier, int | str)):
        return Unreadable(INVALID_REQUEST, '"id" must be a string or an integer')
    if method is None and identifier is not None and ("result" in value or "error" in value):
        return Message(raw, identifier, None, {}, None)
    if not isinstance(method, str):
        return Unreadable(INVALID_REQUEST, '"method" must be a string', identifier)
    found = params if isinstance(params, dict) else {}
    meta = found.get("_meta")
    version = meta.get(VERSION_KEY) if isinstance(meta, dict) else None
    return Message(raw, identifier, method, found, version if isinstance(version, str) else None)


def line(text: bytes) -> bytes:
    """A JSON text on one line. Line ends can only stand between tokens, so a space in their place changes nothing."""
    return text.replace(b"\r", b" ").replace(b"\n", b" ").strip()


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < INTEGER_DIGITS_MAX else digits


_DECODER = json.JSONDecoder(parse_int=_integer)
