"""FastMCP's proxy before the benchmark's upstream, with one client that is connected once. usage: URL PORT

Runs in FastMCP's own environment, with JSON answers and uvloop, so that it is measured at its best.
"""

from __future__ import annotations

import asyncio
import sys

from fastmcp import Client
from fastmcp.server import create_proxy


async def main(url: str, port: int) -> None:
    async with Client(url) as client:
        proxy = create_proxy(client)
        await proxy.run_http_async(
            show_banner=False, host="127.0.0.1", port=port, path="/mcp", json_response=True, log_level="error"
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
