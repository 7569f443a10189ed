"""What is told: composes an alert with what somebody needs who must act, inside the causing transaction, and ends what is over.

`alarm` for a halt or a rule that fired, `resolve` for the act of a person that ended it.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import orjson

from haltline.alerts.episodes import about
from haltline.alerts.model import LAST_ACTIONS, Alert, Balance
from haltline.clock import iso
from haltline.lineage import family
from haltline.policy.balance import MONEY
from haltline.policy.model import Rate
from haltline.policy.money import format_amount
from haltline.policy.rules import stamp
from haltline.standings import balances

if TYPE_CHECKING:
    from haltline.alerts.episodes import Episode
    from haltline.alerts.model import Severity
    from haltline.parts import Parts
    from haltline.policy.balance import Balance as Standing
    from haltline.policy.model import Principal, Reason
    from haltline.store.writer import Tx

__all__ = ["alarm", "resolve"]

OPERATOR = "operator:"


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
    rule: str | None = None,
    threshold: str | None = None,
    observed: str | None = None,
    quiet_s: float | None = None,
) -> None:
    """Tell of the event `event_seq`, or count it where its episode was told lately. `who` is None for everything.

    `rule`, `threshold` and `observed` are those of a rule that fired, in words. What an operator stopped is in their
    hands already; what they revoked is told and needs nobody.
    """
    operators = by.startswith(OPERATOR)
    if kind.endswith(".revoked"):
        resolve(tx, parts, by=by, event_seq=event_seq, kind=kind, who=who)
    elif operators:
        _in_hand(tx, parts, by=by, event_seq=event_seq, kind=kind, who=who)
    alert = Alert(
        kind=kind,
        code=reason.code,
        text=reason.text,
        agent=None if who is None else who.agent,
        agent_id=None if who is None else who.agent_id,
        session=None if who is None else who.session_id or None,
        task=None if who is None else who.task or None,
        by=by,
        severity=severity,
        rule=rule,
        threshold=threshold,
        observed=observed,
        last_actions=() if who is None else _last_actions(tx, who.agent_id),
        balances=() if who is None else _balances(tx, parts, who),
        commands=_commands(kind, who),
        tier=None if who is None else who.tier,
        owner=None if who is None else parts.identity.agent_by_id(tx, who.agent_id).owner or None,
        act="notice" if kind.endswith(".revoked") else "trigger",
        acted_by=by if operators else None,
    )
    parts.outbox.enqueue(tx, event_seq, alert, quiet_s=quiet_s)


def resolve(tx: Tx, parts: Parts, *, by: str, event_seq: int, kind: str, who: Principal | None) -> list[str]:
    """End the episodes that a person's act ended, everywhere where they were told; returns their ids.

    `kind` and `who` are those of the event: `session.resumed` ends what is about that session, `agent.resumed` what is
    about the agent itself (R16), `agent.revoked` what is about any of its sessions too. `who` is None for everything.
    """
    return parts.outbox.resolve(tx, event_seq, _acted(tx, parts, by=by, kind=kind, who=who), by)


def _in_hand(tx: Tx, parts: Parts, *, by: str, event_seq: int, kind: str, who: Principal | None) -> None:
    """Whoever halts it has seen what was open: nobody else need be called."""
    for episode in _acted(tx, parts, by=by, kind=kind, who=who):
        if episode.state == "open":
            parts.outbox.acknowledge(tx, event_seq, episode, by)


def _acted(tx: Tx, parts: Parts, *, by: str, kind: str, who: Principal | None) -> list[Episode]:
    """What is not resolved of what a person's act reaches, with that they acted."""
    episodes, keys, agent_id = parts.outbox.episodes, [_about(kind, who)], _whole_agent(kind, who)
    if who is not None and kind in {"session.revoked", "session.halted"}:
        keys = [f"session:{one}" for one in family(tx, who.session_id)]  # those below it are stopped with it (R20)
    for key in keys:
        episodes.acted(tx, key, agent_id, by)
    if agent_id is not None:
        return episodes.live_of_agent(tx, agent_id)
    return [episode for key in keys for episode in episodes.live_about(tx, key)]


def _about(kind: str, who: Principal | None) -> str:
    if who is None:
        return about(Alert(kind, "", ""))
    return about(Alert(kind, "", "", agent_id=who.agent_id, session=who.session_id or None))


def _whole_agent(kind: str, who: Principal | None) -> str | None:
    """The agent, where an act reaches all that its sessions met too."""
    return who.agent_id if who is not None and kind in {"agent.revoked", "agent.halted"} else None


def _commands(kind: str, who: Principal | None) -> tuple[str, ...]:
    """What to type next, for what was stopped."""
    subject, _, act = kind.partition(".")
    if subject == "clock":
        return ("haltline status",)
    target = "everything" if who is None else who.session_id if subject == "session" else who.agent
    quoted = shlex.quote(target)
    if act == "revoked":
        return (f'haltline agents reissue {quoted} --reason "…"',) if subject == "agent" else ()
    if act == "fired":
        return (f'haltline halt {quoted} --reason "…"', f'haltline revoke {quoted} --reason "…"')
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
    """In words, but for the caps on a single call, which nothing fills up."""
    policy = parts.policies.current
    currency = "" if policy is None else policy.currency
    return tuple(_in_words(one, who, currency) for one in balances(tx, parts, who) if one.counts)


def _in_words(one: Standing, who: Principal, currency: str) -> Balance:
    def text(amount: int | None) -> str:
        return "" if amount is None else format_amount(amount, currency) if one.kind in MONEY else str(amount)

    return Balance(
        cap=one.kind.value,
        limit=text(one.limit) if one.window_s is None else str(Rate(one.limit, one.window_s)),
        spent=text(one.settled),
        held=text(one.held),
        remaining=text(one.remaining),
        in_doubt=text(one.in_doubt),
        resets_at=None if one.resets_at_us is None else stamp(one.resets_at_us),
        of_session=one.session if one.session != who.session_id else None,
    )
