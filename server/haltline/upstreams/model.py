"""What the broker asks of an upstream, and how an upstream says what became of a call.

The one distinction that decides money: `NotSent` (no byte left, so the hold is voided) against `OutcomeUnknown` (it may
have run, so the hold stays in doubt). Anything the upstream answered in valid JSON-RPC is a plain return value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from haltline.upstreams.credentials import Credentials

__all__ = [
    "NOBODY",
    "Asking",
    "Caller",
    "Isolation",
    "Kind",
    "NotSent",
    "Noted",
    "OpenApiSource",
    "OutcomeUnknown",
    "Peer",
    "Upstream",
    "UpstreamCall",
    "UpstreamError",
    "UpstreamSpec",
]

Isolation = Literal["session", "agent", "shared"]
Kind = Literal["stdio", "http", "python", "openapi"]


class UpstreamError(Exception):
    """`code` is a refusal code (`upstream.*`), the message is fit for an agent to read: no internals, no secrets.

    `detail` says more to an operator (an address, a program's last words). Codes: `upstream.unreachable`, `.busy`,
    `.timeout`, `.lost`, `.too_large`, `.malformed`, `.http_error`, `.starting_failed`, `.arguments`.
    """

    def __init__(self, code: str, message: str, detail: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


class NotSent(UpstreamError):
    """Provably no byte of this call left the process: connection refused, child not started, no free place (R11)."""


class OutcomeUnknown(UpstreamError):
    """Bytes left and no valid answer came back: timeout, lost stream, oversize, malformed, HTTP error status (R10)."""


@dataclass(frozen=True, slots=True)
class OpenApiSource:
    """An HTTP API by its OpenAPI document: an absolute path or an address.

    `include` and `exclude` are patterns of operationIds, or of method and path. `query` is sent with each call.
    """

    document: str
    base_url: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_private: bool = False
    remote_refs: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """One entry of `upstreams:`; exactly one of the keys that say its kind is set."""

    name: str
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    """An absolute path that ends in `.py`, or the name of an importable module."""
    entry_point: str | None = None
    """Its name in the group `haltline.tools`."""
    openapi: OpenApiSource | None = None
    prefix: str | None = None
    """Prefix of its tools' names; None means the name itself, an empty string means none."""
    isolation: Isolation = "agent"
    timeout_s: float = 60.0
    connect_timeout_s: float = 10.0
    """Also bounds the start of a program, at three times this: package runners may have to fetch it first."""
    max_result_bytes: int = 8 * 1024 * 1024
    max_concurrent: int = 32
    price: str | Mapping[str, str] | None = None
    """Default price of its tools, as in policies (`"0.05"`, or a mapping); a policy entry wins."""
    read_only: bool = False
    disabled: bool = False
    credentials: Credentials | None = None
    """None: what `headers` and `env` hold is one for all."""

    @property
    def shared_by(self) -> str | None:
        """Who uses one credential together, in words; None where nobody does."""
        if self.credentials is None:
            return "all agents" if self.env or self.headers or (self.openapi and self.openapi.query) else None
        sharing = [f"the agents of tier {name}" for name in self.credentials.tiers]
        if self.credentials.default is not None:
            sharing.append("all agents without one of their own")
        return ", ".join(sharing) or None

    @property
    def kind(self) -> Kind:
        if self.python is not None or self.entry_point is not None:
            return "python"
        if self.openapi is not None:
            return "openapi"
        return "stdio" if self.url is None else "http"


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf: what isolation and fair shares are keyed by, and what an upstream of our own may be told."""

    agent_id: str
    session_id: str
    agent: str = field(default="", compare=False)
    """Its handle."""
    task: str = field(default="", compare=False)
    tier: str = field(default="", compare=False)
    """By which, or by the handle, an upstream may have a credential for it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The agent's client, as an upstream may know it: what it can do, who it says it is, and how to ask it something.

    `capabilities` and `info` are as it declared them. `ask` sends a server-to-client request (elicitation, sampling,
    roots) and returns `{"result": …}` or `{"error": …}`; None where it takes none.
    """

    capabilities: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] | None = None
    log_level: str | None = None
    ask: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] | None = None
    handshake: bool = False
    """It speaks the handshake era, so an upstream that does too is spoken to in it."""


NOBODY = Peer()
"""A client that can do nothing and says nothing of itself."""


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One request on its way out: `tools/call`, or any other method.

    `params` is the raw object that travels on (name already the upstream's own). `before_send` is called synchronously
    immediately before the first byte leaves and may raise to stop it (R17): then its exception propagates and the call
    counts as not sent. `on_notification` receives each raw notification that belongs to this call (progress with the
    caller's own token restored; log messages where they can be attributed), in order, before the result is returned;
    it may not block. When a handshake session turns out to be gone (HTTP 404) the call is sent a second time, and
    `before_send` is asked a second time.
    """

    caller: Caller
    params: Mapping[str, Any]
    deadline_s: float
    """From the moment it is handed over: waiting for a place, connecting and starting a program count."""
    before_send: Callable[[], None]
    on_notification: Callable[[dict[str, Any]], None]
    on_late: Callable[[dict[str, Any]], None] = lambda _: None
    """Takes an answer that comes after the call was given up, where that can be heard. At most once."""
    method: str = "tools/call"
    peer: Peer = NOBODY


@runtime_checkable
class Noted(Protocol):
    """An upstream with more to say to operators than whether it is there: what of it is not offered, what it lacks."""

    @property
    def notes(self) -> tuple[str, ...]: ...


@runtime_checkable
class Asking(Protocol):
    """An upstream that may ask its client something in the middle of a call."""

    def asks_in_mid_call(self) -> bool:
        """Not where it is known to speak 2026-07-28, which asks by a result instead."""


class Upstream(Protocol):
    """A tool adapter, one for each `Kind`."""

    @property
    def spec(self) -> UpstreamSpec: ...

    @property
    def capabilities(self) -> Mapping[str, Any]:
        """What it said it offers beside tools, as it said it; empty until it was asked."""

    def watch(self, changed: Callable[[], None]) -> None:
        """`changed` is called when the list of tools may have changed, or the upstream came or went. One watcher."""

    async def list_tools(self) -> list[Any]:
        """Raw tool definitions, all pages, unchecked: not each need be an object. Raises `UpstreamError`."""

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        """The raw JSON-RPC answer reduced to `{"result": …}` or `{"error": …}`.

        Raises `NotSent`, `OutcomeUnknown`, or what `before_send` raised. When cancelled from outside, tells the
        upstream (notification or closed stream) and lets the cancellation through.
        """

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        """Tear down connections and processes that exist for this caller alone (revoke, expiry), within 1 s."""

    async def aclose(self) -> None:
        """End everything: streams closed, process groups killed and reaped."""
