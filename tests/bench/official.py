"""The official client in its default mode: direct to an SDK server in its default mode, against through Haltline, to that same
server and to an upstream that costs nothing, which tells what the broker adds by itself.

One session each, a few calls in turns, ratios paired by round; each answer is checked. usage: python tests/bench/official.py
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import brokered
import httpx2
import load
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from processes import Failed, server

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GOAL", "main", "measured"]

ROUNDS = 12
CALLS = 40
GOAL = 1.0


def measured(folder: Path) -> dict[str, float]:
    """Medians over rounds in ms, and the median of their ratios."""
    with ExitStack() as stack:
        port, _ = stack.enter_context(server("sdk_server.py", folder=folder))
        other, _ = stack.enter_context(server("upstream.py", folder=folder))
        urls = {"sdk": f"http://127.0.0.1:{port}/mcp", "http": f"http://127.0.0.1:{other}/mcp"}
        upstreams = {name: {"url": url} for name, url in urls.items()}
        brokered.prepare(folder / "official", upstreams, [f"{name}__echo" for name in urls])
        broker = stack.enter_context(brokered.started(folder / "official"))
        broker.await_tools([f"{name}__echo" for name in urls])
        [token] = broker.open_sessions(1)
        return asyncio.run(_measure(urls["sdk"], f"http://127.0.0.1:{broker.agents_port}/mcp", token))


async def _measure(direct_url: str, brokered_url: str, token: str) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(Client(direct_url))
        http = await stack.enter_async_context(httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}))
        through = await stack.enter_async_context(Client(streamable_http_client(brokered_url, http_client=http)))
        ways = ((direct, "echo"), (through, "sdk__echo"), (through, "http__echo"))
        rounds: list[tuple[float, ...]] = []
        for number in range(ROUNDS + 1):
            order = range(len(ways)) if number % 2 else reversed(range(len(ways)))
            p50 = {which: await _p50(*ways[which], number) for which in order}
            if number:  # the first one warms up
                rounds.append(tuple(p50[which] for which in range(len(ways))))
    return {
        "direct_p50_ms": median(one[0] for one in rounds),
        "brokered_p50_ms": median(one[1] for one in rounds),
        "ratio": median(one[1] / one[0] for one in rounds),
        "brokered_raw_p50_ms": median(one[2] for one in rounds),
        "ratio_raw": median(one[2] / one[0] for one in rounds),
    }


async def _p50(client: Client, tool: str, round_number: int) -> float:
    took: list[float] = []
    for number in range(CALLS):
        text = f"round {round_number} call {number}"
        begun = time.perf_counter()
        result = await client.call_tool(tool, {"text": text})
        took.append(time.perf_counter() - begun)
        if _texts(result.content) != [text]:
            raise Failed(f"{tool} answered {result}")
    return load.percentile(took, 0.5) * 1000


def _texts(content: Sequence[object]) -> list[object]:
    return [getattr(one, "text", None) for one in content]


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="haltline-bench-") as folder:
            found = measured(Path(folder))
    except (Failed, OSError) as failed:
        print(f"No figures: {failed}", file=sys.stderr)
        return 1
    print(
        f"official client, default mode: p50 {found['brokered_p50_ms']:.2f} ms through Haltline, "
        f"{found['direct_p50_ms']:.2f} ms direct, ratio {found['ratio']:.2f} (goal {GOAL:g}); "
        f"{found['brokered_raw_p50_ms']:.2f} ms to an upstream that costs nothing, ratio {found['ratio_raw']:.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
