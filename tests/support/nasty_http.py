"""An HTTP upstream that misbehaves on purpose, on a real port: what it does wrong is the name of the tool called.

python -m support.nasty_http (modern|handshake)      in a process of its own; prints its port on a line
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

__all__ = ["MIB", "NastyHttp", "nasty_http"]

MIB = 1024 * 1024
Writer = asyncio.StreamWriter


class NastyHttp:
    def __init__(self, era: str) -> None:
        self.era = era
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        """Verb, headers (lower case), message."""
        self.connections = 0
        self.sessions: set[str] = set()
        self.arrived = asyncio.Event()
        """A tools/call was received."""
        self.release = asyncio.Event()
        """`held` is answered, the lists go on."""
        self.closed_by_client = asyncio.Event()
        self.paused: dict[str, dict[str, Any]] = {}
        """Calls whose stream was closed before its answer, by the id of its last event."""
        self.initialize_gate: asyncio.Event | None = None
        self.tools: list[Any] = [{"name": "good", "inputSchema": {"type": "object"}}]

    def calls(self, tool: str | None = None) -> list[dict[str, Any]]:
        return [
            message
            for _, _, message in self.requests
            if message and message.get("method") == "tools/call" and tool in {None, message["params"]["name"]}
        ]

    def notices(self, method: str) -> list[dict[str, Any]]:
        return [message for _, _, message in self.requests if message and message.get("method") == method]

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed_by_client.set()
        finally:
            with suppress(ConnectionError):
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: Writer) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        message = json.loads(body) if body else None
        self.requests.append((line.split()[0], headers, message))
        if line.startswith("DELETE"):
            self.sessions.discard(headers.get("mcp-session-id", ""))
            return await self._status(writer, 200)
        if line.startswith("GET"):
            return await self._taken_up(writer, headers.get("last-event-id"))
        if "method" not in message or "id" not in message:
            return await self._status(writer, 202)
        return await self._request(writer, headers, message)

    async def _request(self, writer: Writer, headers: dict[str, str], message: dict[str, Any]) -> bool:
        method = message["method"]
        if method == "server/discover":
            if self.era != "modern":
                return await self._status(writer, 400)
            return await self._json(writer, message, {"supportedVersions": ["2026-07-28"], "capabilities": {}})
        if method == "initialize":
            return await self._initialize(writer, message)
        if self.era == "handshake" and headers.get("mcp-session-id") not in self.sessions:
            return await self._status(writer, 404)
        if method == "tools/list":
            return await self._json(writer, message, {"tools": self.tools})
        if method != "tools/call":
            return await self._status(writer, 404)
        self.arrived.set()
        behaviour: Callable[[Writer, dict[str, Any]], Awaitable[bool]] = getattr(
            self, f"do_{message['params']['name']}"
        )
        return await behaviour(writer, message)

    async def _initialize(self, writer: Writer, message: dict[str, Any]) -> bool:
        if self.era == "modern":
            return await self._status(writer, 400)
        if self.initialize_gate is not None:
            await self.initialize_gate.wait()
        session = f"s{len(self.requests)}"
        self.sessions.add(session)
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "nasty", "version": "1"}}
        return await self._json(writer, message, result, f"Mcp-Session-Id: {session}\r\n")

    async def _write(self, writer: Writer, data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    async def _status(self, writer: Writer, status: int, extra: str = "") -> bool:
        await self._write(writer, f"HTTP/1.1 {status} So\r\n{extra}Content-Length: 0\r\n\r\n".encode())
        return True

    async def _json(
        self, writer: Writer, message: dict[str, Any], result: Any, extra: str = "", status: int = 200
    ) -> bool:
        return await self._raw(
            writer, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), extra, status
        )

    async def _raw(self, writer: Writer, body: str | bytes, extra: str = "", status: int = 200) -> bool:
        data = body.encode() if isinstance(body, str) else body
        head = f"HTTP/1.1 {status} So\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(data)}\r\n\r\n"
        await self._write(writer, head.encode() + data)
        return True

    async def _stream(self, writer: Writer, kind: str = "text/event-stream") -> None:
        await self._write(
            writer, f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )

    async def _chunk(self, writer: Writer, data: bytes) -> None:
        await self._write(writer, f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def _event(self, writer: Writer, message: dict[str, Any]) -> None:
        await self._chunk(
            writer, b"event: message\ndata: " + json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n\n"
        )

    async def _end(self, writer: Writer) -> bool:
        await self._write(writer, b"0\r\n\r\n")
        return True

    RESULT = {"content": [{"type": "text", "text": "good"}]}

    async def do_good(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._json(writer, message, {**self.RESULT, "_meta": message["params"].get("_meta", {})})

    async def do_held(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self.release.wait()
        return await self.do_good(writer, message)

    async def do_held_stream(self, writer: Writer, message: dict[str, Any]) -> bool:
        """Tells of progress before and after it is released, and then answers."""
        token = message["params"].get("_meta", {}).get("progressToken")
        await self._stream(writer)
        for progress in (1, 2):
            told = {"method": "notifications/progress", "params": {"progressToken": token, "progress": progress}}
            await self._event(writer, told)
            await self.release.wait()
        await self._event(writer, {"id": message["id"], "result": self.RESULT})
        return await self._end(writer)

    async def do_held_large(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self.release.wait()
        return await self._json(writer, message, {"content": [{"type": "text", "text": "x" * MIB}]})

    async def do_streamed(self, writer: Writer, message: dict[str, Any]) -> bool:
        """Notifications of every sort, a ping and another request, then the answer."""
        token = message["params"].get("_meta", {}).get("progressToken")
        await self._stream(writer)
        await self._event(
            writer, {"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
        )
        await self._event(writer, {"method": "notifications/progress", "params": {"progressToken": "not yours"}})
        await self._event(writer, {"method": "notifications/message", "params": {"level": "info", "data": "log"}})
        await self._event(writer, {"method": "notifications/tools/list_changed"})
        await self._event(writer, {"id": "their-1", "method": "ping"})
        await self._event(writer, {"id": 2, "method": "roots/list"})
        await self._event(writer, {"id": message["id"], "result": self.RESULT})
        return await self._end(writer)

    async def _pause(self, writer: Writer, message: dict[str, Any], event_id: str, *, kept: bool) -> bool:
        await self._stream(writer)
        await self._chunk(writer, f"id: {event_id}\nretry: 10\ndata: \n\n".encode())
        await self._event(writer, {"method": "notifications/message", "params": {"level": "info", "data": event_id}})
        if kept:
            self.paused[event_id] = message
        return await self._end(writer)

    async def _taken_up(self, writer: Writer, event_id: str | None) -> bool:
        message = self.paused.pop(event_id or "", None)
        if message is None:
            return await self._status(writer, 405)
        if event_id == "first":
            return await self._pause(writer, message, "second", kept=True)
        if event_id == "forever":
            return await self._pause(writer, message, "forever", kept=True)
        await self._stream(writer)
        await self._event(writer, {"id": message["id"], "result": self.RESULT})
        return await self._end(writer)

    async def do_paused(self, writer: Writer, message: dict[str, Any]) -> bool:
        """Closes the stream twice before the answer, and says where it goes on (2025-11-25, transports)."""
        return await self._pause(writer, message, "first", kept=True)

    async def do_paused_and_gone(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._pause(writer, message, "gone", kept=False)

    async def do_paused_forever(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._pause(writer, message, "forever", kept=True)

    async def do_one_by_one(self, writer: Writer, message: dict[str, Any]) -> bool:
        event = b'\xef\xbb\xbf: hello\r\nevent: message\r\ndata: {"jsonrpc":"2.0",\r\ndata: "id":'
        event += str(message["id"]).encode() + b',"result":{"content":[{"type":"text","text":"\xc3\xa9"}]}}\r\n\r\n'
        whole = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        whole += b"".join(b"1\r\n" + event[i : i + 1] + b"\r\n" for i in range(len(event))) + b"0\r\n\r\n"
        for i in range(len(whole)):
            await self._write(writer, whole[i : i + 1])
            await asyncio.sleep(0)
        return True

    async def do_until_closed(self, writer: Writer, message: dict[str, Any]) -> bool:
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": self.RESULT}).encode()
        await self._write(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)
        return False

    async def do_interim(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._write(writer, b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
        return await self.do_good(writer, message)

    async def do_huge(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._stream(writer, "application/json")
        await self._chunk(writer, f'{{"jsonrpc":"2.0","id":{message["id"]},"result":{{"x":"'.encode())
        for _ in range(64):
            await self._chunk(writer, b"x" * MIB)
        await self._chunk(writer, b'"}}')
        return await self._end(writer)

    async def do_huge_declared(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._write(
            writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 67108864\r\n\r\n{"
        )
        await self.release.wait()
        return False

    async def do_huge_event(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._stream(writer)
        await self._chunk(writer, b"data: ")
        for _ in range(64):
            await self._chunk(writer, b"x" * MIB)
        return await self._end(writer)

    async def _bytes_event(self, writer: Writer, data: bytes) -> bool:
        await self._stream(writer)
        await self._chunk(writer, b"data: " + data + b"\n\n")
        return await self._end(writer)

    async def do_deep_event(self, writer: Writer, message: dict[str, Any]) -> bool:
        deep = b"[" * 10_000 + b"]" * 10_000
        return await self._bytes_event(writer, b'{"jsonrpc":"2.0","id":%d,"result":{"x":%b}}' % (message["id"], deep))

    async def do_bad_utf8_event(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._bytes_event(writer, b'{"jsonrpc":"2.0","id":%d,"result":{"x":"\xff"}}' % message["id"])

    async def do_not_json_event(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._bytes_event(writer, b"hello")

    async def do_deep(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._raw(
            writer, f'{{"jsonrpc":"2.0","id":{message["id"]},"result":{{"x":{"[" * 10_000}{"]" * 10_000}}}}}'
        )

    async def do_bad_utf8(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._raw(writer, b'{"jsonrpc":"2.0","id":%d,"result":{"x":"\xff\xfe"}}' % message["id"])

    async def do_nan(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._raw(writer, f'{{"jsonrpc":"2.0","id":{message["id"]},"result":{{"x":NaN}}}}')

    async def do_not_json(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._raw(writer, "hello")

    async def do_no_result(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._raw(writer, f'{{"jsonrpc":"2.0","id":{message["id"]},"result":[]}}')

    async def do_html(self, writer: Writer, message: dict[str, Any]) -> bool:
        data = b"<html>"
        await self._write(writer, b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n" + data)
        return True

    async def do_zipped(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._raw(writer, b"\x1f\x8b", "Content-Encoding: gzip\r\n")

    async def do_wrong_id(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._json(writer, {"id": message["id"] + 1}, self.RESULT)

    async def do_wrong_id_streamed(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._stream(writer)
        for wrong in (str(message["id"]), float(message["id"]) + 0.5, True, None, message["id"] + 1):
            await self._event(writer, {"id": wrong, "result": {}})
        return await self._end(writer)

    async def do_endless(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._stream(writer)
        with suppress(ConnectionError):
            while True:
                await self._chunk(writer, b": ping\n\n")
                await asyncio.sleep(0.01)
        self.closed_by_client.set()
        return False

    async def do_flood(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._stream(writer)
        line = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n' * 500
        while True:
            await self._chunk(writer, line)

    async def do_answers_and_goes_on(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._stream(writer)
        await self._event(writer, {"id": message["id"], "result": self.RESULT})
        while True:
            await self._chunk(writer, b": more\n" * 1000)

    async def do_answers_and_lingers(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._stream(writer)
        await self._event(writer, {"id": message["id"], "result": self.RESULT})
        await self.release.wait()
        return False

    async def do_never(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self.release.wait()
        return False

    async def do_closes(self, writer: Writer, message: dict[str, Any]) -> bool:
        return False

    async def do_half(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._write(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        return False

    async def do_answers_then_closes(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self.do_good(writer, message)
        return False

    async def do_not_http(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._write(writer, b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        return False

    async def do_endless_headers(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._write(writer, b"HTTP/1.1 200 OK\r\n")
        while True:
            await self._write(writer, b"X-A: " + b"a" * 8000 + b"\r\n")

    async def do_endless_trailers(self, writer: Writer, message: dict[str, Any]) -> bool:
        await self._stream(writer)
        await self._write(writer, b"0\r\n")
        while True:
            await self._write(writer, b"X-A: " + b"a" * 8000 + b"\r\n")

    async def do_redirect(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._status(writer, 302, f"Location: {self.url}?elsewhere\r\n")

    async def do_broken(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._status(writer, 500)

    async def do_forbidden(self, writer: Writer, message: dict[str, Any]) -> bool:
        return await self._raw(writer, '{"error":"no"}', status=403)

    async def do_refused(self, writer: Writer, message: dict[str, Any]) -> bool:
        error = {"code": -32602, "message": "bad arguments", "data": None}
        return await self._raw(writer, json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}), status=400)


@asynccontextmanager
async def nasty_http(era: str = "modern", *, tls: ssl.SSLContext | None = None) -> AsyncIterator[NastyHttp]:
    nasty = NastyHttp(era)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.get_running_loop().create_task(nasty.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=MIB, ssl=tls)
    where = "http://127.0.0.1" if tls is None else "https://localhost"
    nasty.url = f"{where}:{server.sockets[0].getsockname()[1]}/mcp"
    try:
        yield nasty
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def alone(era: str) -> None:
    """Every misbehaviour is a tool on its list."""
    async with nasty_http(era) as nasty:
        names = [name.removeprefix("do_") for name in dir(nasty) if name.startswith("do_")]
        nasty.tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
        print(nasty.url.split(":")[2].split("/")[0], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(alone(sys.argv[1]))
