"""Every tool of every upstream under one name each, kept up to date while upstreams come, go and change.

Decides nothing about who may use what. What an upstream offered last stays listed while it is away, so that a call gets a
reason rather than "no such tool".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import anyio
import structlog

from haltline.errors import ConfigError
from haltline.upstreams.definition import digest_of
from haltline.upstreams.model import Caller, Kind, Noted, Upstream, UpstreamError
from haltline.upstreams.tool_names import SEPARATOR, tool_name

__all__ = ["Catalog", "Tool", "UpstreamState"]

log = structlog.get_logger(__name__)

RELIST_S = 300.0
"""A list is read again after this long although nobody said that it changed."""
PAUSE_S = 1.0
"""At least so long between two readings: an upstream that always says "changed" gains nothing."""
FIRST_BACK_OFF_S = 1.0
LONGEST_BACK_OFF_S = 30.0
FORGET_S = 1.0
MAX_OWN_NAME = 256
MAX_DETAIL = 1000


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool as agents see it. `definition` is as the upstream sent it, only `name` replaced.

    `digest` is that of what of the definition is pinned, under its upstream's own name for it (`upstreams.definition`).
    """

    name: str
    upstream: str
    own_name: str
    definition: Mapping[str, Any]
    input_schema: Mapping[str, Any] | None
    digest: str


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """What an operator sees of one upstream."""

    name: str
    kind: Kind
    state: Literal["ready", "starting", "down"]
    tools: int
    detail: str | None = None


Review = Callable[[Sequence[Tool]], Awaitable[None]]


async def _no_review(tools: Sequence[Tool]) -> None:
    del tools


@dataclass(slots=True, eq=False)
class _Entry:
    upstream: Upstream
    tools: tuple[Tool, ...] = ()
    state: Literal["ready", "starting", "down"] = "starting"
    trouble: str | None = None
    left_out: tuple[str, ...] = ()
    failures: int = 0
    tried: anyio.Event = field(default_factory=anyio.Event)
    stale: anyio.Event = field(default_factory=anyio.Event)
    listing: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def prefix(self) -> str:
        spec = self.upstream.spec
        return spec.name if spec.prefix is None else spec.prefix


