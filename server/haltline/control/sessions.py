"""Sessions: one run of an agent on one task (R24). Opening one, and looking at them.

A session narrows its agent: fewer tools, lower caps, a shorter life. Nothing here can widen anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haltline.audit import Kind
from haltline.clock import iso
from haltline.control.allowances import shown_allowances
from haltline.control.reading import last_actions
from haltline.control.views import Shown
from haltline.errors import Conflict, RequestError
from haltline.halts import EVERYTHING
from haltline.policy.balance import OF_SESSION
from haltline.policy.caps import caps_to_json, parse_caps
from haltline.policy.durations import parse_duration
from haltline.policy.model import NO_CAPS, CapKind, Caps
from haltline.policy.patterns import check_pattern
from haltline.standings import balances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haltline.control.desk import Desk, Operator, Request
    from haltline.identity import AgentRow, SessionRow
    from haltline.policy.model import HaltFact, Principal
    from haltline.policy.policy import Policy, Tier
    from haltline.store.writer import Tx
    from haltline_client import results as r

__all__ = ["Sessions", "parsed_caps", "shown_session"]

SESSIONS_MAX = 1_000
SESSIONS_A_UNIT = 50
_US = 1_000_000


class Sessions:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    async def open_session(
        self,
        request: Request,
        *,
        agent: str,
        task: str,
        tools: Sequence[str] | None = None,
        caps: Mapping[str, Any] | None = None,
        expires_in: str | None = None,
        reason: str | None = None,
    ) -> r.OpenedSession:
        """Open a session and return its credential, this once. Refused while everything is halted (R16)."""
        doing = self._desk.plain(task.strip())
        if not doing:
            raise RequestError("task: say what this run is for; it is shown wherever the session is")
        why = None if reason is None else self._desk.why(reason)
        narrowed, patterns = parsed_caps(caps), _patterns(tools)

        def unit(tx: Tx, operator: Operator) -> tuple[AgentRow, SessionRow, Principal, str]:
            row = self._parts.identity.agent(tx, agent)
            self._check_running(tx)
            session = self._parts.identity.open_session(
                tx,
                row,
                task=doing,
                expires_us=tx.now_us + self._lasts_us(row, expires_in),
                opened_by=operator.actor,
                tools=patterns,
                caps=narrowed,
            )
            body = {
                "task": doing,
                "expires_us": session.expires_us,
                "tools": None if patterns is None else list(patterns),
                "caps": caps_to_json(narrowed) or None,
                "reason": why,
            }
            event = self._desk.event(Kind.SESSION_OPENED, operator, request, agent=row, session=session.id, body=body)
            self._parts.audit.append(tx, event)
            who = self._parts.identity.principal(tx, row, session)
            return row, session, who, self._parts.identity.issue_session_credential(tx, session)

        row, session, who, token = await self._desk.act(request, unit)
        policy = self._parts.policies.current
        return {
            "session": session.id,
            "agent": row.handle,
            "tier": row.tier,
            "task": session.task,
            "token": token,
            "expires_at": iso(session.expires_us),
            "caps": Shown(policy).caps(() if policy is None else policy.limits(who)),
            "tools": _tools(who, policy),
        }

    def _check_running(self, tx: Tx) -> None:
        halt = self._parts.halts.get(tx, "everything", EVERYTHING)
        if halt is not None:
            raise Conflict(f"everything is halted ({halt.text}, by {halt.by}), which stops new sessions too")

    def _lasts_us(self, row: AgentRow, expires_in: str | None) -> int:
        """How long the session lasts. Raises RequestError for more than the tier allows."""
        policy = self._parts.policies.current
        if policy is None:
            raise Conflict("the policy cannot be read, so no session can be opened; run: haltline policy check")
        tier = policy.tier(row.tier)
        if tier is None:
            raise Conflict(f"the policy has no tier {row.tier!r} any more, so {row.handle} can have no session")
        longest_s = _longest_s(tier)
        try:
            lasts_s = tier.session_expires_s if expires_in is None else parse_duration(expires_in)
        except ValueError as error:
            raise RequestError(f"expires_in: {error}") from None
        if lasts_s > longest_s:
            raise RequestError(
                f"expires_in: a session of tier {row.tier} lasts at most {longest_s:g} s; "
                "ask for less, or raise session_expires of the tier in the policy"
            )
        return int(lasts_s * _US)

    async def list_sessions(
        self,
        request: Request,
        *,
        agent: str | None = None,
        all: bool = False,  # noqa: A002 - the argument's name on the wire
    ) -> r.SessionList:
        """The open sessions, with `all` also those that ended; the newest first, at most `SESSIONS_MAX`."""

        def find(tx: Tx, _: Operator) -> list[SessionRow]:
            agent_id = None if agent is None else self._parts.identity.agent(tx, agent).id
            return self._parts.identity.sessions(tx, agent_id=agent_id, all_states=all, most=SESSIONS_MAX)

        rows = await self._desk.act(request, find)
        shown: list[r.Session] = []
        for start in range(0, len(rows), SESSIONS_A_UNIT):
            some = rows[start : start + SESSIONS_A_UNIT]
            shown += await self._parts.writer.run(lambda tx, some=some: self._shown(tx, some))  # type: ignore[misc]
        return {"sessions": shown}

    def _shown(self, tx: Tx, rows: Sequence[SessionRow]) -> list[r.Session]:
        agents = {row.agent_id: self._parts.identity.agent_by_id(tx, row.agent_id) for row in rows}
        return [shown_session(tx, self._desk, agents[row.agent_id], row) for row in rows]

    async def show_session(self, request: Request, *, session: str) -> r.SessionDetail:
        """One session with tools, caps, balances and what it did last."""

        def unit(tx: Tx, _: Operator) -> r.SessionDetail:
            row = self._parts.identity.session(tx, session)
            return self._detail(tx, row, self._parts.identity.agent_by_id(tx, row.agent_id))

        detail = await self._desk.act(request, unit)
        detail["last_actions"] = await last_actions(self._parts.reader, session_id=session)
        return detail

    def _detail(self, tx: Tx, row: SessionRow, agent: AgentRow) -> r.SessionDetail:
        policy = self._parts.policies.current
        shown, who = Shown(policy), self._parts.identity.principal(tx, agent, row)
        limits = () if policy is None else policy.limits(who)
        below = self._parts.identity.children(tx, row.id)
        return {
            **shown_session(tx, self._desk, agent, row),
            "children": [shown_session(tx, self._desk, agent, child) for child in below],
            "tools": _tools(who, policy),
            "caps": shown.caps(limits),
            "halt": shown.cause(self._parts.halts.on(tx, row.id, agent.id, who.sessions_above)),
            "balances": shown.balances(balances(tx, self._parts, who)),
            "allowances": shown_allowances(tx, self._parts, self._parts.halts.granted(tx, (row.id, agent.id))),
            "last_actions": [],
        }


def shown_session(tx: Tx, desk: Desk, agent: AgentRow, row: SessionRow) -> r.Session:
    """A session's line: the two caps that it has for itself."""
    parts = desk.parts
    policy = parts.policies.current
    shown, spent = Shown(policy), parts.ledger.spent(tx, agent.id, row.id, ())
    who = parts.identity.principal(tx, agent, row)
    added = parts.halts.allowances(tx, (row.id, agent.id))
    limits = () if policy is None else policy.limits(who)
    caps = {cap.kind: cap.limit + added.get(cap.kind, 0) for cap in limits if cap.kind in OF_SESSION}
    task = caps.get(CapKind.TASK)
    return {
        "session": row.id,
        "agent": agent.handle,
        "task": row.task,
        "state": _state(row, agent, tx.now_us, parts.halts.on(tx, row.id, agent.id, who.sessions_above)),
        "opened_at": iso(row.opened_us),
        "expires_at": iso(row.expires_us),
        "spent": shown.money(spent.task.settled_micros),
        "held": shown.money(spent.task.running_micros),
        "in_doubt": shown.money(spent.task.in_doubt_micros),
        "cap": None if task is None else shown.money(task),
        "calls": spent.calls_settled + spent.calls_open,
        "calls_cap": caps.get(CapKind.CALLS),
        "parent": row.parent_id,
        "running": spent.calls_open - spent.calls_in_doubt,
    }


def parsed_caps(caps: Mapping[str, Any] | None) -> Caps:
    """Raises RequestError naming the cap."""
    try:
        return NO_CAPS if caps is None else parse_caps(caps)
    except ValueError as error:
        raise RequestError(f"caps: {error}") from None


def _state(row: SessionRow, agent: AgentRow, now_us: int, halts: Sequence[HaltFact]) -> str:
    """`revoked`, `expired`, `halted` (by its own halt, its agent's or everything's) or `open`."""
    life = "revoked" if agent.state == "revoked" else row.life(now_us)
    return "halted" if life == "open" and halts else life


def _patterns(tools: Sequence[str] | None) -> tuple[str, ...] | None:
    try:
        return None if tools is None else tuple(check_pattern(pattern) for pattern in tools)
    except ValueError as error:
        raise RequestError(f"tools: {error}") from None


def _tools(who: Principal, policy: Policy | None) -> list[str]:
    """The patterns that bound a session: its own, else those of its tier."""
    if who.tools is not None:
        return list(who.tools)
    tier = None if policy is None else policy.tier(who.tier)
    return [] if tier is None else list(tier.tools)


def _longest_s(tier: Tier) -> float:
    return max(tier.session_expires_s, tier.auto_session_longest_s)
