"""What is known of each tool: its price, whether it only reads, its deadline; from the policy, then from the tool's
own code where it says so, then from haltline.yaml.

Each setting comes from the most specific entry that states it (`patterns`: a name before a pattern, then the longer text
before the first `*`). What no entry prices is unpriced, which is refused (R6).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from haltline.errors import ConfigError, Problem
from haltline.policy.destination import destination_of
from haltline.policy.patterns import matcher, most_specific
from haltline.policy.price_entry import parse_price
from haltline.policy.prices import Price

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from haltline.policy.document import ToolEntry
    from haltline.policy.folder import Merged
    from haltline.policy.model import Reason
    from haltline.policy.price_entry import PriceEntry

__all__ = ["Price", "Terms", "TermsTable", "ToolDeclared", "ToolDefaults"]

T = TypeVar("T")
_DEADLINE_S = 60.0
_MOST_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class ToolDeclared:
    """What a tool's own code says of it; None where it says nothing. A policy entry wins."""

    where: str
    """`billing.py:12`"""
    price: str | Mapping[str, str] | None = None
    """`"0.05"`, or a mapping as in policy files."""
    read_only: bool | None = None
    timeout_s: float | None = None
    destination: str | None = None
    """As in policy files: `args.recipient`."""


@dataclass(frozen=True, slots=True)
class ToolDefaults:
    """What haltline.yaml says of an upstream's tools, and the code of single ones; a policy entry wins over both."""

    price: str | Mapping[str, str] | None = None
    read_only: bool = False
    timeout_s: float | None = None
    declared: Mapping[str, ToolDeclared] = field(default_factory=dict)
    """By the name that agents see; each wins over what is said of the whole upstream."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one tool."""

    price: Price | None
    read_only: bool
    charge_on_error: bool
    deadline_s: float
    said: str = ""
    """The price as the audit event keeps it."""
    destination: Callable[[Mapping[str, Any]], str] | None = field(default=None, compare=False)
    """Whom or what a call reaches, from its arguments; None where nobody said how to read it."""
    reaches: str | None = None
    """The same as it was written."""

    @property
    def most_micros(self) -> int | None:
        """What a call costs at most by its price; None where only the caps bound it."""
        return None if self.price is None else self.price.rate.most(self.deadline_s)

    def amount(self, arguments: Mapping[str, Any]) -> int | Reason:
        """What a call would hold; a Reason why that cannot be said. Unpriced: nothing, and refused for that."""
        return 0 if self.price is None else self.price.rate.hold(arguments, self.deadline_s)


class TermsTable:
    """The entries under `tools:`, the most specific first; what was looked up once is remembered."""

    def __init__(self, merged: Merged, defaults: Mapping[str, ToolDefaults]) -> None:
        self._currency = merged.content.currency or "USD"
        self._entries = [
            (matcher(pattern), _Entry(merged, pattern, self._currency))
            for pattern in most_specific(merged.content.tools)
        ]
        self._upstreams = {
            name: (_default_price(name, default, self._currency), default) for name, default in defaults.items()
        }
        self.agents = frozenset(agent for _, entry in self._entries for agent in entry.agents)
        """Those that some entry has another price for."""
        self._tiers = frozenset(tier for _, entry in self._entries for tier in entry.tiers)
        self._known: dict[tuple[str, str, str, str], Terms] = {}

    def of(self, tool: str, upstream: str, agent: str = "", tier: str = "") -> Terms:
        """What holds for a call by this agent; by nobody in particular where it is left out."""
        key = (tool, upstream, agent if agent in self.agents else "", tier if tier in self._tiers else "")
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            known = self._known[key] = self._look_up(*key)
        return known

    def _look_up(self, tool: str, upstream: str, agent: str, tier: str) -> Terms:
        entries = [entry for match, entry in self._entries if match(tool)]
        default_price, default = self._upstreams.get(upstream, (None, ToolDefaults()))
        declared = default.declared.get(tool) or ToolDeclared("")
        price = _first(entry.price(agent, tier) for entry in entries)
        read_only = _first((*(entry.said.read_only for entry in entries), declared.read_only))
        charge_on_error = _first(entry.said.charge_on_error for entry in entries)
        timeout_s = _first(entry.said.timeout_s for entry in entries)
        reaches = _first((*(entry.said.destination for entry in entries), declared.destination))
        price = price or self._declared_price(tool, declared) or default_price
        return Terms(
            destination=None if reaches is None else destination_of(reaches),
            reaches=reaches,
            price=price,
            said="" if price is None else price.said,
            read_only=default.read_only if read_only is None else read_only,
            charge_on_error=True if charge_on_error is None else charge_on_error,
            deadline_s=timeout_s or declared.timeout_s or default.timeout_s or _DEADLINE_S,
        )

    def _declared_price(self, tool: str, declared: ToolDeclared) -> Price | None:
        if declared.price is None:
            return None
        return Price(parse_price(declared.price).rate(self._currency), declared.where, tool)


class _Entry:
    """One entry with its prices compiled: for single agents, for tiers, for the rest."""

    def __init__(self, merged: Merged, pattern: str, currency: str) -> None:
        def price(entry: PriceEntry, *path: str) -> Price:
            return Price(entry.rate(currency), merged.where("tools", pattern, *path), pattern)

        self.said: ToolEntry = merged.content.tools[pattern]
        others = self.said.price_for
        self.agents = {name: price(one, "price_for", "agents", name) for name, one in others.agents.items()}
        self.tiers = {name: price(one, "price_for", "tiers", name) for name, one in others.tiers.items()}
        self._rest = None if self.said.price is None else price(self.said.price, "price")

    def price(self, agent: str, tier: str) -> Price | None:
        return self.agents.get(agent) or self.tiers.get(tier) or self._rest


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _default_price(upstream: str, default: ToolDefaults, currency: str) -> Price | None:
    if default.price is None:
        return None
    key = f"upstreams.{upstream}"
    try:
        rate = parse_price(default.price).rate(currency)
    except ValueError as error:
        raise ConfigError([Problem("haltline.yaml", None, f"{key}.price", str(error))]) from error
    return Price(rate, "haltline.yaml", key)
