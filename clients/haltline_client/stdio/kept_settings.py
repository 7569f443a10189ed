"""What a host set for its session of the handshake era: the level of its logs, the resources that it wants to hear about.

Both belong to a session; set again from here for the one that follows it, the host need not know. What it may have missed
meanwhile it is told as a change, so that it reads again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from haltline_client.stdio.endpoint import own_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haltline_client.stdio.endpoint import Endpoint
    from haltline_client.stdio.messages import Message

__all__ = ["KeptSettings"]

URIS_MAX = 1_000
_LEVEL, _SUBSCRIBE, _UNSUBSCRIBE = "logging/setLevel", "resources/subscribe", "resources/unsubscribe"


class KeptSettings:
    def __init__(self) -> None:
        self._level: Mapping[str, Any] | None = None
        self._uris: dict[str, Mapping[str, Any]] = {}

    def __bool__(self) -> bool:
        return self._level is not None or bool(self._uris)

    def forget(self) -> None:
        self._level = None
        self._uris.clear()

    def note(self, message: Message) -> None:
        """A request of the host that the broker granted."""
        uri = message.params.get("uri")
        if message.method == _LEVEL:
            self._level = message.params
        elif message.method == _UNSUBSCRIBE and isinstance(uri, str):
            self._uris.pop(uri, None)
        elif message.method == _SUBSCRIBE and isinstance(uri, str) and len(self._uris) < URIS_MAX:
            self._uris[uri] = {"uri": uri}

    async def set_again(self, endpoint: Endpoint, headers: Mapping[str, str], done: set[str]) -> list[bytes]:
        """Whatever is not among `done`, which grows; what the host is to be told. Raises BrokerUnreachable or Trouble."""
        told: list[bytes] = []
        if self._level is not None and _LEVEL not in done and await _granted(endpoint, headers, _LEVEL, self._level):
            done.add(_LEVEL)
        missing = [uri for uri in self._uris if uri not in done]
        if missing:  # the broker learns from its list where a resource is
            await _granted(endpoint, headers, "resources/list", {})
        for uri in missing:
            params = self._uris.get(uri)
            if params is not None and await _granted(endpoint, headers, _SUBSCRIBE, params):
                done.add(uri)
                changed = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}
                told.append(json.dumps(changed).encode())
        return told

    def lack(self, done: set[str]) -> int:
        """How many are not set again yet."""
        wanted = {*self._uris, *([_LEVEL] if self._level is not None else [])}
        return len(wanted - done)


async def _granted(endpoint: Endpoint, headers: Mapping[str, str], method: str, params: Mapping[str, Any]) -> bool:
    identifier = own_id(method)
    message = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}
    asked = await endpoint.ask(json.dumps(message).encode(), identifier, headers)
    return "result" in (asked.answer or {})
