"""The rules about money and counts: price, triggers on one charge, caps with what is settled and held, rate, concurrency.

Only task, hour, day and number of calls halt, and only on what is *settled*; a shortfall that holds cause is retryable
(R3). None of these can be put in audit mode (R29). Integers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from haltline.policy.balance import balance, limit, usage
from haltline.policy.model import CapKind, Reason
from haltline.policy.money import MAX_MICROS, format_amount
from haltline.policy.prices import FromArgument
from haltline.policy.rules import Refusal, refuse

if TYPE_CHECKING:
    from haltline.policy.caps import CapLimit
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
        if amount <= limit(self.cap, asked.facts):
            return None
        facts = {**balance(self.cap, asked.facts).facts(), "amount_micros": amount}
        return refuse("charge.too_large", self.fine(asked), facts)

    def fine(self, asked: Asked) -> str:
        most = format_amount(limit(self.cap, asked.facts), self.currency)
        return f"per-call cap {most}, this call {format_amount(asked.amount_micros)}"


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
        used, most, amount = usage(self.cap, asked.facts), limit(self.cap, asked.facts), asked.amount_micros
        assert used is not None
        if used.settled_micros + used.held_micros + amount <= most:
            return None
        text, facts = self.fine(asked), {**balance(self.cap, asked.facts).facts(), "amount_micros": amount}
        if used.settled_micros + amount > most:
            return Refusal(Reason(f"budget.{self.cap.kind}_exceeded", text, facts), _STOPS[self.cap.kind])
        return refuse("budget.cap_held", text, facts, retryable=True)

    def fine(self, asked: Asked) -> str:
        now = balance(self.cap, asked.facts)
        cap = f"{self.cap.kind} cap {format_amount(self.cap.limit, self.currency)}"
        allowed = f" and {format_amount(now.added)} allowed on top" if now.added else ""
        held = f", on hold {format_amount(now.held)}" if now.held else ""
        held += f", in doubt {format_amount(now.in_doubt)}" if now.in_doubt else ""
        spent = f"spent {format_amount(now.settled or 0)}"
        return f"{cap}{allowed}, {spent}{held}, this call {format_amount(asked.amount_micros)}"


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
        made, most = asked.facts.calls_settled, limit(self.cap, asked.facts)
        if made + asked.facts.calls_open + 1 <= most:
            return None
        facts = balance(self.cap, asked.facts).facts()
        if made + 1 > most:
            return Refusal(Reason("calls.exceeded", self.fine(asked), facts), _STOPS[CapKind.CALLS])
        return refuse("calls.cap_held", self.fine(asked), facts, retryable=True)

    def fine(self, asked: Asked) -> str:
        now = balance(self.cap, asked.facts)
        allowed = f" and {now.added} allowed on top" if now.added else ""
        running = f", {now.held} not ended" if now.held else ""
        running += f", {now.in_doubt} in doubt" if now.in_doubt else ""
        return f"cap of {self.cap.limit} calls{allowed}, {now.settled} made{running}"


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
        if count + 1 <= limit(self.cap, asked.facts):
            return None
        return refuse("rate.exceeded", self.fine(asked), balance(self.cap, asked.facts).facts(), retryable=True)

    def fine(self, asked: Asked) -> str:
        now = balance(self.cap, asked.facts)
        return f"at most {now.limit} calls in {now.window_s} s, {now.settled} made"


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
        if asked.facts.agent_open_calls + 1 <= limit(self.cap, asked.facts):
            return None
        return refuse("rate.concurrent", self.fine(asked), balance(self.cap, asked.facts).facts(), retryable=True)

    def fine(self, asked: Asked) -> str:
        now = balance(self.cap, asked.facts)
        return f"at most {now.limit} calls at once, {now.held} running"
