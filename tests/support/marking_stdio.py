"""The same as `marking_upstream`, as a program: `marking_stdio.py (modern|handshake)`. Standard library alone, so that many start."""

from __future__ import annotations

import json
import sys
from typing import Any

PROGRESS = 3
TOOL = {"name": "work", "inputSchema": {"type": "object", "properties": {"mark": {"type": "string"}}}}
SCHEMA = {"type": "object", "properties": {"mark": {"type": "string"}}}
OFFERED = {"capabilities": {"tools": {}, "logging": {}}, "serverInfo": {"name": "marking", "version": "1"}}
handshake = sys.argv[1] == "handshake"
waiting: dict[int, tuple[Any, str]] = {}


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def done(identifier: Any, said: dict[str, str]) -> None:
    text = {"type": "text", "text": json.dumps(said)}
    send(id=identifier, result={"resultType": "complete", "content": [text]})


def work(identifier: Any, params: dict[str, Any]) -> None:
    mark, token = params["arguments"]["mark"], params["_meta"]["progressToken"]
    for number in range(PROGRESS):
        told = {"progressToken": token, "progress": number, "message": mark}
        send(method="notifications/progress", params=told)
        send(method="notifications/message", params={"level": "info", "data": mark})
    question = {"method": "elicitation/create", "params": {"message": mark, "requestedSchema": SCHEMA}}
    if handshake:
        asked = len(waiting) + 1
        waiting[asked] = (identifier, mark)
        send(id=asked, **question)
    elif "inputResponses" not in params:
        asks = {"resultType": "input_required", "inputRequests": {"q": question}, "requestState": mark}
        send(id=identifier, result=asks)
    else:
        heard = str(params["inputResponses"]["q"]["content"]["mark"])
        done(identifier, {"mark": mark, "heard": heard, "state": params["requestState"]})


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        method, identifier = message.get("method"), message.get("id")
        if method is None and identifier in waiting:
            asked, mark = waiting.pop(identifier)
            content = message.get("result", {}).get("content", {})
            done(asked, {"mark": mark, "heard": str(content.get("mark", message))})
        elif method == "tools/call":
            work(identifier, message["params"])
        elif method == "tools/list":
            send(id=identifier, result={"tools": [TOOL]})
        elif method == "initialize" and handshake:
            send(id=identifier, result={"protocolVersion": "2025-11-25", **OFFERED})
        elif method == "server/discover" and not handshake:
            send(id=identifier, result={"supportedVersions": ["2026-07-28"], **OFFERED})
        elif method == "logging/setLevel" and handshake:
            send(id=identifier, result={})
        elif method is not None and identifier is not None:
            send(id=identifier, error={"code": -32601, "message": "no"})


if __name__ == "__main__":
    main()
