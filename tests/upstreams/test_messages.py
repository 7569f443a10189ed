"""Reading what upstreams send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.upstreams.messages import BadMessage, answer_in, dumps, for_handshake, progress_token, read, reply_to

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.promise("P11")
@given(JSON)
def test_what_is_read_and_written_again_is_the_same(value: Any) -> None:
    assert read(json.dumps(value).encode()) == value
    assert read(dumps(value)) == value


@pytest.mark.promise("P11")
def test_numbers_keep_their_kind_and_size() -> None:
    assert dumps(read(b'{"a":1,"b":1.0,"c":123456789012345678901234567890}')) == (
        b'{"a":1,"b":1.0,"c":123456789012345678901234567890}'
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{}{}",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud83d"}',
        b'{"\\udc00":1}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 129 + b"]" * 129 + b"}",
        b"[" * 100_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_could_not_be_handed_on_is_refused(text: bytes) -> None:
    with pytest.raises(BadMessage):
        read(text)


def test_nesting_is_counted_not_brackets() -> None:
    assert read(json.dumps([[]] * 1000 + ["[" * 1000]).encode())
    assert read(b"[" * 128 + b"]" * 128)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert read(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    "message",
    [{}, {"result": {}, "error": {"code": 1, "message": ""}}, {"result": None}, {"result": []}, {"error": {}}]
    + [{"error": {"code": "1", "message": ""}}, {"error": {"code": True, "message": ""}}, {"error": "no"}],
)
def test_an_answer_that_is_none_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        answer_in(message)


def test_an_answer_is_reduced_to_its_result_or_error_unchanged() -> None:
    assert answer_in({"jsonrpc": "2.0", "id": 1, "result": {"x": None}, "extra": 1}) == {"result": {"x": None}}
    error = {"code": -1, "message": "m", "data": None, "vendor": 1}
    assert answer_in({"id": 1, "error": error}) == {"error": error}


def test_only_the_other_eras_keys_are_taken_out_of_meta() -> None:
    ours = {"io.modelcontextprotocol/x": 1}
    assert for_handshake({"a": 1}) == {"a": 1}
    assert for_handshake({"_meta": {}}) == {"_meta": {}}
    assert for_handshake({"_meta": {"y": 1, **ours}}) == {"_meta": {"y": 1}}
    assert for_handshake({"a": 1, "_meta": ours}) == {"a": 1}


@pytest.mark.parametrize(("token", "is_one"), [(0, True), ("", True), ("t", True), (True, False), (1.5, False)])
def test_tokens_are_integers_and_strings(token: Any, is_one: bool) -> None:
    assert progress_token({"_meta": {"progressToken": token}}) == (token if is_one else None)


def test_a_ping_is_answered_and_nothing_else_is_offered() -> None:
    assert json.loads(reply_to({"id": "a", "method": "ping"})) == {"jsonrpc": "2.0", "id": "a", "result": {}}
    assert json.loads(reply_to({"id": 1, "method": "roots/list"}))["error"]["code"] == -32601
