"""Agents, sessions, operators and their credentials: who acts, resolved inside the deciding transaction (P3).

Owns the tables agents, sessions, operators; that of credentials is `identity_credentials`. Knows nothing of money, halts or policy.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import orjson

from haltline.credentials import issue
from haltline.errors import Conflict, NotFound, RequestError
from haltline.identity_credentials import Credential, Credentials, Unknown
from haltline.identity_rows import AGENT, SESSION, AgentRow, OperatorRow, SessionRow, agent_of, json_of, session_of
from haltline.lineage import family
from haltline.policy.caps import caps_to_json
from haltline.policy.hours import hours_to_json
from haltline.policy.model import NO_CAPS, Caps, Hours, Principal
from haltline.store.remembered import Remembered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haltline.credentials import CredentialClass
    from haltline.store.writer import Tx

__all__ = ["AgentRow", "Identity", "OperatorRow", "SessionRow", "Unknown", "new_id", "new_ids"]

_ID_BYTES = 8
_IDS_AT_ONCE = 256
_HANDLE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LIFE: dict[tuple[str, str], str] = {("active", "revoke"): "revoked", ("revoked", "reissue"): "active"}
"""Agents and operators: state × act → state. An absent key is an error and changes nothing."""


def new_id(kind: str) -> str:
    """`agt_…`, `ses_…`, `call_…`: the millisecond, so that neighbours in time are neighbours in an index, and 64 random bits,
    so that ids cannot be guessed from one another.
    """
    return _id(kind, secrets.token_hex(_ID_BYTES))


def new_ids(kind: str) -> Iterator[str]:
    """The same, one after another, for one thread that needs many: randomness is fetched for many at once, because each
    fetch lets go of the interpreter, which another thread then keeps for a while.
    """
    while True:
        fetched = secrets.token_hex(_ID_BYTES * _IDS_AT_ONCE)
        for at in range(0, len(fetched), 2 * _ID_BYTES):
            yield _id(kind, fetched[at : at + 2 * _ID_BYTES])


def _id(kind: str, random: str) -> str:
    return f"{kind}_{time.time_ns() // 1_000_000:011x}{random}"


def check_handle(handle: str) -> None:
    if not _HANDLE.fullmatch(handle):
        raise RequestError(
            f"{handle!r} is no handle: lower-case letters, digits and dashes, starting with a letter or digit, up to 63"
        )


class Identity:
    """Every method takes the transaction of its caller. What calls ask for again and again is remembered."""

    def __init__(self, pepper: bytes) -> None:
        self._credentials = Credentials(pepper)
        self._agents: Remembered[str, AgentRow] = Remembered()
        self._sessions: Remembered[str, SessionRow] = Remembered()
        self._principals: Remembered[str, Principal] = Remembered()

    def forget(self) -> None:
        """Read the rows again; when a commit failed."""
        for remembered in (self._credentials, self._agents, self._sessions, self._principals):
            remembered.forget()

    # credentials

    def verify(self, tx: Tx, token: str | None, accepted: frozenset[CredentialClass]) -> Credential | Unknown:
        return self._credentials.verify(tx, token, accepted)

    # agents

    def add_agent(
        self,
        tx: Tx,
        *,
        handle: str,
        tier: str,
        owner: str = "",
        scopes: tuple[str, ...] = (),
        hours: Hours | None = None,
        caps: Caps = NO_CAPS,
    ) -> AgentRow:
        """Raises RequestError for a bad handle, Conflict when it is taken (also by a revoked agent)."""
        check_handle(handle)
        if tx.execute("SELECT 1 FROM agents WHERE handle = ?", (handle,)).fetchone():
            raise Conflict(
                f"there is an agent {handle} already; a revoked one comes back with: haltline agents reissue"
            )
        agent = AgentRow(new_id("agt"), handle, tier, owner, scopes, hours, caps, "active", tx.now_us)
        tx.execute(
            "INSERT INTO agents (id, handle, tier, owner, scopes, hours, caps, created_us) VALUES (?,?,?,?,?,?,?,?)",
            (
                agent.id,
                handle,
                tier,
                owner,
                orjson.dumps(scopes).decode(),
                None if hours is None else json_of(hours_to_json(hours)),
                json_of(caps_to_json(caps)),
                tx.now_us,
            ),
        )
        return agent

    def agent(self, tx: Tx, handle: str) -> AgentRow:
        row = tx.execute(f"{AGENT} WHERE handle = ?", (handle,)).fetchone()
        if row is None:
            raise NotFound(f"there is no agent {handle!r}; haltline agents list shows them")
        return agent_of(row)

    def agents(self, tx: Tx) -> list[tuple[AgentRow, int]]:
        """Every agent by handle, each with how many sessions it has open."""
        columns = AGENT.removeprefix("SELECT ").removesuffix(" FROM agents")
        rows = tx.execute(
            f"SELECT (SELECT count(*) FROM sessions WHERE agent_id = agents.id AND sessions.state = 'open'"  # noqa: S608 - constant text
            f" AND expires_us > ?), {columns} FROM agents ORDER BY handle",
            (tx.now_us,),
        )
        return [(agent_of(row), sessions_open) for sessions_open, *row in rows]

    def active_after(self, tx: Tx, agent_id: str, most: int) -> list[AgentRow]:
        """Agents that are not revoked, by their ids, from the one after this id."""
        rows = tx.execute(f"{AGENT} WHERE id > ? AND state = 'active' ORDER BY id LIMIT ?", (agent_id, most))
        return [agent_of(row) for row in rows]

    def agent_by_id(self, tx: Tx, agent_id: str) -> AgentRow:
        known = self._agents.get(agent_id)
        if known is not None:
            return known
        row = tx.execute(f"{AGENT} WHERE id = ?", (agent_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no agent with the id {agent_id!r}")
        return self._agents.keep(agent_id, agent_of(row))

    def _set_state(self, tx: Tx, agent: AgentRow, act: Literal["revoke", "reissue"]) -> None:
        self._agents.changes(tx, agent.id)
        tx.execute("UPDATE agents SET state = ? WHERE id = ?", (_LIFE[agent.state, act], agent.id))

    def issue_agent_credential(self, tx: Tx, agent: AgentRow) -> str:
        """A permanent host's credential (R24); the ones before it end, so that there is one to know of."""
        self._credentials.replace(tx, agent.id)
        return self._credentials.store(tx, issue("a"), agent=agent.id, session=None, operator=None)

    def revoke_agent(self, tx: Tx, agent: AgentRow) -> tuple[bool, list[str]]:
        """End its credential and all its open sessions (R19). Returns (was revoked already, ended session ids)."""
        if agent.state == "revoked":
            return True, []
        self._set_state(tx, agent, "revoke")
        open_ids = [
            row[0]
            for row in tx.execute(
                "SELECT id FROM sessions WHERE agent_id = ? AND state = 'open' AND expires_us > ?",
                (agent.id, tx.now_us),
            )
        ]
        for session_id in open_ids:
            self.revoke_session(tx, session_id)
        self._credentials.revoke(tx, "agent_id", agent.id)
        return False, open_ids

    def reissue_agent(self, tx: Tx, agent: AgentRow) -> None:
        """Let a revoked agent have sessions again; what the day has spent stays spent (R19)."""
        if (agent.state, "reissue") not in _LIFE:
            raise Conflict(f"{agent.handle} is not revoked, so there is nothing to reissue")
        self._set_state(tx, agent, "reissue")

    # sessions

    def open_session(
        self,
        tx: Tx,
        agent: AgentRow,
        *,
        task: str,
        expires_us: int,
        opened_by: str,
        tools: tuple[str, ...] | None = None,
        caps: Caps = NO_CAPS,
        auto: tuple[str, str] | None = None,
        parent: str | None = None,
    ) -> SessionRow:
        """Raises Conflict for a revoked agent. `auto` is (agent credential id, MCP session key) where R24 opens it;
        `parent` the session that opens it for a sub-agent (R20).
        """
        if agent.state != "active":
            raise Conflict(
                f"{agent.handle} is revoked; a person brings it back with: haltline agents reissue {agent.handle}"
            )
        session = SessionRow(
            new_id("ses"), agent.id, task, tools, caps, "open", opened_by, tx.now_us, expires_us, None, parent
        )
        credential, key = auto or (None, None)
        self._sessions.changes(tx, session.id)
        self._principals.changes(tx, session.id)
        tx.execute(
            "INSERT INTO sessions (id, agent_id, task, tools, caps, opened_by, opened_us, expires_us, last_used_us,"
            " auto_credential, auto_key, parent_id) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                session.id,
                agent.id,
                task,
                None if tools is None else orjson.dumps(tools).decode(),
                json_of(caps_to_json(caps)),
                opened_by,
                tx.now_us,
                expires_us,
                tx.now_us,
                credential,
                key,
                parent,
            ),
        )
        return session

    def issue_session_credential(self, tx: Tx, session: SessionRow) -> str:
        return self._credentials.store(tx, issue("s"), agent=session.agent_id, session=session.id, operator=None)

    def auto_session(self, tx: Tx, credential: Credential, key: str, idle_s: float) -> SessionRow | None:
        """The open session that this agent credential continues (R24), marked as used now; None: open a new one."""
        row = tx.execute(
            # The newest alone, alive or not: the older ones of a credential are many after a year, and all are over.
            f"{SESSION} WHERE id = (SELECT id FROM sessions WHERE auto_credential = ? AND auto_key = ?"  # noqa: S608 - constant text
            " ORDER BY opened_us DESC, rowid DESC LIMIT 1) AND state = 'open' AND expires_us > ? AND last_used_us > ?",
            (credential.id, key, tx.now_us, tx.now_us - int(idle_s * 1_000_000)),
        ).fetchone()
        if row is None:
            return None
        tx.execute("UPDATE sessions SET last_used_us = ? WHERE id = ?", (tx.now_us, row[0]))
        return session_of(row)

    def session(self, tx: Tx, session_id: str) -> SessionRow:
        known = self._sessions.get(session_id)
        if known is not None:
            return known
        row = tx.execute(f"{SESSION} WHERE id = ?", (session_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no session {session_id!r}; haltline sessions list shows them")
        return self._sessions.keep(session_id, session_of(row))

    def sessions(self, tx: Tx, *, agent_id: str | None, all_states: bool, most: int) -> list[SessionRow]:
        """The newest sessions first, at most `most`: of one agent or of all, those that ended only with `all_states`."""
        whose = "agent_id = ?" if agent_id is not None else "agent_id IN (SELECT id FROM agents)"
        given = () if agent_id is None else (agent_id,)
        if all_states:
            where = f" WHERE {whose}" if agent_id is not None else ""
            rows = tx.execute(f"{SESSION}{where} ORDER BY rowid DESC LIMIT ?", (*given, most))
        else:
            open_ones = f" WHERE {whose} AND state = 'open' AND expires_us > ? ORDER BY opened_us DESC, id LIMIT ?"
            rows = tx.execute(f"{SESSION}{open_ones}", (*given, tx.now_us, most))
        return [session_of(row) for row in rows]

    def revoke_session(self, tx: Tx, session_id: str) -> tuple[str, ...]:
        """End it and every session below it (R19). Returns the ids of those that ended now, its own first in any case."""
        ended = [session_id]
        for one in family(tx, session_id):
            self._sessions.changes(tx, one)
            cursor = tx.execute(
                "UPDATE sessions SET state = 'revoked', ended_us = ? WHERE id = ? AND state = 'open'", (tx.now_us, one)
            )
            if cursor.rowcount and one != session_id:
                ended.append(one)
            self._credentials.revoke(tx, "session_id", one)
        return tuple(ended)

    def children(self, tx: Tx, session_id: str) -> list[SessionRow]:
        """The sessions that this one opened itself, the oldest first."""
        rows = tx.execute(f"{SESSION} WHERE parent_id = ? ORDER BY opened_us, rowid", (session_id,))
        return [session_of(row) for row in rows]

    def principal(self, tx: Tx, agent: AgentRow, session: SessionRow) -> Principal:
        """Who acts in this session, with those above it: what it may do they must be allowed too (R20).

        Nothing of it changes in a session's life: not what the agent was given, nor what the session was opened with.
        """
        known = self._principals.get(session.id)
        if known is not None:
            return known
        above: tuple[Principal, ...] = ()
        if session.parent_id is not None:
            parent = self.principal(tx, agent, self.session(tx, session.parent_id))
            above = (replace(parent, above=()), *parent.above)
        who = Principal(
            agent_id=agent.id,
            agent=agent.handle,
            tier=agent.tier,
            session_id=session.id,
            task=session.task,
            tools=session.tools,
            scopes=agent.scopes,
            hours=agent.hours,
            agent_caps=agent.caps,
            session_caps=session.caps,
            above=above,
        )
        return self._principals.keep(session.id, who)

    def sessionless(self, agent: AgentRow) -> Principal:
        """An agent before it has a session: enough to list what it may call."""
        return Principal(
            agent_id=agent.id,
            agent=agent.handle,
            tier=agent.tier,
            session_id="",
            task="",
            scopes=agent.scopes,
            hours=agent.hours,
            agent_caps=agent.caps,
        )

    # operators

    def add_operator(self, tx: Tx, name: str, cls: Literal["person", "local"]) -> str:
        """A new named operator; returns the token, which is shown once. Raises Conflict when the name is taken."""
        check_handle(name)
        there = tx.execute("SELECT state FROM operators WHERE name = ?", (name,)).fetchone()
        if there is not None:
            if there[0] == "revoked":
                raise Conflict(f"operator {name} was revoked, and a name is never given twice; choose another one")
            raise Conflict(
                f"there is an operator {name} already; a new token comes from: haltline operators rotate {name}"
            )
        tx.execute("INSERT INTO operators (name, class, created_us) VALUES (?,?,?)", (name, cls, tx.now_us))
        return self._credentials.store(tx, issue("o"), agent=None, session=None, operator=name)

    def operator(self, tx: Tx, name: str) -> OperatorRow:
        row = tx.execute("SELECT name, class, state, created_us FROM operators WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFound(f"there is no operator {name!r}; haltline operators list shows them")
        return OperatorRow(*row)

    def operators(self, tx: Tx) -> list[OperatorRow]:
        return [
            OperatorRow(*row)
            for row in tx.execute("SELECT name, class, state, created_us FROM operators ORDER BY name")
        ]

    def rotate_operator(self, tx: Tx, name: str) -> str:
        """A new token; the old one ends with this transaction."""
        operator = self.operator(tx, name)
        if operator.state != "active":
            raise Conflict(f"operator {name} is revoked")
        self._credentials.revoke(tx, "operator", name)
        return self._credentials.store(tx, issue("o"), agent=None, session=None, operator=name)

    def revoke_operator(self, tx: Tx, name: str) -> None:
        operator = self.operator(tx, name)
        if operator.state != "active":
            raise Conflict(f"operator {name} is revoked already")
        others = tx.execute(
            "SELECT count(*) FROM operators WHERE class = 'person' AND state = 'active' AND name <> ?", (name,)
        ).fetchone()[0]
        if operator.cls == "person" and not others:
            raise Conflict(f"{name} is the last person who could resume anything; add another operator first")
        tx.execute("UPDATE operators SET state = ? WHERE name = ?", (_LIFE[operator.state, "revoke"], name))
        self._credentials.revoke(tx, "operator", name)
