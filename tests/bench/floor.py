"""The floor of the stack: a bare Starlette route that parses a JSON POST and echoes, on uvicorn, uvloop and httptools.

Nothing written in Python over HTTP here can be much faster, so the broker is measured as a fraction of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request


async def echo(request: Request) -> JSONResponse:
    message = await request.json()
    text = message["params"]["arguments"]["text"]
    result = {"content": [{"type": "text", "text": text}], "isError": False}
    return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})


if __name__ == "__main__":
    import listening

    listening.run(Starlette(routes=[Route("/mcp", echo, methods=["POST"])]))
