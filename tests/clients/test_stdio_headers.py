"""The headers that the bridge writes are those that the official SDK writes, for the same tools, arguments and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    NAME_BEARING_METHODS,
    X_MCP_HEADER_KEY,
    classify_inbound_request,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    validate_mcp_param_headers,
    x_mcp_header_map,
)

from haltline_client.stdio import headers as own
from haltline_client.stdio.headers import Tools, encoded, routing
from haltline_client.stdio.messages import Message
from support.stdio_host import META


def _learnt(schema):
    tools = Tools()
    tools.learn({"tools": [{"name": "t", "inputSchema": schema}]})
    return tools


def _annotated(header, kind="string", **more):
    return {"type": kind, X_MCP_HEADER_KEY: header, **more}


def _properties(**properties):
    return {"type": "object", "properties": properties}


@given(st.text())
def test_a_value_is_encoded_as_the_sdk_does(text):
    assert encoded(text) == encode_header_value(text)


@pytest.mark.parametrize("text", ["", " ", "a ", "a\n", "é", "=?base64?YQ==?=", "=?base64?", "a\x7f", "a\tb", "~ x !"])
def test_the_edges_of_encoding_are_the_sdk_s(text):
    assert encoded(text) == encode_header_value(text)


SCHEMAS = [
    None,
    True,
    {},
    _properties(a=_annotated("A"), b={"type": "string"}),
    _properties(a=_annotated("A"), b=_annotated("B", "integer"), c=_annotated("C", "boolean")),
    _properties(a=_properties(b=_properties(c=_annotated("Deep")))),
    _properties(a=_annotated("A"), b=_annotated("a")),
    _properties(a=_annotated("not a token")),
    _properties(a=_annotated("")),
    _properties(a=_annotated(7)),
    _properties(a=_annotated("A", "number")),
    _properties(a=_annotated("A", ["string", "null"])),
    _properties(a={X_MCP_HEADER_KEY: "A"}),
    {**_properties(a=_annotated("A")), X_MCP_HEADER_KEY: "Root"},
    _properties(a={"type": "array", "items": _annotated("A")}),
    {**_properties(a=_annotated("A")), "$defs": {"d": _annotated("D")}},
    {**_properties(a=_annotated("A")), "anyOf": [_properties(b=_annotated("B"))]},
    {**_properties(a=_annotated("A")), "if": _properties(b=_annotated("B"))},
    {**_properties(a=_annotated("A")), "default": _annotated("Data"), "examples": [_annotated("Data")]},
]
ARGUMENTS = [
    {},
    {"a": "x", "b": 1, "c": True},
    {"a": None, "b": None},
    {"a": "é", "b": 10**30, "c": False},
    {"a": {"b": {"c": "deep"}}},
    {"a": {"b": None}},
    {"a": ["x"], "b": 1.0, "c": "text"},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_the_mirrored_arguments_are_the_sdk_s(schema, arguments):
    valid = find_invalid_x_mcp_header(schema) is None
    expected = mcp_param_headers(x_mcp_header_map(schema), arguments) if valid else {}
    written = _learnt(schema).headers("t", arguments)
    assert written == expected
    assert validate_mcp_param_headers(schema, arguments, written) is None


@pytest.mark.parametrize(("method", "params"), [
    ("tools/call", {"name": "répay"}), ("prompts/get", {"name": " p"}), ("resources/read", {"uri": "file:///ü"}),
    ("tools/list", {"name": "no"}), ("tools/call", {}), ("server/discover", {}),
])  # fmt: skip
def test_the_sdk_s_own_check_takes_the_routing_headers(method, params):
    params = {**params, "_meta": META}
    written = routing(Message(b"", 1, method, params, "2026-07-28"))
    lower = {name.lower(): value for name, value in written.items()}
    route = classify_inbound_request({"method": method, "params": params}, headers=lower)
    assert getattr(route, "protocol_version", route) == "2026-07-28"
    assert ("Mcp-Name" in written) == (method in NAME_BEARING_METHODS and len(params) > 1)


def test_the_tables_of_names_are_the_sdk_s():
    assert dict(NAME_BEARING_METHODS) == own.NAMED


def test_nothing_of_a_message_can_add_a_header():
    hostile = "a\r\nX-Evil: 1"
    message = Message(b"", 1, hostile, {"name": hostile}, hostile)
    assert all(value.isprintable() for value in routing(message).values())


def test_a_list_that_is_odd_is_passed_over():
    tools = Tools()
    for odd in ({}, {"tools": 1}, {"tools": [None, {"name": 1}, {"name": "t", "inputSchema": []}]}):
        tools.learn(odd)
    assert tools.headers("t", {"a": 1}) == {}
    assert tools.headers("other", {}) is None
