"""A program that speaks the protocol eras named by its first argument; each tool says something of what it was sent.

both       the first request decides, as in the official SDK      modern     2026-07-28 and no other
handshake  refuses what it does not know      silent   says nothing to it      exits    ends at it
hangs      says nothing any more once it was sent what it does not know
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

mode = sys.argv[1]
modern: bool | None = {"both": None, "modern": True}.get(mode, False)
listening: dict[int, list[str]] = {}
held: list[int] = []
heard: list[str] = []
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = {"tools": {"listChanged": True}, "resources": {"subscribe": True, "listChanged": True}}


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(identifier: int, result: dict[str, Any]) -> None:
    send(id=identifier, result={"resultType": "complete", **result} if modern else result)


def refuse(identifier: int, code: int) -> None:
    send(id=identifier, error={"code": code, "message": f"error {code}"})


def tell(method: str, identifier: int, **params: Any) -> None:
    send(method=f"notifications/{method}", params={**params, "_meta": {SUBSCRIPTION: identifier}})


def say(identifier: int, value: Any) -> None:
    answer(identifier, {"content": [{"type": "text", "text": json.dumps(value)}]})


def touch(uri: str) -> None:
    for one, uris in listening.items():
        if uri in uris:
            tell("resources/updated", one, uri=uri)
    if not modern:
        send(method="notifications/resources/updated", params={"uri": uri})


def call(identifier: int, params: dict[str, Any]) -> None:
    arguments = params.get("arguments") or {}
    match params["name"]:
        case "pid":
            say(identifier, os.getpid())
        case "params":
            say(identifier, params)
        case "heard":
            say(identifier, heard)
        case "input":
            brought = params.get("inputResponses")
            wanted = {"who": {"method": "elicitation/create", "params": {"message": "who?"}}}
            asked = {"resultType": "input_required", "inputRequests": wanted, "requestState": "s"}
            say(identifier, [brought, params["requestState"]]) if brought else answer(identifier, asked)
        case "ask":
            send(id=f"q-{arguments['mark']}-{identifier}", method="elicitation/create", params=arguments)
            held.append(identifier)
        case "hold":
            held.append(identifier)
        case "release":
            for one in held:
                say(one, "held")
            held.clear()
            say(identifier, "released")
        case "progress":
            token = params["_meta"]["progressToken"]
            send(method="notifications/progress", params={"progressToken": token, "progress": 1})
            send(method="notifications/message", params={"level": "info", "data": "a log"})
            say(identifier, "done")
        case "touch":
            touch(arguments["uri"])
            say(identifier, "touched")
        case "grow":
            for one in listening:
                tell("tools/list_changed", one)
            say(identifier, "grown")
        case "stop_telling":
            for one in listening:
                send(method="notifications/cancelled", params={"requestId": one})
            listening.clear()
            say(identifier, "stopped")
        case "exit":
            sys.exit(0)


def serve(identifier: int, method: str, params: dict[str, Any]) -> None:
    if method == "initialize":
        said = {"protocolVersion": params["protocolVersion"], "capabilities": CAPABILITIES}
        answer(identifier, {**said, "serverInfo": {"name": "eras", "version": "1"}})
    elif method == "server/discover":
        answer(identifier, {"supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES})
    elif method == "tools/list":
        answer(identifier, {"tools": [{"name": "pid", "inputSchema": {"type": "object"}}]})
    elif method == "tools/call":
        call(identifier, params)
    elif method == "subscriptions/listen" and modern:
        wanted = params["notifications"]
        uris = [uri for uri in wanted.get("resourceSubscriptions", ()) if uri != "note://none"]
        listening[identifier] = uris
        honoured = {**wanted, "resourceSubscriptions": uris} if "resourceSubscriptions" in wanted else wanted
        tell("subscriptions/acknowledged", identifier, notifications=honoured)
    elif method in {"resources/subscribe", "resources/unsubscribe", "logging/setLevel"} and not modern:
        answer(identifier, {})
    elif method != "prompts/list":  # that is never answered
        refuse(identifier, -32601)


def receive(message: dict[str, Any]) -> None:
    global modern
    method, params, identifier = message.get("method"), message.get("params") or {}, message.get("id")
    if method is None:
        heard.append(json.dumps(message.get("result", message.get("error"))))
        if held and str(identifier).startswith("q-"):
            say(held.pop(held.index(int(str(identifier).rpartition("-")[2]))), message.get("result", "refused"))
        return
    heard.append(method)
    if identifier is None:
        listening.pop(params.get("requestId"), None)
        return
    enveloped = VERSION in params.get("_meta", {})
    if modern is None:
        modern = enveloped
    if enveloped == modern and (not modern or method != "initialize"):
        serve(identifier, method, params)
    elif modern:
        refuse(identifier, -32022)
    elif mode == "exits":
        sys.exit(1)
    elif mode == "hangs":
        time.sleep(600)
    elif mode != "silent":
        refuse(identifier, -32600)


def main() -> None:
    for line in sys.stdin:
        receive(json.loads(line))


if __name__ == "__main__":
    main()
