"""No secret is stored: by the name of its key at any depth of quoting, by its shape, whatever text it is in, in linear time."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline.credentials import issue
from haltline.redact import MASK, Redactor
from haltline.stored_json import json_text

REDACTOR = Redactor(["internal_ref", "x.y*"])
SECRET = "s3cr3t-value-that-must-not-stay"

KEYS = [
    "password", "Password", "PASSWORD", "db_password", "dbPassword", "user.password", "passwd", "passphrase", "secret",
    "client_secret", "clientSecret", "SECRET_KEY", "secretKey", "stripe-secret-key", "token", "access_token", "accessToken",
    "refresh-token", "id_token", "X-Auth-Token", "api_key", "apiKey", "APIKEY", "x-api-key", "STRIPE_API_KEY", "access_key",
    "aws_secret_access_key", "private_key", "privateKey", "authorization", "Authorization", "Proxy-Authorization", "cookie",
    "Set-Cookie", "credential", "credentials", "aws_credentials", "otp", "pin", "card-pin", "cvv", "cvc", "card_number",
    "cardNumber", "pan", "passcode", "pwd", "internal_ref", "INTERNAL_REF", "x.y*",
]  # fmt: skip
NO_KEYS = [
    "max_tokens", "tokens", "token_count", "mapping", "spin", "shopping", "japan", "panel", "pinned", "secretary", "company",
    "key", "keys", "id", "name", "cookies_accepted_at", "passwordless", "author", "amount",
]  # fmt: skip


@pytest.mark.promise("P9")
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "value", [SECRET, 31337.5, [SECRET, {"deep": SECRET}], {"a": SECRET, "b": ["]}", SECRET]}, True, None, ""]
)
def test_a_value_under_a_secret_name_goes_and_its_neighbours_stay(key: str, value: Any) -> None:
    for depth in range(4):
        inner: Any = {"before": "kept", key: value, "zz": ["kept", {"n": 1}]}
        expected: Any = {"before": "kept", key: MASK, "zz": ["kept", {"n": 1}]}
        for _ in range(depth):  # as text in a string, in a string …
            inner, expected = {"text": json.dumps(inner), "n": 1}, {"text": expected, "n": 1}
        for text in (json.dumps(inner), json_text(inner), json.dumps(inner, indent=2)):
            redacted = json.loads(REDACTOR.text(text))
            for _ in range(depth):
                redacted = {**redacted, "text": json.loads(redacted["text"])} if depth == 1 else _unfold(redacted)
            assert redacted == expected, text


def _unfold(value: Any) -> Any:
    """JSON in strings, opened one level."""
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return {**value, "text": json.loads(value["text"])}
    return {**value, "text": _unfold(value["text"])} if isinstance(value, dict) and "text" in value else value


@pytest.mark.parametrize("key", NO_KEYS)
def test_an_innocent_name_keeps_its_value(key: str) -> None:
    text = json.dumps({key: "value", "pin is": "1234 in text"})
    assert REDACTOR.text(text) == text


SHAPES = [
    issue("s").token, issue("a").token, issue("o").token, "ghp_" + "a1B2" * 9, "gho_" + "a1B2" * 9,
    "github_pat_" + "a1B2_" * 16, "glpat-" + "a1B2-" * 5, "xoxb-123456789012-abcdef", "xapp-1-A012-345-abcdef0123",
    "sk-" + "a1B2" * 6, "sk-ant-api03-" + "a1B2_-" * 10, "sk-proj-" + "a1B2" * 10, "sk_live_" + "a1B2" * 5,
    "rk_test_" + "a1B2" * 5, "whsec_" + "a1B2" * 8, "AKIA" + "ABCD1234" * 2, "ASIA" + "ABCD1234" * 2,
    "AIza" + "a1B2-" * 7, "ya29." + "a1B2-" * 8, "SG." + "a1B2" * 5 + "." + "a1B2" * 10, "npm_" + "a1B2" * 9,
    "pypi-" + "a1B2_" * 12, "hf_" + "a1B2" * 9, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIEow without its end",
]  # fmt: skip


@pytest.mark.promise("P9")
@pytest.mark.parametrize("token", SHAPES, ids=[f"shape {number}" for number in range(len(SHAPES))])
def test_what_looks_like_a_known_token_goes_wherever_it_stands(token: str) -> None:
    for text in (token, f"before {token} after", f"({token})", f"a={token}&b=c", f"https://host/{token}/x"):
        assert token not in REDACTOR.text(text)
        assert token[6:] not in REDACTOR.text(text)
        document = json.dumps({"a": [text], "kept": "yes"})
        redacted = json.loads(REDACTOR.text(document))
        assert redacted["kept"] == "yes"
        assert json.dumps(token)[1:-1] not in json.dumps(redacted)
        nested = json.loads(json.loads(REDACTOR.text(json.dumps({"t": document})))["t"])
        assert nested["kept"] == "yes"


@pytest.mark.promise("P9")
@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("Authorization: Bearer abcdef0123456789abcdef", "Authorization: Bearer [redacted]"),
        ("authorization: BASIC dXNlcjpwYXNzd29yZA==", "authorization: BASIC [redacted]"),
        ("https://user:hunter2@host/path", "https://[redacted]@host/path"),
        ("postgres://app:p%40ss@db:5432/x and more", "postgres://[redacted]@db:5432/x and more"),
        ("redis://:hunter2@cache", "redis://[redacted]@cache"),
        ("GET /x?page=2&token=abcdef123456&z=1", "GET /x?page=2&token=[redacted]&z=1"),
        ("STRIPE_API_KEY=abcdef123456\nPATH=/usr/bin", "STRIPE_API_KEY=[redacted]\nPATH=/usr/bin"),
        ("DB_PASSWORD='x' password=correct-horse", "DB_PASSWORD='x' password=[redacted]"),
    ],
)
def test_secrets_in_plain_text_go_and_the_rest_stays(text: str, stays: str) -> None:
    assert REDACTOR.text(text) == stays


@pytest.mark.parametrize(
    "text",
    [
        "risk-assessment-of-the-whole-project", "https://host:8080/a:b@c", "task sk- is short", "see the token: it is blue",
        "a bearer of news", "basic-authentication-is-off", "SG.short", "eyJ not a token", '{"a":"pin"}', "", "{}", "[1,2,3]",
        "key=value&name=somebody-else",
    ],
)  # fmt: skip
def test_ordinary_text_stays(text: str) -> None:
    assert REDACTOR.text(text) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[]:, \n/é=', max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "token", "pin", 'x"', "k\\", "text"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON, st.integers(0, 3))
def test_json_stays_json_and_redacting_twice_changes_nothing(value: Any, depth: int) -> None:
    for _ in range(depth):
        value = {"text": json.dumps(value), "after": 1}
    once = REDACTOR.text(json.dumps(value))
    assert depth == 0 or json.loads(once)["after"] == 1
    assert REDACTOR.text(once) == once
    _no_secret_left(json.loads(once))


def _no_secret_left(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            assert key not in {"token", "pin"} or inner == MASK
            _no_secret_left(inner)
    elif isinstance(value, list):
        for inner in value:
            _no_secret_left(inner)


@given(st.text('"\\:{}[] tokenpi=sk-eyJ./@', max_size=60))
def test_any_text_at_all_is_taken(text: str) -> None:
    REDACTOR.text(text)
    REDACTOR.text(json.dumps(text))


def test_a_text_that_was_cut_keeps_no_part_of_a_value() -> None:
    whole = json.dumps({"a": 1, "password": f"{SECRET} and more", "text": json.dumps({"token": f"{SECRET}!", "b": 2})})
    for end in range(len(whole)):
        assert SECRET[:6] not in REDACTOR.text(whole[:end]), whole[:end]


def test_letters_that_change_their_length_in_lower_case_hide_nothing() -> None:
    text = json.dumps({"İ" * 50: "İ", "PASSWORD": SECRET}, ensure_ascii=False)
    assert json.loads(REDACTOR.text(text))["PASSWORD"] == MASK


HOSTILE = [
    "eyJ", "eyJaaaaaaaa.", "\\", '"', '\\"', '"pin":"', '"pin":{', 'token":', "token", 'token" ', "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN ", "://a:", "://", "bearer ", "bearer         ", "basic ", "sk-", "SG.", "SG.aaaaaaaaaaaaaaaaa", "=", "token=",
    "a", "a_", "a-", "A-", "ghp_", "k_live_", '\\"token\\":', '\\"token\\": \\"', 'token"' + " " * 50, '\\\\\\"token', 'secret":{"',
    'secret":[', "hl_s_", "xoxb-", "hf_", "{", "}", "[", '"token":[[', "PRIVATE KEY", "İ", "İtoken", '"a":',
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_mebibyte_made_to_be_slow_takes_no_longer_than_its_length(unit: str) -> None:
    text = unit * (1_048_576 // len(unit))
    start = time.thread_time()
    REDACTOR.text(text + 'token"' + " " * 1_000 + "\\")
    assert time.thread_time() - start < 3  # measured at 0.6 at most; what is quadratic takes hours


SECRETS = st.sampled_from(
    [
        issue("s").token,
        "ghp_" + "a" * 36,
        "Bearer " + "x" * 20,
        "password=hunter2xx",
        "http://a:bb@c",
        "AKIA" + "B" * 16,
    ]
)


@pytest.mark.promise("P9")
@given(st.text(max_size=20), SECRETS | st.text(max_size=30), st.text(max_size=20), st.sampled_from(KEYS + NO_KEYS))
def test_what_is_said_to_stay_as_it_is_does(before: str, middle: str, after: str, key: str) -> None:
    text = before + middle + after
    for whole in (text, json_text({key: text}), json_text([{"text": json_text({key: 1, "a": text})}])):
        assert not REDACTOR.leaves(whole) or REDACTOR.text(whole) == whole
    for value in (text, {"a": [text, 1, None]}, [{"b": {"c": text}}]):
        assert not REDACTOR.leaves_shapes(value) or REDACTOR.shapes(json_text(value)) == json_text(value)


@pytest.mark.promise("P9")
def test_a_secret_is_never_taken_for_something_that_stays() -> None:
    for secret in (issue("s").token, "ghp_" + "a" * 36, "Bearer " + "x" * 20, "password=hunter2xx", "http://a:bb@c"):
        assert not REDACTOR.leaves_shapes({"why": [secret]})
        assert not REDACTOR.leaves(json_text({"text": secret}))
    assert not REDACTOR.leaves('{"dbPassword":"x"}')
    deep: Any = "innocent text"
    for _ in range(100_000):
        deep = [deep]
    assert not REDACTOR.leaves_shapes(deep)  # it is read closely, or noted as too deep
