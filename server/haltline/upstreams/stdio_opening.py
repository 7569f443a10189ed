"""Opening a session with a program: starting it and finding out in which era it speaks (MCP 2026-07-28, stdio:
backward compatibility).

Which era comes first is the caller's choice. A program that knows only the other one may refuse, say nothing, or end at the
first request that it does not know: then it is spoken to in the other, in a new process if need be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from haltline.upstreams import faults
from haltline.upstreams.child import NotStarted
from haltline.upstreams.messages import (
    HANDSHAKE_VERSIONS,
    MODERN_VERSION,
    OWN_META,
    for_modern,
    initialize_params,
)
from haltline.upstreams.model import NOBODY, NotSent, Peer, UpstreamError, UpstreamSpec
from haltline.upstreams.stdio_session import StdioSession

__all__ = ["NoAnswer", "open_session"]

DISCOVER_S = 1.0
"""A program that has not answered `server/discover` by then is asked to shake hands too; whichever it answers counts."""


class NoAnswer(NotSent):
    """It runs, and has said nothing at all in time: perhaps what it was asked first keeps it from hearing the rest."""


async def open_session(
    spec: UpstreamSpec,
    peer: Peer,
    make: Callable[[], StdioSession],
    limit_s: float,
    *,
    modern: bool,
    settled: bool,
) -> StdioSession:
    """Start the program and agree on an era. Raises NotSent (NoAnswer); then no process is left.

    `modern`: 2026-07-28 comes first. `settled`: it is known to speak that one, so that an end at its start is a fault.
    """
    session = make()
    try:
        async with asyncio.timeout(limit_s):
            try:
                await _agree(session, peer, modern=modern)
            except UpstreamError:
                if settled:
                    raise
                session.kill()
                session = make()
                await _agree(session, peer, modern=not modern)
    except NotStarted as error:
        session.kill()
        raise faults.failed_to_start(spec.name, str(error)) from error
    except TimeoutError as error:
        session.kill()
        words = session.child.last_words if session.child is not None else None
        failed = faults.failed_to_start(spec.name, f"no handshake within {limit_s:g} s; {words or ''}")
        raise NoAnswer(failed.code, str(failed), failed.detail) from error
    except Exception as error:  # the boundary of a start: whatever broke, no process is left
        session.kill()
        detail = getattr(error, "detail", None) or str(error)
        raise faults.failed_to_start(spec.name, detail) from error
    except BaseException:
        session.kill()
        raise
    return session


async def _agree(session: StdioSession, peer: Peer, *, modern: bool) -> None:
    """Raises NotStarted, or UpstreamError where the program ended."""
    await session.start()
    discovering = _discover(session) if modern else None
    try:
        if discovering is not None:
            await asyncio.wait({discovering}, timeout=DISCOVER_S)
            if discovering.done() and _adopted(session, discovering.result()):
                return
        refused = await _shake_hands(session, peer)
        if refused is None:
            return
        if discovering is None or discovering.done():
            discovering = _discover(session)
        await asyncio.wait({discovering}, timeout=DISCOVER_S)
        if not discovering.done() or not _adopted(session, discovering.result()):
            raise NotStarted(f"it refused the handshake: {refused:.500}")
    finally:
        if discovering is not None:
            discovering.cancel()
            await asyncio.gather(discovering, return_exceptions=True)


def _discover(session: StdioSession) -> asyncio.Task[dict[str, Any]]:
    return asyncio.create_task(session.ask("server/discover", for_modern({"_meta": OWN_META}, NOBODY)))


def _adopted(session: StdioSession, answer: Mapping[str, Any]) -> bool:
    """Whether it said that it speaks 2026-07-28."""
    result = answer.get("result", {})
    versions = result.get("supportedVersions")
    if not isinstance(versions, list) or MODERN_VERSION not in versions:
        return False
    session.modern = True
    session.capabilities = _mapping(result.get("capabilities"))
    return True


async def _shake_hands(session: StdioSession, peer: Peer) -> str | None:
    """None, or what it said instead."""
    answer = await session.ask("initialize", initialize_params(peer.capabilities, peer.info))
    version = answer.get("result", {}).get("protocolVersion")
    if version not in HANDSHAKE_VERSIONS:
        return str(answer.get("error", {}).get("message", f"version {version!r:.40}"))
    session.capabilities = _mapping(answer["result"].get("capabilities"))
    session.tell("notifications/initialized")
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
