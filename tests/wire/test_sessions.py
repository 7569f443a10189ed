"""A session id belongs to the credential that asked for it and cannot be made up."""

from __future__ import annotations

import pytest

from haltline.credentials import issue
from haltline.wire.sessions import SessionIds

KEY = bytes(range(32))
MINE, OTHER = issue("s").token, issue("s").token


def test_an_id_is_valid_for_its_own_credential_alone_also_after_a_restart():
    session_id = SessionIds(KEY).issue(MINE)
    again = SessionIds(KEY)
    assert again.valid(session_id, MINE)
    assert not again.valid(session_id, OTHER)
    assert not again.valid(session_id, None)
    assert not SessionIds(bytes(32)).valid(session_id, MINE)


@pytest.mark.parametrize("made_up", ["", ".", "a.b", "x" * 5000, "ä.ö", "." * 40])
def test_a_made_up_id_is_not_valid(made_up):
    assert not SessionIds(KEY).valid(made_up, MINE)


def test_an_ended_id_stays_ended():
    sessions = SessionIds(KEY)
    session_id = sessions.issue(MINE)
    sessions.end(session_id)
    assert not sessions.valid(session_id, MINE)


TOLD = {
    "capabilities": {"elicitation": {"form": {}}},
    "clientInfo": {"name": "c", "version": "1"},
    "protocolVersion": "x",
}


def test_an_id_carries_what_the_client_said_of_itself_so_that_a_restart_does_not_lose_it():
    session_id = SessionIds(KEY).issue(MINE, TOLD)
    assert SessionIds(KEY).valid(session_id, MINE)
    assert SessionIds.told(session_id) == {key: TOLD[key] for key in ("capabilities", "clientInfo")}
    nonce, _, rest = session_id.partition("~")
    assert not SessionIds(KEY).valid(f"{nonce}~e30.{rest.partition('.')[2]}", MINE), "nobody can change it"


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({}, {}),
        ({"capabilities": [], "clientInfo": None}, {}),
        ({**TOLD, "clientInfo": {**TOLD["clientInfo"], "icons": "x" * 5_000}}, {**TOLD}),
        ({"capabilities": {"experimental": {"x": "x" * 5_000}}}, {}),
    ],
)
def test_what_is_long_is_carried_in_short_or_not_at_all(told, kept):
    session_id = SessionIds(KEY).issue(MINE, told)
    assert len(session_id) < 2_000
    assert SessionIds.told(session_id) == {key: value for key, value in kept.items() if key != "protocolVersion"}
