"""Rules that are asked when no call waits for the answer: of a call that ended, of history and of time (R8, R27).

What fires commits its event, its alert and its halt in the transaction that asked; no call of that agent is sent after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from haltline.facts import gather
from haltline.policy.drill import DRILL
from haltline.policy.model import Halt, Reason
from haltline.policy.money import format_amount
from haltline.policy.watch_money import Forecast
from haltline.rules.asking import asked, caps_of, moment
from haltline.rules.firing import cancel, fire, halt_of, halted, owner_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haltline.parts import Parts
    from haltline.policy.model import Principal
    from haltline.policy.policy import Policy
    from haltline.policy.watch import CapUse, Moment, WatchRule
    from haltline.store.writer import Tx

__all__ = ["Ended", "ask", "ask_at_end"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended, as rules are asked about it again."""

    call: str
    tool: str
    upstream: str
    admitted_us: int
    charged: int
    grew: bool
    """It cost more than was held."""
    failed: bool


def ask_at_end(tx: Tx, parts: Parts, who: Principal, end: Ended) -> tuple[str, ...]:
    """In the transaction that settles: the rules whose line an end can cross, by what it cost above its hold or by failing.

    Whatever else an end does to what is counted makes it less. The rules are those in force now, as for any other call.
    Returns whom they halted.
    """
    policy = parts.policies.current
    if policy is None or end.upstream == DRILL or not (end.grew or end.failed):
        return ()
    stopped = _by_the_tier(tx, parts, policy, who, end) if end.grew else ()
    rules = [
        rule
        for rule in policy.watch(who.tier, who.agent)
        if rule.of.applies(end.tool)
        and ((rule.at_end == "cost" and end.grew) or (rule.at_end == "failure" and end.failed))
    ]
    if not rules:
        return stopped
    now = moment(tx, parts, policy, who)._replace(
        tool=end.tool, upstream=end.upstream, amount=end.charged, admitted_us=end.admitted_us
    )
    if any(isinstance(rule, Forecast) for rule in rules):
        now = now._replace(caps=_caps(tx, parts, policy, who))
    return stopped + ask(tx, parts, policy, who, rules, now, call=end.call)


def _by_the_tier(tx: Tx, parts: Parts, policy: Policy, who: Principal, end: Ended) -> tuple[str, ...]:
    """What a tier halts on by itself, here as before a call goes (R4, R27): a single charge above its line."""
    tier = policy.tier(who.tier)
    line = None if tier is None else tier.single_charge_micros
    if line is None or end.charged <= line or parts.halts.on(tx, "", who.agent_id):
        return ()
    text = f"a single charge above {format_amount(line, policy.currency)} halts, this call cost {format_amount(end.charged)}"
    numbers: dict[str, int | str | None] = {"limit_micros": line, "charged_micros": end.charged}
    halt = Halt((Reason("charge.single_exceeded", text, numbers),), "agent")
    halted(tx, parts, who, halt, policy.version, call=end.call, tool=end.tool)
    return (who.agent,)


def ask(
    tx: Tx,
    parts: Parts,
    policy: Policy,
    who: Principal,
    rules: Sequence[WatchRule],
    now: Moment,
    call: str | None = None,
) -> tuple[str, ...]:
    """Ask each, and do what it says; returns whom they halted. What is stopped already needs no second alarm."""
    stopped: list[str] = []
    for rule in rules:
        for fired in asked(rule, now):
            owner = owner_of(fired, who)
            # A call that ended may stop an agent of which only this session was stopped, by the same bill.
            session = fired.finding.session or (who.session_id if now.admitted_us is None else "")
            if parts.halts.on(tx, session, owner.agent_id):
                continue
            fire(tx, parts, policy, owner, fired, told=not fired.halts, call=call)
            if fired.halts:
                halt = halt_of(fired)
                stopped.append(fired.finding.session or owner.agent)
                halted(tx, parts, owner, halt, policy.version, call=call)
                if rule.of.cancels:
                    cancel(tx, parts, owner, halt)
    return tuple(stopped)


def _caps(tx: Tx, parts: Parts, policy: Policy, who: Principal) -> tuple[CapUse, ...]:
    return tuple(cap for one in (who, *who.above) for cap in caps_of(policy, one, gather(tx, parts, one, policy), who))
