"""Who acts: agents, sessions, operators and their credentials, each in each state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from haltline.credentials import issue
from haltline.errors import Conflict, NotFound, RequestError
from haltline.identity import AgentRow, Credential, Identity, SessionRow, Unknown, new_id, new_ids
from haltline.policy.model import Caps, Hours, Rate
from haltline.store.writer import Tx
from support.records import HOUR, NOON_US, Store

AGENTS = frozenset({"s", "a"})
OPERATORS = frozenset({"o"})


class People:
    def __init__(self, folder: Path) -> None:
        self.identity = Identity(b"p" * 32)
        self.store = Store(folder)

    def __getattr__(self, name: str) -> Any:
        """Every method of Identity, each in a unit of its own."""
        method = getattr(self.identity, name)
        return lambda *args, **kwargs: self.store.run(lambda tx: method(tx, *args, **kwargs))

    def session(self, agent: AgentRow, **more: Any) -> tuple[SessionRow, str]:
        session = self.open_session(agent, task="a task", expires_us=NOON_US + HOUR, opened_by="operator:o", **more)
        return session, self.issue_session_credential(session)

    def row(self, session: SessionRow) -> SessionRow:
        return self.store.run(lambda tx: self.identity.session(tx, session.id))

    def who(self, token: str | None, accepted: frozenset[str] = AGENTS) -> Credential | Unknown:
        return self.verify(token, accepted)

    def code(self, token: str | None, accepted: frozenset[str] = AGENTS) -> str:
        found = self.who(token, accepted)
        return found.code if isinstance(found, Unknown) else ("revoked" if found.revoked_us is not None else "alive")


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    people = People(tmp_path)
    yield people
    people.store.close()


def test_a_credential_is_its_own_agents_and_sessions(people: People) -> None:
    agent = people.add_agent(handle="booking-7", tier="experimental")
    session, token = people.session(agent)
    own = people.issue_agent_credential(agent)
    found = people.who(token)
    assert isinstance(found, Credential)
    assert (found.cls, found.agent_id, found.session_id, found.operator) == ("s", agent.id, session.id, None)
    found = people.who(own)
    assert isinstance(found, Credential)
    assert (found.cls, found.agent_id, found.session_id) == ("a", agent.id, None)


def test_each_way_to_be_nobody_has_its_own_reason(people: People) -> None:
    operator = people.add_operator("ana", "person")
    _, token = people.session(people.add_agent(handle="a", tier="t"))
    assert people.code(None) == people.code("") == "credential.missing"
    assert people.code("nonsense") == people.code(token[:-1]) == "credential.malformed"
    assert people.code(issue("s").token) == "credential.unknown"
    assert people.code(operator) == people.code(token, OPERATORS) == "credential.wrong_class"
    assert people.code(token) == people.code(operator, OPERATORS) == "alive"


def test_the_right_name_with_another_secret_is_nobody(people: People) -> None:
    _, token = people.session(people.add_agent(handle="a", tier="t"))
    forged = issue("s")
    people.store.connection.execute("UPDATE credentials SET id = ?", (forged.id,))
    assert people.code(forged.token) == "credential.unknown"
    people.identity = Identity(b"q" * 32)
    assert people.code(token) == "credential.unknown"


INJECTIONS = [
    "'",
    '"',
    "' OR '1'='1",
    "'; DROP TABLE credentials; --",
    "\x00",
    "%",
    "_" * 12,
    ") UNION SELECT * FROM credentials --",
]


@pytest.mark.promise("P9")
def test_a_thousand_hostile_tokens_are_nobody_and_change_nothing(people: People) -> None:
    _, token = people.session(people.add_agent(handle="a", tier="t"))
    for number in range(1_000):
        text = INJECTIONS[number % len(INJECTIONS)]
        at = number % len(token)
        hostile = token[:at] + text + token[at:] if number % 2 else text * (number % 7 + 1)
        assert people.code(hostile) == "credential.malformed", hostile
    for text in INJECTIONS:
        with pytest.raises(NotFound):
            people.agent(text)
        with pytest.raises(NotFound):
            people.operator(text)
        with pytest.raises(RequestError):
            people.add_agent(handle=text, tier="t")
    assert people.code(token) == "alive"


@pytest.mark.promise("P9")
def test_of_a_thousand_issued_tokens_none_is_in_the_files(people: People) -> None:
    identity = people.identity

    def unit(tx: Tx) -> list[str]:
        agent = identity.add_agent(tx, handle="a", tier="t")
        tokens = []
        for number in range(333):
            session = identity.open_session(tx, agent, task="t", expires_us=NOON_US, opened_by="operator:o")
            tokens += [identity.issue_session_credential(tx, session), identity.issue_agent_credential(tx, agent)]
            tokens.append(identity.add_operator(tx, f"o{number}", "person"))
        return [*tokens, identity.rotate_operator(tx, "o0")]

    tokens = people.store.run(unit)
    assert len(tokens) == 1_000
    files = b"".join(file.read_bytes() for file in people.store.path.parent.iterdir())
    secrets = [token.rsplit("_", 1)[1].encode() for token in tokens]
    assert [secret for secret in secrets if secret in files or secret[:20] in files] == []


def test_what_an_agent_was_registered_with_is_what_is_read(people: People) -> None:
    hours = Hours(frozenset({0, 1, 4}), 22 * 60, 6 * 60, "Europe/Berlin")
    caps = Caps(per_call_micros=1, task_micros=2, hour_micros=3, day_micros=4, calls=5, concurrent=6, rate=Rate(7, 60))
    made = people.add_agent(handle="a", tier="t", owner="Ana", scopes=("x", "y"), hours=hours, caps=caps)
    assert people.agent("a") == people.agent_by_id(made.id) == made
    session, _ = people.session(made, tools=("up__*",), caps=caps)
    assert people.row(session) == session
    who = people.principal(made, session)
    assert (who.agent, who.tier, who.tools, who.scopes, who.hours) == ("a", "t", ("up__*",), ("x", "y"), hours)
    assert (who.agent_caps, who.session_caps, who.task) == (caps, caps, "a task")


@pytest.mark.parametrize("handle", ["", "A", "a b", "-a", "a_b", "é", "a" * 64, "a\n", "a/b", "..", "a\x00"])
def test_a_handle_that_is_none_is_refused(people: People, handle: str) -> None:
    with pytest.raises(RequestError, match="is no handle"):
        people.add_agent(handle=handle, tier="t")
    with pytest.raises(RequestError, match="is no handle"):
        people.add_operator(handle, "person")


def test_a_handle_is_taken_also_by_a_revoked_agent(people: People) -> None:
    agent = people.add_agent(handle="a", tier="t")
    people.revoke_agent(agent)
    with pytest.raises(Conflict, match="reissue"):
        people.add_agent(handle="a", tier="t")


def test_who_is_not_there_is_not_found(people: People) -> None:
    for ask in (lambda: people.agent("x"), lambda: people.agent_by_id("x"), lambda: people.store.run(
        lambda tx: people.identity.session(tx, "x")), lambda: people.operator("x"), lambda: people.rotate_operator("x")):  # fmt: skip
        with pytest.raises(NotFound):
            ask()


# sessions


def test_a_session_expires_by_the_clock_and_stays_revoked_once_it_is(people: People) -> None:
    session, token = people.session(people.add_agent(handle="a", tier="t"))
    assert session.life(NOON_US + HOUR - 1) == "open"
    assert session.life(NOON_US + HOUR) == "expired"
    people.revoke_session(session.id)
    revoked = people.row(session)
    assert (revoked.life(NOON_US), revoked.life(NOON_US + 2 * HOUR), revoked.ended_us) == (
        "revoked",
        "revoked",
        NOON_US,
    )
    assert people.code(token) == "revoked"  # recognised: it is told why (R23)
    people.store.now_us += HOUR
    people.revoke_session(session.id)
    assert people.row(session).ended_us == NOON_US  # the first end stays


@pytest.mark.promise("R19", "P5")
def test_revoking_a_session_ends_its_credential_and_no_other(people: People) -> None:
    agent = people.add_agent(handle="a", tier="t")
    (first, token), (_, other) = people.session(agent), people.session(agent)
    own = people.issue_agent_credential(agent)
    people.revoke_session(first.id)
    assert [people.code(one) for one in (token, other, own)] == ["revoked", "alive", "alive"]


@pytest.mark.promise("R19", "P5")
def test_revoking_an_agent_ends_all_it_has_and_nothing_of_anothers(people: People) -> None:
    agent, bystander = (people.add_agent(handle=handle, tier="t") for handle in "ab")
    (one, first), (two, second) = people.session(agent), people.session(agent)
    own = people.issue_agent_credential(agent)
    _, others = people.session(bystander)
    people.store.now_us += HOUR - 1
    already, ended = people.revoke_agent(agent)
    assert (already, set(ended)) == (False, {one.id, two.id})
    assert {people.code(token) for token in (first, second, own)} == {"revoked"}
    assert people.code(others) == "alive"
    assert people.revoke_agent(people.agent("a")) == (True, [])
    with pytest.raises(Conflict, match="agents reissue a"):
        people.session(people.agent("a"))


@pytest.mark.promise("R19")
def test_a_reissued_agent_has_new_sessions_and_its_old_credentials_stay_dead(people: People) -> None:
    agent = people.add_agent(handle="a", tier="t")
    session, token = people.session(agent)
    own = people.issue_agent_credential(agent)
    with pytest.raises(Conflict, match="not revoked"):
        people.reissue_agent(agent)
    people.revoke_agent(agent)
    people.reissue_agent(people.agent("a"))
    again = people.agent("a")
    assert (again.id, again.state) == (agent.id, "active")  # the same account: what the day has spent stays spent
    new = people.issue_agent_credential(again)
    _, fresh = people.session(again)
    assert [people.code(one) for one in (token, own, new, fresh)] == ["revoked", "revoked", "alive", "alive"]
    assert people.row(session).life(NOON_US) == "revoked"


@pytest.mark.promise("R24")
def test_an_agent_has_one_credential_of_its_own(people: People) -> None:
    agent = people.add_agent(handle="a", tier="t")
    first, second = people.issue_agent_credential(agent), people.issue_agent_credential(agent)
    assert (people.code(first), people.code(second)) == ("revoked", "alive")


@pytest.mark.promise("R24")
def test_an_agent_credential_continues_its_session_until_idle_ended_or_another_handshake(people: People) -> None:
    agent = people.add_agent(handle="a", tier="t")
    credential = people.who(people.issue_agent_credential(agent))
    assert isinstance(credential, Credential)

    def opened(key: str = "") -> SessionRow:
        return people.session(agent, auto=(credential.id, key))[0]

    def continued(key: str = "", idle_s: float = 1800) -> str | None:
        found = people.auto_session(credential, key, idle_s)
        return None if found is None else found.id

    assert continued() is None
    first = opened()
    for _ in range(2):  # each use starts the idle time anew
        people.store.now_us += 1_200_000_000
        assert continued(idle_s=1_200.1) == first.id
    people.store.now_us += 1_200_000_000
    assert people.store.now_us == NOON_US + HOUR  # where it expires
    assert continued() is None
    second = people.open_session(
        agent, task="t", expires_us=NOON_US + 9 * HOUR, opened_by="agent:a", auto=(credential.id, "")
    )
    assert continued() == second.id
    assert continued(key="mcp-session-1") is None
    people.store.now_us += 1_801_000_000
    assert continued() is None
    third = people.open_session(
        agent, task="t", expires_us=NOON_US + 9 * HOUR, opened_by="agent:a", auto=(credential.id, "")
    )
    people.revoke_session(third.id)
    assert continued(idle_s=1e9) is None  # never an older one behind the back of a revoke


# operators


def test_rotating_ends_the_old_token_at_once(people: People) -> None:
    first = people.add_operator("ana", "person")
    second = people.rotate_operator("ana")
    assert (people.code(first, OPERATORS), people.code(second, OPERATORS)) == ("revoked", "alive")


def test_the_last_person_cannot_be_revoked(people: People) -> None:
    ana, local = people.add_operator("ana", "person"), people.add_operator("local", "local")
    with pytest.raises(Conflict, match="last person"):
        people.revoke_operator("ana")
    assert people.code(ana, OPERATORS) == "alive"
    people.add_operator("ben", "person")
    people.revoke_operator("ana")
    assert people.code(ana, OPERATORS) == "revoked"
    with pytest.raises(Conflict, match="last person"):
        people.revoke_operator("ben")
    people.revoke_operator("local")  # loosens nothing, so it may go
    assert people.code(local, OPERATORS) == "revoked"


def test_a_revoked_operator_cannot_be_rotated_revoked_again_or_replaced_by_a_namesake(people: People) -> None:
    people.add_operator("ana", "person")
    people.add_operator("ben", "person")
    with pytest.raises(Conflict, match="rotate ana"):
        people.add_operator("ana", "person")
    people.revoke_operator("ana")
    for act in (
        lambda: people.rotate_operator("ana"),
        lambda: people.revoke_operator("ana"),
        lambda: people.add_operator("ana", "person"),
    ):
        with pytest.raises(Conflict, match="revoked"):
            act()
    assert [(one.name, one.state) for one in people.operators()] == [("ana", "revoked"), ("ben", "active")]


def test_no_query_of_the_hot_path_reads_every_credential_or_session(people: People) -> None:
    agent = people.add_agent(handle="a", tier="t")
    credential = people.who(people.issue_agent_credential(agent))
    seen: list[str] = []
    people.store.connection.set_trace_callback(seen.append)
    session, token = people.session(agent)
    people.who(token)
    people.auto_session(credential, "", 5.0)
    people.revoke_session(session.id)
    people.revoke_agent(agent)
    people.add_operator("ana", "person")
    people.rotate_operator("ana")
    people.store.connection.set_trace_callback(None)
    plans = [
        f"{row[3]} <- {sql}"
        for sql in {one for one in seen if one.startswith(("SELECT", "UPDATE"))}
        for row in people.store.connection.execute(f"EXPLAIN QUERY PLAN {sql}")
    ]
    assert len(plans) > 7
    assert [plan for plan in plans if "SCAN" in plan] == []


@pytest.mark.promise("P3", "R15")
def test_what_a_rolled_back_unit_ended_lives_on_and_what_a_committed_one_ended_does_not(people: People) -> None:
    agent = people.add_agent(handle="a", tier="t")
    session, token = people.session(agent)
    identity = people.identity

    def life(tx: Tx) -> tuple[str, str, str]:
        found = identity.verify(tx, token, AGENTS)
        assert isinstance(found, Credential)
        credential = "alive" if found.revoked_us is None else "revoked"
        return credential, identity.session(tx, session.id).state, identity.agent_by_id(tx, agent.id).state

    def breaks(tx: Tx) -> None:
        identity.revoke_agent(tx, agent)
        assert life(tx) == ("revoked", "revoked", "revoked")
        raise ValueError

    with people.store.batch() as unit:
        assert unit(life) == ("alive", "open", "active")
        with pytest.raises(ValueError):
            unit(breaks)
        assert unit(life) == ("alive", "open", "active")
        unit(lambda tx: identity.revoke_agent(tx, agent))
        assert unit(life) == ("revoked", "revoked", "revoked")


@pytest.mark.promise("R15")
def test_who_was_opened_in_a_lost_batch_is_nobody(tmp_path: Path) -> None:
    people = People(tmp_path)
    people.store.on_lost = (people.identity.forget,)
    agent = people.add_agent(handle="a", tier="t")
    with people.store.batch(lost=True) as unit:
        session = unit(
            lambda tx: people.identity.open_session(tx, agent, task="t", expires_us=NOON_US + HOUR, opened_by="x")
        )
        token = unit(lambda tx: people.identity.issue_session_credential(tx, session))
        assert isinstance(unit(lambda tx: people.identity.verify(tx, token, AGENTS)), Credential)
        unit(lambda tx: people.identity.session(tx, session.id))
    assert people.code(token) == "credential.unknown"
    with pytest.raises(NotFound):
        people.store.run(lambda tx: people.identity.session(tx, session.id))
    people.store.close()


def test_ids_fetched_together_are_as_those_fetched_one_by_one() -> None:
    many = [*islice(new_ids("call"), 1_000), new_id("call")]
    assert all(re.fullmatch(r"call_[0-9a-f]{11}[0-9a-f]{16}", one) for one in many)
    assert len({one[-16:] for one in many}) == len(many)
    assert [one[:16] for one in many] == sorted(one[:16] for one in many)
