"""Headers of 2026-07-28: what is let through without the SDK's rules is what they let through."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import NAME_BEARING_METHODS

from haltline.wire.eras import CLIENT_CAPABILITIES, NAMED, PROTOCOL_VERSION
from haltline.wire.headers import mismatch, plainly_agree

VERSION = "2026-07-28"
_texts = st.sampled_from(["read", "Read", " read", "=?base64?cmVhZA==?=", "naïve", "", "tools/call", VERSION])
_versions = st.sampled_from([VERSION, "2025-11-25", "2099-01-01", ""])
_methods = st.sampled_from([*NAMED, "tools/list", "x/y"])
_lines = st.lists(
    st.one_of(
        st.tuples(st.just("mcp-protocol-version"), _versions),
        st.tuples(st.just("mcp-method"), st.one_of(_methods, _texts)),
        st.tuples(st.just("mcp-name"), _texts),
        st.tuples(st.just("accept"), st.just("*/*")),
    ),
    max_size=5,
)
_metas = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {}, optional={PROTOCOL_VERSION: st.one_of(_versions, st.none()), CLIENT_CAPABILITIES: st.just({})}
    ),
)


def _folded(lines: list[tuple[str, str]]) -> dict[str, str]:
    folded: dict[str, str] = {}
    for name, value in lines:
        folded.setdefault(name, value)
    return folded


def _agree(lines: list[tuple[str, str]], method: str, params: dict[str, Any]) -> bool:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in lines]
    return plainly_agree(raw, _folded(lines), method, params)


@given(lines=_lines, method=_methods, meta=_metas, name=st.one_of(_texts, st.none(), st.just(7)), plain=st.booleans())
def test_what_plainly_agrees_agrees_by_the_sdks_rules(
    lines: list[tuple[str, str]], method: str, meta: Any, name: Any, plain: bool
) -> None:
    if plain:  # else agreement would be rare
        lines = [("mcp-protocol-version", VERSION), ("mcp-method", method), ("mcp-name", str(name)), *lines[:1]]
        meta = {PROTOCOL_VERSION: VERSION, CLIENT_CAPABILITIES: {}}
    params = {"_meta": meta, "name": name, "uri": name}
    if _agree(lines, method, params):
        assert mismatch(lines, _folded(lines), {"method": method, "params": params}) is None


@pytest.mark.parametrize("method", [*NAMED, "tools/list"])
def test_what_clients_send_plainly_agrees(method: str) -> None:
    lines = [("mcp-protocol-version", VERSION), ("mcp-method", method), ("mcp-name", "read")]
    meta = {PROTOCOL_VERSION: VERSION, CLIENT_CAPABILITIES: {}}
    assert _agree(lines, method, {"_meta": meta, "name": "read", "uri": "read"})
    assert not _agree([*lines, ("mcp-method", method)], method, {"_meta": meta, "name": "read", "uri": "read"})


def test_the_methods_whose_name_travels_in_a_header_are_the_sdks() -> None:
    assert dict(NAME_BEARING_METHODS) == NAMED


def test_plain_requests_are_judged_without_the_sdk() -> None:
    script = (
        "import sys; from haltline.wire.headers import plainly_agree; "
        "plainly_agree([], {}, 'tools/call', {}); sys.exit('mcp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
