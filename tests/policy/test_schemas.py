"""JSON Schema checks: nothing fetched, values never quoted, what cannot be checked is not let through."""

from __future__ import annotations

import http.server
import threading
from types import MappingProxyType

import pytest

from haltline.policy.schemas import InputSchemas, compile_schema

SCHEMA = {"type": "object", "properties": {"amount": {"type": "string"}, "n": {"minimum": 3}}, "required": ["amount"]}


def test_arguments_that_fit_say_nothing():
    assert compile_schema(SCHEMA)({"amount": "5"}) is None
    assert compile_schema(SCHEMA)(MappingProxyType({"amount": "5"})) is None


def test_what_does_not_fit_is_named_by_its_key_and_never_by_its_value():
    check = compile_schema(SCHEMA)
    assert check({}) == '"amount" is a required property'
    said = check({"amount": 123456789})
    assert said is not None
    assert said.startswith("amount: value is not of type")
    assert "123456789" not in said


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"properties": {"a": {"pattern": "("}}},
        {"$ref": "#/$defs/nowhere"},
        {"$schema": "http://example.com/unknown"},
        {"properties": []},
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema):
    with pytest.raises(ValueError, match="not a usable JSON Schema"):
        compile_schema(schema)


def test_a_reference_to_elsewhere_is_refused_and_not_fetched():
    asked = []

    class Seen(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(500)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Seen)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with pytest.raises(ValueError, match="nothing is fetched"):
            compile_schema({"$ref": f"http://127.0.0.1:{server.server_port}/schema.json"})
        with pytest.raises(ValueError, match="nothing is fetched"):
            compile_schema({"properties": {"a": {"$ref": "file:///etc/hostname"}}})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked == []


@pytest.mark.promise("P6")
def test_a_tool_whose_own_schema_is_broken_lets_no_arguments_through():
    said = InputSchemas().problem({"type": "nonsense"}, {})
    assert said is not None
    assert said.startswith("the tool's inputSchema cannot be used")


def test_a_changed_schema_is_compiled_anew():
    schemas = InputSchemas()
    old, new = {"required": ["a"]}, {"required": ["b"]}
    assert schemas.problem(old, {"a": 1}) is None
    assert schemas.problem(new, {"a": 1}) is not None
    assert schemas.problem(old, {"a": 1}) is None


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({"$ref": "#"}, {}),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, {}),
        ({"properties": {"a": {"pattern": "^(a|a)+(?=b)$"}}}, {"a": "a" * 60}),
        ({"properties": {"a": {"type": "string"}}}, {"a": "\ud800"}),
        ({"properties": {"a": {"minimum": 1}}}, {"a": 2**5000}),
    ],
)
def test_hostile_schemas_and_arguments_get_an_answer(schema, arguments):
    said = compile_schema(schema)(arguments)
    assert said is None or isinstance(said, str)
