"""What two parsers could read differently is refused, and everything else survives to the digit."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.wire.strict_json import MAX_DEPTH, BadJson, dumps, parse

HOSTILE = {
    "a duplicate key": (b'{"cap": 1, "cap": 2}', "twice"),
    "a duplicate key deep inside": (b'{"a": [{"b": {"c": 1, "c": 1}}]}', "twice"),
    "NaN": (b'{"a": NaN}', "NaN"),
    "Infinity": (b"[-Infinity]", "Infinity"),
    "a number beyond a double": (b'{"a": 1e400}', "too large"),
    "half a surrogate pair": (b'{"a": "\\ud83d"}', "surrogate"),
    "half a surrogate pair in capitals": (b'{"a": "\\uDC00x"}', "surrogate"),
    "bad UTF-8": (b'{"a": "\xff"}', "UTF-8"),
    "an overlong encoding": (b'{"a": "\xc0\x80"}', "UTF-8"),
    "cut short": (b'{"a": ', "not valid JSON"),
    "two values": (b"{} {}", "not valid JSON"),
    "nothing": (b"", "not valid JSON"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not valid JSON"),
    "65 levels": (b"[" * 65 + b"]" * 65, "deeper"),
    "100,000 levels": (b"[" * 100_000, "deeper"),
    "levels behind strings with brackets": (b'["]]]\\"]]",' * 70 + b"1" + b"]" * 70, "deeper"),
    "an integer of 5,000 digits": (b"1" * 5_000, "exactly"),
    "a raw control character": (b'{"a": "\x01"}', "not valid JSON"),
}


@pytest.mark.parametrize(("body", "says"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_json_is_refused_with_a_sentence(body, says):
    with pytest.raises(BadJson, match=says):
        parse(body)


@pytest.mark.parametrize(
    "text",
    [
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        '"' + "[" * 500 + '"',
        "{}",
        '{"a": "\\ud83d\\ude00"}',
        str(2**200),
        "-0.5",
        "1E2",
    ],
)
def test_what_is_unusual_but_clear_is_taken(text):
    assert parse(text.encode()) == json.loads(text)


def test_a_megabyte_of_quotes_and_backslashes_costs_linear_time():
    body = b'["' + b'\\"' * 500_000 + b"[" * 100
    with pytest.raises(BadJson):
        parse(body)


def test_integers_beyond_64_bits_are_written_exactly():
    assert parse(dumps({"n": 2**80, "f": 1.0})) == {"n": 2**80, "f": 1.0}
    assert b"1208925819614629174706176" in dumps({"n": 2**80})


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(_VALUES)
def test_any_value_survives_reading_and_writing(value):
    assert parse(dumps(value)) == value


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_never_a_crash(body):
    with suppress(BadJson):
        parse(body)
