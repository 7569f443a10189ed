"""The human resume: one halt lifted by a named person, who has seen its cause, what ran since, and what lies ahead.

Looks first, beside the hot path, then lifts in one unit what it looked at: where the halt is another by then, nothing is
done. What a person adds to a cap ends with the cap's window, or when they said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from haltline.alarm import resolve
from haltline.audit import Kind
from haltline.clock import iso
from haltline.control.aftermath import aftermath
from haltline.control.outlook import outlook
from haltline.control.targets import Target, found
from haltline.control.views import Shown
from haltline.errors import Conflict, RequestError
from haltline.halts import EVERYTHING
from haltline.lineage import family, parents
from haltline.policy.drill import is_drill
from haltline.policy.durations import parse_duration
from haltline.policy.model import CapKind
from haltline.policy.money import parse_amount
from haltline.standings import balances

if TYPE_CHECKING:
    from haltline.control.aftermath import Aftermath
    from haltline.control.desk import Desk, Operator, Request
    from haltline.halts import HaltRow, HaltScope
    from haltline.store.writer import Tx
    from haltline_client import resume_results as rr

__all__ = ["Resumes"]

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
_US = 1_000_000
_RESUMED: dict[HaltScope, Kind] = {
    "session": Kind.SESSION_RESUMED,
    "agent": Kind.AGENT_RESUMED,
    "everything": Kind.EVERYTHING_RESUMED,
}
_CAPS: dict[HaltScope, tuple[CapKind, ...]] = {
    "session": (CapKind.TASK, CapKind.CALLS),
    "agent": (CapKind.HOUR, CapKind.DAY),
    "everything": (),
}
"""Whose caps they are, so that an allowance is given to whom it belongs."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a person adds, parsed: to which cap, how much in its unit, and for how long (None: its window)."""

    cap: CapKind
    amount: int
    lasts_us: int | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was looked at before anything is lifted."""

    target: Target
    halt: HaltRow
    sessions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Given:
    """What was, or would be, added."""

    wish: _Wish
    until_us: int


class Resumes:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    async def resume(
        self,
        request: Request,
        *,
        target: str,
        reason: str,
        allow: str | None = None,
        allow_for: str | None = None,
        preview: bool = False,
    ) -> rr.Resumed:
        """Lift exactly one halt, and with `allow` add to a cap for a limited time (R16).

        `preview` says what that would do, and does nothing.
        """
        why = self._desk.why(reason)
        if preview:
            request = replace(request, act="preview_resume")  # loosens nothing, so that any operator may (R21)
        if allow is None and allow_for is not None:
            raise RequestError(
                "allow_for: it says how long what allow adds is to hold; say what to add, or leave it out"
            )
        seen = await self._desk.act(request, lambda tx, _: self._look(tx, target))
        wish = None if allow is None else _wished(seen, allow, allow_for)
        since = await aftermath(self._parts.reader, seen.target, seen.halt, seen.sessions)

        def unit(tx: Tx, operator: Operator) -> rr.Resumed:
            if self._parts.halts.get(tx, seen.target.scope, seen.target.subject_id) != seen.halt:
                raise Conflict(f"the halt of {seen.target.name} was lifted or set anew meanwhile; look at it again")
            given = None if wish is None else self._given(tx, seen, wish)
            said = self._said(tx, seen, since, given, preview=preview)
            if not preview:
                self._lift(tx, operator, request, seen, given, why)
            who = seen.target.principal(tx, self._parts.identity)
            if who is not None:
                said["balances"] = Shown(self._parts.policies.current).balances(balances(tx, self._parts, who))
            return said

        return await self._desk.act(request, unit)

    def _look(self, tx: Tx, target: str) -> _Seen:
        """Raises Conflict where it is not halted by a halt of its own."""
        about = found(tx, self._parts.identity, target)
        halt = self._parts.halts.get(tx, about.scope, about.subject_id)
        if halt is None:
            others = self._others(tx, about)
            hint = f"; what stops it is lifted by: {others}" if others else ""
            raise Conflict(f"{about.name} is not halted by a halt of its own{hint}")
        return _Seen(about, halt, () if about.session is None else family(tx, about.session.id))

    def _others(self, tx: Tx, about: Target) -> str:
        """How what stops it beside its own halt is lifted, each by its own resume (R16)."""
        if about.scope == "everything":
            return ""
        halts, agent = self._parts.halts, about.agent
        above = () if about.session is None else parents(tx, about.session.id)
        names = [one for one in above if halts.get(tx, "session", one) is not None]
        if agent is not None and about.scope == "session" and halts.get(tx, "agent", agent.id) is not None:
            names.append(agent.handle)
        if halts.get(tx, "everything", EVERYTHING) is not None:
            names.append(EVERYTHING)
        return ", ".join(f"haltline resume {name}" for name in names)

    # what it says

    def _said(self, tx: Tx, seen: _Seen, since: Aftermath, given: _Given | None, *, preview: bool) -> rr.Resumed:
        about, halt, shown = seen.target, seen.halt, Shown(self._parts.policies.current)
        who = about.principal(tx, self._parts.identity)
        added = {} if given is None else {given.wish.cap: given.wish.amount}
        ahead = outlook(tx, self._parts, who, halt, since.refused, added)
        others = self._others(tx, about)
        return {
            "target": about.name,
            "scope": about.scope,
            "was": {"code": halt.code, "text": halt.text, "by": halt.by, "since": iso(halt.set_us)},
            "since_halt": since.shown(shown),
            "allowance": None if given is None else shown.quantity(given.wish.cap, given.wish.amount),
            "allowance_cap": None if given is None else given.wish.cap.value,
            "allowance_until": None if given is None else iso(given.until_us),
            "ahead": f"it stays stopped until also: {others}; then {ahead}" if others else ahead,
            "preview": preview,
            "at": iso(tx.now_us),
        }

    # what it does

    def _lift(self, tx: Tx, operator: Operator, request: Request, seen: _Seen, given: _Given | None, why: str) -> None:
        about, halt, parts = seen.target, seen.halt, self._parts
        parts.halts.lift(tx, halt, by=operator.actor, reason=why)
        if given is not None:
            parts.halts.allow(
                tx,
                about.scope,
                about.subject_id,
                given.wish.cap,
                given.wish.amount,
                until_us=given.until_us,
                by=operator.actor,
            )
        who = about.principal(tx, parts.identity)
        body = {
            "target": about.name,
            "reason": why,
            "was": {"code": halt.code, "text": halt.text, "by": halt.by, "since_us": halt.set_us},
            "allowance": None if given is None else given.wish.amount,
            "cap": None if given is None else given.wish.cap.value,
            "until_us": None if given is None else given.until_us,
            "drill": True if who is not None and is_drill(who) else None,
        }
        kind = _RESUMED[about.scope]
        event = self._desk.event(kind, operator, request, agent=about.agent, session=about.session_id, body=body)
        seq = parts.audit.append(tx, event)
        resolve(tx, parts, by=operator.actor, event_seq=seq, kind=kind.value, who=who)

    def _given(self, tx: Tx, seen: _Seen, wish: _Wish) -> _Given:
        """Until when it holds: no session's allowance longer than the session. Raises Conflict where that is over."""
        about = seen.target
        until_us = self._window_end(tx, about, wish.cap) if wish.lasts_us is None else tx.now_us + wish.lasts_us
        if about.session is not None:
            until_us = min(until_us, about.session.expires_us)
        if until_us <= tx.now_us:
            raise Conflict(f"{about.name} has ended, so nothing can be added to its cap; open a new session")
        return _Given(wish, until_us)

    def _window_end(self, tx: Tx, about: Target, cap: CapKind) -> int:
        """To the end of the window of the cap that it is added to."""
        if cap in {CapKind.TASK, CapKind.CALLS} and about.session is not None:
            return about.session.expires_us
        policy = self._parts.policies.current
        if cap is CapKind.DAY and policy is not None:
            return policy.day_bounds(tx.now_us)[1]
        return tx.now_us + (HOUR_US if cap is CapKind.HOUR else DAY_US)


