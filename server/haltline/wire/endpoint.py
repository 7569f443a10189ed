"""One MCP endpoint over streamable HTTP for both eras: the handshake (2024-11-05 … 2025-11-25) and 2026-07-28.

Owns what is the same for every face: strict parsing, headers against body, negotiation, cancelling, request ids in
flight. What methods mean is the face's. The rules of 2026-07-28 headers are the SDK's own functions.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from haltline.wire import messages, strict_json
from haltline.wire.conversations import Conversations
from haltline.wire.eras import (
    HANDSHAKE_VERSIONS,
    IDEMPOTENCY_KEY,
    LATEST_HANDSHAKE,
    MODERN_VERSIONS,
    PROTOCOL_VERSION,
    SERVER_INFO,
)
from haltline.wire.exchange import Exchange
from haltline.wire.headers import Mismatch, mismatch, mismatch_of_arguments, plainly_agree, rules
from haltline.wire.http import JSON, LINE, BadRequest, Line, Receive, Scope, Send, accepts, fold, read_body, send_reply
from haltline.wire.messages import Answer, Message, Unauthorized
from haltline.wire.reply import Reply
from haltline.wire.sessions import owner_of
from haltline.wire.standing import StandingFace, serve_standing

if TYPE_CHECKING:
    from haltline.wire.sessions import SessionIds

__all__ = ["MAX_BODY_BYTES", "Endpoint", "Exchange", "Face"]

MAX_BODY_BYTES = 4 * 1024 * 1024
_SHORT = frozenset({"initialize", "server/discover", "ping", "tools/list", "logging/setLevel"})
"""Answered at once by the broker itself: no notification, no question and no cancelling in between."""
VERSIONS = (*MODERN_VERSIONS, *reversed(HANDSHAKE_VERSIONS))
log = structlog.get_logger(__name__)


class Face(Protocol):
    """What an endpoint serves. Two exist: the agents' and the operators'."""

    name: str
    version: str
    instructions: str

    @property
    def capabilities(self) -> dict[str, Any]: ...

    async def admit(self, token: str | None, source: str) -> Unauthorized | None:
        """Whether this token may connect at all; asked for every message that `handle` does not get."""

    async def handle(self, exchange: Exchange) -> Answer | Unauthorized | None:
        """The answer; None: no such method, or already answered through `exchange.reply`. Authenticates by itself."""

    def mirrored_schema(self, tool: str) -> Any:
        """The input schema that may declare `Mcp-Param-*` headers; None where it declares none, or is of no such tool."""


class Endpoint:
    """A plain ASGI application for one path."""

    def __init__(self, face: Face, sessions: SessionIds) -> None:
        self._face = face
        self._sessions = sessions
        self._conversations = Conversations(sessions.told)
        self._in_flight: dict[tuple[str, int | str], Exchange] = {}
        self._keyed: dict[tuple[str | None, str], Exchange] = {}
        """By token and idempotency key: these outlive their connections, so their key says which one to cancel (R13)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = fold(scope["headers"])
        try:
            await self._serve(scope, headers, receive, send)
        except BadRequest as bad:
            await _send_error(send, bad.status, messages.INVALID_REQUEST, bad.text)
        except strict_json.BadJson as bad:
            await _send_error(send, 400, messages.PARSE_ERROR, str(bad))

    async def _serve(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        source = scope["client"][0] if scope.get("client") else "local"
        if scope["method"] == "POST":
            await self._post(scope, headers, source, receive, send)
        elif scope["method"] == "DELETE":
            await self._delete(headers, source, send)
        elif scope["method"] == "GET" and "mcp-session-id" in headers and isinstance(self._face, StandingFace):
            await self._get(self._face, headers, source, receive, send)
        else:
            await send_reply(send, 405, headers=[(b"allow", b"POST, DELETE")])

    async def _get(
        self, face: StandingFace, headers: dict[str, str], source: str, receive: Receive, send: Send
    ) -> None:
        """The standing stream of a handshake-era session."""
        token = bearer(headers)
        denied = await self._face.admit(token, source)
        if denied is None and not accepts(headers.get("accept", ""))[1]:
            raise BadRequest(406, "accept text/event-stream")
        if denied is None:
            denied = await serve_standing(
                face,
                self._sessions,
                self._conversations,
                headers,
                token=token,
                source=source,
                receive=receive,
                send=send,
            )
        if denied is not None:
            await _send_unauthorized(send, denied)

    async def _delete(self, headers: dict[str, str], source: str, send: Send) -> None:
        """The end of a handshake-era session, which is nothing but its id."""
        token = bearer(headers)
        denied = await self._face.admit(token, source)
        if denied is not None:
            await _send_unauthorized(send, denied)
            return
        session_id = headers.get("mcp-session-id", "")
        known = self._sessions.valid(session_id, token)
        if known:
            self._sessions.end(session_id)
            self._conversations.end(session_id)
            if isinstance(self._face, StandingFace):
                await self._face.session_over(session_id)
        await send_reply(send, 204 if known else 404)

    async def _post(self, scope: Scope, headers: dict[str, str], source: str, receive: Receive, send: Send) -> None:
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            raise BadRequest(415, "send Content-Type: application/json")
        json, stream = accepts(headers.get("accept", ""))
        if not json and not stream:
            raise BadRequest(406, "accept application/json and text/event-stream")
        body = await read_body(scope, receive, max_bytes=MAX_BODY_BYTES, declared=headers.get("content-length"))
        message = messages.read(strict_json.parse(body))
        if isinstance(message, str):
            raise BadRequest(400, message)
        modern = _is_modern(headers, message)
        token = bearer(headers)
        if message.id is None or message.method is None:
            await self._notification(message, headers, token, source, send)
            return
        reply = Reply(send, message.id, json=json, stream=stream)
        exchange = Exchange(message, reply, headers=headers, modern=modern, token=token, source=source)
        rejected = await self._modern_rejection(scope, exchange) if modern else self._handshake_rejection(exchange)
        known = rejected is not None or modern or self._session_known(exchange)
        denied = None if rejected is None and known else await self._face.admit(token, source)
        if denied is not None:  # who asks comes before what is wrong with it
            await _send_unauthorized(send, denied)
            return
        if rejected is not None:
            answer = messages.error(rejected.code, rejected.message, rejected.data)
            await reply.answer(answer, messages.http_status(answer))
            return
        if not known:
            await send_reply(send, 404, b"this MCP session has ended; send initialize again")
            return
        await self._answer(exchange, scope[LINE], send)

    # checks before anything is decided

    async def _modern_rejection(self, scope: Scope, exchange: Exchange) -> Mismatch | None:
        raw = scope["headers"]
        if not plainly_agree(raw, exchange.headers, exchange.method, exchange.params):
            await rules()
            lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
            rejected = mismatch(lines, exchange.headers, {"method": exchange.method, "params": exchange.params})
            if rejected is not None:
                return rejected
        return await self._mirrored_arguments(exchange)

    async def _mirrored_arguments(self, exchange: Exchange) -> Mismatch | None:
        """`Mcp-Param-*` headers must say what the body says: something in front may have routed on them."""
        if exchange.method != "tools/call":
            return None
        name, arguments = exchange.params.get("name"), exchange.params.get("arguments") or {}
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        schema = self._face.mirrored_schema(name)
        if schema is None:
            return None
        await rules()
        return mismatch_of_arguments(schema, arguments, exchange.headers)

    @staticmethod
    def _handshake_rejection(exchange: Exchange) -> Mismatch | None:
        version = exchange.headers.get("mcp-protocol-version")
        if version is None or version in HANDSHAKE_VERSIONS:
            return None
        known = ", ".join(VERSIONS)
        return Mismatch(messages.INVALID_REQUEST, f"MCP-Protocol-Version {version[:40]} is not one of {known}")

    def _session_known(self, exchange: Exchange) -> bool:
        if exchange.method == "initialize":
            exchange.session_key = ""
            return True
        if not exchange.session_key:
            return True
        if not self._sessions.valid(exchange.session_key, exchange.token):
            return False
        exchange.conversation = self._conversations.of(exchange.session_key, owner_of(exchange.token))
        return True

    # answering

    async def _answer(self, exchange: Exchange, line: Line, send: Send) -> None:
        key = (exchange.session_key, exchange.id)
        if exchange.session_key and key in self._in_flight:
            text = f"request id {exchange.id!r} is still being answered; use a new one"
            await exchange.reply.answer(messages.error(messages.INVALID_REQUEST, text))
            return
        if exchange.session_key:
            self._in_flight[key] = exchange
        keyed = None if exchange.idempotency_key is None else (exchange.token, exchange.idempotency_key)
        first = keyed is not None and self._keyed.setdefault(keyed, exchange) is exchange
        # In the handshake era a lost connection does not cancel (2025-11-25, transports).
        watched = exchange.modern and exchange.method not in _SHORT
        if watched:
            line.tell(exchange.gone)
        try:
            await self._conclude(exchange, await self._handled(exchange), send)
        finally:
            exchange.end()
            if watched:
                line.tell_no_more(exchange.gone)
            if exchange.session_key:
                self._in_flight.pop(key, None)
            if keyed is not None and first:
                self._keyed.pop(keyed, None)

    async def _handled(self, exchange: Exchange) -> Answer | Unauthorized | None:
        try:
            own = await self._own(exchange)
            return own if own is not None else await self._face.handle(exchange)
        except Exception as error:
            reference = uuid.uuid4().hex[:12]
            log.error("request_failed", method=exchange.method, reference=reference, exc_info=error)
            return messages.error(messages.INTERNAL_ERROR, f"internal error {reference}; the operator's log says more")

    async def _conclude(self, exchange: Exchange, answer: Answer | Unauthorized | None, send: Send) -> None:
        if exchange.reply.answered:
            return
        if isinstance(answer, Unauthorized):
            await _send_unauthorized(send, answer)
            return
        if answer is None:
            answer = messages.error(messages.METHOD_NOT_FOUND, f"{exchange.method[:80]} is not a method of this server")
        await exchange.reply.answer(answer, messages.http_status(answer) if exchange.modern else 200)

    async def _own(self, exchange: Exchange) -> Answer | Unauthorized | None:
        """The methods that every server has; None for the face's."""
        name = "server/discover" if exchange.modern else "initialize"
        if exchange.method not in {name, "ping"} or (exchange.modern and exchange.method == "ping"):
            return None
        denied = await self._face.admit(exchange.token, exchange.source)
        if denied is not None:
            return denied
        if exchange.method == "ping":
            return messages.result({})
        return messages.result(self._discovered() if exchange.modern else self._initialized(exchange))

    def _initialized(self, exchange: Exchange) -> dict[str, Any]:
        asked = exchange.params.get("protocolVersion")
        session_id = self._sessions.issue(exchange.token, exchange.params)
        conversation = self._conversations.of(session_id, owner_of(exchange.token))
        conversation.introduce(exchange.params)
        conversation.recalled = True
        exchange.reply.headers.append((b"mcp-session-id", session_id.encode()))
        return {
            "protocolVersion": asked if asked in HANDSHAKE_VERSIONS else LATEST_HANDSHAKE,
            "capabilities": self._face.capabilities,
            "serverInfo": self._server_info(),
            "instructions": self._face.instructions,
        }

    def _discovered(self) -> dict[str, Any]:
        return {
            "resultType": "complete",
            "supportedVersions": list(VERSIONS),
            "capabilities": self._face.capabilities,
            "instructions": self._face.instructions,
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {SERVER_INFO: self._server_info()},
        }

    def _server_info(self) -> dict[str, str]:
        return {"name": self._face.name, "title": "Haltline", "version": self._face.version}

    async def _notification(
        self, message: Message, headers: dict[str, str], token: str | None, source: str, send: Send
    ) -> None:
        denied = await self._face.admit(token, source)
        if denied is not None:
            await _send_unauthorized(send, denied)
            return
        session_key = headers.get("mcp-session-id", "")
        if session_key and not self._sessions.valid(session_key, token):
            await send_reply(send, 404, b"this MCP session has ended; send initialize again")
            return
        if message.answer is not None and session_key:
            question = self._conversations.of(session_key, owner_of(token)).questions.get(str(message.id))
            if question is not None:
                question.settle(message.answer)
        if message.method == "notifications/cancelled":
            running = self._wanted(message, session_key, token)
            if running is not None:
                running.cancel()
        await send_reply(send, 202)

    def _wanted(self, message: Message, session_key: str, token: str | None) -> Exchange | None:
        """What a client cancels: the call with its idempotency key, or in a session the request with its id."""
        meta = message.params.get("_meta")
        key = meta.get(IDEMPOTENCY_KEY) if isinstance(meta, dict) else None
        if isinstance(key, str):
            return self._keyed.get((token, key))
        wanted = message.params.get("requestId")
        return self._in_flight.get((session_key, wanted)) if session_key and isinstance(wanted, int | str) else None


def bearer(headers: dict[str, str]) -> str | None:
    """The token of an Authorization header; a token anywhere else is not read."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _is_modern(headers: dict[str, str], message: Message) -> bool:
    if headers.get("mcp-protocol-version") in MODERN_VERSIONS:
        return True
    meta = message.params.get("_meta")
    return isinstance(meta, dict) and PROTOCOL_VERSION in meta


async def _send_error(send: Send, status: int, code: int, text: str) -> None:
    body = strict_json.dumps({"jsonrpc": "2.0", "id": None, **messages.error(code, text)})
    await send_reply(send, status, body, kind=JSON)


async def _send_unauthorized(send: Send, denied: Unauthorized) -> None:
    challenge = f'Bearer realm="haltline", error="invalid_token", error_description="{denied.code}"'
    body = strict_json.dumps({"error": denied.code, "error_description": denied.text})
    await send_reply(send, 401, body, kind=JSON, headers=[(b"www-authenticate", challenge.encode())])
