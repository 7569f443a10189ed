"""The policy in force: what it would say to one call, and taking up what the folder holds now (R26)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haltline.audit import Kind
from haltline.control.allowances import shown_allowances
from haltline.control.views import Shown
from haltline.errors import ConfigError, Conflict, RequestError
from haltline.facts import gather
from haltline.policy.decide import for_child
from haltline.policy.model import Allow, Halt, Reason, ToolCall
from haltline.quarantine import comes_first, not_served
from haltline.standings import balances

if TYPE_CHECKING:
    from haltline.control.desk import Desk, Operator, Request
    from haltline.identity import AgentRow, SessionRow
    from haltline.policy.model import Decision, Facts, Principal
    from haltline.policy.policy import Policy
    from haltline.store.writer import Tx
    from haltline_client import cap_results as c
    from haltline_client import results as r

__all__ = ["Policies", "Reload"]

Reload = Callable[[str], Awaitable[bool]]
"""Reads the folder on behalf of this actor and records what came of it; whether another policy is in force now."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who would call, and what is known of them now."""

    who: Principal
    facts: Facts
    now_us: int
    dead: Reason | None
    allowances: list[c.Allowance]
    balances: list[c.Balance]
    above: tuple[tuple[Principal, Facts], ...]
    """The sessions above, the root first: each must be allowed the call too (R20)."""

    def explain(self, policy: Policy, call: ToolCall) -> tuple[Decision, list[r.RuleSaid]]:
        """The decision, and what every rule said: those of the sessions above in front, named by their session."""
        decision: Decision | None = None
        rules: list[r.RuleSaid] = []
        for who, facts in (*self.above, (self.who, self.facts)):
            said = policy.explain(call, who, facts, self.now_us)
            of = "" if who is self.who else f"session {who.session_id}: "
            rules += [
                {"rule": f"{of}{one.rule}", "where": one.where, "spoke": one.spoke, "text": one.text}
                for one in said.rules
            ]
            if decision is None and not isinstance(said.decision, Allow):
                decision = for_child(who, said.decision) if of else said.decision
        return decision or said.decision, rules


class Policies:
    def __init__(self, desk: Desk, reload_policy: Reload) -> None:
        self._desk = desk
        self._parts = desk.parts
        self._reload = reload_policy

    async def explain_decision(
        self,
        request: Request,
        *,
        agent: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        session: str | None = None,
    ) -> r.Explanation:
        """What would be decided about this call now, from the real facts. Nothing is held, recorded or sent."""
        policy = self._parts.policies.current

        def unit(tx: Tx, _: Operator) -> Asked:
            row = self._parts.identity.agent(tx, agent)
            found = None if session is None else self._session(tx, row, session)
            if policy is None:
                raise Conflict("the policy cannot be read, so every call is refused; run: haltline policy check")
            identity = self._parts.identity
            who = identity.sessionless(row) if found is None else identity.principal(tx, row, found)
            granted = self._parts.halts.granted(tx, (who.session_id, who.agent_id))
            allowed = shown_allowances(tx, self._parts, granted)
            above = tuple((one, gather(tx, self._parts, one, policy)) for one in reversed(who.above))
            facts = gather(tx, self._parts, who, policy)
            stand = Shown(policy).balances(balances(tx, self._parts, who))
            return Asked(who, facts, tx.now_us, _dead(row, found, tx.now_us), allowed, stand, above)

        asked = await self._desk.act(request, unit)
        assert policy is not None
        return self._explained(policy, asked, tool, arguments or {})

    def _session(self, tx: Tx, agent: AgentRow, session: str) -> SessionRow:
        row = self._parts.identity.session(tx, session)
        if row.agent_id != agent.id:
            raise RequestError(f"session: {session} is not one of {agent.handle}")
        return row

    def _explained(self, policy: Policy, asked: Asked, tool: str, arguments: Mapping[str, Any]) -> r.Explanation:
        catalog = self._parts.catalog
        found = catalog.tool(tool)
        owner = found.upstream if found is not None else catalog.owner(tool)
        call = ToolCall(tool, owner or "", arguments, None if found is None else found.input_schema)
        decision, rules = asked.explain(policy, call)
        before = _before_the_policy(asked.dead, tool, listed=found is not None, owner=owner)
        if before is None and found is not None:
            before = not_served(self._parts.pins.shown(found.upstream, found.own_name), found)
        if before is not None:
            rules.insert(0, {"rule": "broker", "where": "", "spoke": "deny", "text": before.text})
        reasons = _reasons(decision)
        decides = before is not None and (
            asked.dead is not None
            or owner is None
            or not reasons
            or (found is not None and not comes_first(reasons[0]))
        )
        return {
            "decision": "deny" if decides else _word(decision),
            "amount": self._amount(policy, decision),
            "reasons": [_shown(one) for one in ((before,) if decides and before is not None else reasons)],
            "rules": rules,
            "balances": asked.balances,
            "allowances": asked.allowances,
        }

    @staticmethod
    def _amount(policy: Policy, decision: Decision) -> r.Money | None:
        """What the call would hold, or would have held."""
        if isinstance(decision, Allow):
            return Shown(policy).money(decision.amount_micros)
        micros = decision.reasons[0].facts.get("amount_micros")
        return Shown(policy).money(micros) if isinstance(micros, int) else None

    async def reload_policy(self, request: Request) -> r.ReloadedPolicy:
        """Take up what the folder holds. A broken one changes nothing and is a ConfigError with every problem."""
        operator = await self._desk.act(request, lambda _, operator: operator)
        changed = await self._reload(operator.actor)
        policies = self._parts.policies
        if policies.problems:
            raise ConfigError(policies.problems)
        assert policies.current is not None
        version = policies.current.version
        if not changed:
            body = {"version": version, "changed": False}
            event = self._desk.event(Kind.POLICY_LOADED, operator, request, body=body)
            await self._parts.writer.run(lambda tx: self._parts.audit.append(tx, event), urgent=True)
        return {"version": version, "changed": changed}


def _dead(agent: AgentRow, session: SessionRow | None, now_us: int) -> Reason | None:
    """Why the credential itself would be refused."""
    if agent.state == "revoked":
        return Reason("agent.revoked", f"{agent.handle} was revoked")
    life = "open" if session is None else session.life(now_us)
    return None if life == "open" else Reason(f"session.{life}", f"this session is {life}")


def _before_the_policy(dead: Reason | None, tool: str, *, listed: bool, owner: str | None) -> Reason | None:
    """What the broker says by itself: about a credential that ended, and about a tool that nobody lists now."""
    if dead is not None or listed:
        return dead
    if owner is None:
        return Reason("tool.unknown", f"no upstream has a tool {tool[:80]}")
    return Reason(
        "upstream.unavailable", f"{owner} is not reachable now, or does not offer {tool[:80]}", retryable=True
    )


def _reasons(decision: Decision) -> tuple[Reason, ...]:
    return () if isinstance(decision, Allow) else decision.reasons


def _word(decision: Decision) -> Any:
    return "allow" if isinstance(decision, Allow) else "halt" if isinstance(decision, Halt) else "deny"


def _shown(reason: Reason) -> r.Reason:
    return {"code": reason.code, "text": reason.text, "facts": dict(reason.facts), "retryable": reason.retryable}
