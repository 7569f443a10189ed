"""An MCP upstream in a process of its own that writes down every call it receives and tells it on request.

What it holds is the truth about what left the broker: it outlives the broker, and each receipt has the time at which the
first byte of the call left, as the kernel saw it. Over HTTP, in both eras, on asyncio's own loop (whose reads can be stamped).

    python -m support.counting_upstream [--handshake]        prints its port and process id on one line
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from bench import processes
from bench.upstream import JSON, Upstream, _reply
from support.stamped import StampedListener, stamped
from support.tap import Tap

__all__ = ["CountingUpstream", "Receipt", "Receipts", "counting_upstream", "environment", "serve"]

SCHEMA = {
    "type": "object",
    "properties": {"reference": {"type": "string"}, "mark": {"type": "string"}, "wait_ms": {"type": "number"}},
    "required": ["reference"],
}
TOOLS = [{"name": name, "description": f"{name} it", "inputSchema": SCHEMA} for name in ("pay", "look")]


@dataclass(frozen=True, slots=True)
class Receipt:
    """One received call. `end`: running, answered, or left (its caller went away)."""

    reference: str
    at_ns: int
    """When its first byte left the broker."""
    exact: bool
    """Whether a tap saw it leave; else it is when it arrived, at the latest."""
    end: str


class CountingUpstream(Upstream):
    """`pay` and `look` answer with the reference and the mark they were called with, after `wait_ms`.

    The mark `fail` makes it an error of the tool's own.
    """

    def __init__(self, listener: StampedListener, *, handshake: bool) -> None:
        super().__init__()
        self._listener = listener
        self._handshake = handshake
        self._receipts: list[list[Any]] = []
        self._tap: Tap | None = None
        with suppress(OSError, AttributeError):  # no right to it, or another system than Linux
            self._tap = Tap(listener.getsockname()[1])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        connection = self._listener.accepted.get(scope["client"][1])
        at_ns = connection.take() if connection is not None else 0
        if scope["method"] != "POST":
            told = orjson.dumps(self._told()) if scope["path"] == "/receipts" else b""
            await _reply(send, 200 if told or scope["method"] == "DELETE" else 405, told, [])
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._receipts.append(["", at_ns, "broken"])
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        request = orjson.loads(body)
        if request.get("method") == "tools/call":
            await self._called(request, at_ns, receive, send)
            return
        answer = self.answer(request)
        if answer is None:
            await _reply(send, 202, b"", [])
            return
        named = [(b"mcp-session-id", os.urandom(8).hex().encode())] if request["method"] == "initialize" else []
        await _reply(send, 200, orjson.dumps(answer), [JSON, *named])

    def _told(self) -> list[tuple[str, int, bool, str]]:
        left = {} if self._tap is None else self._tap.first_ns
        return [(one, left.get(one, at_ns), one in left, end) for one, at_ns, end in self._receipts]

    async def _called(self, request: dict[str, Any], at_ns: int, receive: Any, send: Any) -> None:
        arguments = request["params"]["arguments"]
        receipt = [arguments["reference"], at_ns, "running"]
        self._receipts.append(receipt)
        if arguments.get("wait_ms"):
            gone = asyncio.ensure_future(_gone(receive))
            done, _ = await asyncio.wait({gone}, timeout=arguments["wait_ms"] / 1000)
            gone.cancel()
            if done:
                receipt[2] = "left"
                return
        receipt[2] = "answered"
        await _reply(send, 200, orjson.dumps(self.answer(request)), [JSON])

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        if method == "tools/call":
            said = {key: params["arguments"].get(key, "") for key in ("reference", "mark")}
            return {"content": [{"type": "text", "text": json.dumps(said)}], "isError": said["mark"] == "fail"}
        if method == "server/discover" and self._handshake:
            return None
        result = super()._result(method, params)
        if method == "tools/list" and result is not None:
            return {**result, "tools": TOOLS}
        return result


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def serve(app: Any, listener: socket.socket) -> None:
    """Until the process is ended."""
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=3_600,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    listener = StampedListener(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    stamped(listener)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    listener.setblocking(False)
    app = CountingUpstream(listener, handshake="--handshake" in sys.argv)
    print(listener.getsockname()[1], os.getpid(), flush=True)
    serve(app, listener)


# the side that asks


class Receipts:
    """A running upstream as a test sees it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/mcp"
        self._ask = f"http://127.0.0.1:{port}/receipts"

    def all(self) -> list[Receipt]:
        with urllib.request.urlopen(self._ask, timeout=20) as reply:
            return [Receipt(*one) for one in orjson.loads(reply.read())]


def environment() -> dict[str, str]:
    """For a child that runs the code under test and the tests' own."""
    told = processes.environment()
    return {**told, "PYTHONPATH": os.pathsep.join([told["PYTHONPATH"], str(processes.CHECKOUT / "tests")])}


@contextmanager
def counting_upstream(folder: Path, *, handshake: bool = False) -> Iterator[Receipts]:
    """A counting upstream while the block runs; its log is in `folder`."""
    log = folder / f"upstream-{'handshake' if handshake else 'modern'}.log"
    command = [sys.executable, "-m", "support.counting_upstream", *(["--handshake"] if handshake else [])]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(), start_new_session=True
        )
    try:
        yield Receipts(int(processes.first_line(process, log).split()[0]))
    finally:
        processes.end(process)


if __name__ == "__main__":
    main()
