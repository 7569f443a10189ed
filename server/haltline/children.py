"""Sessions that an agent opens for its sub-agents: narrower than its own, on its budget, ended with it (R20).

Only opening is here. What a child may do is asked of every session above it, call by call (`calls.judging`); what it spends
counts in theirs (`accounts`); halts and revokes reach it through `lineage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haltline.audit import Event, Kind
from haltline.clock import iso
from haltline.errors import Conflict, RequestError
from haltline.lineage import family
from haltline.policy.caps import caps_to_json
from haltline.policy.drill import as_drilled, is_drill
from haltline.policy.durations import parse_duration
from haltline.policy.model import CapKind, Caps
from haltline.policy.money import format_amount, parse_amount
from haltline.policy.patterns import check_pattern
from haltline.standings import balances

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.identity import AgentRow, SessionRow
    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.policy.tiers import Children as Grant
    from haltline.store.writer import Tx
    from haltline.upstreams.model import Caller

__all__ = ["Children"]

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a child is asked for with, parsed."""

    task: str
    caps: Caps
    tools: tuple[str, ...] | None
    lasts_us: int | None


class Children:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def open(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A session below the caller's, with its credential. Raises RequestError and Conflict, which say what to do."""
        asked = _parsed(arguments)
        child, token = await self._parts.writer.run(lambda tx: self._open(tx, caller, asked))
        policy = self._parts.policies.current
        budget = format_amount(child.caps.task_micros or 0, "" if policy is None else policy.currency).strip()
        return {
            "session": child.id,
            "token": token,
            "expires_at": iso(child.expires_us),
            "budget": budget,
            "tools": None if child.tools is None else list(child.tools),
        }

    def _open(self, tx: Tx, caller: Caller, asked: _Asked) -> tuple[SessionRow, str]:
        """One unit: who asks is looked at again, for it may have been stopped since its call was admitted."""
        identity, policy = self._parts.identity, self._parts.policies.current
        agent = identity.agent_by_id(tx, caller.agent_id)
        parent = identity.session(tx, caller.session_id)
        who = identity.principal(tx, agent, parent)
        drilled = is_drill(who)
        if drilled:
            who = as_drilled(who)
        if parent.life(tx.now_us) != "open" or self._parts.halts.on(tx, parent.id, agent.id, who.sessions_above):
            raise Conflict("this session has been stopped")
        tier = None if policy is None else policy.tier(who.tier)
        if policy is None or tier is None or tier.children is None:
            raise Conflict("the policy does not let this agent open sessions any more")
        self._check_room(tx, tier.children, who)
        self._check_budget(tx, policy, who, asked.caps)
        lasts_us = parent.expires_us - tx.now_us if asked.lasts_us is None else asked.lasts_us
        child = identity.open_session(
            tx,
            agent,
            task=asked.task,
            expires_us=min(tx.now_us + lasts_us, parent.expires_us),
            opened_by=f"agent:{agent.handle}",
            tools=parent.tools if asked.tools is None else asked.tools,
            caps=asked.caps,
            parent=parent.id,
        )
        self._record(tx, agent, child, drilled=drilled)
        return child, identity.issue_session_credential(tx, child)

    def _check_room(self, tx: Tx, grant: Grant, who: Principal) -> None:
        """Raises Conflict: too many are open below the root, or this one may have none below it."""
        if len(who.above) >= grant.depth:
            raise Conflict(f"sessions may be opened {grant.depth} deep, and this one is the deepest already")
        root = who.above[-1].session_id if who.above else who.session_id
        rows = (self._parts.identity.session(tx, one) for one in family(tx, root)[1:])
        if sum(row.life(tx.now_us) == "open" for row in rows) >= grant.most:
            raise Conflict(f"{grant.most} sessions are open below the first one, which is the most; let one end")

    def _check_budget(self, tx: Tx, policy: Policy, who: Principal, caps: Caps) -> None:
        """Raises RequestError where the slice is more than what is left in this session or one above it."""
        assert caps.task_micros is not None
        for one in balances(tx, self._parts, who):
            if one.kind is CapKind.TASK and caps.task_micros > one.left:
                left = format_amount(max(one.left, 0), policy.currency)
                raise RequestError(f"budget: {left} are left of the task cap; ask for no more than that")

    def _record(self, tx: Tx, agent: AgentRow, child: SessionRow, *, drilled: bool) -> None:
        body: dict[str, Any] = {
            "task": child.task,
            "expires_us": child.expires_us,
            "tools": None if child.tools is None else list(child.tools),
            "caps": caps_to_json(child.caps),
            "parent": child.parent_id,
        }
        if drilled:
            body["drill"] = True
        actor = f"agent:{agent.handle}"
        self._parts.audit.append(
            tx,
            Event(
                Kind.SESSION_OPENED, actor, agent=agent.handle, agent_id=agent.id, session=child.id, body=body
            ),
        )  # fmt: skip


def _parsed(arguments: Mapping[str, Any]) -> _Asked:
    """The tool's input schema has been checked; what it cannot say is checked here. Raises RequestError."""
    task = str(arguments.get("task", "")).strip()
    if not task or not task.isprintable():
        raise RequestError("task: say what the sub-agent is to do, in one line")
    try:
        budget = parse_amount(str(arguments.get("budget")))
    except ValueError as error:
        raise RequestError(f"budget: {error}") from None
    try:
        given, lasts = arguments.get("tools"), arguments.get("expires_in")
        tools = None if given is None else tuple(check_pattern(str(pattern)) for pattern in given)
        lasts_us = None if lasts is None else int(parse_duration(str(lasts)) * _US)
    except ValueError as error:
        raise RequestError(str(error)) from None
    calls = arguments.get("calls")
    return _Asked(task, Caps(task_micros=budget, calls=None if calls is None else int(calls)), tools, lasts_us)
