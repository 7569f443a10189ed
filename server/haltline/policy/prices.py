"""What a call costs: before it goes out, the amount to hold; after it has answered, what is charged (R6, R7).

Four kinds: fixed, read from an argument, declared maximum with the actual read from the result, metered by running time.
What cannot be read before dispatch refuses the call; what cannot be read after it charges the full hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from haltline.policy.model import Reason
from haltline.policy.money import MICROS, format_amount, read_amount
from haltline.policy.paths import MISSING, find

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline.policy.paths import ArgumentPath

__all__ = ["Bill", "Fixed", "FromArgument", "FromResult", "Metered", "Price", "Rate", "Read"]


@dataclass(frozen=True, slots=True)
class Bill:
    """What an answered call costs; `why` says it where that could not be read from the answer."""

    micros: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """Where an amount stands in JSON: each value at `path` is worth `each_micros`; `currency` must name ours."""

    text: str
    path: ArgumentPath
    each_micros: int = MICROS
    currency: ArgumentPath | None = None
    currency_text: str = ""
    ours: str = "USD"

    def amount(self, value: Mapping[str, Any]) -> int | Reason:
        found = list(find(value, self.path))
        if not found or any(one is MISSING or one is None for one in found):
            return self._reason("charge.amount_missing", f"{self.text} must state the amount, and is missing")
        try:
            micros = sum(read_amount(one, self.each_micros) for one in found)
        except ValueError as error:
            return self._reason("charge.amount_invalid", f"{self.text} must state the amount, and {error}")
        return micros if self.currency is None else self._in_ours(value, self.currency) or micros

    def _in_ours(self, value: Mapping[str, Any], path: ArgumentPath) -> Reason | None:
        said = list(find(value, path))
        if said and all(isinstance(one, str) and one.upper() == self.ours for one in said):
            return None
        missing = not said or said[0] is MISSING
        what = "is missing" if missing else "names another currency"
        return self._reason("charge.currency", f"{self.currency_text} must be {self.ours}, and {what}")

    def _reason(self, code: str, text: str) -> Reason:
        return Reason(code, text, {"path": self.text})


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same for every call."""

    kind: ClassVar = "fixed"
    micros: int

    @property
    def text(self) -> str:
        return format_amount(self.micros)

    @property
    def said(self) -> str:
        return f"{self.kind} {self.text}"

    def most(self, deadline_s: float) -> int | None:
        del deadline_s
        return self.micros

    def hold(self, arguments: Mapping[str, Any], deadline_s: float) -> int | Reason:
        del arguments, deadline_s
        return self.micros

    def bill(self, result: Mapping[str, Any], held: int, ran_us: int) -> Bill:
        del result, ran_us
        return Bill(held)


@dataclass(frozen=True, slots=True)
class FromArgument:
    """As much as the call itself asks for; `at_most` bounds it, None leaves that to the caps."""

    kind: ClassVar = "argument"
    read: Read
    at_most: int | None

    @property
    def text(self) -> str:
        return self.read.text if self.at_most is None else f"{self.read.text}, at most {format_amount(self.at_most)}"

    @property
    def said(self) -> str:
        return f"argument {self.text}"

    def most(self, deadline_s: float) -> int | None:
        del deadline_s
        return self.at_most

    def hold(self, arguments: Mapping[str, Any], deadline_s: float) -> int | Reason:
        del deadline_s
        return self.read.amount(arguments)

    def bill(self, result: Mapping[str, Any], held: int, ran_us: int) -> Bill:
        del result, ran_us
        return Bill(held)


@dataclass(frozen=True, slots=True)
class FromResult:
    """A declared maximum is held; the result says what it cost, be it more."""

    kind: ClassVar = "result"
    read: Read
    at_most: int

    @property
    def text(self) -> str:
        return f"{self.read.text}, at most {format_amount(self.at_most)}"

    @property
    def said(self) -> str:
        return f"result {self.text}"

    def most(self, deadline_s: float) -> int | None:
        del deadline_s
        return self.at_most

    def hold(self, arguments: Mapping[str, Any], deadline_s: float) -> int | Reason:
        del arguments, deadline_s
        return self.at_most

    def bill(self, result: Mapping[str, Any], held: int, ran_us: int) -> Bill:
        """An error costs the full hold, or more where it says so: less is believed only of a success (R7)."""
        del ran_us
        said = self.read.amount(result)
        if isinstance(said, Reason):
            return Bill(held, said.text)
        return Bill(max(said, held)) if result.get("isError") else Bill(said)


@dataclass(frozen=True, slots=True)
class Metered:
    """So much a second, from admission to the recorded end; the deadline is the maximum."""

    kind: ClassVar = "metered"
    per_second: int

    @property
    def text(self) -> str:
        return f"{format_amount(self.per_second)} per second"

    @property
    def said(self) -> str:
        return f"metered {self.text}"

    def most(self, deadline_s: float) -> int | None:
        return -(-self.per_second * round(deadline_s * 1_000_000) // 1_000_000)

    def hold(self, arguments: Mapping[str, Any], deadline_s: float) -> int | Reason:
        del arguments
        return self.most(deadline_s) or 0

    def bill(self, result: Mapping[str, Any], held: int, ran_us: int) -> Bill:
        del result
        return Bill(min(held, -(-self.per_second * ran_us // 1_000_000)))


Rate = Fixed | FromArgument | FromResult | Metered


@dataclass(frozen=True, slots=True)
class Price:
    """What a call costs, and the entry that says so."""

    rate: Rate
    where: str
    """`tools.yaml:12`, `haltline.yaml`, or `billing.py:12` where the tool's code says it."""
    matched_by: str
    """The entry's name or pattern, `upstreams.<name>`, or the name of the tool whose code says it."""

    @property
    def text(self) -> str:
        """For people: `0.05`, `args.amount, at most 500.00`, `0.002 per second`."""
        return self.rate.text

    @property
    def said(self) -> str:
        """As the audit event keeps it: `tools.yaml: payments__charge fixed 0.05`."""
        return f"{self.where.partition(':')[0]}: {self.matched_by} {self.rate.said}"
