"""Hearing from an HTTP upstream that its lists changed: a stream kept open beside the calls, in either era.

A convenience: an upstream that offers none, or loses it, is listed again at intervals anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from haltline.upstreams.http_eras import Handshake, Speaker
from haltline.upstreams.http_line import HttpLine
from haltline.upstreams.http_reply import Reply
from haltline.upstreams.messages import LIST_CHANGED, reply_to
from haltline.upstreams.model import UpstreamError
from haltline.upstreams.telling import CHANGES

__all__ = ["watch_list"]

LONGEST_S = 3600.0
AGAIN_S = 30.0
"""After a stream ended. One that was refused is tried again when the list is."""


async def watch_list(
    line: HttpLine,
    speaker: Speaker,
    identifier: int,
    changed: Callable[[], None],
    told: Callable[[dict[str, Any]], None],
) -> None:
    """Until the stream ends or is refused. One that ended is followed by a pause and by `changed`: what may have been
    missed is listed, and that listens anew, in the session that there is then. `told`: what changed beside tools.
    """
    answers: set[asyncio.Task[None]] = set()

    def hear(message: dict[str, Any]) -> None:
        if message["method"] == LIST_CHANGED:
            changed()
        elif message["method"] in CHANGES:
            told(message)
        elif "id" in message and isinstance(speaker, Handshake):
            task = asyncio.create_task(line.tell(speaker.headers, reply_to(message)))
            answers.add(task)
            task.add_done_callback(answers.discard)

    deadline = asyncio.get_running_loop().time() + LONGEST_S
    reply = line.reply(identifier, hear)
    try:
        answer = await _stream(line, speaker, reply, identifier, deadline)
    except (UpstreamError, TimeoutError):
        answer = {}
    if 0 < reply.status < 300 and "error" not in answer:
        await asyncio.sleep(AGAIN_S)
        changed()


async def _stream(line: HttpLine, speaker: Speaker, reply: Reply, identifier: int, deadline: float) -> dict[str, Any]:
    if isinstance(speaker, Handshake):
        return await line.get(speaker.headers, reply, deadline)
    kinds = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")
    wanted = {"notifications": dict.fromkeys(kinds, True)}
    headers, body = speaker.request(identifier, "subscriptions/listen", wanted)
    return await line.post(headers, body, reply, overdue=(deadline, TimeoutError()))
