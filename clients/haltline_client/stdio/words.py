"""What the bridge itself has to say, when the broker cannot: as an answer the host can show, and on standard error.

A tool call gets a result with `isError`, so that the model reads it; every other method a JSON-RPC error. Whether a call
may have run is said as it is known. No sentence holds a credential's secret.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haltline_client.errors import BrokerUnreachable
    from haltline_client.stdio.messages import Message, Unreadable

__all__ = [
    "Notes",
    "Trouble",
    "busy",
    "dead",
    "ended",
    "error",
    "failed",
    "not_mcp",
    "too_large",
    "unreachable",
    "unreadable",
]

META_KEY = "io.haltline/refusal"
SERVER_ERROR = -32000
NOTES_MAX = 500
SHOWN_MAX = 300


class Trouble(Exception):
    """Why a request has no answer of the broker. `ran`: whether a call of a tool may have run all the same."""

    def __init__(self, code: str, text: str, *, ran: bool = False, retryable: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.ran = ran
        self.retryable = retryable


def unreachable(lost: BrokerUnreachable, url: str, *, keyed: bool = False) -> Trouble:
    """`keyed`: it had an idempotency key."""
    if lost.sent:
        text = (
            f"Haltline at {url} gave no answer: {lost.message}. The request was sent, so it may have been carried out."
        )
        return Trouble("broker.unreachable", text, ran=True, retryable=keyed)
    text = f"Haltline cannot be reached at {url}: {lost.message}. Nothing was sent, so nothing was carried out."
    return Trouble("broker.unreachable", text, retryable=True)


def dead(code: str, said: str, credential: str) -> Trouble:
    """`code` and `said` are the broker's own, `credential` says which one it is."""
    why = shown(said).rstrip(".")
    return Trouble(
        code if code.startswith("credential.") else "credential.refused",
        f"Haltline does not accept {credential}{f': {why}' if why else ''}. Nothing was carried out. A person who operates "
        "Haltline makes a new one (for an agent: haltline agents reissue NAME --credential, for a single run: "
        "haltline sessions open NAME); put it in the old one's place and start this host's connection again.",
    )


def ended(*, ran: bool = False) -> Trouble:
    text = "the MCP session with Haltline has ended and could not be opened again as it was; restart this host's connection"
    return Trouble("bridge.session_ended", f"{text}.", ran=ran)


def too_large(limit: int) -> Trouble:
    size = limit // (1024 * 1024)
    return Trouble(
        "answer.too_large", f"the answer is larger than {size} MiB and was not passed on; ask for less.", ran=True
    )


def busy() -> Trouble:
    text = "too many requests are waiting for an answer. Nothing was sent, so nothing was carried out."
    return Trouble("bridge.busy", text, retryable=True)


def not_mcp(status: int, said: str, url: str) -> Trouble:
    more = f": {shown(said)}" if said.strip() else ""
    text = f"{url} answered HTTP {status}{more.rstrip('.')}. Is that the agents' listener of Haltline?"
    return Trouble("answer.invalid", text, ran=status < 400 or status >= 500)


def failed(message: Message, trouble: Trouble) -> bytes:
    """The answer to `message`, on one line."""
    if message.method != "tools/call":
        return error(message, {"code": SERVER_ERROR, "message": trouble.text, "data": {"code": trouble.code}})
    verdict = "unknown" if trouble.ran else "denied"
    reason = {"code": trouble.code, "text": trouble.text, "retryable": trouble.retryable, "facts": {}}
    said = f"{verdict.capitalize()} [{trouble.code}]: {trouble.text} {_advice(trouble)}"
    result: dict[str, Any] = {
        "content": [{"type": "text", "text": said}],
        "isError": True,
        "_meta": {META_KEY: {"decision": verdict, "reasons": [reason]}},
    }
    if message.version is not None:
        result = {"resultType": "complete", **result}
    return _line({"jsonrpc": "2.0", "id": message.id, "result": result})


def error(message: Message, said: dict[str, Any]) -> bytes:
    """The broker's own error about a message whose id it did not read."""
    return _line({"jsonrpc": "2.0", "id": message.id, "error": said})


def unreadable(wrong: Unreadable) -> bytes:
    return _line({"jsonrpc": "2.0", "id": wrong.id, "error": {"code": wrong.code, "message": wrong.text}})


class Notes:
    """Sentences on standard error: each once until another one is said, and never without end."""

    def __init__(self) -> None:
        self._last = ""
        self._said = 0

    def say(self, text: str) -> None:
        if text == self._last or self._said > NOTES_MAX:
            return
        self._last = text
        self._said += 1
        more = "" if self._said <= NOTES_MAX else " (further notes are left out)"
        print(f"haltline stdio: {text}{more}", file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """A foreign text for a sentence: short, on one line, without what could steer a terminal."""
    return "".join(one if one.isprintable() else " " for one in text[:SHOWN_MAX]).strip()


def _advice(trouble: Trouble) -> str:
    if trouble.ran and trouble.retryable:
        return "With the same idempotency key you may retry: then it is not carried out twice."
    if trouble.ran:
        return "Do not retry before a person has looked into Haltline's audit log whether it ran."
    return "You may retry in a moment." if trouble.retryable else "Do not retry; finish without it."


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode()
