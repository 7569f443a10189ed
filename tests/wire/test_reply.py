"""Notifications on their way to an agent's client: written together where many wait, in their order, none after a stop."""

from __future__ import annotations

import json
from typing import Any

import pytest

from haltline.wire.reply import Reply


class Client:
    """What was written, one body a write."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.bodies.append(message["body"])

    @property
    def messages(self) -> list[Any]:
        return [json.loads(line[6:]) for line in b"".join(self.bodies).splitlines() if line.startswith(b"data: ")]


@pytest.mark.promise("P11")
async def test_notifications_that_wait_are_written_together_in_their_order_and_before_the_answer() -> None:
    client = Client()
    reply = Reply(client, 7, json=True, stream=True)
    for number in range(500):
        reply.notify({"method": "notifications/x", "params": {"number": number}})
    await reply.answer({"result": {}})
    *notices, answer = client.messages
    assert [notice["params"]["number"] for notice in notices] == list(range(500))
    assert answer == {"jsonrpc": "2.0", "id": 7, "result": {}}
    assert len(client.bodies) < 20


async def test_nothing_that_waits_is_written_once_the_call_was_stopped() -> None:
    client = Client()
    reply = Reply(client, 7, json=True, stream=True)
    reply.muted = lambda: True
    for number in range(100):
        reply.notify({"method": "notifications/x", "params": {"number": number}})
    await reply.answer({"result": {}})
    assert [message["id"] for message in client.messages] == [7]
