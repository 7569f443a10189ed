"""Logs of a call at 2026-07-28: told to a client that asked for them, from the level on that it named, whatever the upstream's era."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from haltline.calls.attempts import Attempts
from haltline.gateway.face import Gateway
from haltline.upstreams.model import UpstreamCall
from haltline.wire.eras import LOG_LEVELS
from support.scripted import ScriptedUpstream, text_result
from support.serving import served_face
from support.world import POLICY, world

MODERN = "2026-07-28"
PROGRESS = {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}


class Talking(ScriptedUpstream):
    """Logs once at each level, and at one of its own, as an upstream of the handshake era does that nobody told a level."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[str | None] = []
        self.script["charge"] = self.talk

    async def talk(self, call: UpstreamCall) -> dict[str, Any]:
        self.send(call)
        self.levels.append(call.peer.log_level)
        for level in (*LOG_LEVELS, "its own"):
            call.on_notification({"method": "notifications/message", "params": {"level": level, "data": None}})
        call.on_notification(PROGRESS)
        return text_result()


@pytest.fixture
async def s(tmp_path):
    async with world(tmp_path, policy=POLICY, upstreams=[Talking()]) as w:
        gateway = Gateway(w.parts, w.broker, w.doorman, Attempts(w.parts.writer, w.parts.audit), "0.1.0")
        async with served_face(gateway) as url, httpx2.AsyncClient() as http:
            _, token = await w.session(await w.agent())

            async def told(level: Any) -> list[str]:
                meta = {
                    "io.modelcontextprotocol/protocolVersion": MODERN,
                    "io.modelcontextprotocol/clientCapabilities": {},
                }
                if level is not None:
                    meta["io.modelcontextprotocol/logLevel"] = level
                params = {"name": "payments__charge", "arguments": {}, "_meta": meta}
                headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "payments__charge"}
                answer = await http.post(
                    url,
                    json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
                    headers={
                        **headers,
                        "Authorization": f"Bearer {token}",
                        "Accept": "application/json, text/event-stream",
                    },
                )
                said = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
                assert PROGRESS["method"] in [one.get("method") for one in said]
                return [one["params"]["level"] for one in said if one.get("method") == "notifications/message"]

            yield w, told


@pytest.mark.promise("P11")
async def test_who_asks_for_no_logs_hears_none(s):
    _, told = s
    assert await told(None) == []


@pytest.mark.promise("P11")
@pytest.mark.parametrize("level", ["debug", "warning", "emergency"])
async def test_who_names_a_level_hears_what_is_as_severe_and_the_upstream_is_told_it(s, level):
    w, told = s
    assert await told(level) == [*LOG_LEVELS[LOG_LEVELS.index(level) :], "its own"]
    assert w.upstream.levels == [level]


@pytest.mark.promise("P11")
async def test_a_level_that_only_the_upstream_knows_is_its_own_matter(s):
    w, told = s
    assert await told("its own") == [*LOG_LEVELS, "its own"]
    assert w.upstream.levels == [None]
