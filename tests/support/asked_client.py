"""An agent's MCP client that can be asked something in the middle of its call, in both eras, over real HTTP.

It keeps everything that it is told. In the handshake era it answers on a connection of its own while the call's stream goes
on; at 2026-07-28 it calls again with the answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

__all__ = ["AskedClient", "Told"]

MODERN = "2026-07-28"
HANDSHAKE = "2025-11-25"
CAPABILITIES = {"elicitation": {"form": {}}}
INFO = {"name": "asked", "version": "1"}
ROUNDS = 5
Message = dict[str, Any]


@dataclass
class Told:
    """What came during one call: its notifications, what it was asked, its answer."""

    notices: list[Message] = field(default_factory=list)
    asked: list[Message] = field(default_factory=list)
    answer: Message = field(default_factory=dict)


class AskedClient:
    """`mark` is what it answers to any question."""

    def __init__(self, port: int, token: str, *, modern: bool, mark: str) -> None:
        self._modern = modern
        self._mark = mark
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
        if modern:
            headers["MCP-Protocol-Version"] = MODERN
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False
        )

    async def open(self) -> None:
        if self._modern:
            return
        told = {"protocolVersion": HANDSHAKE, "capabilities": CAPABILITIES, "clientInfo": INFO}
        reply = await self._post({"id": 0, "method": "initialize", "params": told})
        self._http.headers["Mcp-Session-Id"] = reply.headers["Mcp-Session-Id"]
        self._http.headers["MCP-Protocol-Version"] = HANDSHAKE
        await self._post({"method": "notifications/initialized"})

    async def call(self, tool: str, arguments: Message, *, identifier: int) -> Told:
        told = Told()
        params: Message = {"name": tool, "arguments": arguments, "_meta": {"progressToken": identifier}}
        for _ in range(ROUNDS):
            await self._round(told, identifier, params)
            result = told.answer.get("result", {})
            if result.get("resultType") != "input_required":
                break
            told.asked += result["inputRequests"].values()
            answers = dict.fromkeys(result["inputRequests"], self._answer)
            params = {**params, "inputResponses": answers, "requestState": result["requestState"]}
        return told

    async def aclose(self) -> None:
        await self._http.aclose()

    @property
    def _answer(self) -> Message:
        return {"action": "accept", "content": {"mark": self._mark}}

    async def _round(self, told: Told, identifier: int, params: Message) -> None:
        extra = {}
        if self._modern:
            extra = {"Mcp-Method": "tools/call", "Mcp-Name": params["name"]}
            meta = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
                "io.modelcontextprotocol/clientInfo": INFO,
                "io.modelcontextprotocol/logLevel": "debug",
            }
            params = {**params, "_meta": {**params["_meta"], **meta}}
        message = {"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params}
        async with self._http.stream("POST", "/mcp", json=message, headers=extra) as reply:
            if reply.headers["content-type"].startswith("application/json"):
                told.answer = json.loads(await reply.aread())
                return
            async for line in reply.aiter_lines():
                if line.startswith("data:") and line[5:].strip():
                    await self._hear(told, json.loads(line[5:]))

    async def _hear(self, told: Told, message: Message) -> None:
        if "method" not in message:
            told.answer = message
        elif "id" in message:
            told.asked.append(message)
            await self._post({"id": message["id"], "result": self._answer})
        else:
            told.notices.append(message)

    async def _post(self, message: Message) -> httpx.Response:
        return await self._http.post("/mcp", json={"jsonrpc": "2.0", **message})
