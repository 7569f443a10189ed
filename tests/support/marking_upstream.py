"""An MCP upstream that marks whatever it says in a call with the mark that the call carried: progress, logs, questions.

It asks its client something in the middle of each call, with the same request ids in every session.

    python -m support.marking_upstream (modern|handshake)      prints its port and process id on one line
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from bench import processes
from support.counting_upstream import environment

__all__ = ["PROGRESS", "marking_upstream"]

PROGRESS = 3
ANSWER_S = 30.0
INFO = {"name": "marking", "version": "1"}
CAPABILITIES: dict[str, Any] = {"tools": {}, "logging": {}}
TOOL = {"name": "work", "inputSchema": {"type": "object", "properties": {"mark": {"type": "string"}}}}
SCHEMA = {"type": "object", "properties": {"mark": {"type": "string"}}}
Message = dict[str, Any]


class MarkingUpstream:
    def __init__(self, *, handshake: bool) -> None:
        self._handshake = handshake
        self._asked: dict[tuple[str, int], asyncio.Future[Message]] = {}
        self._ids: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", scope["method"] == "POST"
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        session = dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
        request = json.loads(body) if body else {}
        if "method" not in request and (session, request.get("id")) in self._asked:
            self._asked[session, request["id"]].set_result(request)
        if scope["method"] != "POST" or "id" not in request or "method" not in request:
            await _reply(send, 202 if request else 200 if scope["method"] == "DELETE" else 405, None)
            return
        if request["method"] == "tools/call":
            await _events(send, self._work(request, session))
            return
        fresh = os.urandom(9).hex() if request["method"] == "initialize" else None
        await _reply(send, 200, self._answer(request), fresh)

    def _answer(self, request: Message) -> Message:
        known: dict[str, Message] = {"tools/list": {"tools": [TOOL]}, "ping": {}, "logging/setLevel": {}}
        if self._handshake:
            told = {"capabilities": CAPABILITIES, "serverInfo": INFO}
            known["initialize"] = {"protocolVersion": "2025-11-25", **told}
        else:
            known["server/discover"] = {"supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES}
        result = known.get(request["method"])
        said = {"error": {"code": -32601, "message": "no"}} if result is None else {"result": result}
        return {"jsonrpc": "2.0", "id": request["id"], **said}

    async def _work(self, request: Message, session: str) -> AsyncIterator[Message]:
        params = request["params"]
        mark = params["arguments"]["mark"]
        token = params["_meta"]["progressToken"]
        for number in range(PROGRESS):
            told = {"progressToken": token, "progress": number, "message": mark}
            yield {"method": "notifications/progress", "params": told}
            yield {"method": "notifications/message", "params": {"level": "info", "data": mark}}
            await asyncio.sleep(random.choice((0, 0.001, 0.003)))
        question = {"method": "elicitation/create", "params": {"message": mark, "requestedSchema": SCHEMA}}
        said = {"mark": mark}
        if self._handshake:
            self._ids[session] += 1
            identifier = self._ids[session]
            answered = self._asked[session, identifier] = asyncio.get_running_loop().create_future()
            yield {"id": identifier, **question}
            said["heard"] = str(await _heard(answered))
            del self._asked[session, identifier]
        elif "inputResponses" not in params:
            asks = {"resultType": "input_required", "inputRequests": {"q": question}, "requestState": mark}
            yield {"id": request["id"], "result": asks}
            return
        else:
            said |= {"heard": str(params["inputResponses"]["q"]["content"]["mark"]), "state": params["requestState"]}
        text = {"type": "text", "text": json.dumps(said)}
        yield {"id": request["id"], "result": {"resultType": "complete", "content": [text]}}


async def _heard(answered: asyncio.Future[Message]) -> Any:
    try:
        message = await asyncio.wait_for(answered, ANSWER_S)
        return message["result"]["content"]["mark"]
    except (TimeoutError, KeyError) as error:
        return f"nothing: {error!r}"


async def _reply(send: Any, status: int, answer: Message | None, session: str | None = None) -> None:
    body = b"" if answer is None else json.dumps(answer).encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    if session is not None:
        headers.append((b"mcp-session-id", session.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _events(send: Any, messages: AsyncIterator[Message]) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for message in messages:
        event = b"data: " + json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], os.getpid(), flush=True)
    app = MarkingUpstream(handshake=sys.argv[1] == "handshake")
    config = uvicorn.Config(app, ws="none", lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def marking_upstream(folder: Path, era: str) -> Iterator[int]:
    """Its port, while the block runs."""
    log = folder / f"marking-{era}.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.marking_upstream", era],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
            start_new_session=True,
        )
    try:
        yield int(processes.first_line(process, log).split()[0])
    finally:
        processes.end(process)


if __name__ == "__main__":
    main()
