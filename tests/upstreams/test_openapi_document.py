"""Documents that are broken, hostile or of another kind end in a sentence, quickly and in bounded memory."""

from __future__ import annotations

import json

import pytest

from haltline.upstreams.openapi_document import Documents, Unfit, Unreadable, other_documents, parse, version_of

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_json_and_yaml_give_the_same_plain_values():
    value = {"openapi": "3.0.3", "paths": {"/a": {"get": {"responses": {"200": {"description": "ok"}}}}}}
    text = "openapi: 3.0.3\npaths:\n  /a:\n    get:\n      responses:\n        200: {description: ok}\n"
    assert parse(json.dumps(value).encode()) == parse(text.encode()) == value


def test_yaml_values_that_json_has_not_become_text():
    assert parse(b"a: 2026-01-02\nb: .inf\nc: 2026-01-02 10:00:00\n200: x\n~: y\ntrue: z\n") == {
        "a": "2026-01-02", "b": "inf", "c": "2026-01-02T10:00:00", "200": "x", "None": "y", "true": "z",
    }  # fmt: skip


def test_aliases_are_written_out():
    assert parse(b"a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n") == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


HOSTILE = {
    "a billion laughs": (LAUGHS.encode(), "aliases written out"),
    "an alias to itself": (b"a: &a [*a]", "nested too deeply"),
    "10,000 deep JSON": (b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
    "10,000 deep JSON objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deeply"),
    "10,000 deep YAML": (b"a: " + b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
    "a million deep YAML": (b"a: " + b"[" * 1_000_000, "nested too deeply"),
    "1,000 deep YAML blocks": (b"".join(b" " * n + b"a:\n" for n in range(1_000)), "nested too deeply"),
    "200 deep": (b"[" * 200 + b"]" * 200, "nested too deeply"),
    "not UTF-8": (b"a: \xff\xfe", "UTF-8"),
    "a foreign tag": (b"a: !!python/object/apply:os.system ['true']", "neither JSON nor YAML"),
    "a key twice": (b"a: 1\na: 2", "neither JSON nor YAML"),
    "tabs": (b"a:\n\t- b", "neither JSON nor YAML"),
    "a mapping as a key": (b"? {a: 1}\n: b", "neither JSON nor YAML"),
    "a number without end": (b"a: " + b"9" * 5_000, "cannot be read"),
    "a month that is none": (b"a: 2026-13-45", "cannot be read"),
    "two documents": (b"a: 1\n---\nb: 2", "neither JSON nor YAML"),
    "half JSON": (b'{"openapi": "3.0.0", ', "neither JSON nor YAML"),
}


@pytest.mark.parametrize(("data", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_document_is_refused_readably(data, said):
    with pytest.raises(Unreadable, match=said) as caught:
        parse(data)
    assert len(str(caught.value)) < 400


def test_what_is_too_large_is_not_even_tried():
    with pytest.raises(Unreadable, match="larger than 32 MiB"):
        parse(b" " * (32 * 2**20 + 1))
    with pytest.raises(Unreadable, match="at most 8 MiB"):
        parse(b"a" * (8 * 2**20 + 1))


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ({"swagger": "2.0"}, "Swagger 2.0"),
        ({"openapi": "4.0.0"}, "openapi: 4.0.0"),
        ({"openapi": 3.2}, "openapi: 3.2"),
        ({}, "openapi: nothing"),
        ([], "no mapping"),
        ("text", "no mapping"),
        (None, "no mapping"),
    ],
)
def test_another_kind_of_document_is_named(root, said):
    with pytest.raises(Unreadable, match=said):
        version_of(root)


def test_both_versions_are_known():
    assert [version_of({"openapi": said}) for said in ("3.0.0", "3.0.4", "3.1.0", 3.1)] == ["3.0", "3.0", "3.1", "3.1"]


def test_a_reference_is_found_with_every_way_of_escaping():
    documents = Documents("a.yaml", {"x/y": {"a~b": [{"p q": 7}]}}, {"sub/b.yaml": {"k": 1}})
    assert documents.locate("#/x~1y/a~0b/0/p%20q", "a.yaml")[2] == 7
    assert documents.locate("sub/b.yaml#/k", "a.yaml") == ("sub/b.yaml", "/k", 1)
    assert documents.locate("../a.yaml#/x~1y", "sub/b.yaml")[0] == "a.yaml"
    assert documents.locate("#", "a.yaml")[2] is documents.root


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("#/nowhere", "not there"),
        ("#/a/9", "not there"),
        ("#/a/-1", "not there"),
        ("#/a/" + "9" * 50, "not there"),
        ("#anchor", "anchor"),
        ("other.yaml#/a", "remote_refs"),
        ("http://169.254.169.254/x", "remote_refs"),
        ("file:///etc/passwd", "remote_refs"),
        ("//[", "none"),
    ],
)
def test_a_reference_that_leads_nowhere_or_away_is_refused(ref, said):
    with pytest.raises(Unfit, match=said):
        Documents("a.yaml", {"a": [1]}).locate(ref, "a.yaml")


def test_a_chain_of_references_that_never_ends_is_refused():
    documents = Documents("a", {"x": {"$ref": "#/y"}, "y": {"$ref": "#/x"}})
    with pytest.raises(Unfit, match="itself"):
        documents.follow({"$ref": "#/x"}, "a")


def test_the_documents_that_one_refers_to_are_found_without_opening_them():
    value = {"a": [{"$ref": "b.yaml#/x"}, {"$ref": "#/y"}, {"$ref": 3}], "c": {"$ref": "https://x.example/d.json"}}
    assert set(other_documents(value, "a.yaml")) == {"b.yaml", "https://x.example/d.json"}
