"""What becomes of the definitions that an upstream lists: pinned at first sight, quarantined when they change or deceive.

Stands between the catalogue and everybody who reads it: a listing is judged and on record before its tools are served, and a
call is judged again inside the transaction that decides it. Whatever is not exactly what was approved is not served. A
quarantine ends by a person's approval alone, also where the upstream takes its change back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import structlog

from haltline.alerts.model import Alert
from haltline.audit import Event, Kind
from haltline.pins.characters import found_in
from haltline.pins.lookalikes import skeleton
from haltline.pins.table import Pin
from haltline.policy.model import Reason
from haltline.upstreams.definition import canonical, pinned_part
from haltline.upstreams.tool_names import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haltline.parts import Parts
    from haltline.pins.table import Key, Pins
    from haltline.store.writer import Tx
    from haltline.upstreams.catalog import Tool

__all__ = ["CHANGED", "FLAGGED", "Quarantine", "comes_first", "not_served", "served"]

CHANGED = "upstream.definition_changed"
FLAGGED = "upstream.definition_flagged"
_UNCHECKED = "upstream.definition_unchecked"
TOOLS_A_UNIT = 100
"""A long list does not keep the writer from the calls of others."""
_WHY_MOST = 20
_NAMED_MOST = 5
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Looked:
    """A tool, what of its definition is kept, and what is hidden in it."""

    tool: Tool
    text: str
    hidden: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Told:
    """One quarantine, for the alert of the unit that caused it."""

    kind: Kind
    seq: int
    tool: Tool
    reason: Reason


@dataclass(slots=True)
class _Listing:
    """What one unit of a review works with. `taken`: how the names that other upstreams have look, and which they are."""

    prefixes: Mapping[str, str | None]
    taken: Mapping[str, str]
    told: list[_Told] = field(default_factory=list)


class Quarantine:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def review(self, tools: Sequence[Tool]) -> None:
        """Compare the whole listing of one upstream with the pins and record what is new or other.

        Raises StoreUnavailable: then none of it may be served.
        """
        catalog = self._parts.catalog
        prefixes = {state.name: catalog.upstream(state.name).spec.prefix for state in catalog.states()}
        known = self._parts.pins.shown
        other = [tool for tool in tools if not _same(known(tool.upstream, tool.own_name), tool)]
        for start in range(0, len(other), TOOLS_A_UNIT):
            some = other[start : start + TOOLS_A_UNIT]
            looked = await anyio.to_thread.run_sync(self._looked_at, some)  # long texts keep nobody waiting
            await self._parts.writer.run(lambda tx, looked=looked: self._review(tx, looked, prefixes))  # type: ignore[misc]

    def _looked_at(self, tools: Sequence[Tool]) -> list[_Looked]:
        shapes = self._parts.audit.redactor.shapes
        return [_Looked(tool, shapes(canonical(_own(tool))), _hidden_in(tool)) for tool in tools]

    def _review(self, tx: Tx, looked: Sequence[_Looked], prefixes: Mapping[str, str | None]) -> None:
        known = self._parts.pins.known(tx)
        looked = [one for one in looked if not _same(known.get((one.tool.upstream, one.tool.own_name)), one.tool)]
        if not looked:
            return
        listing = _Listing(prefixes, _taken(known, prefixes, looked[0].tool.upstream))
        changes = [
            (self._judged(tx, listing, one, known.get((one.tool.upstream, one.tool.own_name))), one.text)
            for one in looked
        ]
        self._parts.pins.show(tx, changes)
        if listing.told:
            self._alert(tx, listing.told)

    def _judged(self, tx: Tx, listing: _Listing, one: _Looked, before: Pin | None) -> Pin:
        """The pin as it is from now on."""
        tool = one.tool
        if before is not None and before.seen != tool.digest:
            return self._changed(tx, listing, one, before)
        twin = listing.taken.get(
            skeleton(_whole_name(listing.prefixes.get(tool.upstream), tool.upstream, tool.own_name))
        )
        looks_like = () if twin is None else (f"its name looks like {twin}",)
        if before is not None and not looks_like:
            return replace(before, name=tool.name)  # its upstream has another prefix
        why = (*looks_like, *one.hidden)[:_WHY_MOST]
        if not why:
            self._record(tx, Kind.TOOL_PINNED, tool, {"digest": tool.digest, "first_sight": True})
            return Pin(tool.upstream, tool.own_name, tool.name, "pinned", tool.digest, tool.digest)
        seq = self._record(tx, Kind.TOOL_QUARANTINED, tool, {"digest": tool.digest, "why": why})
        text = f"the definition of {tool.name} must be looked at before it is served: {'; '.join(why)}"
        listing.told.append(_Told(Kind.TOOL_QUARANTINED, seq, tool, Reason(FLAGGED, text)))
        pinned = None if before is None else before.pinned
        return Pin(tool.upstream, tool.own_name, tool.name, "quarantined", pinned, tool.digest, why)

    def _changed(self, tx: Tx, listing: _Listing, one: _Looked, before: Pin) -> Pin:
        """Another definition than the one seen last. Told when it stops being served, not again for each change after."""
        tool, why = one.tool, one.hidden[:_WHY_MOST]
        if before.state == "pinned":
            seq = self._record(
                tx, Kind.TOOL_CHANGED, tool, {"digest": tool.digest, "approved": before.pinned, "why": why}
            )
            text = f"the definition of {tool.name} changed since it was approved; it is not served until a person approves it"
            listing.told.append(_Told(Kind.TOOL_CHANGED, seq, tool, Reason(CHANGED, text)))
        return Pin(tool.upstream, tool.own_name, tool.name, "quarantined", before.pinned, tool.digest, why)

    def _record(self, tx: Tx, kind: Kind, tool: Tool, body: Mapping[str, Any]) -> int:
        return self._parts.audit.append(tx, Event(kind, "broker", tool=tool.name, upstream=tool.upstream, body=body))

    def _alert(self, tx: Tx, told: Sequence[_Told]) -> None:
        """One for all that a listing quarantined: an upstream with a thousand tools calls nobody a thousand times."""
        first, text = told[0], told[0].reason.text
        target = first.tool.name
        if len(told) > 1:
            target = first.tool.upstream
            names = ", ".join(one.tool.name for one in told[:_NAMED_MOST])
            text = f"{len(told)} tools of {target} are not served until a person approves them: {names}"
        log.warning("tools_quarantined", upstream=first.tool.upstream, count=len(told), code=first.reason.code)
        alert = Alert(
            kind=first.kind.value,
            code=first.reason.code,
            text=text,
            tool=target,
            by=f"upstream {first.tool.upstream}",
            severity="warning",
            commands=(f"haltline tools pin {target} --diff", f'haltline tools pin {target} --reason "…"'),
        )
        self._parts.outbox.enqueue(tx, first.seq, alert)


def not_served(pin: Pin | None, tool: Tool) -> Reason | None:
    """Why a call of this tool is refused; None where its definition is exactly the approved one."""
    if pin is not None and pin.serves(tool.digest):
        return None
    if pin is None or pin.state == "pinned":
        text = f"the definition of {tool.name} is being compared with the approved one"
        return Reason(_UNCHECKED, text, retryable=True)
    facts = {"approved": pin.pinned, "seen": pin.seen}
    if pin.pinned is not None:
        text = (
            f"the definition of {tool.name} changed since it was approved; an operator must approve it: "
            f"haltline tools pin {tool.name}"
        )
        return Reason(CHANGED, text, facts)
    text = (
        f"the definition of {tool.name} holds something that must be looked at first; an operator must approve it: "
        f"haltline tools pin {tool.name}"
    )
    return Reason(FLAGGED, text, facts)


def comes_first(reason: Reason) -> bool:
    """Whether a refusal is said rather than that of a definition: whoever may not call a tool learns nothing of it (R22)."""
    return reason.code.endswith(".halted") or reason.code.startswith("scope.") or reason.code == "policy.error"


def served(pins: Pins, tools: Sequence[Tool]) -> list[Tool]:
    """Those of a catalogue that may be listed, as of the last commit. On the event loop."""
    found = ((tool, pins.shown(tool.upstream, tool.own_name)) for tool in tools)
    return [tool for tool, pin in found if pin is not None and pin.serves(tool.digest)]


def _same(pin: Pin | None, tool: Tool) -> bool:
    return pin is not None and pin.seen == tool.digest and pin.name == tool.name


def _taken(known: Mapping[Key, Pin], prefixes: Mapping[str, str | None], upstream: str) -> dict[str, str]:
    """Of the upstreams there are now: what one that was taken out of the configuration showed is no rival."""
    return {
        skeleton(_whole_name(prefixes[pin.upstream], pin.upstream, pin.tool)): f"{pin.name} of {pin.upstream}"
        for pin in known.values()
        if pin.upstream != upstream and pin.upstream in prefixes
    }


def _whole_name(prefix: str | None, upstream: str, own: str) -> str:
    """The name before it is mapped to the characters that names may have."""
    prefix = upstream if prefix is None else prefix
    return f"{prefix}{SEPARATOR}{own}" if prefix else own


def _hidden_in(tool: Tool) -> tuple[str, ...]:
    return tuple(f"hidden characters in {one}" for one in found_in(pinned_part(_own(tool))))


def _own(tool: Tool) -> dict[str, Any]:
    return {**tool.definition, "name": tool.own_name}
