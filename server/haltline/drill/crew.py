"""The drill's agents: clients of the official MCP SDK in both protocol eras, in a process of their own.

Told what to do and telling what became of it in JSON lines over standard input and output; credentials come over standard
input alone. Knows the agents' endpoint and no internals: a refusal is recognised by the first line of its text.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.to_thread
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

__all__ = ["main"]

ERAS = ("auto", "legacy")
"""The SDK's default (stateless 2026-07-28 where it is spoken), and the handshake before it."""
TIMEOUT_S = 30.0
TICK = 0.01
"""Between two calls of a loop."""
LOOPS = 5
"""So many calls that went well are a loop, and a bystander that stands by."""
OPEN_SESSION = "haltline__open_session"
AGAIN = 3
"""So many calls after the stop show that the first refusal was no accident."""
REFUSED = re.compile(r"(?:Halted|Denied|Unknown) \[(?P<code>[a-z_.]+)\]")


def tell(said: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"said": said, "at": time.monotonic(), **facts}) + "\n")
    sys.stdout.flush()


class Crew:
    """`url` and the names of the two tools as agents see them; `certificate` is the listener's own, where it has one."""

    def __init__(self, url: str, tick: str, work: str, certificate: str | None) -> None:
        self._url, self._tick, self._work = url, tick, work
        self._verify: Any = True if certificate is None else _trusting(certificate)
        self._drilled: Client | None = None
        self._bystander_ends = False
        self._stopped = anyio.Event()

    async def connect(self, stack: AsyncExitStack, token: str, era: Any) -> Client:
        headers = {"Authorization": f"Bearer {token}"}
        http = httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S, verify=self._verify)
        await stack.enter_async_context(http)
        client = Client(streamable_http_client(self._url, http_client=http), mode=era, cache=None)
        return await stack.enter_async_context(client)

    async def run(self, drilled: str, bystander: str) -> None:
        """The loop and the long call of the drilled session, and the bystander, until they are told or refused."""
        async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
            loop, long, other = [
                await self.connect(stack, token, era)
                for token, era in ((drilled, "auto"), (drilled, "legacy"), (bystander, "auto"))
            ]
            self._drilled = loop
            tell("connected", eras=sorted({loop.protocol_version, long.protocol_version}))
            tasks.start_soon(self._loop, loop)
            tasks.start_soon(self._long, long)
            tasks.start_soon(self._stand_by, other)
            await self._obey()

    async def _obey(self) -> None:
        async for line in _lines():
            told = json.loads(line)
            if told["do"] == "stopped":
                self._stopped.set()
            elif told["do"] == "bystander":
                self._bystander_ends = True
            elif told["do"] == "child":
                tell("opened", **await self._open(self._drilled))
            elif told["do"] == "again":
                tell(told["as"], answers=[await self._fresh(told["token"], era) for era in ERAS])

    async def _loop(self, client: Client) -> None:
        went_well = 0
        refused: list[dict[str, Any]] = []
        while len(refused) < AGAIN:
            answer = await self._call(client, self._tick)
            if answer["ok"]:
                went_well += 1
                if went_well == LOOPS:
                    tell("looping")
                await anyio.sleep(TICK)
            else:
                refused.append(answer)
        tell("loop", calls=went_well, refused=refused)

    async def _long(self, client: Client) -> None:
        tell("long", answer=await self._call(client, self._work))

    async def _stand_by(self, client: Client) -> None:
        calls, failed, after, slowest = 0, [], 0, 0.0
        while not (self._bystander_ends and after >= AGAIN):
            begun = time.monotonic()
            answer = await self._call(client, self._tick)
            calls, slowest = calls + 1, max(slowest, time.monotonic() - begun)
            after += self._stopped.is_set()
            if not answer["ok"]:
                failed.append(answer)
            if calls == LOOPS:
                tell("standing by")
            await anyio.sleep(TICK)
        tell("bystander", calls=calls, after=after, failed=failed, slowest_ms=round(slowest * 1000))

    async def _fresh(self, token: str, era: str) -> dict[str, Any]:
        """What a new connection with this credential gets."""
        try:
            async with AsyncExitStack() as stack:
                client = await self.connect(stack, token, era)
                return {"era": client.protocol_version, **await self._call(client, self._tick)}
        except (MCPError, httpx2.HTTPError, ExceptionGroup) as error:
            return {"era": era, "ok": False, "code": "connection.refused", "text": _first_line(error)}

    @staticmethod
    async def _open(client: Client | None) -> dict[str, Any]:
        """A session for a sub-agent, by the tool with which agents open one."""
        assert client is not None
        try:
            result = await client.call_tool(OPEN_SESSION, {"task": "drill", "budget": "0.01"})
        except MCPError as error:
            return {"ok": False, "text": error.message[:300]}
        if result.is_error or result.structured_content is None:
            return {"ok": False, "text": _text(result.content)[:300]}
        return {"ok": True, **{key: result.structured_content[key] for key in ("session", "token")}}

    @staticmethod
    async def _call(client: Client, tool: str) -> dict[str, Any]:
        try:
            result = await client.call_tool(tool, {})
        except MCPError as error:
            return {"ok": False, "code": f"mcp.{error.code}", "text": error.message[:300], "at": time.monotonic()}
        text = _text(result.content)
        refused = REFUSED.match(text)
        code = refused["code"] if refused else None
        return {"ok": not result.is_error, "code": code, "text": text[:300], "at": time.monotonic()}


def _text(content: list[Any]) -> str:
    return "\n".join(part.text for part in content if isinstance(part, TextContent))


def _trusting(certificate: str) -> ssl.SSLContext:
    """Exactly the listener's certificate, whatever name it has: the address is this machine's."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _first_line(error: BaseException) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


async def _lines() -> Any:
    while True:
        line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        if not line:
            return
        yield line


async def _main() -> None:
    told = json.loads(await anyio.to_thread.run_sync(sys.stdin.readline))
    crew = Crew(told["url"], told["tick"], told["work"], told.get("certificate"))
    await crew.run(told["drilled"], told["bystander"])


def main() -> None:
    anyio.run(_main)


if __name__ == "__main__":
    main()
