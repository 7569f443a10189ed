"""Tiers and scopes compiled from the document: typed, with the places their keys are written at. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haltline.policy.model import CapKind
from haltline.policy.operators import compile_op
from haltline.policy.paths import MISSING, parse_path, reader
from haltline.policy.patterns import any_of
from haltline.policy.schemas import compile_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haltline.policy.document import RuleEntry
    from haltline.policy.folder import Merged
    from haltline.policy.model import Caps, Hours

__all__ = ["OPEN_SESSION", "ArgumentRule", "Children", "Scope", "Tier", "compile_scope", "compile_tier"]

_IDLE_S = 1800.0
_LONGEST_S = 28_800.0


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """One demand on the arguments of the tools it is for; `problem` answers None where it is met."""

    where: str
    audit: bool
    applies: Callable[[str], bool]
    demand: str
    problem: Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True, slots=True)
class Scope:
    name: str
    where: str
    audit: bool
    tools: tuple[str, ...] | None
    rules: tuple[ArgumentRule, ...]
    hours: Hours | None


OPEN_SESSION = "haltline__open_session"
"""The tool with which an agent opens a session for a sub-agent (R20)."""


@dataclass(frozen=True, slots=True)
class Children:
    """How many sessions may be open below a root, and how deep they may go."""

    most: int
    depth: int


@dataclass(frozen=True, slots=True)
class Tier:
    """What a tier grants and bounds; `cap_places` says where each cap is written."""

    name: str
    where: str
    audit: bool
    tools: tuple[str, ...]
    scopes: tuple[str, ...]
    caps: Caps
    cap_places: Mapping[str, str]
    hours: Hours | None
    single_charge_micros: int | None
    single_charge_where: str
    on_deny: str
    auto_session_idle_s: float
    auto_session_longest_s: float
    session_expires_s: float
    children: Children | None = None


def compile_tier(merged: Merged, name: str) -> Tier:
    entry, defaults = merged.content.tiers[name], merged.content.defaults
    here = ("tiers", name)
    return Tier(
        name=name,
        where=merged.where(*here),
        audit=_audit(merged, entry.mode),
        tools=tuple(entry.tools),
        scopes=tuple(entry.scopes),
        caps=entry.caps.caps(),
        cap_places={kind.value: merged.where(*here, "caps", kind.value) for kind in CapKind},
        hours=None if entry.hours is None else entry.hours.hours(merged.content.time_zone or "UTC"),
        single_charge_micros=entry.halts_on.single_charge,
        single_charge_where=merged.where(*here, "halts_on", "single_charge"),
        on_deny=entry.on_deny or defaults.on_deny or "",
        auto_session_idle_s=entry.auto_session.idle or defaults.auto_session.idle or _IDLE_S,
        auto_session_longest_s=entry.auto_session.longest or defaults.auto_session.longest or _LONGEST_S,
        session_expires_s=entry.session_expires or defaults.session_expires or _LONGEST_S,
        children=None if entry.children is None else Children(entry.children.most, entry.children.depth),
    )


def compile_scope(merged: Merged, name: str) -> Scope:
    entry = merged.content.scopes[name]
    audit = _audit(merged, entry.mode)
    return Scope(
        name=name,
        where=merged.where("scopes", name),
        audit=audit,
        tools=None if entry.tools is None else tuple(entry.tools),
        rules=tuple(
            _rule(rule, merged.where("scopes", name, "arguments", index), audit=audit)
            for index, rule in enumerate(entry.arguments)
        ),
        hours=None if entry.hours is None else entry.hours.hours(merged.content.time_zone or "UTC"),
    )


def _audit(merged: Merged, mode: str | None) -> bool:
    """The mode written nearest: an entry's own, else the policy's, else enforce."""
    return (mode or merged.content.mode) == "audit"


def _rule(entry: RuleEntry, where: str, *, audit: bool) -> ArgumentRule:
    demand, problem = _demand(entry)
    return ArgumentRule(
        where=where,
        audit=audit if entry.mode is None else entry.mode == "audit",
        applies=any_of(("*",) if entry.tools is None else tuple(entry.tools)),
        demand=demand,
        problem=problem,
    )


def _demand(entry: RuleEntry) -> tuple[str, Callable[[Mapping[str, Any]], str | None]]:
    if entry.schema_ is not None:
        check = compile_schema(entry.schema_)
        say = entry.say
        return "the arguments must fit the rule's schema", (
            check if say is None else lambda arguments: None if check(arguments) is None else say
        )
    assert entry.path is not None
    assert entry.op is not None
    question, optional = compile_op(entry.op, entry.value), entry.optional
    values, holds = reader(parse_path(entry.path)), question.holds
    demand = f"{entry.path} {question.demand}"
    said = entry.say or demand

    def problem(arguments: Mapping[str, Any]) -> str | None:
        for value in values(arguments):
            if not holds(value) and not (optional and value is MISSING):
                return said
        return None

    return demand, problem
