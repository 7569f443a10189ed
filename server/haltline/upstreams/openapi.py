"""An HTTP API as an upstream: the operations of its OpenAPI document are tools, and a call is one HTTP request.

Stateless: nothing exists for one caller alone. Where the API is comes from configuration, or from the document where
configuration is silent; credentials are the configured headers and query parameters, whatever the document says.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from haltline.upstreams import faults
from haltline.upstreams.destinations import ForbiddenDestination, addresses_of
from haltline.upstreams.http_body import BodyReply
from haltline.upstreams.http_reply import exchange
from haltline.upstreams.http_wire import NoConnection, Pool
from haltline.upstreams.messages import METHOD_NOT_FOUND
from haltline.upstreams.model import Caller, NotSent, UpstreamCall, UpstreamError, UpstreamSpec
from haltline.upstreams.openapi_document import Documents, Unreadable
from haltline.upstreams.openapi_operations import Api, Filters, compile_api
from haltline.upstreams.openapi_request import Operation, Target
from haltline.upstreams.openapi_results import tool_result
from haltline.upstreams.openapi_server import base_url, security_schemes
from haltline.upstreams.openapi_source import DocumentSource, Loaded, unreadable
from haltline.upstreams.openapi_styles import Unsendable
from haltline.upstreams.places import Places

__all__ = ["OpenApiUpstream"]

MAX_NOTED = 8


@dataclass(frozen=True, slots=True)
class _Ready:
    """What was read last, and the line to where it is."""

    digest: str
    api: Api
    target: Target
    base_url: str
    pool: Pool
    schemes: tuple[str, ...]


class OpenApiUpstream:
    """`tls`: another context than the system's."""

    def __init__(self, spec: UpstreamSpec, *, tls: ssl.SSLContext | None = None) -> None:
        assert spec.openapi is not None
        self._spec = spec
        self._from = spec.openapi
        self._tls = tls
        self._turns = anyio.CapacityLimiter(1)
        self._source = DocumentSource(spec, spec.openapi, tls, self._turns)
        self._places = Places(spec.name, spec.max_concurrent)
        self._ready: _Ready | None = None
        self._reading = asyncio.Lock()

    @property
    def spec(self) -> UpstreamSpec:
        return self._spec

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the document is no tool, and what is missing."""
        if self._ready is None:
            return ()
        said = []
        refused, idle = self._ready.api.refused, self._ready.api.idle
        if idle:
            said.append(f"no operation matches {', '.join(idle[:MAX_NOTED])}")
        if refused:
            shown = "; ".join(f"{label}: {why}" for label, why in refused[:MAX_NOTED])
            said.append(f"{len(refused)} operations are no tools: {shown}" + (" …" if len(refused) > MAX_NOTED else ""))
        if self._ready.schemes and not self._spec.headers and not self._from.query:
            said.append(f"it asks for {' or '.join(self._ready.schemes)}, and neither headers nor query are configured")
        return tuple(said)

    def watch(self, changed: Callable[[], None]) -> None:
        """A document says nothing when it changes; the catalog looks at intervals."""

    async def list_tools(self) -> list[Any]:
        ready = await self._read()
        return [operation.definition for operation in ready.api.operations.values()]

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        if call.method != "tools/call":
            return {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}
        deadline = asyncio.get_running_loop().time() + call.deadline_s
        async with self._places.held(call.caller.agent_id, deadline):
            ready = self._ready or await self._first(deadline)
            operation = ready.api.operations.get(call.params["name"])
            if operation is None:
                raise NotSent("upstream.unreachable", f"{self._spec.name} does not offer this operation now")
            try:
                data = ready.target.request(operation, call.params.get("arguments") or {})
            except Unsendable as error:
                raise NotSent("upstream.arguments", f"these arguments cannot be sent: {error}") from error
            return {"result": await self._exchange(ready, operation, data, call, deadline)}

    async def forget(self, caller: Caller, *, session_only: bool) -> None:
        """Nothing is kept for a caller."""

    async def aclose(self) -> None:
        if self._ready is not None:
            self._ready.pool.close()

    async def _exchange(
        self, ready: _Ready, operation: Operation, data: bytes, call: UpstreamCall, deadline: float
    ) -> dict[str, Any]:
        reply = BodyReply(self._spec.name, self._spec.max_result_bytes, head_only=operation.method == "HEAD")
        try:
            answer = await exchange(
                ready.pool,
                data,
                reply,
                before_send=call.before_send,
                ready_by=min(deadline, asyncio.get_running_loop().time() + self._spec.connect_timeout_s),
                overdue=(deadline, faults.overdue(self._spec.name, call.deadline_s)),
            )
        except ForbiddenDestination as error:
            raise NotSent(
                "upstream.unreachable", f"{self._spec.name} leads where no connection may go", str(error)
            ) from error
        except NoConnection as error:
            raise faults.unreachable(self._spec.name, str(error)) from error
        return tool_result(answer)

    async def _first(self, deadline: float) -> _Ready:
        """For whoever calls before anybody listed. Raises NotSent: nothing of the call left."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._read()
        except TimeoutError as error:
            raise faults.too_late_to_send(self._spec.name) from error
        except UpstreamError as error:
            raise faults.unreachable(self._spec.name, error.detail or str(error)) from error

    async def _read(self) -> _Ready:
        """The document as it is now. Raises UpstreamError."""
        async with self._reading:
            try:
                loaded = await self._source.load(self._ready.digest if self._ready else None)
                if loaded is not None:
                    self._ready = await self._compile(loaded)
            except Unreadable as error:
                raise unreadable(self._spec.name, str(error)) from error
            assert self._ready is not None
            return self._ready

    async def _compile(self, loaded: Loaded) -> _Ready:
        url = base_url(self._spec, loaded.documents.root)
        api = await anyio.to_thread.run_sync(
            self._compiled, loaded.documents, url, abandon_on_cancel=True, limiter=self._turns
        )
        old = self._ready
        pool = old.pool if old and old.base_url == url else None
        if old is not None and pool is None:
            old.pool.close()
        return _Ready(
            loaded.digest,
            api,
            Target(url, self._spec.headers, self._from.query),
            url,
            pool or self._pool(url),
            security_schemes(loaded.documents),
        )

    def _compiled(self, documents: Documents, url: str) -> Api:
        taken = {f"header:{name.lower()}" for name in self._spec.headers}
        taken |= {f"query:{name.lower()}" for name in self._from.query}
        filters = Filters(self._from.include, self._from.exclude)
        return compile_api(documents, filters, taken=frozenset(taken), destination=urlsplit(url).netloc)

    def _pool(self, url: str) -> Pool:
        return Pool(Target(url, {}, {}).address, self._tls, addresses_of(allow_private=self._from.allow_private))
