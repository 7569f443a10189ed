"""The rules about money and counts: price, triggers on one charge, caps with what is settled and held, rate, concurrency.

Only task, hour, day and number of calls halt, and only on what is *settled*; a shortfall that holds cause is retryable
(R3). None of these can be put in audit mode (R29). Integers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from haltline.policy.model import CapKind, Reason, Usage
from haltline.policy.money import MAX_MICROS, format_amount
from haltline.policy.prices import FromArgument
from haltline.policy.rules import Refusal, refuse, stamp

if TYPE_CHECKING:
    from haltline.policy.caps import CapLimit
    from haltline.policy.model import Facts
    from haltline.policy.rules import Asked

__all__ = ["Calls", "Concurrent", "PerCall", "PriceMaximum", "Priced", "Rate", "SingleCharge", "Spending"]

_STOPS: dict[CapKind, Literal["session", "agent"]] = {
    CapKind.TASK: "session",
    CapKind.CALLS: "session",
    CapKind.HOUR: "agent",
    CapKind.DAY: "agent",
}


@dataclass(frozen=True, slots=True)
class Priced:
    """A tool without a price entry is refused (R6), and a call that does not state the amount its price reads (R7)."""

    name: str = "price"
    where: str = ""
    audit: bool = False

    def ask(self, asked: Asked) -> Refusal | None:
        if asked.terms.price is None:
            return refuse(
                "charge.unpriced", f"{asked.call.tool} has no price, so it cannot be called; an operator has to set one"
            )
        return None if asked.no_amount is None else Refusal(asked.no_amount)

    def fine(self, asked: Asked) -> str:
        price = asked.terms.price
        assert price is not None
        return f"{price.rate.said}, by {price.matched_by} in {price.where}"


@dataclass(frozen=True, slots=True)
class SingleCharge:
    """A trigger on the amount attempted, so that it fires even where a smaller cap would have refused (R4)."""

    limit: int
    where: str
    currency: str
    name: str = "single charge"
    audit: bool = False

    def ask(self, asked: Asked) -> Refusal | None:
        amount = asked.amount_micros
        if amount <= self.limit:
            return None
        text = f"{self._line()}, this call {format_amount(amount)}"
        reason = Reason("charge.single_exceeded", text, {"limit_micros": self.limit, "amount_micros": amount})
        return Refusal(reason, "agent")

    def fine(self, asked: Asked) -> str:
        return f"{self._line()}, this call {format_amount(asked.amount_micros)}"

    def _line(self) -> str:
        return f"a single charge above {format_amount(self.limit, self.currency)} halts"


@dataclass(frozen=True, slots=True)
class PriceMaximum:
    """A price read from an argument denies what is above its own maximum, and what no ledger could hold."""

    currency: str
    name: str = "price maximum"
    where: str = ""
    audit: bool = False

    def ask(self, asked: Asked) -> Refusal | None:
        amount, most = asked.amount_micros, self._most(asked)
        if amount <= most:
            return None
        facts: dict[str, int | str | None] = {"cap": "price", "limit_micros": most, "amount_micros": amount}
        return refuse("charge.too_large", self._text(most, amount), facts)

    def fine(self, asked: Asked) -> str:
        read = asked.terms.price is not None and isinstance(asked.terms.price.rate, FromArgument)
        return self._text(self._most(asked), asked.amount_micros) if read else ""

    @staticmethod
    def _most(asked: Asked) -> int:
        most = asked.terms.most_micros
        return MAX_MICROS if most is None else most

    def _text(self, most: int, amount: int) -> str:
        return f"the price goes up to {format_amount(most, self.currency)}, this call {format_amount(amount)}"


@dataclass(frozen=True, slots=True)
class PerCall:
    """The cap on one call denies and never halts (R3)."""

    cap: CapLimit
    currency: str
    name: str = "per_call cap"
    audit: bool = False

    @property
    def where(self) -> str:
        return self.cap.where

    def ask(self, asked: Asked) -> Refusal | None:
        amount = asked.amount_micros
        limit = self.cap.limit + asked.facts.allowances.get(CapKind.PER_CALL, 0)
        if amount <= limit:
            return None
        facts: dict[str, int | str | None] = {"cap": "per_call", "limit_micros": limit, "amount_micros": amount}
        return refuse("charge.too_large", self._text(limit, amount), facts)

    def fine(self, asked: Asked) -> str:
        limit = self.cap.limit + asked.facts.allowances.get(CapKind.PER_CALL, 0)
        return self._text(limit, asked.amount_micros)

    def _text(self, limit: int, amount: int) -> str:
        return f"per-call cap {format_amount(limit, self.currency)}, this call {format_amount(amount)}"


@dataclass(frozen=True, slots=True)
class Spending:
    """A task, hour or day cap: settled + held + this amount stays within it (P2)."""

    cap: CapLimit
    currency: str
    audit: bool = False

    @property
    def name(self) -> str:
        return f"{self.cap.kind} cap"

    @property
    def where(self) -> str:
        return self.cap.where

    def ask(self, asked: Asked) -> Refusal | None:
        limit, usage, amount = self._limit(asked), self._usage(asked.facts), asked.amount_micros
        if usage.settled_micros + usage.held_micros + amount <= limit:
            return None
        text, facts = self.fine(asked), self._facts(asked, limit, usage, amount)
        if usage.settled_micros + amount > limit:
            return Refusal(Reason(f"budget.{self.cap.kind}_exceeded", text, facts), _STOPS[self.cap.kind])
        return refuse("budget.cap_held", text, facts, retryable=True)

    def fine(self, asked: Asked) -> str:
        usage = self._usage(asked.facts)
        cap = f"{self.cap.kind} cap {format_amount(self.cap.limit, self.currency)}"
        added = asked.facts.allowances.get(self.cap.kind, 0)
        allowed = f" and {format_amount(added)} allowed on top" if added else ""
        on_hold = usage.held_micros - usage.in_doubt_micros
        held = f", on hold {format_amount(on_hold)}" if on_hold else ""
        held += f", in doubt {format_amount(usage.in_doubt_micros)}" if usage.in_doubt_micros else ""
        spent = f"spent {format_amount(usage.settled_micros)}"
        return f"{cap}{allowed}, {spent}{held}, this call {format_amount(asked.amount_micros)}"

    def _limit(self, asked: Asked) -> int:
        return self.cap.limit + asked.facts.allowances.get(self.cap.kind, 0)

    def _usage(self, facts: Facts) -> Usage:
        if self.cap.kind is CapKind.TASK:
            return facts.task
        return facts.hour if self.cap.kind is CapKind.HOUR else facts.day

    def _facts(self, asked: Asked, limit: int, usage: Usage, amount: int) -> dict[str, int | str | None]:
        facts: dict[str, int | str | None] = {
            "cap": self.cap.kind.value,
            "limit_micros": limit,
            "settled_micros": usage.settled_micros,
            "held_micros": usage.held_micros - usage.in_doubt_micros,
            "in_doubt_micros": usage.in_doubt_micros,
            "remaining_micros": limit - usage.settled_micros - usage.held_micros,
            "amount_micros": amount,
        }
        resets = {CapKind.HOUR: asked.facts.hour_resets_at_us, CapKind.DAY: asked.facts.day_resets_at_us}
        at_us = resets.get(self.cap.kind)
        if at_us is not None:
            facts["resets_at"] = stamp(at_us)
        return facts


@dataclass(frozen=True, slots=True)
class Calls:
    """The cap on the number of calls of one session."""

    cap: CapLimit
    name: str = "calls cap"
    audit: bool = False

    @property
    def where(self) -> str:
        return self.cap.where

    def ask(self, asked: Asked) -> Refusal | None:
        made, running = asked.facts.calls_settled, asked.facts.calls_open
        limit = self.cap.limit + asked.facts.allowances.get(CapKind.CALLS, 0)
        if made + running + 1 <= limit:
            return None
        in_doubt = asked.facts.calls_in_doubt
        facts: dict[str, int | str | None] = {
            "cap": "calls",
            "limit": limit,
            "settled": made,
            "held": running - in_doubt,
            "in_doubt": in_doubt,
            "remaining": limit - made - running,
        }
        if made + 1 > limit:
            return Refusal(Reason("calls.exceeded", self.fine(asked), facts), _STOPS[CapKind.CALLS])
        return refuse("calls.cap_held", self.fine(asked), facts, retryable=True)

    def fine(self, asked: Asked) -> str:
        added = asked.facts.allowances.get(CapKind.CALLS, 0)
        allowed = f" and {added} allowed on top" if added else ""
        running = f", {asked.facts.calls_open} not ended" if asked.facts.calls_open else ""
        return f"cap of {self.cap.limit} calls{allowed}, {asked.facts.calls_settled} made{running}"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many admissions of one agent in a rolling window; what is not known is not let through."""

    cap: CapLimit
    name: str = "rate cap"
    audit: bool = False

    @property
    def where(self) -> str:
        return self.cap.where

    def ask(self, asked: Asked) -> Refusal | None:
        assert self.cap.window_s is not None
        count = asked.facts.rate_counts.get(self.cap.window_s)
        if count is None:
            text = f"how many calls were made in the last {self.cap.window_s} s is not known"
            return refuse("policy.error", text, {"cap": "rate"})
        if count + 1 <= self._limit(asked):
            return None
        facts: dict[str, int | str | None] = {
            "cap": "rate",
            "limit": self._limit(asked),
            "window_s": self.cap.window_s,
            "count": count,
        }
        return refuse("rate.exceeded", self.fine(asked), facts, retryable=True)

    def fine(self, asked: Asked) -> str:
        count = asked.facts.rate_counts.get(self.cap.window_s or 0, 0)
        return f"at most {self._limit(asked)} calls in {self.cap.window_s} s, {count} made"

    def _limit(self, asked: Asked) -> int:
        return self.cap.limit + asked.facts.allowances.get(CapKind.RATE, 0)


@dataclass(frozen=True, slots=True)
class Concurrent:
    """So many calls of one agent at once."""

    cap: CapLimit
    name: str = "concurrent cap"
    audit: bool = False

    @property
    def where(self) -> str:
        return self.cap.where

    def ask(self, asked: Asked) -> Refusal | None:
        running, limit = asked.facts.agent_open_calls, self._limit(asked)
        if running + 1 <= limit:
            return None
        facts: dict[str, int | str | None] = {"cap": "concurrent", "limit": limit, "running": running}
        return refuse("rate.concurrent", self.fine(asked), facts, retryable=True)

    def fine(self, asked: Asked) -> str:
        return f"at most {self._limit(asked)} calls at once, {asked.facts.agent_open_calls} running"

    def _limit(self, asked: Asked) -> int:
        return self.cap.limit + asked.facts.allowances.get(CapKind.CONCURRENT, 0)
