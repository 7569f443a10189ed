"""Agents: adding one, looking at them, and giving a revoked one a new start (R19).

Any operator may add an agent, the broker machine's own credential included: what an agent may reach and spend is bounded
by its tier, which only the policy files can widen. Undoing a revoke loosens, so it needs a person (R21).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from haltline.audit import Kind
from haltline.control.allowances import shown_allowances
from haltline.control.reading import last_actions
from haltline.control.sessions import parsed_caps, shown_session
from haltline.control.views import Shown
from haltline.errors import Conflict, RequestError
from haltline.facts import gather
from haltline.halts import EVERYTHING
from haltline.policy.caps import caps_to_json
from haltline.policy.hours import hours_from_json, hours_to_json
from haltline.policy.model import CapKind
from haltline.rules.asking import caps_of
from haltline.signals.words import unusual, usual
from haltline.standings import balances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haltline.control.desk import Desk, Operator, Request
    from haltline.identity import AgentRow
    from haltline.policy.model import HaltFact, Principal
    from haltline.store.writer import Tx
    from haltline_client import cap_results as c
    from haltline_client import results as r

__all__ = ["AGENTS_A_UNIT", "Agents", "agent_state", "today"]

AGENTS_A_UNIT = 20
"""So many are looked at in one unit of work, so that no call waits long behind a list."""
SESSIONS_SHOWN = 50


class Today(TypedDict):
    spent_day: r.Money
    cap_day: r.Money | None
    held: r.Money
    in_doubt: r.Money
    running: int
    balances: list[c.Balance]


class Agents:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    async def add_agent(
        self,
        request: Request,
        *,
        handle: str,
        tier: str,
        owner: str | None = None,
        scopes: Sequence[str] = (),
        hours: Mapping[str, str] | None = None,
        caps: Mapping[str, Any] | None = None,
        credential: bool = False,
        reason: str | None = None,
    ) -> r.AddedAgent:
        """Register an agent under a tier of the policy; caps and hours can only narrow what that tier grants."""
        if handle == EVERYTHING:
            raise RequestError(f"{EVERYTHING!r} is what a halt of all agents is called; choose another handle")
        why = None if reason is None else self._desk.why(reason)
        narrowed = parsed_caps(caps)
        try:
            opening = None if hours is None else hours_from_json(hours)
        except ValueError as error:
            raise RequestError(f"hours: {error}") from None
        self._check_names(tier, scopes)

        def unit(tx: Tx, operator: Operator) -> str | None:
            agent = self._parts.identity.add_agent(
                tx,
                handle=handle,
                tier=tier,
                owner=self._desk.plain(owner or ""),
                scopes=tuple(scopes),
                hours=opening,
                caps=narrowed,
            )
            body = {
                "tier": tier,
                "owner": agent.owner or None,
                "scopes": list(scopes) or None,
                "hours": None if opening is None else hours_to_json(opening),
                "caps": caps_to_json(narrowed) or None,
                "credential": credential,
                "reason": why,
            }
            self._parts.audit.append(tx, self._desk.event(Kind.AGENT_ADDED, operator, request, agent=agent, body=body))
            return self._parts.identity.issue_agent_credential(tx, agent) if credential else None

        token = await self._desk.act(request, unit)
        added: r.AddedAgent = {"agent": handle, "tier": tier, "owner": owner or None}
        if token is not None:
            added["token"] = token
        return added

    def _check_names(self, tier: str, scopes: Sequence[str]) -> None:
        policy = self._parts.policies.current
        if policy is None:
            raise Conflict("the policy cannot be read, so no tier is known; run: haltline policy check")
        if policy.tier(tier) is None:
            raise RequestError(f"tier: there is no tier {tier!r} in the policy; it has {_names(policy.tier_names)}")
        missing = [name for name in scopes if name not in policy.scope_names]
        if missing:
            raise RequestError(
                f"scopes: there is no scope {missing[0]!r} in the policy; it has {_names(policy.scope_names)}"
            )

    async def list_agents(self, request: Request) -> r.AgentList:
        rows = await self._desk.act(request, lambda tx, _: self._parts.identity.agents(tx))
        shown: list[r.Agent] = []
        for start in range(0, len(rows), AGENTS_A_UNIT):
            some = rows[start : start + AGENTS_A_UNIT]
            shown += await self._parts.writer.run(lambda tx, some=some: [self._listed(tx, *one) for one in some])  # type: ignore[misc]
        return {"agents": shown}

    def _listed(self, tx: Tx, agent: AgentRow, sessions_open: int) -> r.Agent:
        now = today(tx, self._desk, agent)
        return {
            "agent": agent.handle,
            "tier": agent.tier,
            "owner": agent.owner or None,
            "state": agent_state(agent, self._parts.halts.on(tx, "", agent.id)),
            "sessions_open": sessions_open,
            "spent_day": now["spent_day"],
            "cap_day": now["cap_day"],
            "held": now["held"],
            "in_doubt": now["in_doubt"],
        }

    async def show_agent(self, request: Request, *, agent: str) -> r.AgentDetail:
        """One agent with scopes, caps, balances, open sessions and what it did last."""

        def unit(tx: Tx, _: Operator) -> tuple[r.AgentDetail, str]:
            row = self._parts.identity.agent(tx, agent)
            return self._detail(tx, row), row.id

        detail, agent_id = await self._desk.act(request, unit)
        detail["last_actions"] = await last_actions(self._parts.reader, agent_id=agent_id)
        return detail

    def _detail(self, tx: Tx, row: AgentRow) -> r.AgentDetail:
        policy = self._parts.policies.current
        shown, who = Shown(policy), self._parts.identity.sessionless(row)
        halts = self._parts.halts.on(tx, "", row.id)
        limits = () if policy is None else policy.limits(who)
        sessions = self._parts.identity.sessions(tx, agent_id=row.id, all_states=False, most=SESSIONS_SHOWN)
        normal, odd = self._ways(tx, who)
        return {
            "agent": row.handle,
            "tier": row.tier,
            "owner": row.owner or None,
            "state": agent_state(row, halts),
            "scopes": list(row.scopes),
            "hours": None if row.hours is None else hours_to_json(row.hours),  # type: ignore[typeddict-item]  # its four keys
            "caps": shown.caps(limits),
            "halt": shown.cause(halts),
            "sessions": [shown_session(tx, self._desk, row, session) for session in sessions],
            "balances": shown.balances(balances(tx, self._parts, who)),
            "allowances": shown_allowances(tx, self._parts, self._parts.halts.granted(tx, (row.id,))),
            "last_actions": [],
            "usual": normal,
            "unusual": odd,
        }

    def _ways(self, tx: Tx, who: Principal) -> tuple[list[str], list[str]]:
        """What was normal, and what is unusual now."""
        state, policies = self._parts.signals.agent(tx, who.agent_id), self._parts.policies
        policy, zone = policies.current, policies.zone
        if policy is None:
            return usual(state, tx.now_us, "", zone), unusual(state, tx.now_us, "", zone)
        caps = caps_of(policy, who, gather(tx, self._parts, who, policy), who)
        return usual(state, tx.now_us, policy.currency, zone), unusual(state, tx.now_us, policy.currency, zone, caps)

    async def reissue_agent(self, request: Request, *, agent: str, reason: str, credential: bool = False) -> r.Reissued:
        """Let a revoked agent have sessions again; what the day has spent stays spent, its halts stay set (R19)."""
        why = self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> str | None:
            row = self._parts.identity.agent(tx, agent)
            self._parts.identity.reissue_agent(tx, row)
            body = {"target": row.handle, "reason": why, "credential": credential}
            self._parts.audit.append(tx, self._desk.event(Kind.AGENT_REISSUED, operator, request, agent=row, body=body))
            return self._parts.identity.issue_agent_credential(tx, row) if credential else None

        token = await self._desk.act(request, unit)
        return {"agent": agent} if token is None else {"agent": agent, "token": token}


def agent_state(agent: AgentRow, halts: Sequence[HaltFact]) -> str:
    """`revoked`, `halted` (by its own halt or everything's) or `active`."""
    if agent.state == "revoked":
        return "revoked"
    return "halted" if halts else "active"


def today(tx: Tx, desk: Desk, agent: AgentRow) -> Today:
    """What an agent spent today, holds and has in doubt, its day cap with what was added to it, and all its balances."""
    parts = desk.parts
    shown, spent = Shown(parts.policies.current), parts.ledger.spent(tx, agent.id, "", ())
    found = balances(tx, parts, parts.identity.sessionless(agent))
    cap = next((one.limit for one in found if one.kind is CapKind.DAY), None)
    return {
        "spent_day": shown.money(spent.day.settled_micros),
        "cap_day": None if cap is None else shown.money(cap),
        "held": shown.money(spent.day.running_micros),
        "in_doubt": shown.money(spent.day.in_doubt_micros),
        "running": spent.agent_running,
        "balances": shown.balances(found),
    }


def _names(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
