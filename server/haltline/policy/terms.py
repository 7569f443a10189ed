"""What is known of each tool: its price, whether it only reads, its deadline; from the policy, then from the tool's
own code where it says so, then from haltline.yaml.

Each setting comes from the most specific entry that states it (`patterns`: a name before a pattern, then the longer text
before the first `*`). What no entry prices is unpriced, which is refused (R6).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from haltline.errors import ConfigError, Problem
from haltline.policy.money import format_amount, parse_amount
from haltline.policy.patterns import matcher, most_specific

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from haltline.policy.document import ToolEntry
    from haltline.policy.folder import Merged

__all__ = ["Price", "Terms", "TermsTable", "ToolDeclared", "ToolDefaults"]

T = TypeVar("T")
_DEADLINE_S = 60.0
_MOST_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class ToolDeclared:
    """What a tool's own code says of it; None where it says nothing. A policy entry wins."""

    where: str
    """`billing.py:12`"""
    price: str | None = None
    read_only: bool | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class ToolDefaults:
    """What haltline.yaml says of an upstream's tools, and the code of single ones; a policy entry wins over both."""

    price: str | None = None
    read_only: bool = False
    timeout_s: float | None = None
    declared: Mapping[str, ToolDeclared] = field(default_factory=dict)
    """By the name that agents see; each wins over what is said of the whole upstream."""


@dataclass(frozen=True, slots=True)
class Price:
    """A fixed price: micro-units, the same for people, and the entry that set it."""

    micros: int
    text: str
    """`0.05`"""
    where: str
    """`tools.yaml:12`, `haltline.yaml`, or `billing.py:12` where the tool's code says it."""
    matched_by: str
    """The entry's name or pattern, `upstreams.<name>`, or the name of the tool whose code says it."""

    @property
    def said(self) -> str:
        """As the audit event keeps it: `tools.yaml: payments__charge fixed 0.05`."""
        return f"{self.where.partition(':')[0]}: {self.matched_by} fixed {self.text}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one tool."""

    price: Price | None
    said: str
    read_only: bool
    charge_on_error: bool
    deadline_s: float


class TermsTable:
    """The entries under `tools:`, the most specific first; what was looked up once is remembered."""

    def __init__(self, merged: Merged, defaults: Mapping[str, ToolDefaults]) -> None:
        self._entries = [
            (matcher(pattern), pattern, merged.content.tools[pattern])
            for pattern in most_specific(merged.content.tools)
        ]
        self._prices = {pattern: _price(merged, pattern) for _, pattern, _ in self._entries}
        self._upstreams = {name: (_default_price(name, default), default) for name, default in defaults.items()}
        self._known: dict[tuple[str, str], Terms] = {}

    def of(self, tool: str, upstream: str) -> Terms:
        known = self._known.get((tool, upstream))
        if known is None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            known = self._known[tool, upstream] = self._look_up(tool, upstream)
        return known

    def _look_up(self, tool: str, upstream: str) -> Terms:
        entries = [(pattern, entry) for match, pattern, entry in self._entries if match(tool)]
        default_price, default = self._upstreams.get(upstream, (None, ToolDefaults()))
        declared = default.declared.get(tool) or ToolDeclared("")
        price = next(
            (self._prices[pattern] for pattern, entry in entries if entry.price is not None),
            _declared_price(tool, declared) or default_price,
        )
        read_only = _first((*(entry.read_only for _, entry in entries), declared.read_only))
        charge_on_error = _first(entry.charge_on_error for _, entry in entries)
        timeout_s = _first(entry.timeout_s for _, entry in entries)
        return Terms(
            price=price,
            said="" if price is None else price.said,
            read_only=default.read_only if read_only is None else read_only,
            charge_on_error=True if charge_on_error is None else charge_on_error,
            deadline_s=timeout_s or declared.timeout_s or default.timeout_s or _DEADLINE_S,
        )


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _price(merged: Merged, pattern: str) -> Price | None:
    entry: ToolEntry = merged.content.tools[pattern]
    if entry.price is None:
        return None
    micros = entry.price.fixed
    return Price(micros, format_amount(micros), merged.where("tools", pattern, "price"), pattern)


def _declared_price(tool: str, declared: ToolDeclared) -> Price | None:
    if declared.price is None:
        return None
    micros = parse_amount(declared.price)
    return Price(micros, format_amount(micros), declared.where, tool)


def _default_price(upstream: str, default: ToolDefaults) -> Price | None:
    if default.price is None:
        return None
    key = f"upstreams.{upstream}"
    try:
        micros = parse_amount(default.price)
    except ValueError as error:
        raise ConfigError([Problem("haltline.yaml", None, f"{key}.price", str(error))]) from error
    return Price(micros, format_amount(micros), "haltline.yaml", key)