def _wished(seen: _Seen, allow: str, allow_for: str | None) -> _Wish:
    """`0.50` for the cap that caused the halt, `day=2.00` for one that is named. Raises RequestError, and Conflict where no
    cap caused it and none is named.
    """
    name, named, amount = allow.rpartition("=")
    cap = _cap_named(seen.target, name.strip()) if named else seen.halt.cap
    if cap is None:
        ways = " or ".join(f"{one.value}={allow}" for one in _CAPS[seen.target.scope])
        hint = f"name one: {ways}; or resume without" if ways else "resume without allow"
        raise Conflict(f"no cap caused this halt ({seen.halt.code}), so there is none to add to; {hint}")
    try:
        quantity = _count(amount.strip()) if cap is CapKind.CALLS else parse_amount(amount.strip())
        lasts_us = None if allow_for is None else int(parse_duration(allow_for) * _US)
    except ValueError as error:
        raise RequestError(f"{'allow' if 'length of time' not in str(error) else 'allow_for'}: {error}") from None
    if quantity <= 0:
        raise RequestError("allow: more than nothing is wanted; to add nothing leave it out")
    return _Wish(cap, quantity, lasts_us)


def _cap_named(about: Target, name: str) -> CapKind:
    """Raises RequestError where there is no such cap, or it is not this target's own."""
    for scope, kinds in _CAPS.items():
        for kind in kinds:
            if kind.value != name:
                continue
            if scope == about.scope:
                return kind
            owner = "a session" if scope == "session" else "an agent"
            raise RequestError(f"allow: the {name} cap is that of {owner}; {about.name} is none")
    names = ", ".join(kind.value for kind in _CAPS[about.scope]) or "none, for what halts everything is no cap"
    raise RequestError(f"allow: there is no cap {name!r} that can be added to here; there are: {names}")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ValueError(f"the cap is on the number of calls, so a whole number is wanted, such as 20, not {text!r}")
    return int(text)
