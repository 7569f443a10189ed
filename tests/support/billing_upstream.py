"""An MCP upstream in a process of its own that bills what it is told to, at as many addresses as one likes.

`ask` answers with `structuredContent.cost`: the argument `bill` as it came, text or number. It tells on request how often
each reference reached it (`GET /received`).

    python -m support.billing_upstream        prints its port on one line
"""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from bench import processes
from bench.upstream import Upstream, _reply
from support.counting_upstream import environment, serve

__all__ = ["Billing", "billing_upstream"]

SCHEMA = {"type": "object", "properties": {"reference": {"type": "string"}}, "required": ["reference", "bill"]}


class BillingUpstream(Upstream):
    def __init__(self) -> None:
        super().__init__()
        self.received: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/received":
            await _reply(send, 200, orjson.dumps(self.received), [])
        else:
            await super().__call__(scope, receive, send)

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        if method == "tools/call":
            arguments = params["arguments"]
            self.received[arguments["reference"]] += 1
            text = orjson.dumps({"reference": arguments["reference"]}).decode()
            return {"content": [{"type": "text", "text": text}], "structuredContent": {"cost": arguments["bill"]}}
        result = super()._result(method, params)
        if method == "tools/list" and result is not None:
            return {**result, "tools": [{"name": "ask", "description": "Bill me.", "inputSchema": SCHEMA}]}
        return result


class Billing:
    """A running one as a test sees it."""

    def __init__(self, port: int) -> None:
        self._at = f"http://127.0.0.1:{port}"

    def url(self, number: int) -> str:
        return f"{self._at}/{number}/mcp"

    def received(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self._at}/received", timeout=20) as reply:
            counts: dict[str, int] = orjson.loads(reply.read())
            return counts


@contextmanager
def billing_upstream(folder: Path) -> Iterator[Billing]:
    """One while the block runs; its log is in `folder`."""
    log = folder / "billing.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.billing_upstream"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
            start_new_session=True,
        )
    try:
        yield Billing(int(processes.first_line(process, log)))
    finally:
        processes.end(process)


def main() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    print(listener.getsockname()[1], flush=True)
    serve(BillingUpstream(), listener)


if __name__ == "__main__":
    main()
