"""The form of a credential: scannable, checkable without asking anybody, worth nothing as stored."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.credentials import TOKEN_PATTERN, issue, keyed_hash, parse

PEPPER = bytes(32)


@pytest.mark.parametrize("cls", ["s", "a", "o"])
def test_a_token_parses_as_what_it_was_issued_as(cls: str) -> None:
    made = issue(cls)  # type: ignore[arg-type]
    parsed = parse(made.token)
    assert parsed == made
    assert made.token.startswith(f"hl_{cls}_{made.id}_")
    assert re.fullmatch(TOKEN_PATTERN, made.token)


def test_ten_thousand_tokens_are_ten_thousand_different_ones() -> None:
    made = [issue("s") for _ in range(10_000)]
    assert len({one.id for one in made}) == len({one.token for one in made}) == 10_000


@given(at=st.integers(0, 66), to=st.sampled_from(string.ascii_letters + string.digits))
def test_one_wrong_letter_is_noticed_without_the_database(at: int, to: str) -> None:
    token = TOKEN
    changed = token[:at] + to + token[at + 1 :]
    assert (parse(changed) is None) == (changed != token)


TOKEN = issue("s").token


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")) | st.text(TOKEN, max_size=90))
def test_anything_else_is_malformed_and_no_error(text: str) -> None:
    assert parse(text) is None or text == TOKEN


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "hl_", "hl_s_", TOKEN + "\n", "\n" + TOKEN, TOKEN + " ", TOKEN[:-1], TOKEN + "0", TOKEN.upper(),
        TOKEN.replace("hl_s_", "hl_a_"), TOKEN.replace("hl_s_", "hl_x_"), TOKEN.replace("_", "-"), TOKEN * 2,
        "hl_s_" + "é" * 12 + "_" + "0" * 49, "hl_s_" + "٣" * 12 + "_" + "٣" * 49, "\x00" + TOKEN, "' OR 1=1 --",
        "a" * 1_000_000,
    ],
    ids=[f"miss {number}" for number in range(19)],
)  # fmt: skip
def test_near_misses_are_malformed(text: str) -> None:
    assert parse(text) is None


def test_what_is_kept_depends_on_the_pepper_and_on_every_letter() -> None:
    token = issue("s").token
    assert len(keyed_hash(PEPPER, token)) == 32
    assert keyed_hash(PEPPER, token) != keyed_hash(b"1" * 32, token)
    assert keyed_hash(PEPPER, token) != keyed_hash(PEPPER, issue("s").token)
