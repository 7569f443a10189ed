"""How a benchmark's own servers listen: a free loopback port, told on standard output, uvicorn with uvloop and httptools.

The socket listens before its port is told, so whoever reads the port may connect at once.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import uvicorn

__all__ = ["run"]


def run(app: Any, *, lifespan: str = "off") -> None:
    """Serve until a signal ends the process."""
    bound = socket.create_server(("127.0.0.1", 0), backlog=1024)
    bound.setblocking(False)
    print(bound.getsockname()[1], os.getpid(), flush=True)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan=lifespan,  # type: ignore[arg-type]  # one of uvicorn's three words
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=3_600,
    )
    uvicorn.Server(config).run(sockets=[bound])