class Catalog:
    """Lives on the event loop. `run` does the work; everything that reads is synchronous."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        """Raises ConfigError where two upstreams have one name."""
        self._entries: dict[str, _Entry] = {}
        for upstream in upstreams:
            if upstream.spec.name in self._entries:
                raise ConfigError(f"two upstreams are named {upstream.spec.name}; rename one")
            self._entries[upstream.spec.name] = _Entry(upstream)
        self._own: dict[str, Upstream] = {}
        self._own_tools: dict[str, Tool] = {}
        self._by_name: dict[str, Tool] = {}
        self._tools: tuple[Tool, ...] = ()
        self._clashes: dict[str, list[str]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._unchanged: list[Callable[[], None]] = []
        self._review: Review = _no_review

    async def keep_own(self, upstream: Upstream) -> None:
        """The broker's own: never listed, shown or reviewed, and its names are nobody else's. Raises ConfigError."""
        name = upstream.spec.name
        if name in self._entries:
            raise ConfigError(f"an upstream may not be named {name}: that is the broker's own; rename it")
        self._own[name] = upstream
        found, _ = _tools_of(_Entry(upstream), await upstream.list_tools())
        self._own_tools |= {tool.name: tool for tool in found}

    def is_own(self, tool: Tool) -> bool:
        """Whether it is the broker's own, and so neither pinned nor priced."""
        return tool.upstream in self._own

    def reviewed_by(self, review: Review) -> None:
        """Awaited with the tools of each listing that is not as the one before, and none of it is listed before it returns.

        What it raises makes the listing one that failed.
        """
        self._review = review

    async def run(self) -> None:
        """Until cancelled: read each list at start, when it changed, at intervals, and at growing ones while that fails."""
        async with anyio.create_task_group() as tasks:
            for entry in self._entries.values():
                entry.upstream.watch(lambda entry=entry: entry.stale.set())  # type: ignore[misc]
                tasks.start_soon(self._keep, entry)

    async def tried(self) -> None:
        """Returns when each upstream has been tried once."""
        for entry in self._entries.values():
            await entry.tried.wait()

    def tool(self, name: str) -> Tool | None:
        return self._own_tools.get(name) or self._by_name.get(name)

    def tools(self) -> tuple[Tool, ...]:
        """Sorted by name; the same object until something changes."""
        return self._tools

    def upstream(self, name: str) -> Upstream:
        """Raises KeyError."""
        return self._own[name] if name in self._own else self._entries[name].upstream

    def upstreams(self) -> list[Upstream]:
        """All, in the order of the configuration."""
        return [entry.upstream for entry in self._entries.values()]

    def owner(self, tool_name: str) -> str | None:
        """The upstream that has this tool, or whose prefix the name carries although it is not listed (now)."""
        known = self._by_name.get(tool_name)
        if known is not None:
            return known.upstream
        carrying = [
            entry for entry in self._entries.values() if entry.prefix and tool_name.startswith(entry.prefix + SEPARATOR)
        ]
        best = max(carrying, key=lambda entry: len(entry.prefix), default=None)
        return None if best is None else best.upstream.spec.name

    def states(self) -> list[UpstreamState]:
        return [self._state_of(entry) for entry in self._entries.values()]

    async def refresh(self, name: str) -> tuple[Tool, ...]:
        """Read one list now. Raises KeyError, or UpstreamError when it cannot be read."""
        entry = self._entries[name]
        await self._read(entry)
        return entry.tools

    def on_change(self, listener: Callable[[], None]) -> None:
        """Called after `tools()` changed."""
        self._listeners.append(listener)

    def on_unchanged(self, listener: Callable[[], None]) -> None:
        """Called where an upstream said that its list changed and it reads as before: what it meant may show elsewhere."""
        self._unchanged.append(listener)

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        """Tear down what exists for this caller alone, everywhere, within a second."""
        with anyio.move_on_after(FORGET_S, shield=True):
            async with anyio.create_task_group() as tasks:
                for entry in self._entries.values():
                    tasks.start_soon(self._forget_at, entry, caller, session_only)

    async def aclose(self) -> None:
        async with anyio.create_task_group() as tasks:
            for entry in self._entries.values():
                tasks.start_soon(self._close_one, entry)

    async def _keep(self, entry: _Entry) -> None:
        said = False
        while True:
            entry.stale = anyio.Event()
            before = entry.tools
            try:
                await self._read(entry)
            except UpstreamError:
                wait_s = min(FIRST_BACK_OFF_S * 2 ** min(entry.failures - 1, 20), LONGEST_BACK_OFF_S)
                await anyio.sleep(wait_s)
                continue
            if said and entry.tools is before:
                for listener in self._unchanged:
                    listener()
            await anyio.sleep(PAUSE_S)
            with anyio.move_on_after(RELIST_S) as silent:
                await entry.stale.wait()
            said = not silent.cancelled_caught

    async def _read(self, entry: _Entry) -> None:
        name = entry.upstream.spec.name
        async with entry.listing:
            try:
                tools, left_out = _tools_of(entry, await entry.upstream.list_tools())
                if tools != entry.tools:
                    await self._review(tools)
            except UpstreamError as error:
                self._failed(entry, error.code, error.detail or str(error))
                raise
            except Exception as error:  # an adapter that breaks affects only its upstream
                log.exception("upstream_not_listed", upstream=name)
                self._failed(entry, "upstream.failed", "its list cannot be read; see the log")
                raise UpstreamError("upstream.malformed", f"the tools of {name} cannot be read") from error
            entry.failures, entry.trouble, entry.state = 0, None, "ready"
            entry.left_out = left_out
            entry.tried.set()
            if tools != entry.tools:
                entry.tools = tools
                self._rebuild()

    def _failed(self, entry: _Entry, code: str, detail: str) -> None:
        if entry.failures == 0:
            log.warning("upstream_down", upstream=entry.upstream.spec.name, code=code, detail=detail[:MAX_DETAIL])
        entry.failures += 1
        entry.trouble, entry.state = detail, "down"
        entry.tried.set()

    def _rebuild(self) -> None:
        by_name: dict[str, Tool] = {}
        clashes: dict[str, list[str]] = {}
        for name, entry in self._entries.items():
            for tool in entry.tools:
                if by_name.setdefault(tool.name, tool) is not tool:
                    clashes.setdefault(name, []).append(
                        f"{tool.own_name} ({by_name[tool.name].upstream} has that name)"
                    )
        self._by_name, self._clashes = by_name, clashes
        self._tools = tuple(by_name[name] for name in sorted(by_name))
        for listener in self._listeners:
            listener()

    def _state_of(self, entry: _Entry) -> UpstreamState:
        spec = entry.upstream.spec
        clashing = self._clashes.get(spec.name, [])
        said = [entry.trouble] if entry.trouble else []
        left_out = [*clashing, *entry.left_out]
        if left_out:
            said.append(f"left out: {', '.join(left_out[:10])}" + (" …" if len(left_out) > 10 else ""))
        if isinstance(entry.upstream, Noted):
            said += entry.upstream.notes
        detail = "; ".join(said)[:MAX_DETAIL] or None
        return UpstreamState(spec.name, spec.kind, entry.state, len(entry.tools) - len(clashing), detail)

    async def _forget_at(self, entry: _Entry, caller: Caller, session_only: bool) -> None:
        try:
            await entry.upstream.forget(caller, session_only=session_only)
        except Exception:  # one that breaks keeps no other from being torn down
            log.exception("upstream_not_forgotten", upstream=entry.upstream.spec.name)

    async def _close_one(self, entry: _Entry) -> None:
        try:
            await entry.upstream.aclose()
        except Exception:  # one that breaks keeps no other from being closed
            log.exception("upstream_not_closed", upstream=entry.upstream.spec.name)


def _tools_of(entry: _Entry, listed: list[Any]) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The usable tools in the order listed, and what was left out with the reason."""
    found: dict[str, Tool] = {}
    left_out: list[str] = []
    for raw in listed:
        own = raw.get("name") if isinstance(raw, dict) else None
        wrong = _wrong_with(raw, own)
        if wrong is not None:
            left_out.append(f"{str(own)[:60]!r} ({wrong})")
            continue
        tool = _tool(entry, raw)
        if tool.name in found:
            left_out.append(f"{tool.own_name[:60]!r} (listed twice)")
        else:
            found[tool.name] = tool
    return tuple(found.values()), tuple(left_out)


def _wrong_with(raw: Any, own: Any) -> str | None:
    if not isinstance(raw, dict):
        return "not an object"
    if not isinstance(own, str) or not own or len(own) > MAX_OWN_NAME:
        return f"a name has 1 to {MAX_OWN_NAME} characters"
    if not isinstance(raw.get("inputSchema"), dict):
        return "no input schema"
    return None


def _tool(entry: _Entry, raw: dict[str, Any]) -> Tool:
    name = tool_name(entry.prefix, raw["name"])
    return Tool(
        name=name,
        upstream=entry.upstream.spec.name,
        own_name=raw["name"],
        definition=MappingProxyType({**raw, "name": name}),
        input_schema=raw["inputSchema"],
        digest=digest_of(raw),
    )
