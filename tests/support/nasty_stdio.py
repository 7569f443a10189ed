"""A stdio upstream that misbehaves on purpose: what it does wrong is the name of the tool called. Run as a script.

Its list has one tool, but with names as arguments after `lists` it has those.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

held: list[Any] = []
out = sys.stdout.buffer


def write(data: bytes) -> None:
    out.write(data)
    out.flush()


def send(**message: Any) -> None:
    write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def result(identifier: Any, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    send(id=identifier, result={"content": [{"type": "text", "text": text}]})


def sleeper() -> int:
    """A grandchild that ignores everything but SIGKILL."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); signal.signal(1, signal.SIG_IGN); time.sleep(600)"
    return subprocess.Popen([sys.executable, "-S", "-c", code]).pid


def call(identifier: int, tool: str, params: dict[str, Any]) -> None:
    token = params.get("_meta", {}).get("progressToken")
    head = b'{"jsonrpc":"2.0","id":%d,"result":' % identifier
    match tool:
        case "pid":
            result(identifier, str(os.getpid()))
        case "env":
            result(identifier, dict(os.environ))
        case "params":
            result(identifier, params)
        case "hold":
            held.append((identifier, token))
        case "release":
            for one, its_token in reversed(held):
                send(method="notifications/progress", params={"progressToken": its_token, "progress": 1})
                result(one, "held")
            held.clear()
            result(identifier, "released")
        case "log":
            send(method="notifications/message", params={"level": "info", "data": params["arguments"]})
            result(identifier, "logged")
        case "foreign_progress":
            send(method="notifications/progress", params={"progressToken": "nobody's", "progress": 1})
            send(method="notifications/progress", params={"progressToken": 10**9, "progress": 1})
            result(identifier, "told")
        case "changed":
            send(method="notifications/tools/list_changed")
            result(identifier, "changed")
        case "asks":
            send(id="mine", method="ping")
            pong = json.loads(sys.stdin.readline())
            send(id=7, method="sampling/createMessage", params={})
            refused = json.loads(sys.stdin.readline())
            result(identifier, [pong, refused])
        case "huge":
            write(head + b'{"x":"')
            for _ in range(64):
                write(b"x" * 1024 * 1024)
            write(b'"}}\n')
        case "large":
            result(identifier, "x" * 4_000_000)
        case "deep":
            write(head + b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}}\n")
        case "bad_utf8":
            write(head + b'{"x":"\xff\xfe"}}\n')
        case "torn":
            write(head + b'{"x":\n')
        case "noise":
            write(b"Listening on standard input!\n\xff\xfe\n[1,2]\n42\n\n")
            result(identifier, "after noise")
        case "wrong_id":
            for wrong in (str(identifier), identifier + 1000, True, None, identifier + 0.5):
                send(id=wrong, result={})
        case "one_by_one":
            answer = head + '{"content":[{"type":"text","text":"é"}]}}\r\n'.encode()
            for i in range(len(answer)):
                write(answer[i : i + 1])
        case "never":
            pass
        case "dies":
            sys.stderr.write("the last words\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        case "answers_and_exits":
            result(identifier, "bye")
            sys.exit(3)
        case "closes_input":
            os.close(0)
            time.sleep(600)
        case "closes_output":
            os.close(1)
        case "forks":
            result(identifier, str(sleeper()))
        case "forks_and_dies":
            sys.stderr.write(f"grandchild {sleeper()}\n")
            sys.stderr.flush()
            os._exit(1)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            result(identifier, str(os.getpid()))
            time.sleep(600)
        case "floods":
            while True:
                write(b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}\n' * 100)
        case "chatters":
            for _ in range(20_000):
                sys.stderr.write("x" * 300 + "\n")
            sys.stderr.write("y" * 3_000_000 + "\n")
            result(identifier, "chattered")


def main() -> None:
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    if mode == "exits":
        sys.stderr.write("no licence\n")
        sys.exit(1)
    if mode == "mute":
        time.sleep(600)
    for line in sys.stdin:
        message = json.loads(line)
        method, identifier = message.get("method"), message.get("id")
        if method == "initialize":
            version = "1999-01-01" if mode == "old" else message["params"]["protocolVersion"]
            info = {"name": "nasty", "version": "1"}
            send(id=identifier, result={"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info})
        elif method == "server/discover" and mode != "old":
            send(id=identifier, error={"code": -32601, "message": "Method not found"})
        elif method == "tools/list":
            names = sys.argv[2:] if mode == "lists" else ["pid"]
            send(id=identifier, result={"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]})
        elif method == "tools/call":
            call(identifier, message["params"]["name"], message["params"])
        elif method == "notifications/cancelled":
            sys.stderr.write(f"cancelled {message['params']['requestId']}\n")
            sys.stderr.flush()


if __name__ == "__main__":
    main()
