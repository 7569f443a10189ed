"""`/metrics` on the control listener, for whoever has an operator credential: what was counted, and what stands now.

Reads beside the writer; whatever cannot be read now is left out of the page, which says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from haltline.wire.http import Receive, Scope, Send, fold, send_reply
from haltline_client.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haltline.health import Health
    from haltline.parts import Parts
    from haltline.wire.messages import Unauthorized

    Admit = Callable[[str | None, str], Awaitable[Unauthorized | None]]
    Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["metrics_route"]

log = structlog.get_logger(__name__)
_HOLDS = "SELECT state, count(*) AS calls, coalesce(sum(amount_micros), 0) AS micros FROM holds WHERE state IN ('held', 'in_doubt') GROUP BY state"


def metrics_route(parts: Parts, health: Health, admit: Admit) -> Asgi:
    """`admit` says who is no operator, and records that somebody tried."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["method"] not in {"GET", "HEAD"}:
            await send_reply(send, 405, b"GET only\n")
            return
        scheme, _, token = fold(scope["headers"]).get("authorization", "").partition(" ")
        client = scope.get("client")
        denied = await admit(token.strip() if scheme.lower() == "bearer" else None, client[0] if client else "")
        if denied is not None:
            challenge = [(b"www-authenticate", b"Bearer")]
            text = "an operator's credential is needed: Authorization: Bearer hl_o_...\n"
            await send_reply(send, 401, text.encode(), headers=challenge)
            return
        page = generate_latest(parts.telemetry.registry) + generate_latest(await _standing(parts, health))
        await send_reply(send, 200, page, kind=CONTENT_TYPE_LATEST.encode())

    return respond


async def _standing(parts: Parts, health: Health) -> CollectorRegistry:
    """What stands now, in a registry of its own for each page."""
    registry = CollectorRegistry()

    def gauge(name: str, says: str, value: float, **labels: str) -> None:
        known = registry._names_to_collectors.get(f"haltline_{name}")  # noqa: SLF001
        one = known if isinstance(known, Gauge) else Gauge(f"haltline_{name}", says, list(labels), registry=registry)
        (one.labels(**labels) if labels else one).set(value)

    gauge("ready", "1 while calls would be admitted.", health.problem is None)
    gauge("build_info", "Always 1.", 1, version=__version__)
    gauge("calls_running", "Calls between their arrival and their recorded end.", len(parts.calls))
    gauge("writer_queue", "Units of work that wait for the writer.", parts.writer.waiting)
    gauge("wal_bytes", "The write-ahead log.", parts.writer.wal_bytes)
    for upstream in parts.catalog.states():
        ready = upstream.state == "ready"
        gauge("upstream_ready", "1 while an upstream is ready.", ready, upstream=upstream.name, kind=upstream.kind)
    try:
        await _stored(parts, gauge)
    except Exception as error:  # noqa: BLE001 - the boundary: a store that cannot be read leaves the rest of the page
        log.warning("metrics_incomplete", error=type(error).__name__)
        gauge("metrics_incomplete", "1 where the store could not be read for this page.", 1)
    return registry


async def _stored(parts: Parts, gauge: Callable[..., None]) -> None:
    found = {row["state"]: row for row in await parts.reader.rows(_HOLDS)}
    for state in ("held", "in_doubt"):
        row = found.get(state)
        gauge("holds", "Holds that are not ended.", 0 if row is None else row["calls"], state=state)
        gauge("holds_micros", "Their amount, in millionths.", 0 if row is None else row["micros"], state=state)
    halts = await parts.halts.standing(parts.reader, parts.clock.now_us(), 10_000)
    for scope in ("session", "agent", "everything"):
        gauge("halts", "Halts that stand.", sum(one.scope == scope for one in halts), scope=scope)
    pages = await parts.reader.row("SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size")
    gauge("store_bytes", "The database file.", 0 if pages is None else pages["bytes"])
    waiting = await parts.outbox.backlog()
    gauge("alerts_backlog", "Alerts that a channel still has to take.", waiting["backlog"])
    gauge("alerts_failed", "Alerts that a channel never takes.", waiting["failed"])
    gauge("alerts_oldest_seconds", "How long the oldest of the backlog has waited.", waiting["oldest_age_s"])
    gauge("episodes_open", "Episodes that nobody has acknowledged.", waiting["open_episodes"])
