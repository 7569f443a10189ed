"""The definitions of tools as a person approves them: what changed, readably, and the approval of exactly what was shown.

Approving loosens, so it needs a person (R21); looking does not. What stands in a definition comes from an upstream: it is shown
with every hidden character written out, and never followed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread

from haltline.audit import Kind
from haltline.clock import iso
from haltline.errors import Conflict, NotFound
from haltline.pins.diff import diff
from haltline.stored_json import loads

if TYPE_CHECKING:
    from haltline.control.desk import Desk, Operator, Request
    from haltline.pins.table import Pin, Texts
    from haltline.store.writer import Tx
    from haltline_client import results as r

__all__ = ["Definitions"]

MOST = 100
"""In one answer; a person who has approved these sees the next."""
_NOT_KEPT = "its definition is too long to be kept; it is compared by its digest alone"
_NOT_SHOWN = "what differs looks like a secret and is not kept"
_BACK = "it is again as it was approved"


class Definitions:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._parts = desk.parts

    async def review_tools(self, request: Request, *, target: str | None = None) -> r.ToolReview:
        """What waits for approval: of a tool (also one that is pinned), of an upstream, or of all."""

        def unit(tx: Tx, _: Operator) -> list[tuple[Pin, Texts]]:
            return [(pin, self._parts.pins.texts(tx, pin)) for pin in self._wanted(tx, target)[:MOST]]

        found = await self._desk.act(request, unit)
        return {"tools": await anyio.to_thread.run_sync(lambda: [_shown(pin, texts) for pin, texts in found])}

    async def approve_tool(
        self, request: Request, *, tool: str, digest: str, reason: str, upstream: str | None = None
    ) -> r.ApprovedTool:
        """Approve the definition with this digest, if it is still what the tool shows. Safe to repeat."""
        why = self._desk.why(reason)

        def unit(tx: Tx, operator: Operator) -> tuple[Pin, bool]:
            pin = self._one(tx, tool, upstream)
            if pin.seen != digest:
                raise Conflict(
                    f"{pin.name} shows another definition now than the one with that digest; look again: "
                    f"haltline tools pin {pin.name} --diff"
                )
            already = pin.serves(digest)
            body = {"target": pin.name, "digest": digest, "before": pin.pinned, "why": pin.why, "reason": why}
            event = self._desk.event(Kind.TOOL_APPROVED, operator, request, body=body)
            seq = self._parts.audit.append(tx, event)
            self._told_of(tx, seq, pin, operator)
            return pin if already else self._parts.pins.approve(tx, pin, operator.actor), already

        pin, already = await self._desk.act(request, unit)
        return {"tool": pin.name, "upstream": pin.upstream, "digest": pin.seen, "already": already}

    def _told_of(self, tx: Tx, seq: int, pin: Pin, operator: Operator) -> None:
        """End the alert of this tool and, with the last that waited, the one of its upstream."""
        outbox, known = self._parts.outbox, self._parts.pins.known(tx).values()
        waits = [
            one for one in known if one.upstream == pin.upstream and one.state != "pinned" and one.tool != pin.tool
        ]
        for name in (pin.name,) if waits else (pin.name, pin.upstream):
            outbox.resolve(tx, seq, outbox.episodes.live_about(tx, f"tool:{name}"), operator.actor)

    def _wanted(self, tx: Tx, target: str | None) -> list[Pin]:
        pins = sorted(self._parts.pins.known(tx).values(), key=lambda pin: (pin.name, pin.upstream))
        waiting = [pin for pin in pins if pin.state == "quarantined"]
        if target is None:
            present = {upstream.spec.name for upstream in self._parts.catalog.upstreams()}
            return [pin for pin in waiting if pin.upstream in present]
        named = [pin for pin in pins if pin.name == target]
        if named:
            return named
        if not any(pin.upstream == target for pin in pins):
            raise NotFound(f"no tool and no upstream named {target!r} has been seen")
        return [pin for pin in waiting if pin.upstream == target]

    def _one(self, tx: Tx, tool: str, upstream: str | None) -> Pin:
        found = [
            pin for pin in self._parts.pins.known(tx).values() if pin.name == tool and upstream in {None, pin.upstream}
        ]
        if not found:
            raise NotFound(f"no tool named {tool!r} has been seen")
        if len(found) > 1:
            raise Conflict(
                f"{tool} is the name of several: say the upstream: {', '.join(pin.upstream for pin in found)}"
            )
        return found[0]


def _shown(pin: Pin, texts: Texts) -> r.PinnedTool:
    return {
        "tool": pin.name,
        "upstream": pin.upstream,
        "upstream_tool": pin.tool,
        "state": pin.state,
        "digest": pin.seen,
        "approved_digest": pin.pinned,
        "approved_by": texts.pinned_by,
        "approved_at": None if texts.pinned_us is None else iso(texts.pinned_us),
        "seen_at": iso(texts.seen_us),
        "flags": list(pin.why),
        "diff": _diff(pin, texts),
    }


def _diff(pin: Pin, texts: Texts) -> list[str]:
    if pin.pinned == pin.seen:
        return [] if pin.state == "pinned" else [_BACK]
    if texts.seen is None or (pin.pinned is not None and texts.pinned is None):
        return [_NOT_KEPT]
    before: Any = None if texts.pinned is None else loads(texts.pinned)
    return diff(before, loads(texts.seen)) or [_NOT_SHOWN]
