"""Every halt is told: composes the alert of one, with what somebody needs who must act, inside the causing transaction."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import orjson

from haltline.alerts.model import LAST_ACTIONS, Alert, Balance
from haltline.clock import iso
from haltline.facts import gather
from haltline.policy.money import format_amount
from haltline.standings import MONEY, Standing, standings

if TYPE_CHECKING:
    from haltline.alerts.model import Severity
    from haltline.parts import Parts
    from haltline.policy.model import Principal, Reason
    from haltline.store.writer import Tx

__all__ = ["alarm"]


def alarm(
    tx: Tx,
    parts: Parts,
    *,
    kind: str,
    reason: Reason,
    by: str,
    event_seq: int,
    who: Principal | None,
    severity: Severity = "critical",
) -> None:
    """Enqueue the alert of the event `event_seq`. `who` is None where it is about everything."""
    parts.outbox.enqueue(
        tx,
        event_seq,
        Alert(
            kind=kind,
            code=reason.code,
            text=reason.text,
            agent=None if who is None else who.agent,
            agent_id=None if who is None else who.agent_id,
            session=None if who is None else who.session_id or None,
            task=None if who is None else who.task or None,
            by=by,
            severity=severity,
            last_actions=() if who is None else _last_actions(tx, who.agent_id),
            balances=() if who is None else _balances(tx, parts, who),
            commands=_commands(kind, who),
        ),
    )


def _commands(kind: str, who: Principal | None) -> tuple[str, ...]:
    """What to type next, for what was stopped."""
    subject, _, act = kind.partition(".")
    if subject == "clock":
        return ("haltline status",)
    target = "everything" if who is None else who.session_id if subject == "session" else who.agent
    quoted = shlex.quote(target)
    if act == "revoked":
        return (f'haltline agents reissue {quoted} --reason "…"',) if subject == "agent" else ()
    again = f'haltline resume {quoted} --reason "…"'
    return (again,) if who is None else (again, f'haltline revoke {quoted} --reason "…"')


def _last_actions(tx: Tx, agent_id: str) -> tuple[str, ...]:
    """The agent's newest calls, oldest first: `14:02:03 call.denied payments__charge budget.task_exceeded`."""
    rows = tx.execute(
        "SELECT body FROM events WHERE agent_id = ? AND kind >= 'call.' AND kind < 'call/' AND kind <> 'call.allowed'"
        " ORDER BY seq DESC LIMIT ?",
        (agent_id, LAST_ACTIONS),
    ).fetchall()
    return tuple(_action(orjson.loads(row[0])) for row in reversed(rows))


def _action(event: dict[str, Any]) -> str:
    codes = [reason["code"] for reason in event.get("reasons", ())]
    charged = event.get("charged_micros")
    money = "" if charged is None else f"charged {format_amount(charged, '').strip()}"
    parts = (iso(event["at_us"])[11:19], event["kind"], event.get("tool"), *codes, money)
    return " ".join(part for part in parts if part)


def _balances(tx: Tx, parts: Parts, who: Principal) -> tuple[Balance, ...]:
    policy = parts.policies.current
    if policy is None:
        return ()
    standing = standings(who, policy, gather(tx, parts, who, policy))
    return tuple(_balance(one, policy.currency) for one in standing)


def _balance(one: Standing, currency: str) -> Balance:
    def text(amount: int) -> str:
        return format_amount(amount, currency) if one.kind in MONEY else str(amount)

    return Balance(one.kind.value, text(one.limit), text(one.settled), text(one.held), text(one.remaining))
