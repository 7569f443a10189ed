"""Which operations become tools, under which names and with which schemas; which do not, and what is said about them."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import pytest

from haltline.policy.schemas import compile_schema
from haltline.upstreams.definition import digest_of
from haltline.upstreams.openapi_document import Documents, Unfit, Unreadable, parse
from haltline.upstreams.openapi_operations import DESTINATION, Filters, compile_api
from haltline.upstreams.openapi_schema import Schemas

OK = {"200": {"description": "ok"}}


def api(paths: Any, *, version: str = "3.0.3", include=(), exclude=(), taken=(), others=None, **more: Any) -> Any:
    root = {"openapi": version, "info": {"title": "t", "version": "1"}, "paths": paths, **more}
    documents = Documents("api.yaml", root, others or {})
    return compile_api(documents, Filters(include, exclude), taken=frozenset(taken), destination="api.example.com")


def operation(version: str = "3.0.3", **op: Any) -> Any:
    """The one operation of a document that has no other."""
    more = {key: op.pop(key) for key in ("components", "taken") if key in op}
    path = op.pop("path", "/x")
    method = op.pop("method", "get")
    made = api({path: {method: {"operationId": "op", "responses": OK, **op}}}, version=version, **more)
    if not made.operations:
        raise Unfit(made.refused[0][1])
    return made.operations["op"]


def schema_of(**op: Any) -> dict[str, Any]:
    return operation(**op).definition["inputSchema"]


def param(name: str, place: str = "query", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": {"type": "string"}, **more}


def body(schema: Any, kind: str = "application/json", **more: Any) -> dict[str, Any]:
    return {"method": "post", "requestBody": {"content": {kind: {"schema": schema}}, **more}}


def translated(schema: Any, version: str = "3.0.3", **components: Any) -> Any:
    return schema_of(version=version, components={"schemas": components}, **body(schema))["properties"]["body"]


# Names


def test_a_name_is_the_operation_s_id_mapped_or_its_method_and_path():
    made = api(
        {
            "/contacts": {"get": {"operationId": "listContacts"}, "post": {"operationId": "contacts/create: new one"}},
            "/contacts/{id}": {"parameters": [param("id", "path")], "get": {}, "delete": {"operationId": "öäü"}},
        }
    )
    assert sorted(made.operations) == [
        "DELETE_contacts_id",
        "GET_contacts_id",
        "contacts_create_new_one",
        "listContacts",
    ]


def test_two_operations_that_come_to_one_name_are_told_apart_whatever_their_order_is():
    paths = {
        "/a": {"get": {"operationId": "x/list"}},
        "/b": {"get": {"operationId": "x list"}},
        "/c": {"get": {"operationId": "x_list"}},
        "/d": {"get": {"operationId": "same"}, "put": {"operationId": "same"}},
    }
    names = {name: one.path for name, one in api(paths).operations.items()}
    assert names["x_list"] == "/c"
    assert len(names) == 5
    assert "same" not in names
    assert names == {name: one.path for name, one in api(dict(reversed(paths.items()))).operations.items()}


def test_a_name_stays_when_other_operations_come_and_go():
    some = {"/a": {"get": {"operationId": "a b"}}, "/c": {"get": {}}}
    more = {**some, "/0": {"get": {"operationId": "first"}}, "/z": {"post": {}}}
    assert set(api(some).operations) <= set(api(more).operations)


@pytest.mark.parametrize(
    "said", ["../../etc/passwd", "a\r\nb", "x" * 5_000, "\u202eevil", "a\0b", "💥", "", 7, None, ["a"]]
)
def test_a_name_never_holds_what_names_may_not(said):
    [name] = api({"/x": {"get": {"operationId": said}}}).operations
    assert name.isascii()
    assert name.replace("_", "a").replace("-", "a").isalnum()
    assert len(name) <= 64


# What is shown


def test_a_tool_says_what_the_document_says_and_where_it_leads():
    shown = operation(summary="List them", description="All of them.\n", deprecated=True).definition
    assert shown["title"] == "List them"
    assert shown["description"] == "Deprecated. List them\n\nAll of them.\n\nGET /x at api.example.com"
    assert shown["_meta"] == {DESTINATION: "api.example.com"}
    assert operation().definition["description"] == "GET /x at api.example.com"


@pytest.mark.promise("P11")
def test_another_path_method_or_host_is_another_definition_to_whoever_pins_it():
    def digest(path, method, host):
        root = {"openapi": "3.0.0", "paths": {path: {method: {"operationId": "op"}}}}
        made = compile_api(Documents("a", root), Filters(), taken=frozenset(), destination=host)
        return digest_of(made.operations["op"].definition)

    first = digest("/a", "post", "x")
    assert first == digest("/a", "post", "x")
    assert first not in {digest("/b", "post", "x"), digest("/a", "patch", "x"), digest("/a", "post", "y")}


HINTS = {
    "get": {"readOnlyHint": True},
    "head": {"readOnlyHint": True},
    "put": {"readOnlyHint": False, "idempotentHint": True},
    "delete": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
    "post": {"readOnlyHint": False},
    "patch": {"readOnlyHint": False},
}


@pytest.mark.parametrize("method", HINTS)
def test_a_method_becomes_hints(method):
    assert operation(method=method).definition["annotations"] == {**HINTS[method], "openWorldHint": True}


# Filters


def test_operations_are_chosen_by_id_or_by_method_and_path():
    paths = {
        "/contacts": {"get": {"operationId": "listContacts"}, "post": {"operationId": "addContact"}},
        "/contacts/{id}": {
            "parameters": [param("id", "path")],
            "get": {"operationId": "getContact"},
            "delete": {"operationId": "deleteContact"},
        },
        "/admin/reset": {"post": {"operationId": "reset"}},
    }

    def chosen(include=(), exclude=()):
        return set(api(paths, include=include, exclude=exclude).operations)

    assert chosen(["listContacts", "get*"]) == {"listContacts", "getContact"}
    assert chosen(["GET /contacts/*"]) == {"getContact"}
    assert chosen(["* /contacts*"], ["DELETE *"]) == {"listContacts", "addContact", "getContact"}
    assert chosen(exclude=["* /admin/*"]) == {"listContacts", "addContact", "getContact", "deleteContact"}
    assert api(paths, include=["getContacts", "list*"]).idle == ("getContacts",)


# Parameters and body


def test_parameters_stand_at_the_top_and_the_body_under_body():
    schema = schema_of(
        path="/c/{id}",
        parameters=[param("q", required=True), param("id", "path"), param("X-Trace", "header"), param("s", "cookie")],
        **body({"type": "object", "properties": {"a": {"type": "integer"}}}, required=True),
    )
    assert list(schema["properties"]) == ["id", "q", "X-Trace", "s", "body"]
    assert schema["required"] == ["id", "q", "body"]
    assert schema["additionalProperties"] is False


def test_parameters_of_the_path_hold_unless_the_operation_has_its_own():
    made = api(
        {
            "/x": {
                "parameters": [param("a", description="of the path"), param("b")],
                "get": {"operationId": "op", "parameters": [param("a", description="of the operation")]},
            }
        }
    )
    properties = made.operations["op"].definition["inputSchema"]["properties"]
    assert properties == {"a": {"type": "string", "description": "of the operation"}, "b": {"type": "string"}}


def test_equal_names_in_several_places_are_told_apart():
    made = operation(
        path="/x/{id}", parameters=[param("id", "path"), param("id"), param("id", "header"), param("body")], **body({})
    )
    assert [(one.argument, one.name, one.place) for one in made.parameters] == [
        ("id", "id", "path"), ("query_id", "id", "query"), ("query_body", "body", "query"), ("header_id", "id", "header"),
    ]  # fmt: skip


def test_names_that_arguments_may_not_have_are_mapped_and_said():
    made = operation(parameters=[param("filter[name]"), param("filter.name"), param("[]"), param("$top")])
    assert [one.argument for one in made.parameters] == ["filter_name", "filter.name", "query", "top"]
    assert "sent as filter[name]" in made.definition["inputSchema"]["properties"]["filter_name"]["description"]


def test_what_configuration_sends_and_what_frames_a_request_is_no_argument():
    made = operation(
        parameters=[
            *(param(name, "header") for name in ("Authorization", "Accept", "Content-Type", "Host", "content-length")),
            param("X-Api-Key", "header", required=True), param("KEY", required=True), param("q"), param("sid", "cookie"),
        ],
        taken=["header:x-api-key", "query:key", "header:cookie"],
    )  # fmt: skip
    assert [one.argument for one in made.parameters] == ["q"]
    assert "required" not in made.definition["inputSchema"]


def test_defaults_of_styles_are_those_of_openapi():
    made = operation(
        path="/x/{p}", parameters=[param("p", "path"), param("q"), param("H", "header"), param("c", "cookie")]
    )
    assert [(one.style, one.explode) for one in made.parameters] == [
        ("simple", False), ("form", True), ("simple", False), ("form", True),
    ]  # fmt: skip


def test_the_kind_of_a_body_is_json_before_forms_before_text():
    def sent(*kinds):
        made = operation(method="post", requestBody={"content": {kind: {} for kind in kinds}})
        return None if made.body is None else (made.body.kind, made.body.media_type)

    assert sent("text/plain", "application/x-www-form-urlencoded", "application/json") == ("json", "application/json")
    assert sent("application/vnd.api+json") == ("json", "application/vnd.api+json")
    assert sent("text/plain", "application/x-www-form-urlencoded") == ("form", "application/x-www-form-urlencoded")
    assert sent("text/csv") == ("text", "text/csv")
    assert sent("*/*") == ("json", "application/json")
    assert sent("multipart/form-data", "application/json") == ("json", "application/json")
    assert sent("application/json\r\nX-Evil: 1") is None


REFUSED = {
    "multipart": (body({}, "multipart/form-data"), "multipart/form-data; JSON, forms and text"),
    "bytes": (body({}, "application/octet-stream"), "octet-stream"),
    "xml that must be sent": (body({}, "application/xml", required=True), "application/xml"),
    "a style that is none": ({"parameters": [param("a", style="deepObject", **{"in": "header"})]}, "deepObject"),
    "a style of another kind": ({"parameters": [param("a", style=["x"])]}, "style"),
    "no parameter for the path": ({"path": "/x/{id}"}, "no parameter describes {id}"),
    "a parameter without a name": ({"parameters": [{"in": "query"}]}, "no name"),
    "a parameter in a place that is none": ({"parameters": [param("a", "formData")]}, "no place"),
    "a header's name that is none": ({"parameters": [param("a: b\r\nc", "header")]}, "header's name"),
    "a parameter in XML": ({"parameters": [{"name": "a", "in": "query", "content": {"text/xml": {}}}]}, "text/xml"),
    "a server of its own": ({"servers": [{"url": "https://elsewhere.example"}]}, "server of its own"),
    "a path that leads upward": ({"path": "/x/../y"}, "upward"),
    "a path to another host": ({"path": "//evil.example/x"}, "begin with one /"),
    "a path that is none": ({"path": "x"}, "begin with one /"),
    "a path with a fragment": ({"path": "/x#y"}, "what no path may"),
    "a path with a line break": ({"path": "/x\r\nX: y"}, "what no path may"),
    "a path with a strange query": ({"path": "/x?a=b c"}, "what no path may"),
    "a reference to nowhere": (body({"$ref": "#/components/schemas/Nope"}), "not there"),
    "a reference to another document": (body({"$ref": "https://x.example/s.json"}), "remote_refs"),
    "a parameter that refers to itself": (
        {"parameters": [{"$ref": "#/components/parameters/P"}],
         "components": {"parameters": {"P": {"$ref": "#/components/parameters/P"}}}},
        "itself",
    ),
    "too many parameters": ({"parameters": [param(f"p{n}") for n in range(201)]}, "more than 200"),
}  # fmt: skip


@pytest.mark.parametrize(("op", "said"), REFUSED.values(), ids=REFUSED)
def test_an_operation_that_cannot_be_sent_is_no_tool_and_says_why(op, said):
    with pytest.raises(Unfit) as caught:
        operation(**op)
    assert said in str(caught.value)


def test_one_operation_that_cannot_be_a_tool_costs_no_other():
    made = api(
        {
            "/a": {"get": {"operationId": "a", "parameters": "nonsense"}},
            "/b": {"get": {"operationId": "b", "parameters": [7]}},
            "/c": {"$ref": "#/nowhere"},
            "/d": 7,
            "/e": {"get": "nonsense", "trace": {}},
            "x-extension": {"get": {}},
        }
    )
    assert set(made.operations) == {"a"}
    assert {label for label, _ in made.refused} == {"GET /b", "/c", "/d", "TRACE /e"}


def test_a_query_that_is_written_into_a_path_is_sent():
    made = operation(path="/x?beta=true")
    assert (made.path, made.fixed_query) == ("/x", "beta=true")


# Schemas


def test_what_3_0_writes_differently_becomes_json_schema():
    assert translated({"type": "string", "nullable": True, "enum": ["a"]}) == {
        "type": ["string", "null"],
        "enum": ["a", None],
    }
    assert translated({"type": "integer", "minimum": 3, "exclusiveMinimum": True}) == {
        "type": "integer",
        "exclusiveMinimum": 3,
    }
    assert translated({"type": "integer", "maximum": 3, "exclusiveMaximum": False}) == {"type": "integer", "maximum": 3}
    assert translated({"type": "string", "example": "x", "xml": {}, "discriminator": {}, "x-own": 1}) == {
        "type": "string",
        "examples": ["x"],
    }
    assert translated({"allOf": [{"type": "object"}], "nullable": True}) == {
        "anyOf": [{"allOf": [{"type": "object"}]}, {"type": "null"}]
    }
    assert translated({"$ref": "#/components/schemas/A", "description": "ignored"}, A={"type": "string"}) == {
        "$ref": "#/$defs/A"
    }


def test_what_3_1_writes_stays():
    schema = {
        "type": ["string", "null"], "const": "a", "examples": ["a"], "prefixItems": [{"type": "string"}],
        "exclusiveMinimum": 3, "if": {"minLength": 1}, "then": {}, "dependentRequired": {"a": ["b"]},
    }  # fmt: skip
    assert translated(schema, "3.1.0") == schema
    assert translated({"$ref": "#/components/schemas/A", "description": "kept"}, "3.1.0", A=True) == {
        "$ref": "#/$defs/A",
        "description": "kept",
    }


def test_recursive_schemas_stay_recursive_and_are_checked():
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}, "n": {"type": "integer"}}}
    schema = schema_of(components={"schemas": {"Node": node}}, **body({"$ref": "#/components/schemas/Node"}))
    check = compile_schema(schema)
    assert check({"body": {"next": {"next": {"n": 1}}}}) is None
    assert "integer" in str(check({"body": {"next": {"next": {"n": "x"}}}}))


def test_dynamic_references_to_the_schema_around_them_are_recursive_ones():
    old = {"$recursiveAnchor": True, "anyOf": [{"type": "string"}, {"type": "array", "items": {"$recursiveRef": "#"}}]}
    new = {"$dynamicAnchor": "me", "anyOf": [{"type": "string"}, {"type": "array", "items": {"$dynamicRef": "#me"}}]}
    for schema in (old, new):
        made = schema_of(
            version="3.1.0", components={"schemas": {"F": schema}}, **body({"$ref": "#/components/schemas/F"})
        )
        check = compile_schema(made)
        assert check({"body": [["a"], "b"]}) is None
        assert check({"body": [[7]]})
    with pytest.raises(Unfit, match="dynamicRef"):
        translated({"$dynamicRef": "#elsewhere"}, "3.1.0")


@pytest.mark.parametrize(
    "loop", [{"A": {"$ref": "#/components/schemas/A"}}, {"A": {"allOf": [{"$ref": "#/components/schemas/A"}]}}]
)
def test_schemas_that_only_refer_to_themselves_end(loop):
    schema = schema_of(components={"schemas": loop}, **body({"$ref": "#/components/schemas/A"}))
    compile_schema(schema)({"body": 1})


def test_definitions_of_one_name_in_two_places_are_told_apart():
    schema = schema_of(
        components={"schemas": {"A": {"type": "string"}}, "other": {"A": {"type": "integer"}}},
        **body({"properties": {"a": {"$ref": "#/components/schemas/A"}, "b": {"$ref": "#/components/other/A"}}}),
    )
    check = compile_schema(schema)
    assert check({"body": {"a": "x", "b": 1}}) is None
    assert check({"body": {"a": 1}})
    assert check({"body": {"b": "x"}})


def test_what_the_server_alone_writes_need_not_be_sent():
    schema = {"type": "object", "required": ["id", "name"], "properties": {"id": {"readOnly": True}, "name": {}}}
    assert translated(schema)["required"] == ["name"]


def test_patterns_of_another_dialect_are_left_out_rather_than_the_operation():
    schema = schema_of(
        **body({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?<x"}, "pattern": {}}})
    )
    assert schema["properties"]["body"]["properties"] == {"a": {"type": "string"}, "pattern": {}}


def test_schemas_that_are_too_deep_or_too_large_are_refused():
    deep: Any = {}
    for _ in range(60):
        deep = {"type": "array", "items": deep}
    with pytest.raises(Unfit, match="nested too deeply"):
        translated(deep)
    parts = {
        f"S{n}": {"properties": {f"p{m}": {"$ref": f"#/components/schemas/S{(n + m) % 300}"} for m in range(100)}}
        for n in range(300)
    }
    with pytest.raises(Unfit, match="more than 20000 parts"):
        translated({"$ref": "#/components/schemas/S0"}, **parts)


def test_other_documents_are_used_where_they_were_allowed():
    made = api(
        {"/x": {"post": {"operationId": "op", "requestBody": {"$ref": "parts/bodies.yaml#/Add"}}}},
        others={
            "parts/bodies.yaml": {"Add": {"content": {"application/json": {"schema": {"$ref": "schemas.yaml#/A"}}}}},
            "parts/schemas.yaml": {"A": {"type": "integer"}},
        },
    )
    assert made.operations["op"].definition["inputSchema"]["$defs"] == {"A": {"type": "integer"}}


# Hostile


JUNK: list[Any] = [
    None,
    True,
    7,
    1.5,
    "",
    "x",
    [],
    {},
    [[]],
    {"$ref": "#/paths"},
    {"$ref": 7},
    {"": {}},
    ["$ref"],
    "#/",
    -1,
]
WHOLE = {
    "openapi": "3.1.0",
    "servers": [{"url": "https://{a}.example", "variables": {"a": {"default": "b"}}}],
    "paths": {
        "/x/{id}": {
            "summary": "s",
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "style": "label"}],
            "post": {
                "operationId": "op", "summary": "s", "description": "d", "deprecated": True, "servers": None,
                "parameters": [{"name": "q", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}}],
                "requestBody": {
                    "required": True, "description": "d",
                    "content": {"application/x-www-form-urlencoded": {
                        "schema": {"$ref": "#/components/schemas/A"}, "encoding": {"a": {"style": "form", "explode": True}}}},
                },
                "responses": {"200": {"content": {"application/json": {}}}},
            },
        }
    },
    "components": {"schemas": {"A": {
        "type": ["object", "null"], "required": ["a"], "enum": [{}], "examples": ["x"], "nullable": True, "minimum": 1,
        "exclusiveMinimum": True, "properties": {"a": {"items": {"$ref": "#/components/schemas/A"}}}, "allOf": [{}]}}},
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def test_whatever_stands_anywhere_in_a_document_it_is_compiled_or_refused():
    text = json.dumps(WHOLE)
    tried = 0
    for place in places(WHOLE)[1:]:
        for junk in JUNK:
            root = json.loads(text)
            at = root
            for step in place[:-1]:
                at = at[step]
            at[place[-1]] = junk
            with suppress(Unreadable):
                compile_api(Documents("a", root), Filters(), taken=frozenset(), destination="h")
            tried += 1
    assert tried > 700


def test_random_bytes_in_a_document_are_compiled_or_refused():
    text = json.dumps(WHOLE).encode()
    dice = random.Random(11)
    for _ in range(300):
        data = bytearray(text)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data))] = dice.choice(b'"{}[],:$#/ax0\\\xff\n&*')
        with suppress(Unreadable):
            compile_api(Documents("a", parse(bytes(data))), Filters(), taken=frozenset(), destination="h")


def test_a_schema_that_is_no_schema_is_one_that_anything_fits():
    schemas = Schemas(Documents("a", {}), "3.0")
    assert [schemas.translated(junk, "a") for junk in (7, "x", None, [])] == [{}, {}, {}, {}]
